//! Cases of `Duties` and `Upkeep`: turns are given out once, what is needed outlives its part, and the books stay exact.

use tolk::delivery::{Kind, Piece, Rules};
use tolk::message::{Captured, Message, Place, Status};
use tolk::store::{
    ActionKind, By, Command, Filter, OutputCursor, Parked, Pick, Range, Retention, Selection, Settled, Settlement, Step, Turn, Verdict,
};

use super::rig::{LANES, Owner, Rig, done, end, output, row, stays};

const DAY_MS: i64 = 86_400_000;
const RETENTION: Retention = Retention { payload_ms: DAY_MS, statuses_ms: Vec::new(), outputs_ms: DAY_MS, rows_max: 3 };

async fn turn(owner: &Owner) -> Turn {
    owner.store.take_turn(&owner.host, "upkeep", 1, 60_000).await.unwrap().expect("the time has come")
}

/// A turn of a duty of its own, where the clock stands still.
async fn turn_at(owner: &Owner, number: i64) -> Turn {
    owner.store.take_turn(&owner.host, &format!("upkeep {number}"), 1, 60_000).await.unwrap().expect("the time has come")
}

/// Closes the part of the inbox that is filled, whatever its age.
async fn close(rig: &Rig, owner: &Owner) {
    rig.pass_ms(1);
    let turn = turn(owner).await;
    owner.store.begin_part(&turn, 0).await.unwrap().expect("not fenced");
    owner.store.end_turn(&turn).await.unwrap();
}

/// Upkeep until nothing is left to do.
async fn keep_up(rig: &Rig, owner: &Owner, retention: &Retention) -> Step {
    rig.pass_ms(1);
    let turn = turn(owner).await;
    let mut whole = Step::default();
    for verb in 0..4 {
        loop {
            let step = match verb {
                0 => owner.store.drop_messages(&turn, retention).await,
                1 => owner.store.prune_outputs(&turn, retention).await,
                2 => owner.store.prune_provenance(&turn, retention.rows_max).await,
                _ => owner.store.compact(&turn).await,
            };
            let step = step.unwrap().expect("not fenced");
            whole.add(step);
            if !step.more {
                break;
            }
        }
    }
    owner.store.end_turn(&turn).await.unwrap();
    balances(owner).await;
    whole
}

async fn balances(owner: &Owner) {
    let equations = owner.store.ledger().await.unwrap();
    let broken: Vec<_> = equations.iter().filter(|equation| !equation.holds()).collect();
    assert!(broken.is_empty(), "{broken:?}");
}

/// Settles with a range around each message that leaves without an end.
async fn commit(owner: &Owner, settled: Vec<Settled>) -> i64 {
    let plain = settled.iter().filter(|settled| settled.work.is_none() && settled.end.is_none());
    let ranges = plain.map(|settled| Range {
        feed: owner.feed,
        lane: settled.place.lane,
        from: settled.place.n,
        to: settled.place.n,
        now_ms: 1,
        activations: Vec::new(),
    });
    let settlement = Settlement { ranges: ranges.collect(), ..owner.settlement(settled) };
    match owner.store.settle(&owner.host, owner.next_batch(), &settlement).await.unwrap() {
        Verdict::Committed { settlement, .. } => settlement,
        other => panic!("not committed: {other:?}"),
    }
}

async fn left(owner: &Owner) -> Vec<i64> {
    let mut left: Vec<i64> = owner.fetch().await.iter().map(|message| message.place.n).collect();
    left.sort_unstable();
    left
}

/// What a message was when it came.
fn whole(message: &Message) -> (Place, uuid::Uuid, &Captured) {
    (message.place, message.id, &message.captured)
}

fn command(kind: ActionKind) -> Command {
    Command {
        id: uuid::Uuid::new_v4(),
        kind,
        by: "who".to_owned(),
        why: "why".to_owned(),
        object: "o".to_owned(),
        force: false,
        pinned: None,
        per_second: None,
        pick: Pick::Each,
    }
}

fn ids(messages: &[&Message]) -> Selection {
    Selection::Ids(messages.iter().map(|message| message.id).collect())
}

pub async fn each_due_time_is_given_out_once(rig: Rig) {
    let owner = rig.owner().await;
    let take = async || owner.store.take_turn(&owner.host, "d", 1_000, 500).await.unwrap();
    let first = take().await.unwrap();
    assert_eq!((first.number, first.due_ms), (1, rig.now_ms()));
    owner.store.end_turn(&first).await.unwrap();
    assert_eq!(take().await, None, "not due again");
    rig.pass_ms(2_500);
    let second = take().await.unwrap();
    assert_eq!((second.number, second.due_ms), (2, first.due_ms - first.due_ms % 1_000 + 1_000), "what was missed is one turn");
    // Nobody ends it; its time runs out.
    rig.pass_ms(499);
    assert_eq!(take().await, None);
    rig.pass_ms(501);
    let third = take().await.unwrap();
    assert_eq!(third.number, 3);
    assert!(third.due_ms > second.due_ms);
    assert_eq!(owner.store.drop_messages(&second, &RETENTION).await.unwrap(), None, "the second turn is fenced");
    assert!(owner.store.drop_messages(&third, &RETENTION).await.unwrap().is_some());
    assert_ne!(owner.store.take_turn(&owner.host, "another", 1_000, 500).await.unwrap(), None);
}

pub async fn two_doors_share_a_duty(rig: Rig) {
    if !rig.is_postgres() {
        return;
    }
    let owner = rig.owner().await;
    let doors = [rig.door().await, rig.door().await, rig.door().await];
    for number in 1..=10 {
        rig.pass_ms(10);
        let [a, b, c] = &doors;
        let take = |door: &'_ std::sync::Arc<dyn tolk::store::Store>| {
            let (door, host) = (door.clone(), owner.host.clone());
            async move { door.take_turn(&host, "d", 10, 60_000).await.unwrap() }
        };
        let (a, b, c) = tokio::join!(take(a), take(b), take(c));
        let taken: Vec<Turn> = [a, b, c].into_iter().flatten().collect();
        assert_eq!(taken.len(), 1, "{taken:?}");
        assert_eq!(taken[0].number, number);
        owner.store.end_turn(&taken[0]).await.unwrap();
    }
}

pub async fn what_is_needed_outlives_its_part(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]).await;
    commit(
        &owner,
        vec![
            done(&messages[0]),
            Settled { end: Some(end(Status::Ignored, None)), ..done(&messages[1]) },
            Settled { end: Some(end(Status::Invalid, None)), ..done(&messages[2]) },
            stays(&messages[3], Status::Failed, true, None),
            stays(&messages[4], Status::Retry, true, Some(1)),
            done(&messages[5]),
            Settled { outputs: vec![output("a", "k", "1")], ..done(&messages[6]) },
            done(&messages[7]),
        ],
    )
    .await;
    let parked = Parked { cursor: OutputCursor { settlement: 1, index: 0 }, reason: "too large".to_owned() };
    assert!(owner.store.published("a", owner.target_epoch("a"), parked.cursor, std::slice::from_ref(&parked)).await.unwrap());
    // Nobody has done it yet.
    owner.store.command(&command(ActionKind::Replay), &ids(&[&messages[5]])).await.unwrap();
    close(&rig, &owner).await;
    let retention = Retention { statuses_ms: vec![(Status::Invalid, 3 * DAY_MS)], ..RETENTION };
    assert_eq!(keep_up(&rig, &owner, &retention).await.dropped, 0, "all are young");
    assert_eq!(owner.store.dropped_until().await.unwrap(), None);
    rig.pass_ms(DAY_MS);
    let young = owner.messages(&["l", "m"]).await;
    let step = keep_up(&rig, &owner, &retention).await;
    assert_eq!(step.dropped, 3);
    // Done are 1, 2 and 8; 3 is kept longer, 4 and 5 are in work, 6 has an order, 7 an output that was refused, 9 to 11 nobody has looked at.
    assert_eq!(left(&owner).await, [3, 4, 5, 6, 7, 9, 10, 11, 12, 13]);
    assert!(owner.store.dropped_until().await.unwrap().is_some_and(|until| until <= rig.now_ms()));
    assert!(owner.store.message(messages[0].id).await.unwrap().is_none());
    let failed = owner.store.message(messages[3].id).await.unwrap().unwrap();
    assert_eq!((failed.status.status.as_str(), whole(&failed.message)), ("failed", whole(&messages[3])), "as it came");
    let again: Vec<Message> = owner.fetch().await.into_iter().filter(|message| message.place.n > 8).collect();
    assert!(again[..3].iter().map(whole).eq(messages[8..].iter().map(whole)), "what comes next is there as it came");
    // The books know the rest, and what is left goes on.
    commit(&owner, again.iter().map(done).chain([Settled { had_work: true, run: 0, ..done(&messages[3]) }]).collect()).await;
    balances(&owner).await;
    close(&rig, &owner).await;
    rig.pass_ms(3 * DAY_MS);
    let step = keep_up(&rig, &owner, &retention).await;
    assert_eq!(step.dropped, 7, "3, 4, 9, 10, 11, and the part of {young:?}");
    assert_eq!(left(&owner).await, [5, 6, 7]);
    assert_eq!(keep_up(&rig, &owner, &retention).await, Step::default(), "nothing is left to do");
}

pub async fn a_failed_message_is_retried_after_its_part_is_gone(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "a"]).await;
    commit(
        &owner,
        vec![stays(&messages[0], Status::Failed, true, None), done(&messages[1]), stays(&messages[2], Status::Behind, true, None)],
    )
    .await;
    close(&rig, &owner).await;
    rig.pass_ms(2 * DAY_MS);
    assert_eq!(keep_up(&rig, &owner, &RETENTION).await.dropped, 1);
    assert_eq!(left(&owner).await, [1, 3]);
    assert_eq!(owner.store.command(&command(ActionKind::Retry), &ids(&[&messages[0], &messages[1]])).await.unwrap(), 1, "one is gone");
    let open = owner.store.open_actions(&owner.lanes(), &[], 10, 1 << 40).await.unwrap();
    assert_eq!((open.len(), whole(&open[0].message)), (1, whole(&messages[0])));
    assert_eq!(whole(&owner.store.rows(&[messages[0].place]).await.unwrap()[0].message), whole(&messages[0]));
    let done = Settled { had_work: true, outputs: vec![output("a", "k", "late")], ..done(&messages[0]) };
    commit(&owner, vec![done]).await;
    let behind = owner.store.due(&owner.lanes(), &[], 10, 1 << 40).await.unwrap();
    assert_eq!(behind.len(), 1, "what stood behind it goes on");
    assert_eq!(whole(&behind[0].message), whole(&messages[2]));
    balances(&owner).await;
}

pub async fn a_dropped_message_supersedes_all_the_same(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "a", "b"]).await;
    let ignored = |message| Settled { end: Some(end(Status::Ignored, None)), ..done(message) };
    commit(&owner, vec![ignored(&messages[0]), done(&messages[1]), ignored(&messages[2])]).await;
    close(&rig, &owner).await;
    rig.pass_ms(2 * DAY_MS);
    let retention = Retention { statuses_ms: vec![(Status::Ignored, 9 * DAY_MS)], ..RETENTION };
    assert_eq!(keep_up(&rig, &owner, &retention).await.dropped, 1);
    owner.store.command(&command(ActionKind::Replay), &ids(&[&messages[0], &messages[2]])).await.unwrap();
    owner.store.command(&Command { force: true, ..command(ActionKind::Replay) }, &ids(&[&messages[0]])).await.unwrap();
    let open = owner.store.open_actions(&owner.lanes(), &[], 10, 1 << 40).await.unwrap();
    let mut superseded: Vec<_> = open.iter().map(|action| (action.message.place.n, action.force, action.superseded_by)).collect();
    superseded.sort_unstable();
    assert_eq!(superseded, [(1, false, Some(2)), (1, true, None), (3, false, None)]);
}

pub async fn published_outputs_go_with_their_time(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "c", "d"]).await;
    for message in &messages {
        let outputs = vec![output("a", "k", "1"), output("b", "k", "2")];
        commit(&owner, vec![Settled { outputs, ..done(message) }]).await;
    }
    let parked = Parked { cursor: OutputCursor { settlement: 2, index: 0 }, reason: "too large".to_owned() };
    let last = OutputCursor { settlement: 4, index: 0 };
    assert!(owner.store.published("a", owner.target_epoch("a"), parked.cursor, &[parked]).await.unwrap());
    assert!(owner.store.published("a", owner.target_epoch("a"), last, &[]).await.unwrap());
    // The other target has sent nothing but the first.
    assert!(owner.store.published("b", owner.target_epoch("b"), OutputCursor { settlement: 2, index: 0 }, &[]).await.unwrap());
    assert_eq!(keep_up(&rig, &owner, &RETENTION).await.pruned, 0, "all are young");
    close(&rig, &owner).await;
    rig.pass_ms(2 * DAY_MS);
    let step = keep_up(&rig, &owner, &RETENTION).await;
    assert_eq!(step.dropped, 3, "the message of the refused output stays");
    let settlements = async |target| {
        let (rows, _) = owner.store.outputs(target, OutputCursor::default(), 100, 1 << 40).await.unwrap();
        rows.iter().map(|row| row.cursor.settlement).collect::<Vec<_>>()
    };
    assert_eq!(settlements("a").await, [2, 4], "the refused one, and where the cursor stands");
    assert_eq!(settlements("b").await, [2, 3, 4], "what is not sent stays");
    let (rows, _) = owner.store.outputs("b", OutputCursor { settlement: 2, index: 1 }, 100, 1 << 40).await.unwrap();
    assert_eq!(rows.len(), 2, "and is sent");
}

pub async fn parts_of_open_deliveries_stay_and_accounts_add_up(rig: Rig) {
    const RULES: Rules =
        Rules { has_start: true, has_end: true, counted: true, strict_order: true, grace_ms: 1_000, ordered_only: false, several: false };
    let owner = rig.owner().await;
    let kinds = [Kind::Start(Some(2)), Kind::Part, Kind::Part, Kind::End(Some(2)), Kind::Start(Some(2)), Kind::Part];
    let rows: Vec<_> = kinds
        .into_iter()
        .zip(0..)
        .map(|(kind, offset)| tolk::message::NewMessage {
            delivery: Some(Piece { id: if offset < 4 { "A" } else { "B" }.into(), kind, rules: RULES }),
            ..row(0, offset, &format!("k{offset}"))
        })
        .collect();
    owner.append(&rows).await;
    let messages = owner.fetch().await;
    // A handled part of a delivery has an end; the part of the open one was ignored for a reason of its own.
    let ended = |message: &Message, status| Settled { end: Some(end(status, None)), ..done(message) };
    let marks = [0, 3, 4].map(|i: usize| ended(&messages[i], Status::Handled));
    let parts = [1, 2].map(|i: usize| ended(&messages[i], Status::Handled));
    commit(&owner, marks.into_iter().chain(parts).chain([ended(&messages[5], Status::Ignored)]).collect()).await;
    close(&rig, &owner).await;
    rig.pass_ms(2 * DAY_MS);
    assert_eq!(keep_up(&rig, &owner, &RETENTION).await.dropped, 3, "parts that may be held still are needed");
    owner.store.tend_deliveries(owner.feed, owner.feed_epoch(), 10).await.unwrap().unwrap();
    assert_eq!(keep_up(&rig, &owner, &RETENTION).await.dropped, 2);
    assert_eq!(left(&owner).await, [6], "the part of the open delivery");
    for (id, dropped, ignored) in [("A", 2, 0), ("B", 0, 1)] {
        let delivery = owner.store.delivery_by_id(owner.feed, id).await.unwrap().unwrap();
        let account = owner.store.delivery_account(delivery.number).await.unwrap().unwrap();
        assert!(account.adds_up(), "{account:?}");
        assert_eq!((account.dropped, account.ignored), (dropped, ignored), "{id}");
    }
    let delivery = owner.store.delivery_by_id(owner.feed, "B").await.unwrap().unwrap();
    let by = By { whom: "who".to_owned(), why: "why".to_owned() };
    owner.store.invalidate_delivery(delivery.number, &by).await.unwrap();
    keep_up(&rig, &owner, &RETENTION).await;
    let account = owner.store.delivery_account(delivery.number).await.unwrap().unwrap();
    assert!(account.adds_up(), "{account:?}");
}

pub async fn many_parts_are_read_in_order(rig: Rig) {
    let owner = rig.owner().await;
    let mut offset = 0;
    for _ in 0..4 {
        let rows: Vec<_> = (0..40).map(|i| row(i % i32::from(LANES), offset + i64::from(i), &format!("k{}", i % 7))).collect();
        owner.append(&rows).await;
        offset += 40;
        close(&rig, &owner).await;
        rig.pass_ms(10);
    }
    for lane in 0..i32::from(LANES) {
        let lane = [tolk::store::LaneRead { feed: owner.feed, lane, after: 5 }];
        let numbers: Vec<i64> = owner.store.fetch(&lane, 20, 1 << 40).await.unwrap().iter().map(|message| message.place.n).collect();
        assert_eq!(numbers, (6..=25).collect::<Vec<_>>());
    }
    let listed = owner.store.messages(&Filter { limit: 1_000, ..Filter::default() }).await.unwrap();
    assert_eq!(listed.len(), 160);
    commit(&owner, owner.fetch().await.iter().map(done).collect()).await;
    rig.pass_ms(2 * DAY_MS);
    let retention = Retention { rows_max: 1_000, ..RETENTION };
    assert_eq!(keep_up(&rig, &owner, &retention).await.dropped, 160);
    assert_eq!(left(&owner).await, [0_i64; 0]);
    // And the lanes count on.
    let next = owner.messages(&["k"]).await;
    assert_eq!(next[0].place.n, 41);
    balances(&owner).await;
}

pub async fn each_damage_below_the_floor_is_found(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "c", "d"]).await;
    commit(&owner, vec![done(&messages[0]), stays(&messages[1], Status::Failed, true, None), done(&messages[2]), done(&messages[3])]).await;
    close(&rig, &owner).await;
    rig.pass_ms(2 * DAY_MS);
    assert_eq!(keep_up(&rig, &owner, &RETENTION).await.dropped, 3);
    for (name, damage, undo) in [
        ("lane-rows", "UPDATE {schema}lane_floor SET dropped = dropped + 1", "UPDATE {schema}lane_floor SET dropped = dropped - 1"),
        ("lane-rows", "UPDATE {schema}inbox SET lane = 3 WHERE n = 2", "UPDATE {schema}inbox SET lane = 0 WHERE n = 2"),
        ("lane-rows", "UPDATE {schema}lane_floor SET floor = floor + 1", "UPDATE {schema}lane_floor SET floor = floor - 1"),
        ("passed", "UPDATE {schema}work SET run = 1", "UPDATE {schema}work SET run = 0"),
    ] {
        rig.execute(damage).await;
        let equations = owner.store.ledger().await.unwrap();
        let found = equations.iter().find(|equation| equation.name == name).unwrap();
        assert!(!found.holds() && found.sample.is_some(), "{name} finds {damage}: {found:?}");
        rig.execute(undo).await;
        balances(&owner).await;
    }
}

/// The tables of the release before, with two messages; both stores take the statements of the end as they are.
async fn of_the_release_before(rig: &Rig) -> tolk::store::Config {
    const ROWS: &str = "
        INSERT INTO schema_version (version, name, applied_ms) VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 0), (4, 'd', 0);
        INSERT INTO feed (name, lanes) VALUES ('arena', 4);
        INSERT INTO lane (feed, lane) VALUES (1, 0), (1, 1), (1, 2), (1, 3);
        INSERT INTO lane_tail (feed, lane, tail) VALUES (1, 0, 2), (1, 1, 0), (1, 2, 0), (1, 3, 0);
        INSERT INTO source_position (feed, source_partition, next_offset) VALUES (1, 0, 2);";
    const MESSAGES: &str =
        "INSERT INTO inbox (feed, lane, n, source_offset, received_ms, source_partition, size, id, key_hash, source_table)
        VALUES (1, 0, 1, 0, 5, 0, 1, ID1, ID2, 'T'), (1, 0, 2, 1, 5, 0, 1, ID3, ID2, 'T')";
    let mut config = rig.config.clone();
    let version = "CREATE TABLE schema_version (version bigint PRIMARY KEY, name text NOT NULL, applied_ms bigint NOT NULL);";
    let ids = |form: &dyn Fn(u32) -> String| MESSAGES.replace("ID1", &form(1)).replace("ID2", &form(2)).replace("ID3", &form(3));
    if rig.is_postgres() {
        config.schema = format!("{}_old", config.schema);
        let tables = [
            include_str!("../../migrations/postgres/0001_tables.sql"),
            include_str!("../../migrations/postgres/0002_actions.sql"),
            include_str!("../../migrations/postgres/0003_deliveries.sql"),
            include_str!("../../migrations/postgres/0004_suspects.sql"),
        ];
        let rows = ids(&|i| format!("'00000000-0000-8000-8000-00000000000{i}'"));
        let (schema, tables) = (&config.schema, tables.concat());
        rig.execute(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}; {version} {tables} {ROWS} {rows}")).await;
    } else {
        config.url = config.url.replace("tolk.db", "old.db?mode=rwc");
        let tables = [
            include_str!("../../migrations/sqlite/0001_tables.sql"),
            include_str!("../../migrations/sqlite/0002_actions.sql"),
            include_str!("../../migrations/sqlite/0003_deliveries.sql"),
            include_str!("../../migrations/sqlite/0004_suspects.sql"),
        ];
        let rows = ids(&|i| format!("x'0000000000008000800000000000000{i}'"));
        let sql = sqlx::AssertSqlSafe(format!("{version} {} {ROWS} {rows}", tables.concat()));
        let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&config.url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        sqlx::Connection::close(connection).await.unwrap();
    }
    config
}

pub async fn messages_of_the_release_before_are_a_part(rig: Rig) {
    let config = of_the_release_before(&rig).await;
    let store = tolk::store::open(&config, tolk::store::Clock::Fixed(std::sync::Arc::new(super::rig::START_MS.into()))).await.unwrap();
    assert_eq!(store.migrate().await.unwrap(), ["0005_upkeep"]);
    let owner = Owner::new(store).await;
    let next = owner.messages(&["k"]).await;
    assert_eq!(next[0].place.n, 3);
    balances(&owner).await;
    commit(&owner, owner.fetch().await[..2].iter().map(done).collect()).await;
    close(&rig, &owner).await;
    let turn = turn_at(&owner, 1).await;
    let mut whole = Step::default();
    for _ in 0..9 {
        whole.add(owner.store.drop_messages(&turn, &Retention { payload_ms: 0, ..RETENTION }).await.unwrap().unwrap());
    }
    balances(&owner).await;
    assert_eq!((whole.dropped, left(&owner).await), (2, vec![3]));
    if !rig.is_postgres() {
        let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&config.url).await.unwrap();
        let mode: i64 = sqlx::query_scalar("PRAGMA auto_vacuum").fetch_one(&mut connection).await.unwrap();
        assert_eq!(mode, 2, "it can give back space");
    }
}

pub async fn a_file_is_kept_small(rig: Rig) {
    if rig.is_postgres() {
        return;
    }
    let owner = rig.owner().await;
    let size = || std::fs::metadata(rig.config.url.trim_start_matches("sqlite://")).unwrap().len();
    let mut rows: Vec<_> = (0..400).map(|offset| row(0, offset, "k")).collect();
    for row in &mut rows {
        row.captured.payload = Some(vec![b'x'; 20_000].into());
    }
    owner.append(&rows).await;
    commit(&owner, owner.fetch().await.iter().map(done).collect()).await;
    rig.pass_ms(2 * DAY_MS);
    let retention = Retention { rows_max: 100, ..RETENTION };
    let step = keep_up(&rig, &owner, &retention).await;
    assert_eq!(step.dropped, 400);
    rig.execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
    assert!(size() < 2_000_000, "{} bytes are left of 8,000,000", size());
}
