//! A replay tried without doing it: which messages would run, and what would come out otherwise.

use serde_json::json;
use tolk::plugin::Limits;
use tolk::replay::{Choice, Rehearsal, Stage, rehearse};
use tolk::store::{Filter, Pick};

use crate::support::host::{RUNTIME, TestHost, status};

async fn tried(host: &TestHost, filter: Filter, choice: Choice, safe: bool) -> Rehearsal {
    let before = (host.outputs().await, host.statuses().await);
    let stage = Stage {
        store: &*host.store,
        runtime: RUNTIME.clone(),
        caller: &*host.stub,
        is_safe: &|_| safe,
        limits_of: &|_| Limits { cpu_ms_max: 10_000, ..Limits::default() },
        utc_offset_s: &|_, _| 0,
    };
    let rehearsal = rehearse(&stage, &Filter { limit: 100, ..filter }, choice).await.unwrap();
    assert_eq!((host.outputs().await, host.statuses().await), before, "a rehearsal changes nothing");
    rehearsal
}

fn choice(pick: Pick) -> Choice {
    Choice { pick, force: false, pinned: None }
}

#[tokio::test]
async fn what_would_differ_is_told_by_path() {
    let mut host = TestHost::new("").await;
    host.activate("one").await;
    host.stub.answers.lock().unwrap().insert("x".to_owned(), status(200));
    let writer = json!({ "key": "a", "seq": 2, "write": [["e", "1"]] });
    host.consume(&[json!({ "key": "a", "seq": 1, "id": "a" }), writer]).await;
    host.consume(&[json!({ "key": "b", "read": ["e"] }), json!({ "key": "c", "do": "ignore" }), json!({ "key": "d", "call": "x" })]).await;
    assert_eq!(host.words().await, ["handled", "handled", "handled", "ignored", "handled"]);
    host.activate("two").await;
    let found = tried(&host, Filter::default(), choice(Pick::NewestOfKey), false).await;
    assert_eq!((found.messages, found.superseded, found.same, found.changed), (4, 0, 0, 2), "{found:?}");
    assert_eq!(found.unhandled.iter().collect::<Vec<_>>(), [(&"ignored: told-to".to_owned(), &1)]);
    assert!(found.untried.keys().next().unwrap().contains("endpoint e is not `safe`"), "{found:?}");
    let by = found.differences.iter().find(|it| it.path == "outputs[*].payload.by").unwrap();
    assert_eq!((by.count, &by.before, &by.after), (2, &Some(json!("one")), &Some(json!("two"))));
    assert!(found.differences.iter().all(|it| !it.path.contains("saw")), "what it reads is the same today: {found:?}");
    let calls = host.stub.calls.lock().unwrap().len();
    let found = tried(&host, Filter::default(), choice(Pick::NewestOfKey), true).await;
    assert_eq!((found.changed, found.untried.len()), (3, 0), "a safe endpoint is called: {found:?}");
    assert_eq!(host.stub.calls.lock().unwrap().len(), calls + 1);
}

#[tokio::test]
async fn the_choice_is_that_of_the_replay() {
    let mut host = TestHost::new("").await;
    host.consume(&[
        json!({ "key": "a", "seq": 1 }),
        json!({ "key": "b" }),
        json!({ "key": "a", "seq": 2 }),
        json!({ "key": "a", "seq": 3 }),
    ])
    .await;
    let of = |pick, at| (Filter { at: Some((0, at)), ..Filter::default() }, choice(pick));
    let (filter, each) = of(Pick::Each, 0);
    let found = tried(&host, filter.clone(), each, false).await;
    assert_eq!((found.messages, found.superseded), (0, 1), "newer ones of its key were handled");
    let found = tried(&host, filter, Choice { force: true, ..each }, false).await;
    assert_eq!((found.messages, found.superseded), (1, 0));
    let (filter, all) = of(Pick::AllOfKey, 2);
    assert_eq!(tried(&host, filter, all, false).await.messages, 2, "from the chosen one to now");
    let (filter, newest) = of(Pick::NewestOfKey, 3);
    assert_eq!(tried(&host, filter, newest, false).await.messages, 1);
    let first = host.store.activations(None, None).await.unwrap().last().unwrap().id;
    host.activate("other").await;
    let (filter, newest) = of(Pick::NewestOfKey, 1);
    let found = tried(&host, filter.clone(), newest, false).await;
    assert!(found.differences.iter().any(|it| it.path == "outputs[*].payload.by"), "{found:?}");
    let found = tried(&host, filter, Choice { pinned: Some(first), ..newest }, false).await;
    assert!(found.differences.iter().all(|it| it.path != "outputs[*].payload.by"), "the plugin and config of then: {found:?}");
}
