//! What operators ask of messages: in every state they can be in, once each, never ahead of what is newer.

use serde_json::json;
use tolk::message::Status;
use tolk::store::{ActionKind, ActionResult, ActionState, Command, Filter, Pausable, Paused, Pick, Selection};
use uuid::Uuid;

use crate::flow::order::assert_in_order;
use crate::support::host::{TestHost, status};

pub fn command(kind: ActionKind) -> Command {
    Command {
        id: Uuid::new_v4(),
        kind,
        by: "kari".to_owned(),
        why: "because".to_owned(),
        object: "a test's messages".to_owned(),
        force: false,
        pinned: None,
        per_second: None,
        pick: Pick::Each,
    }
}

async fn id_at(host: &TestHost, offset: i64) -> Uuid {
    host.statuses().await.into_iter().find(|one| one.offset == offset).unwrap().id
}

/// Asks for one thing of the message at an offset, works, and tells what became of it.
async fn ask(host: &mut TestHost, kind: ActionKind, offset: i64) -> (ActionResult, String) {
    let state = ask_as(host, command(kind), offset).await;
    (state.result.expect("the owner applies it"), state.became.unwrap())
}

async fn ask_as(host: &mut TestHost, command: Command, offset: i64) -> ActionState {
    let id = id_at(host, offset).await;
    assert_eq!(host.store.command(&command, &Selection::Ids(vec![id])).await.unwrap(), 1);
    host.work().await;
    host.store.actions(Some(command.id), None, 10).await.unwrap().remove(0)
}

fn is(result: ActionResult, became: &str) -> (ActionResult, String) {
    (result, became.to_owned())
}

use ActionKind::{Finish, Ignore, Replay, Restart, Retry, Stop};
use ActionResult::{Already, Applied, NotNeeded, Refused, Superseded};

#[tokio::test]
async fn a_failed_message_is_retried_and_its_key_goes_on() {
    let mut host = TestHost::new("").await;
    host.consume(&[json!({ "key": "a", "seq": 1, "call": "x" }), json!({ "key": "a", "seq": 2 })]).await;
    host.stub.answers.lock().unwrap().insert("x".to_owned(), tolk::endpoint::Called::Wrong { reason: "no such".to_owned() });
    host.later(60_000).await;
    assert_eq!(host.words().await, ["failed", "behind"]);
    host.stub.answers.lock().unwrap().insert("x".to_owned(), status(200));
    assert_eq!(ask(&mut host, Retry, 0).await, is(Applied, "pending"));
    assert_eq!(host.words().await, ["handled", "handled"]);
    assert_in_order(&host.outputs().await);
}

#[tokio::test]
async fn a_replay_of_all_ends_with_the_newest_message_of_its_key() {
    let mut host = TestHost::new("").await;
    let message = |seq: u64| json!({ "key": "a", "seq": seq });
    host.consume(&[message(1), message(2), message(3)]).await;
    // It is neither read nor passed when all are asked for.
    host.append(&[message(4)]).await;
    let all = Command { pick: Pick::AllOfKey, ..command(Replay) };
    assert_eq!(host.store.command(&all, &Selection::Filter(Box::default())).await.unwrap(), 4);
    // What waits for another of its key is asked for again.
    while host.store.audit(Some(all.id), None, 1).await.unwrap()[0].open > 0 {
        host.work().await;
    }
    let seqs: Vec<u64> = host.outputs().await.iter().map(|output| output["seq"].as_u64().unwrap()).collect();
    assert!(seqs.ends_with(&[1, 2, 3, 4]), "{seqs:?}");
}

#[tokio::test]
async fn what_is_asked_of_a_failed_message_frees_or_holds_its_key() {
    for (kind, word, behind) in [(Ignore, "ignored", "handled"), (Finish, "finished", "handled"), (Stop, "stopped", "behind")] {
        let mut host = TestHost::new("").await;
        host.consume(&[json!({ "key": "a", "do": "fail" }), json!({ "key": "a" })]).await;
        assert_eq!(ask(&mut host, kind, 0).await, is(Applied, word));
        host.work().await;
        assert_eq!(host.words().await, [word, behind]);
        assert_eq!(ask(&mut host, kind, 0).await, is(Already, word), "{word} twice");
    }
}

#[tokio::test]
async fn a_stopped_message_is_restarted_with_its_attempts_anew() {
    let mut host = TestHost::new("retry = { backoff_ms = [1000], attempts_max = 3 }").await;
    host.consume(&[json!({ "key": "a", "seq": 1, "do": "retry", "times": 2 }), json!({ "key": "a", "seq": 2 })]).await;
    assert_eq!(ask(&mut host, Stop, 0).await, is(Applied, "stopped"));
    host.later(100_000).await;
    assert_eq!(host.words().await, ["stopped", "behind"], "a stopped message does not go on by itself");
    assert_eq!(host.statuses().await[0].reason.as_deref(), Some("because"));
    assert_eq!(ask(&mut host, Restart, 0).await, is(Applied, "pending"));
    let first = &host.statuses().await[0];
    assert_eq!((first.status.as_str(), first.attempts), ("retry", 1));
    host.later(1_000).await;
    host.later(1_000).await;
    assert_eq!(host.words().await, ["handled", "handled"]);
}

#[tokio::test]
async fn what_is_done_or_pending_is_told_so() {
    let mut host = TestHost::new("").await;
    host.consume(&[json!({ "key": "a" }), json!({ "key": "b", "do": "ignore" }), json!({ "key": "c", "do": "reject" })]).await;
    assert_eq!(ask(&mut host, Stop, 0).await, is(Already, "handled"));
    assert_eq!(ask(&mut host, Finish, 0).await, is(Already, "handled"));
    assert_eq!(ask(&mut host, Ignore, 2).await, is(Applied, "ignored"));
    assert_eq!(ask(&mut host, Finish, 1).await, is(Applied, "finished"));
    assert_eq!(ask(&mut host, Restart, 1).await, is(Refused, "finished"));
    assert_eq!(host.words().await, ["handled", "finished", "ignored"]);
    host.consume(&[json!({ "key": "d", "do": "fail" }), json!({ "key": "d" })]).await;
    assert_eq!(ask(&mut host, Restart, 4).await, is(NotNeeded, "behind"));
    let audit = host.store.audit(None, None, 100).await.unwrap();
    assert_eq!(audit.len(), 6);
    assert!(audit.iter().all(|line| (line.by.as_str(), line.why.as_str(), line.open) == ("kari", "because", 0)));
}

#[tokio::test]
async fn a_message_that_is_not_read_yet_can_be_stopped() {
    let mut host = TestHost::new("").await;
    host.append(&[json!({ "key": "a", "seq": 1 }), json!({ "key": "a", "seq": 2 })]).await;
    let id = id_at(&host, 0).await;
    host.store.command(&command(Stop), &Selection::Ids(vec![id])).await.unwrap();
    host.work().await;
    // Whether it was read before the order is a race that either may win; nothing goes out of order.
    let words = host.words().await;
    assert!(words == ["stopped", "behind"] || words == ["handled", "handled"], "{words:?}");
}

/// Orders a message to be ignored before it is read: it is in hand with the order, in the line of its key.
async fn ignore_ahead(host: &mut TestHost, offset: i64) -> Command {
    host.pauses.store(std::sync::Arc::new(vec![Paused {
        of: Pausable::Feed { feed: "f".to_owned() },
        by: "kari".to_owned(),
        why: "a test".to_owned(),
        since_ms: 0,
    }]));
    let (order, id) = (command(Ignore), id_at(host, offset).await);
    host.store.command(&order, &Selection::Ids(vec![id])).await.unwrap();
    host.work().await;
    assert_eq!(host.count(Status::Pending).await, host.words().await.len(), "nothing is read while the feed is paused");
    host.pauses.store(std::sync::Arc::default());
    host.work().await;
    host.work().await;
    order
}

async fn what_became(host: &TestHost, order: &Command) -> (Option<ActionResult>, Option<String>) {
    let state = host.store.actions(Some(order.id), None, 1).await.unwrap().remove(0);
    (state.result, state.became)
}

#[tokio::test]
async fn an_order_on_a_message_in_hand_outlives_its_standing_behind() {
    let mut host = TestHost::new("").await;
    host.append(&[json!({ "key": "a", "seq": 1, "do": "fail" }), json!({ "key": "a", "seq": 2 }), json!({ "key": "a", "seq": 3 })]).await;
    let order = ignore_ahead(&mut host, 1).await;
    assert_eq!(host.words().await, ["failed", "ignored", "behind"]);
    assert_eq!(what_became(&host, &order).await, (Some(Applied), Some("ignored".to_owned())));
}

#[tokio::test]
async fn an_ordered_message_is_not_run_ahead_of_its_order() {
    let mut host = TestHost::new("").await;
    host.append(&[json!({ "key": "a", "seq": 1 }), json!({ "key": "a", "seq": 2 }), json!({ "key": "a", "seq": 3 })]).await;
    let order = ignore_ahead(&mut host, 1).await;
    assert_eq!(host.words().await, ["handled", "ignored", "handled"]);
    assert_eq!(what_became(&host, &order).await, (Some(Applied), Some("ignored".to_owned())));
    assert_eq!(host.outputs().await.len(), 2);
}

#[tokio::test]
async fn a_done_message_runs_again_as_a_new_run_unless_a_newer_one_was_handled() {
    let mut host = TestHost::new("").await;
    host.consume(&[json!({ "key": "a", "seq": 1 }), json!({ "key": "b", "seq": 1 }), json!({ "key": "b", "seq": 2 })]).await;
    assert_eq!(ask(&mut host, Replay, 0).await, is(Applied, "handled"));
    assert_eq!(ask(&mut host, Replay, 1).await, is(Superseded, "handled"));
    assert_eq!(ask(&mut host, Replay, 2).await, is(Applied, "handled"));
    let outputs = host.outputs().await;
    let seen: Vec<_> = outputs[3..].iter().map(|output| (output["key"].as_str().unwrap(), output["cause"].as_str().unwrap())).collect();
    assert_eq!(seen, [("a", "Replay"), ("b", "Replay")]);
    let forced = Command { force: true, ..command(Replay) };
    assert_eq!(ask_as(&mut host, forced, 1).await.result, Some(Applied));
    assert_eq!(host.outputs().await.last().unwrap()["seq"], 1);
}

#[tokio::test]
async fn all_of_a_key_are_replayed_in_order_and_the_newest_alone() {
    let mut host = TestHost::new("").await;
    let scripts: Vec<_> = (0..60).map(|i| json!({ "key": format!("k{}", i % 7), "seq": i })).collect();
    host.consume(&scripts).await;
    let all = Selection::Filter(Box::new(Filter { feed: Some("f".to_owned()), ..Filter::default() }));
    assert_eq!(host.store.command(&Command { pick: Pick::NewestOfKey, ..command(Replay) }, &all).await.unwrap(), 7);
    host.work().await;
    let newest: Vec<u64> = host.outputs().await[60..].iter().map(|output| output["seq"].as_u64().unwrap()).collect();
    assert_eq!(
        {
            let mut sorted = newest;
            sorted.sort_unstable();
            sorted
        },
        (53..60).collect::<Vec<_>>()
    );
    let one = Selection::Filter(Box::new(Filter { key: Some("k3".to_owned()), ..Filter::default() }));
    let chosen = host.store.command(&Command { pick: Pick::AllOfKey, ..command(Replay) }, &one).await.unwrap();
    host.work().await;
    let replayed = host.outputs().await.split_off(67);
    assert_eq!((replayed.len() as i64, chosen), (chosen, 9));
    assert_in_order(&replayed);
    assert_eq!(host.count(Status::Handled).await, 60);
}

#[tokio::test]
async fn a_replay_lets_live_messages_of_its_key_stand_behind_and_loses_to_newer_ones() {
    let mut host = TestHost::new("retry = { backoff_ms = [1000], attempts_max = 9 }").await;
    host.consume(&[json!({ "key": "a", "seq": 1, "call": "x" })]).await;
    assert_eq!(host.words().await, ["retry"]);
    host.stub.answers.lock().unwrap().insert("x".to_owned(), status(200));
    host.later(2_000).await;
    assert_eq!(host.words().await, ["handled"]);
    host.stub.answers.lock().unwrap().remove("x");
    assert_eq!(ask(&mut host, Replay, 0).await, is(Applied, "retry"), "the replay's own attempt waits for the endpoint");
    host.consume(&[json!({ "key": "a", "seq": 2 })]).await;
    assert_eq!(host.words().await, ["retry", "behind"]);
    host.stub.answers.lock().unwrap().insert("x".to_owned(), status(200));
    host.later(2_000).await;
    assert_eq!(host.words().await, ["handled", "handled"]);
    let seqs: Vec<_> = host.outputs().await.iter().map(|output| output["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 1, 2]);
}

#[tokio::test]
async fn a_revisit_publishes_only_what_changed() {
    let mut host = TestHost::new("").await;
    host.consume(&[json!({ "key": "a", "seq": 1, "read": ["x"], "revisit": 1_000 })]).await;
    host.later(1_000).await;
    host.later(1_000).await;
    assert_eq!(host.outputs().await.len(), 1, "nothing changed");
    host.consume(&[json!({ "key": "w", "write": [["x", "7"]] })]).await;
    host.later(1_000).await;
    let outputs = host.outputs().await;
    assert_eq!(outputs.len(), 3);
    assert_eq!((&outputs[2]["cause"], &outputs[2]["saw"][0]), (&json!("Revisit"), &json!("7")));
    host.consume(&[json!({ "key": "a", "seq": 2 })]).await;
    host.consume(&[json!({ "key": "w", "write": [["x", "8"]] })]).await;
    host.later(10_000).await;
    assert_eq!(host.outputs().await.len(), 5, "a newer message of the key ends the revisits of the older one");
}

#[tokio::test]
async fn a_crash_between_an_order_and_its_end_loses_nothing() {
    let mut host = TestHost::new("").await;
    host.consume(&[json!({ "key": "a", "seq": 1 }), json!({ "key": "b", "do": "fail" })]).await;
    let ids = [id_at(&host, 0).await, id_at(&host, 1).await];
    let (replay, finish) = (command(Replay), command(Finish));
    host.store.command(&replay, &Selection::Ids(vec![ids[0]])).await.unwrap();
    host.store.command(&finish, &Selection::Ids(vec![ids[1]])).await.unwrap();
    host.crash().await;
    host.work().await;
    assert_eq!(host.words().await, ["handled", "finished"]);
    assert_eq!(host.outputs().await.len(), 2);
    host.crash().await;
    host.work().await;
    assert_eq!(host.outputs().await.len(), 2, "an order is carried out once");
}
