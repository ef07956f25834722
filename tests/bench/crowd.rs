//! What a full table costs: the flow with a million parked messages beside it, and a replay of all that a store holds beside the flow that
//! brought it in. Both on PostgreSQL.

use tolk::message::Captured;
use tolk::store::{ActionKind, Command, Filter, Pick, Selection};
use uuid::Uuid;

use crate::house::{Guest, House};
use crate::input::{self, Memory};
use crate::report::{Need, Pair, Report, note, rate};
use crate::schema::{self, Schema};

/// Messages of one turn, and their ordering keys.
const MESSAGES: usize = 160_000;
const KEYS: usize = 10_000;
/// Turns; an odd number has a median.
const ROUNDS: usize = 5;
/// A million messages: half of them wait, each for an entry, and hold back the other half.
pub const PARKED: Crowd = Crowd { name: "parked", messages: 1_000_000, keys: 500_000 };
/// One message waits and holds back twenty thousand.
pub const STUCK: Crowd = Crowd { name: "stuck-key", messages: 20_001, keys: 1 };

/// Messages that cannot be done: the first of each key waits, the others stand behind it.
pub struct Crowd {
    pub name: &'static str,
    messages: usize,
    keys: usize,
}

/// Measures the flow in a store that holds a crowd, in turn with the flow in an empty one.
pub async fn beside(crowd: &Crowd, guest: &Guest, url: &str, report: &mut Report) {
    schema::must_be_durable(url).await;
    note(&format!("{}: parking {} messages", crowd.name, crowd.messages));
    let mut full = Schema::make(url).await;
    let mut crowded = House::open(&full.config, guest).await;
    crowded.flow(Box::new(Memory::made(input::parked(crowd.messages, crowd.keys))), crowd.messages).await;
    let parked = full.statuses().await;
    let wanted = [("behind".to_owned(), (crowd.messages - crowd.keys) as i64), ("waiting".to_owned(), crowd.keys as i64)];
    assert_eq!(parked, wanted, "the first of each key waits, the others stand behind");
    // What the server does of its own accord some minutes after such a load.
    full.run("VACUUM ANALYZE").await;
    let messages = input::events(MESSAGES, KEYS);
    alone(guest, url, &messages).await;
    let mut turns = Vec::new();
    for _ in 0..ROUNDS {
        full.run("CHECKPOINT").await;
        crowded.again().await;
        let took = crowded.flow(Box::new(Memory::new(messages.clone())), MESSAGES).await;
        turns.push(Pair { value: rate(MESSAGES, took), ceiling: alone(guest, url, &messages).await });
    }
    let (outputs,): (i64,) = full.one("SELECT count(*) FROM output").await;
    assert_eq!(outputs, (ROUNDS * MESSAGES) as i64, "each message that is not parked has one output");
    let (left,): (i64,) = full.one("SELECT count(*) FROM work").await;
    assert_eq!(left, crowd.messages as i64, "what is parked is parked still, and nothing else");
    drop(crowded);
    full.drop().await;
    let ceiling = format!("the flow without {} parked messages of {} keys in the table", crowd.messages, crowd.keys);
    report.add(crowd.name.to_owned(), "messages/s", turns, Need::Ratio(0.9), ceiling);
}

/// The flow in a store of its own.
async fn alone(guest: &Guest, url: &str, messages: &[Captured]) -> f64 {
    let schema = Schema::make(url).await;
    let house = House::open(&schema.config, guest).await;
    let took = house.flow(Box::new(Memory::new(messages.to_vec())), MESSAGES).await;
    drop(house);
    schema.drop().await;
    rate(MESSAGES, took)
}

/// Measures `replay`: all messages of a store run again, beside the flow that took them in.
pub async fn replay(guest: &Guest, url: &str, report: &mut Report) {
    schema::must_be_durable(url).await;
    note("replay");
    let messages = input::events(MESSAGES, KEYS);
    let mut turns = Vec::new();
    for _ in 0..ROUNDS {
        let mut schema = Schema::make(url).await;
        let mut house = House::open(&schema.config, guest).await;
        let live = rate(MESSAGES, house.flow(Box::new(Memory::new(messages.clone())), MESSAGES).await);
        schema.run("CHECKPOINT").await;
        let started = std::time::Instant::now();
        assert_eq!(house.store.command(&all(), &everything()).await.unwrap(), MESSAGES as i64, "it is about every message");
        note(&format!("  the command: {:.1} s", started.elapsed().as_secs_f64()));
        house.again().await;
        house.settle(MESSAGES).await;
        let took = started.elapsed();
        let unlike: (i64,) = schema.one("SELECT count(*) FROM action_each WHERE result IS DISTINCT FROM 0 OR became <> 1").await;
        assert_eq!(unlike, (0,), "each message was run again and handled");
        let (outputs, runs): (i64, i64) = schema.one("SELECT count(*), count(DISTINCT (message, run)) FROM output").await;
        assert_eq!((outputs, runs), (2 * MESSAGES as i64, 2 * MESSAGES as i64), "each message was put out twice, by two runs");
        drop(house);
        schema.drop().await;
        turns.push(Pair { value: rate(MESSAGES, took), ceiling: live });
    }
    report.add("replay".to_owned(), "messages/s", turns, Need::Ratio(1.0), "the flow that took them in".to_owned());
}

fn all() -> Command {
    Command {
        id: Uuid::new_v4(),
        kind: ActionKind::Replay,
        by: "bench".to_owned(),
        why: "to be measured".to_owned(),
        object: "everything".to_owned(),
        force: false,
        pinned: None,
        per_second: None,
        pick: Pick::AllOfKey,
    }
}

fn everything() -> Selection {
    Selection::Filter(Box::new(Filter { feed: Some("shop".to_owned()), ..Filter::default() }))
}
