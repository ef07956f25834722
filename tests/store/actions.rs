//! Cases of `Actions`: commands and their rows, what the owner of a lane is given, what settlements say of it, pauses.

use tolk::message::{Message, Place, Status};
use tolk::store::{
    ActionKind, ActionResult, Applied, Command, Filter, NewRevisit, OpenAction, Pausable, Pick, Selection, Settled, Settlement, Verdict,
};
use uuid::Uuid;

use super::rig::{Owner, Rig, START_MS, done, end, row, stays};

const ALL: (i64, i64) = (1_000, 1 << 40);

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
    assert!(found.iter().all(|action| action.why == "a good reason" && action.detail.is_none()));
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
    assert_eq!(found.iter().map(|action| action.row.clone()).collect::<Vec<_>>(), [None, row, None, None]);
    assert!(found.iter().all(|action| action.superseded_by.is_none()));
}

pub async fn open_actions_come_in_order_and_in_pages(rig: Rig) {
    let owner = rig.owner().await;
    let rows: Vec<_> = (0..6).map(|offset| row(offset as i32 % 2, offset, &format!("k{offset}"))).collect();
    owner.append(&rows).await;
    let messages = owner.fetch().await;
    let of = |lane: i32, n: i64| messages.iter().find(|m| m.place.lane == lane && m.place.n == n).unwrap();
    owner.store.command(&command(ActionKind::Retry), &ids(&[of(1, 1), of(0, 3)])).await.unwrap();
    rig.pass_ms(5);
    owner.store.command(&command(ActionKind::Retry), &ids(&[of(0, 1)])).await.unwrap();
    let slow = Command { per_second: Some(2), ..command(ActionKind::Replay) };
    owner.store.command(&slow, &ids(&[of(0, 2), of(1, 2), of(1, 3)])).await.unwrap();
    let places = |found: &[OpenAction]| found.iter().map(|a| (a.message.place.lane, a.message.place.n)).collect::<Vec<_>>();
    let page = async |lanes: &[_], known: &[i64], rows, bytes| owner.store.open_actions(lanes, known, rows, bytes).await.unwrap();
    let all = open(&owner).await;
    assert_eq!(places(&all), [(0, 3), (1, 1), (0, 1), (0, 2)]);
    assert_eq!(places(&page(&owner.lanes(), &[], 3, ALL.1).await), [(0, 3), (1, 1), (0, 1)]);
    assert_eq!(places(&page(&owner.lanes(), &[], ALL.0, 1).await), [(0, 3)]);
    assert_eq!(places(&page(&owner.lanes(), &[all[0].id, all[2].id], 1, ALL.1).await), [(1, 1)]);
    assert_eq!(places(&page(&[(owner.feed, 1)], &[], ALL.0, ALL.1).await), [(1, 1)]);
    assert!(page(&[(owner.feed, 3)], &[], ALL.0, ALL.1).await.is_empty());
    rig.pass_ms(500);
    assert_eq!(places(&open(&owner).await)[4..], [(1, 2)]);
    rig.pass_ms(500);
    assert_eq!(places(&open(&owner).await)[4..], [(1, 2), (1, 3)]);
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
    let applied = |id, result, became| Applied { id, result, became };
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
    let actions = vec![Applied { id: open(&owner).await[0].id, result: ActionResult::Applied, became: Status::Ignored }];
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
    assert_eq!((found[0].detail.as_deref(), found[0].why.as_str()), (Some("prints \u{0}"), ""));
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
    let settled = vec![
        coded(&messages[0], Status::Retry, "paused"),
        coded(&messages[1], Status::Retry, "paused"),
        coded(&messages[2], Status::Retry, "endpoint-paused"),
        coded(&messages[3], Status::Retry, "other"),
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
    assert_eq!(due().await, [2]);
    assert!(owner.store.resume_paused(&endpoint, "me", "done").await.unwrap());
    assert_eq!(due().await, [2, 3]);
    assert!(owner.store.resume_paused(&feed, "me", "done").await.unwrap());
    assert_eq!(due().await, [1, 2, 3]);
    assert!(owner.store.pauses().await.unwrap().is_empty());
    let trail = owner.store.audit(None, None, 10).await.unwrap();
    assert_eq!(trail.iter().filter(|line| line.kind == "pause").count(), 3);
    assert_eq!(trail.iter().filter(|line| line.kind == "resume" && line.why == "done" && line.messages == 0).count(), 3);
    assert!(trail.iter().any(|line| line.object == "table U of feed arena"));
}
