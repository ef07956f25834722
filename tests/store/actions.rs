//! Cases of `Actions`: commands and their rows, what the owner of a lane is given, what settlements say of it, pauses.

use tolk::message::{Message, Place, Status};
use tolk::store::actions::SEEN_MS;
use tolk::store::{
    ActionKind, ActionResult, Applied, Command, Filter, NewRevisit, OpenAction, Pausable, Pick, Read, Selection, Settled, Settlement,
    Verdict,
};
use uuid::Uuid;

use super::rig::{Owner, Rig, START_MS, by_key, done, end, entry, put, remove, row, stays, waits};

pub const ALL: (i64, i64) = (1_000, 1 << 40);

/// A command of somebody.
pub fn command(kind: ActionKind) -> Command {
    Command {
        id: Uuid::new_v4(),
        kind,
        by: "somebody".to_owned(),
        why: "a good reason".to_owned(),
        object: "some messages".to_owned(),
        force: false,
        pinned: None,
        per_second: None,
        pick: Pick::Each,
    }
}

pub fn ids(messages: &[&Message]) -> Selection {
    Selection::Ids(messages.iter().map(|message| message.id).collect())
}

pub fn filter(filter: Filter) -> Selection {
    Selection::Filter(Box::new(filter))
}

/// Every open action of the owner.
pub async fn open(owner: &Owner) -> Vec<OpenAction> {
    owner.store.open_actions(&owner.lanes(), &[], ALL.0, ALL.1).await.unwrap()
}

pub async fn numbers(owner: &Owner) -> Vec<i64> {
    open(owner).await.iter().map(|action| action.message.place.n).collect()
}

/// Settles what became of actions.
pub async fn apply(owner: &Owner, actions: Vec<Applied>) {
    let settlement = Settlement { actions, ..owner.settlement(Vec::new()) };
    let verdict = owner.store.settle(&owner.host, owner.next_batch(), &settlement).await.unwrap();
    assert!(matches!(verdict, Verdict::Committed { .. }), "{verdict:?}");
}

pub async fn a_command_is_about_chosen_messages(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "c", "d"]).await;
    owner.commit(vec![done(&messages[0]), Settled { end: Some(end(Status::Ignored, None)), ..done(&messages[1]) }]).await;
    let by_id = Command { pinned: Some(7), force: true, ..command(ActionKind::Retry) };
    let chosen = Selection::Ids(vec![messages[3].id, messages[1].id, Uuid::new_v4()]);
    assert_eq!(owner.store.command(&by_id, &chosen).await.unwrap(), 2);
    let found = open(&owner).await;
    assert_eq!(found.iter().map(|action| action.message.id).collect::<Vec<_>>(), [messages[1].id, messages[3].id]);
    assert!(found.iter().all(|action| action.force && action.pinned == Some(7) && action.kind == ActionKind::Retry));
    assert!(found.iter().all(|action| &*action.why == "a good reason" && action.detail.is_none()));
    assert_eq!(found[1].message.captured, messages[3].captured);

    let ignored = filter(Filter { status: Some(Status::Ignored), ..Filter::default() });
    assert_eq!(owner.store.command(&command(ActionKind::Stop), &ignored).await.unwrap(), 1);
    let newest = filter(Filter { limit: 2, ..Filter::default() });
    assert_eq!(owner.store.command(&command(ActionKind::Stop), &newest).await.unwrap(), 2);
    let everything = filter(Filter::default());
    assert_eq!(owner.store.command(&command(ActionKind::Finish), &everything).await.unwrap(), 4);
    let nothing = filter(Filter { code: Some("none".to_owned()), ..Filter::default() });
    assert_eq!(owner.store.command(&command(ActionKind::Ignore), &nothing).await.unwrap(), 0);
    assert_eq!(numbers(&owner).await, [1, 2, 2, 2, 3, 3, 4, 4, 4]);
    assert_eq!(owner.store.audit(None, None, 10).await.unwrap().iter().map(|line| line.messages).sum::<i64>(), 9);
}

pub async fn a_repeated_command_is_written_once(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b"]).await;
    let once = command(ActionKind::Retry);
    let both = ids(&[&messages[0], &messages[1]]);
    let (first, second) = (owner.store.command(&once, &both).await.unwrap(), owner.store.command(&once, &both).await.unwrap());
    assert_eq!((first, second), (2, 2));
    assert_eq!(numbers(&owner).await, [1, 2]);
    assert_eq!(owner.store.audit(None, None, 10).await.unwrap().len(), 1);
}

pub async fn filters_of_commands_know_keys_times_and_reasons(rig: Rig) {
    let owner = rig.owner().await;
    let mut messages = owner.messages(&["a", "b"]).await;
    rig.pass_ms(1_000);
    messages.append(&mut owner.messages(&["c", "a"]).await);
    let mut settled = stays(&messages[2], Status::Failed, true, None);
    settled.work.as_mut().unwrap().reason = "The Person is not KNOWN, Åse".to_owned();
    owner.commit(vec![done(&messages[0]), done(&messages[1]), settled]).await;
    let found = async |filter: Filter| {
        let rows = owner.store.messages(&Filter { limit: 10, oldest_first: true, ..filter }).await.unwrap();
        rows.iter().map(|row| row.offset).collect::<Vec<_>>()
    };
    let of = |reason: &str| Filter { reason: Some(reason.to_owned()), ..Filter::default() };
    assert_eq!(found(Filter { keys: vec!["a".to_owned(), "c".to_owned()], ..Filter::default() }).await, [0, 2, 3]);
    assert_eq!(found(Filter { since_ms: Some(START_MS + 1_000), ..Filter::default() }).await, [2, 3]);
    assert_eq!(found(Filter { until_ms: Some(START_MS + 1_000), ..Filter::default() }).await, [0, 1]);
    assert_eq!(found(of("person IS not known")).await, [2]);
    assert!(found(of("person%")).await.is_empty());
    let keyed = filter(Filter { keys: vec!["a".to_owned()], since_ms: Some(START_MS + 1_000), ..Filter::default() });
    assert_eq!(owner.store.command(&command(ActionKind::Retry), &keyed).await.unwrap(), 1);
    assert_eq!(owner.store.command(&command(ActionKind::Retry), &filter(of("NOT known"))).await.unwrap(), 1);
    assert_eq!(numbers(&owner).await, [3, 4]);
}

pub async fn open_actions_tell_how_their_message_stands(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "c", "d"]).await;
    let mut again = stays(&messages[1], Status::Retry, true, Some(START_MS + 5));
    again.work.as_mut().unwrap().pinned = Some(3);
    let row = again.work.clone();
    let ended = |status, run| Settled { run, end: Some(end(status, None)), ..done(&messages[2]) };
    owner.commit(vec![done(&messages[0]), again, ended(Status::Invalid, 0)]).await;
    owner.commit(vec![ended(Status::Handled, 1)]).await;
    owner.store.command(&command(ActionKind::Restart), &filter(Filter::default())).await.unwrap();
    let found = open(&owner).await;
    assert_eq!(found.iter().map(|action| action.passed).collect::<Vec<_>>(), [true, true, true, false]);
    assert_eq!(found.iter().map(|action| action.last).collect::<Vec<_>>(), [None, None, Some((1, Status::Handled)), None]);
    assert_eq!(found.iter().map(|action| action.row.as_deref()).collect::<Vec<_>>(), [None, row.as_ref(), None, None]);
    assert!(found.iter().all(|action| action.superseded_by.is_none()));
}

pub async fn a_later_handled_message_supersedes(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["k", "other", "k", "k", "k", "k"]).await;
    let ignored = Settled { end: Some(end(Status::Ignored, None)), ..done(&messages[2]) };
    owner.commit(vec![done(&messages[0]), done(&messages[1]), ignored, stays(&messages[3], Status::Retry, false, None)]).await;
    let kinds = [ActionKind::Replay, ActionKind::Retry, ActionKind::Ignore, ActionKind::Restart];
    for kind in kinds {
        owner.store.command(&command(kind), &ids(&[&messages[0]])).await.unwrap();
    }
    owner.store.command(&Command { force: true, ..command(ActionKind::Replay) }, &ids(&[&messages[0]])).await.unwrap();
    let superseded = async || open(&owner).await.iter().map(|action| action.superseded_by).collect::<Vec<_>>();
    assert_eq!(superseded().await, [None; 5], "an ignored one, one in work, and what the cursor has not passed");
    owner.commit(vec![done(&messages[4])]).await;
    assert_eq!(superseded().await, [Some(5), Some(5), None, Some(5), None]);
    // By the status of its highest run.
    owner.commit(vec![Settled { run: 1, end: Some(end(Status::Handled, None)), ..done(&messages[2]) }]).await;
    assert_eq!(superseded().await, [Some(3), Some(3), None, Some(3), None]);
    // Only where the message itself is done.
    owner.commit(vec![Settled { run: 1, ..stays(&messages[0], Status::Retry, true, Some(1)) }]).await;
    assert_eq!(superseded().await, [None; 5]);
}

pub async fn settlements_say_what_became_of_actions(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b"]).await;
    let asked = command(ActionKind::Ignore);
    owner.store.command(&asked, &ids(&[&messages[0], &messages[1]])).await.unwrap();
    let found = open(&owner).await;
    let applied = |id, result, became| Applied { id, result, became, handled: None };
    rig.pass_ms(7);
    apply(&owner, vec![applied(found[0].id, ActionResult::Applied, Status::Ignored)]).await;
    assert_eq!(numbers(&owner).await, [2]);
    let audit = owner.store.audit(Some(asked.id), None, 10).await.unwrap();
    assert_eq!((audit[0].messages, audit[0].open, audit[0].kind.as_str(), audit[0].by.as_str()), (2, 1, "ignore", "somebody"));
    assert_eq!((audit[0].object.as_str(), audit[0].why.as_str(), audit[0].at_ms), ("some messages", "a good reason", START_MS));
    // What was said once stays said.
    rig.pass_ms(1);
    let second = applied(found[1].id, ActionResult::Refused, Status::Handled);
    apply(&owner, vec![applied(found[0].id, ActionResult::Already, Status::Handled), second]).await;
    assert!(open(&owner).await.is_empty());
    let states = owner.store.actions(Some(asked.id), None, 10).await.unwrap();
    assert_eq!(states.iter().map(|state| state.id).collect::<Vec<_>>(), [found[1].id, found[0].id]);
    let first = &states[1];
    assert_eq!((first.message, first.feed.as_str(), first.kind), (messages[0].id, "arena", ActionKind::Ignore));
    assert_eq!((first.result, first.became.as_deref()), (Some(ActionResult::Applied), Some("ignored")));
    assert_eq!((first.not_before_ms, first.applied_ms), (START_MS, Some(START_MS + 7)));
    assert_eq!((states[0].result, states[0].became.as_deref()), (Some(ActionResult::Refused), Some("handled")));
}

pub async fn a_fenced_settlement_applies_nothing(rig: Rig) {
    let owner = rig.owner().await;
    let message = owner.messages(&["a"]).await.remove(0);
    owner.store.command(&command(ActionKind::Ignore), &ids(&[&message])).await.unwrap();
    let actions = vec![Applied { id: open(&owner).await[0].id, result: ActionResult::Applied, became: Status::Ignored, handled: None }];
    let revisits = vec![NewRevisit { place: message.place, due_ms: 0, detail: String::new() }];
    let mut settlement = Settlement { actions, revisits, ..owner.settlement(vec![done(&message)]) };
    settlement.lanes[0].epoch += 1;
    let verdict = owner.store.settle(&owner.host, owner.next_batch(), &settlement).await.unwrap();
    assert!(matches!(verdict, Verdict::Fenced(_)), "{verdict:?}");
    assert_eq!(open(&owner).await.len(), 1);
}

pub async fn the_trail_is_read_by_command_and_by_message(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b"]).await;
    let (first, second) = (command(ActionKind::Retry), command(ActionKind::Stop));
    owner.store.command(&first, &ids(&[&messages[0], &messages[1]])).await.unwrap();
    rig.pass_ms(1);
    owner.store.command(&second, &ids(&[&messages[1]])).await.unwrap();
    let trail = async |command, message, rows| {
        owner.store.audit(command, message, rows).await.unwrap().iter().map(|line| line.id).collect::<Vec<_>>()
    };
    assert_eq!(trail(None, None, 10).await, [second.id, first.id]);
    assert_eq!(trail(None, None, 1).await, [second.id]);
    assert_eq!(trail(Some(first.id), None, 10).await, [first.id]);
    assert_eq!(trail(None, Some(messages[0].id), 10).await, [first.id]);
    assert_eq!(trail(None, Some(messages[1].id), 10).await, [second.id, first.id]);
    let of_message = owner.store.actions(None, Some(messages[1].id), 10).await.unwrap();
    assert_eq!(of_message.iter().map(|state| state.kind).collect::<Vec<_>>(), [ActionKind::Stop, ActionKind::Retry]);
    assert_eq!(owner.store.actions(None, Some(messages[1].id), 1).await.unwrap().len(), 1);
    assert!(owner.store.actions(Some(Uuid::new_v4()), None, 10).await.unwrap().is_empty());
}

pub async fn revisits_are_actions_of_their_own(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b"]).await;
    let revisit = |place: Place, due_ms| NewRevisit { place, due_ms, detail: "prints \u{0}".to_owned() };
    let revisits = vec![revisit(messages[0].place, START_MS + 10), revisit(messages[1].place, START_MS + 5)];
    let settlement = Settlement { revisits, ..owner.settlement(vec![done(&messages[0]), done(&messages[1])]) };
    owner.store.settle(&owner.host, owner.next_batch(), &settlement).await.unwrap();
    assert!(open(&owner).await.is_empty());
    rig.pass_ms(10);
    let found = open(&owner).await;
    assert_eq!(found.iter().map(|action| action.message.place.n).collect::<Vec<_>>(), [2, 1]);
    assert!(found.iter().all(|action| action.kind == ActionKind::Revisit && action.passed && !action.force));
    assert_eq!((found[0].detail.as_deref(), &*found[0].why), (Some("prints \u{0}"), ""));
    assert!(owner.store.audit(None, None, 10).await.unwrap().is_empty());
    assert_eq!(owner.store.actions(None, Some(messages[0].id), 10).await.unwrap()[0].not_before_ms, START_MS + 10);
}

pub async fn pauses_hold_until_they_are_lifted(rig: Rig) {
    let owner = rig.owner().await;
    let feed = Pausable::Feed { feed: "arena".to_owned() };
    let table = Pausable::Table { feed: "arena".to_owned(), table: "U".to_owned() };
    let endpoint = Pausable::Endpoint { endpoint: "person".to_owned() };
    let mut rows: Vec<_> = (0..5).map(|offset| row(0, offset, &format!("k{offset}"))).collect();
    rows[1].table = "U".into();
    owner.append(&rows).await;
    let messages = owner.fetch().await;
    let late = Some(START_MS + 1_000_000);
    let coded = |message: &Message, status, code: &str| {
        let mut settled = stays(message, status, true, late);
        settled.work.as_mut().unwrap().code = code.to_owned();
        settled
    };
    let away = |message: &Message, endpoint: &str| {
        let mut settled = coded(message, Status::Retry, "endpoint-away");
        settled.work.as_mut().unwrap().reason = format!("endpoint \"{endpoint}\": an operator has paused it");
        settled
    };
    let settled = vec![
        coded(&messages[0], Status::Retry, "paused"),
        coded(&messages[1], Status::Retry, "paused"),
        away(&messages[2], "person"),
        away(&messages[3], "personal"),
        coded(&messages[4], Status::Retry, "other"),
    ];
    owner.commit(settled).await;
    for of in [&feed, &table, &endpoint] {
        assert!(owner.store.pause(of, "me", "why").await.unwrap());
        assert!(!owner.store.pause(of, "you", "again").await.unwrap());
    }
    let mut paused = owner.store.pauses().await.unwrap();
    paused.sort_by(|one, other| one.of.cmp(&other.of));
    assert_eq!(paused.iter().map(|paused| paused.of.clone()).collect::<Vec<_>>(), [feed.clone(), table.clone(), endpoint.clone()]);
    assert!(paused.iter().all(|paused| paused.by == "me" && paused.why == "why" && paused.since_ms == START_MS));

    let due = async || {
        let due = owner.store.due(&owner.lanes(), &[], ALL.0, ALL.1).await.unwrap();
        due.iter().map(|row| row.row.place.n).collect::<Vec<_>>()
    };
    assert!(due().await.is_empty());
    rig.pass_ms(1);
    assert!(owner.store.resume_paused(&table, "me", "done").await.unwrap());
    assert!(!owner.store.resume_paused(&table, "me", "done").await.unwrap());
    assert!(due().await.is_empty(), "hosts must see it first");
    rig.pass_ms(SEEN_MS);
    assert_eq!(due().await, [2]);
    assert!(owner.store.resume_paused(&endpoint, "me", "done").await.unwrap());
    rig.pass_ms(SEEN_MS);
    assert_eq!(due().await, [2, 3]);
    assert!(owner.store.resume_paused(&feed, "me", "done").await.unwrap());
    rig.pass_ms(SEEN_MS);
    assert_eq!(due().await, [3, 1, 2]);
    assert!(owner.store.pauses().await.unwrap().is_empty());
    let trail = owner.store.audit(None, None, 10).await.unwrap();
    assert_eq!(trail.iter().filter(|line| line.kind == "pause").count(), 3);
    assert_eq!(trail.iter().filter(|line| line.kind == "resume" && line.why == "done" && line.messages == 0).count(), 3);
    assert!(trail.iter().any(|line| line.object == "table U of feed arena"));
}

pub async fn the_newest_of_a_key_is_chosen(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "a", "b", "a", "c"]).await;
    let mut settled: Vec<_> = messages.iter().map(done).collect();
    for (settled, message) in settled.iter_mut().zip(&messages).skip(3).take(2) {
        *settled = stays(message, Status::Retry, true, None);
    }
    owner.commit(settled).await;
    let newest = Command { pick: Pick::NewestOfKey, ..command(ActionKind::Replay) };
    let chosen = ids(&[&messages[0], &messages[1], &messages[2], &messages[5]]);
    assert_eq!(owner.store.command(&newest, &chosen).await.unwrap(), 3);
    let superseded = async || open(&owner).await.iter().map(|action| (action.message.place.n, action.superseded_by)).collect::<Vec<_>>();
    assert_eq!(superseded().await, [(2, None), (3, None), (6, None)]);
    // What was there and is handled only now supersedes as well as what comes from now on.
    let leaves = |message| Settled { had_work: true, ..done(message) };
    owner.commit(vec![leaves(&messages[3])]).await;
    assert_eq!(superseded().await, [(2, Some(4)), (3, None), (6, None)]);
    let later = owner.messages(&["c", "a"]).await;
    owner.commit(vec![leaves(&messages[4]), done(&later[0]), done(&later[1])]).await;
    assert_eq!(superseded().await, [(2, Some(4)), (3, Some(5)), (6, Some(7))]);
}

pub async fn all_of_a_key_run_in_order(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "a", "b", "a", "a"]).await;
    let finished = Settled { end: Some(end(Status::Finished, None)), ..done(&messages[2]) };
    owner.commit(vec![done(&messages[0]), done(&messages[1]), finished, done(&messages[3]), done(&messages[4])]).await;
    let all = Command { pick: Pick::AllOfKey, per_second: Some(1_000), ..command(ActionKind::Replay) };
    assert_eq!(owner.store.command(&all, &ids(&[&messages[0], &messages[3]])).await.unwrap(), 4);
    rig.pass_ms(3);
    let superseded = async || open(&owner).await.iter().map(|action| (action.message.place.n, action.superseded_by)).collect::<Vec<_>>();
    // Neither those that run along nor the last, which is handled only now, supersede; what comes later does.
    owner.commit(vec![done(&messages[5])]).await;
    assert_eq!(superseded().await, [(1, None), (4, None), (5, None), (6, None)]);
    let later = owner.messages(&["a"]).await;
    owner.commit(vec![done(&later[0])]).await;
    assert_eq!(superseded().await, [(1, Some(7)), (4, None), (5, Some(7)), (6, Some(7))]);
    // Whatever is not run again may be about finished ones too.
    let retry = Command { kind: ActionKind::Retry, ..Command { id: Uuid::new_v4(), ..all } };
    assert_eq!(owner.store.command(&retry, &ids(&[&messages[0]])).await.unwrap(), 5);
}

pub async fn finished_messages_are_not_replayed(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b"]).await;
    let finished = |message| Settled { end: Some(end(Status::Finished, None)), ..done(message) };
    owner.commit(vec![finished(&messages[0]), finished(&messages[1])]).await;
    owner.commit(vec![Settled { run: 1, ..stays(&messages[1], Status::Retry, true, None) }]).await;
    let everything = filter(Filter::default());
    for (pick, expected) in [(Pick::Each, 1), (Pick::NewestOfKey, 1), (Pick::AllOfKey, 1)] {
        let replay = Command { pick, ..command(ActionKind::Replay) };
        assert_eq!(owner.store.command(&replay, &everything).await.unwrap(), expected, "{pick:?}");
    }
    assert_eq!(numbers(&owner).await, [2, 2, 2]);
    assert_eq!(owner.store.command(&command(ActionKind::Retry), &everything).await.unwrap(), 2);
}

pub async fn the_newest_drops_older_ones_of_its_key(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["k", "k", "other", "k", "k"]).await;
    let at = owner.now_at().await;
    let waiting = waits(&messages[1], &[entry("c", "k")], at);
    owner.commit(vec![stays(&messages[0], Status::Retry, true, Some(9)), waiting, stays(&messages[2], Status::Retry, true, Some(9))]).await;
    owner.commit(vec![Settled { run: 1, ..stays(&messages[0], Status::Failed, true, None) }]).await;
    // One that stays in the same settlement is older too; the last one is not.
    let newest = Settled { drops_older: true, ..done(&messages[3]) };
    let last = stays(&messages[4], Status::Behind, true, None);
    let verdict = owner.settle(vec![newest, last]).await;
    let Verdict::Committed { settlement, still_blocked, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(still_blocked.len(), 1);
    let places: Vec<_> = messages.iter().map(|message| message.place).collect();
    let left = owner.store.rows(&places).await.unwrap();
    assert_eq!(left.iter().map(|row| (row.row.place.n, row.row.status)).collect::<Vec<_>>(), [(3, Status::Retry), (5, Status::Pending)]);
    for message in &messages[..2] {
        let detail = owner.store.message(message.id).await.unwrap().unwrap();
        assert_eq!((detail.status.status.as_str(), detail.status.code.as_deref()), ("ignored", Some("superseded")));
        let reason = "a newer message of its key was handled: partition 0, offset 3";
        assert_eq!((detail.status.reason.as_deref(), detail.settlement), (Some(reason), Some(settlement)));
        assert!(detail.waits.is_empty());
    }
    // In one settlement: the older one begins to stay just there.
    let pair = owner.messages(&["z", "z"]).await;
    let newer = Settled { drops_older: true, ..done(&pair[1]) };
    let verdict = owner.settle(vec![stays(&pair[0], Status::Retry, true, Some(1)), newer]).await;
    assert!(matches!(&verdict, Verdict::Committed { still_blocked, .. } if still_blocked.is_empty()), "{verdict:?}");
    assert!(owner.store.rows(&[pair[0].place]).await.unwrap().is_empty());
    assert_eq!(owner.store.message(pair[0].id).await.unwrap().unwrap().status.code.as_deref(), Some("superseded"));
}

pub async fn a_replay_leaves_alone_what_a_later_message_wrote(rig: Rig) {
    let owner = rig.owner().await;
    let old = owner.messages(&["old"]).await.remove(0);
    rig.pass_ms(10);
    owner.write(vec![put("c", "written", "new"), put("c", "gone", "x"), put("c", "same", "v")]).await;
    let at = owner.write(vec![remove("c", "gone")]).await;
    let mut run = 0;
    let mut again = async |writes| {
        run += 1;
        owner.commit(vec![Settled { run, writes, ..done(&old) }]).await
    };
    again(vec![put("c", "written", "old"), put("c", "gone", "old"), put("c", "fresh", "old")]).await;
    let entries = async || {
        let all = owner.store.entries(&by_key("c", "")).await.unwrap();
        all.into_iter().map(|(key, value)| (key, String::from_utf8(value.to_vec()).unwrap())).collect::<Vec<_>>()
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(entries().await, [pair("fresh", "old"), pair("same", "v"), pair("written", "new")]);
    let stale = Settled { reads: vec![Read { request: entry("c", "written"), at }], ..done(&old) };
    assert!(matches!(owner.settle(vec![stale]).await, Verdict::Committed { .. }), "a write that was left out is no change");
    // It may write again what it wrote itself; a first run writes in any case, and is then as old as its message.
    again(vec![put("c", "fresh", "older")]).await;
    owner.commit(vec![Settled { writes: vec![put("c", "written", "first")], ..done(&old) }]).await;
    again(vec![put("c", "written", "second")]).await;
    assert_eq!(entries().await, [pair("fresh", "older"), pair("same", "v"), pair("written", "second")]);
    // An equal write by a later message makes the entry younger, though it is no change.
    rig.pass_ms(1);
    let before = owner.now_at().await;
    owner.write(vec![put("c", "written", "second")]).await;
    again(vec![put("c", "written", "third")]).await;
    assert!(entries().await.contains(&pair("written", "second")));
    let unchanged = Settled { reads: vec![Read { request: entry("c", "written"), at: before }], ..done(&old) };
    assert!(matches!(owner.settle(vec![unchanged]).await, Verdict::Committed { .. }));
    // What is written by hand is as young as the hand.
    owner.store.put_entries(&[put("c", "seed", "s")], &[]).await.unwrap();
    again(vec![put("c", "seed", "old")]).await;
    assert!(entries().await.contains(&pair("seed", "s")));
}

pub async fn the_view_takes_statuses(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "c", "a", "d"]).await;
    let settled = messages[..4].iter().map(|message| match message.place.n {
        2 => stays(message, Status::Failed, true, None),
        3 => Settled { end: Some(end(Status::Ignored, None)), ..done(message) },
        _ => done(message),
    });
    owner.commit(settled.collect()).await;
    let update = async |sql: &str| rig.try_execute(&format!("UPDATE {{schema}}message_status SET {sql}")).await;
    // The statement of amt-arena-acl's README in the view's columns: the newest handled message of each key.
    let newest = "status = 'RETRY', attempts = 0, settled_at = NULL WHERE id IN (
       SELECT ad.id FROM {schema}message_status ad WHERE ad.id IN (
         SELECT id FROM {schema}message_status WHERE key = ad.key AND \"table\" = 'T' AND status = 'handled'
         ORDER BY \"offset\" DESC LIMIT 1))";
    update(newest).await.unwrap();
    update("status = 'pending' WHERE status = 'failed'").await.unwrap();
    update("status = 'retry', attempts = 0 WHERE status = 'ignored'").await.unwrap();
    update("status = 'Stopped', due_at = NULL WHERE \"offset\" = 4").await.unwrap();
    update("status = 'finished' WHERE \"offset\" IN (0, 1)").await.unwrap();
    update("status = 'ignored' WHERE false").await.unwrap();
    // SQL goes by the database's clock.
    rig.pass_ms(10 * 365 * 86_400_000);
    let mut found: Vec<_> = open(&owner).await.iter().map(|action| (action.message.place.n, action.kind)).collect();
    found.sort_by_key(|(n, kind)| (*n, kind.code()));
    use ActionKind::{Finish, Restart, Retry, Stop};
    assert_eq!(found, [(1, Finish), (2, Restart), (2, Finish), (3, Restart), (4, Retry), (5, Stop)]);
    let trail = owner.store.audit(None, None, 10).await.unwrap();
    let mut lines: Vec<_> = trail.iter().map(|line| (line.kind.as_str(), line.messages, line.open)).collect();
    lines.sort_unstable();
    assert_eq!(lines, [("finish", 2, 2), ("restart", 1, 1), ("restart", 1, 1), ("retry", 1, 1), ("stop", 1, 1)]);
    assert!(trail.iter().all(|line| line.why == "UPDATE message_status" && !line.by.is_empty() && line.at_ms > START_MS));
    assert!(open(&owner).await.iter().all(|action| &*action.why == "UPDATE message_status"));
}

pub async fn the_view_refuses_what_it_cannot_do(rig: Rig) {
    let owner = rig.owner().await;
    let message = owner.messages(&["a"]).await.remove(0);
    owner.commit(vec![stays(&message, Status::Retry, true, Some(START_MS))]).await;
    let refused = async |sql: &str| rig.try_execute(&format!("UPDATE {{schema}}message_status SET {sql}")).await.unwrap_err();
    for word in ["handled", "done", ""] {
        let error = refused(&format!("status = '{word}'")).await;
        assert!(error.contains("message_status: status can"), "{error}");
    }
    for sql in ["code = 'x'", "status = 'retry', reason = 'x'", "status = 'retry', attempts = 7", "lane = 3", "status = 'retry', n = 9"] {
        let error = refused(sql).await;
        assert!(error.contains("message_status: only status can be set"), "{error}");
    }
    assert!(rig.try_execute("DELETE FROM {schema}message_status").await.is_err());
    rig.pass_ms(10 * 365 * 86_400_000);
    assert!(open(&owner).await.is_empty());
    assert!(owner.store.audit(None, None, 10).await.unwrap().is_empty());
    if !rig.is_postgres() {
        return;
    }
    // One line for all statements of a transaction that ask the same, none for what was rolled back.
    let retry = "UPDATE {schema}message_status SET status = 'retry'";
    rig.execute(&format!("BEGIN; {retry}; SAVEPOINT s; {retry}; ROLLBACK TO s; {retry}; COMMIT; {retry}")).await;
    let lines: Vec<_> = owner.store.audit(None, None, 10).await.unwrap().iter().map(|line| line.messages).collect();
    assert_eq!(lines.iter().sum::<i64>(), 3);
    assert_eq!(lines.iter().max(), Some(&2));
}
