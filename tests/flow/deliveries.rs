//! Deliveries from their order to their last part: held until complete, translated as a whole or not at all, and counted.

use bytes::Bytes;
use serde_json::{Value, json};
use tolk::delivery::State;
use tolk::endpoint::Called;
use tolk::plugin::Response;
use tolk::store::{Account, By, Done, Ordered};

use crate::support::host::TestHost;

const SETTINGS: &str = "retry = { backoff_ms = [1000], attempts_max = 2 }\n[delivery]\nid = [\"/id\"]\nmark = [\"/kind\"]\nstart = \"START\"\n\
    end = \"END\"\npart = [\"DATA\", \"MORE\"]\nexpected = [\"/n\"]\ngrace_ms = 60000\n\
    [delivery.order]\nendpoint = \"e\"\nstatuses = [202]\n";

fn strict() -> String {
    SETTINGS.replace("grace_ms", "strict_order = true\nordered_only = true\ngrace_ms")
}

fn start(id: &str, n: i64) -> Value {
    json!({ "id": id, "kind": "START", "n": n })
}

fn end(id: &str, n: i64) -> Value {
    json!({ "id": id, "kind": "END", "n": n })
}

fn part(id: &str, key: &str) -> Value {
    json!({ "id": id, "kind": "DATA", "key": key })
}

fn by() -> By {
    By { whom: "test".to_owned(), why: "because".to_owned() }
}

impl TestHost {
    /// Orders a delivery with a year; the remote's answer.
    async fn ordered(&self, year: &str, status: u16, body: &str) -> i64 {
        let answer = Called::Response(Response { status, headers: vec![], body: Bytes::copy_from_slice(body.as_bytes()) });
        self.stub.answers.lock().unwrap().insert(year.to_owned(), answer);
        let number = self.placed(year).await;
        assert!(self.duty().order().await.unwrap());
        number
    }

    async fn placed(&self, year: &str) -> i64 {
        let params = [("year".to_owned(), year.to_owned())];
        match self.store.order_delivery(self.feed(), &params, &by(), false).await.unwrap() {
            Ordered::Placed(number) => number,
            other => panic!("{other:?}"),
        }
    }

    async fn state(&self, id: &str) -> Option<State> {
        self.store.delivery_by_id(self.feed(), id).await.unwrap().map(|delivery| delivery.tally.state)
    }

    async fn account(&self, id: &str) -> Account {
        let delivery = self.store.delivery_by_id(self.feed(), id).await.unwrap().unwrap();
        let account = self.store.delivery_account(delivery.number).await.unwrap().unwrap();
        assert!(account.adds_up(), "{account:?}");
        account
    }

    /// Lets go what is held and works, until nothing more comes of it.
    async fn tended(&mut self) {
        loop {
            let tended = self.duty().tend().await.unwrap().expect("the feed is ours");
            self.work().await;
            if tended.released == 0 && !tended.more {
                return;
            }
        }
    }

    async fn codes(&self) -> Vec<String> {
        self.statuses().await.into_iter().map(|status| status.code.unwrap_or_default()).collect()
    }
}

#[tokio::test]
async fn parts_are_held_until_their_delivery_is_complete() {
    let mut host = TestHost::new(SETTINGS).await;
    host.consume(&[start("A", 2), part("A", "x"), start("B", 1)]).await;
    assert_eq!(host.words().await, ["handled", "held", "handled"]);
    let account = host.account("A").await;
    assert_eq!((account.expected, account.accepted, account.open), (Some(2), 1, 1));
    // The other delivery goes its own way, the same key in it too.
    host.consume(&[part("B", "x"), end("B", 1)]).await;
    host.tended().await;
    assert_eq!(host.words().await, ["handled", "held", "handled", "handled", "handled"]);
    host.consume(&[part("A", "y"), part("A", "x")]).await;
    assert_eq!(host.words().await[5..], ["held", "behind"], "a key's later part stands behind the one that is held");
    host.consume(&[end("A", 3)]).await;
    host.tended().await;
    assert_eq!(host.state("A").await, Some(State::Complete));
    assert!(host.words().await.iter().all(|word| word == "handled"), "{:?}", host.words().await);
    assert_eq!(host.codes().await, ["delivery-start", "", "delivery-start", "", "delivery-end", "", "", "delivery-end"]);
    let outputs = host.outputs().await;
    assert_eq!(outputs.len(), 4);
    assert_eq!(outputs[0]["delivery"], json!(["B", [], 1]));
    let account = host.account("A").await;
    assert_eq!((account.handled, account.accepted, account.expected), (3, 3, Some(3)));
}

#[tokio::test]
async fn what_is_complete_before_anybody_looks_is_translated_at_once() {
    let mut host = TestHost::new(SETTINGS).await;
    host.consume(&[end("A", 2), part("A", "x"), part("A", "y"), start("A", 2)]).await;
    assert_eq!(host.words().await, ["handled"; 4]);
    assert_eq!(host.account("A").await.handled, 2);
    host.tended().await;
    assert_eq!(host.outputs().await.len(), 2);
}

#[tokio::test]
async fn an_invalid_delivery_is_ignored_as_a_whole_and_others_are_not_touched() {
    let mut host = TestHost::new(SETTINGS).await;
    host.consume(&[start("A", 2), part("A", "x"), start("B", 1), part("B", "x")]).await;
    let batch = [part("A", "y"), end("A", 3), json!({ "id": "A" }), end("B", 1), json!({ "abc": "1" })];
    host.consume(&batch).await;
    host.tended().await;
    assert_eq!((host.state("A").await, host.state("B").await), (Some(State::Invalid), Some(State::Complete)));
    assert_eq!(host.codes().await[4..], ["delivery-invalid", "delivery-mismatch", "no-delivery-mark", "delivery-end", "no-delivery-mark"]);
    assert_eq!(host.words().await[1], "ignored");
    let account = host.account("A").await;
    assert_eq!((account.accepted, account.ignored), (2, 2));
    // Later ones are kept and ignored, and the complete one stays as it is.
    host.consume(&[part("A", "z"), start("B", 9), part("B", "z"), end("B", 9)]).await;
    assert_eq!(host.codes().await[9..], ["delivery-invalid", "delivery-complete", "delivery-complete", "delivery-complete"]);
    assert_eq!((host.account("A").await.accepted, host.account("B").await.handled), (2, 1));
    assert_eq!(host.outputs().await.len(), 1);
}

#[tokio::test]
async fn partitions_come_in_any_order_and_what_lacks_has_time() {
    let mut host = TestHost::new(SETTINGS).await;
    host.append_at(&[(1, part("A", "x")), (0, end("A", 3)), (0, end("B", 1))]).await;
    host.append_at(&[(2, start("A", 3)), (1, start("B", 1)), (1, part("A", "y"))]).await;
    host.work().await;
    assert_eq!((host.state("A").await, host.state("B").await), (Some(State::Started), Some(State::Started)));
    host.append_at(&[(1, part("A", "z"))]).await;
    host.later(59_999).await;
    host.tended().await;
    assert_eq!((host.state("A").await, host.state("B").await), (Some(State::Complete), Some(State::Started)));
    assert_eq!(host.account("A").await.handled, 3);
    host.append_at(&[(1, part("C", "x")), (2, end("C", 2))]).await;
    host.later(1).await;
    host.tended().await;
    assert_eq!((host.state("B").await, host.state("C").await), (Some(State::Invalid), Some(State::Open)));
    host.later(60_000).await;
    host.tended().await;
    assert_eq!(host.state("C").await, Some(State::Invalid));
    assert_eq!(host.account("C").await.ignored, 1);
}

#[tokio::test]
async fn a_delivery_is_ordered_once_and_carries_its_parameters() {
    let mut host = TestHost::new(&strict()).await;
    let number = host.ordered("2020", 202, "A").await;
    assert_eq!(host.state("A").await, Some(State::Open));
    let again = host.store.order_delivery(host.feed(), &[("year".into(), "2020".into())], &by(), false).await.unwrap();
    assert_eq!(again, Ordered::Open(number));
    assert!(!host.duty().order().await.unwrap(), "nothing is left to call");
    host.consume(&[start("A", 1), part("A", "x"), end("A", 1), part("unheard-of", "x")]).await;
    host.tended().await;
    assert_eq!(host.words().await, ["handled", "handled", "handled", "ignored"]);
    assert_eq!(host.codes().await[3], "delivery-unknown");
    assert_eq!(host.outputs().await[0]["delivery"], json!(["A", [["year", "2020"]], 1]));
    let refused = host.ordered("2021", 500, "no").await;
    let refused = host.store.delivery(refused).await.unwrap().unwrap();
    assert_eq!((refused.tally.state, refused.tally.reason.as_str(), refused.id), (State::Refused, "status 500: no", None));
    assert_eq!(host.stub.calls.lock().unwrap().len(), 2);
    // What is over does not stand in the way of another order.
    assert_ne!(host.placed("2020").await, number);
}

#[tokio::test]
async fn marks_that_come_before_the_orders_answer_are_kept() {
    let mut host = TestHost::new(&strict()).await;
    let number = host.placed("2020").await;
    host.consume(&[start("A", 1), part("A", "x"), end("A", 1), start("X", 0), part("X", "x")]).await;
    assert_eq!((host.state("A").await, host.state("X").await), (Some(State::Unbound), Some(State::Unbound)));
    assert_eq!(host.words().await, ["handled", "held", "handled", "handled", "held"]);
    let answer = Called::Response(Response { status: 202, headers: vec![], body: "A".into() });
    host.stub.answers.lock().unwrap().insert("2020".to_owned(), answer);
    assert!(host.duty().order().await.unwrap());
    host.tended().await;
    assert_eq!((host.state("A").await, host.state("X").await), (Some(State::Complete), Some(State::Invalid)));
    assert_eq!(host.codes().await, ["delivery-start", "", "delivery-end", "delivery-start", "delivery-unknown"]);
    assert_eq!(host.outputs().await[0]["delivery"], json!(["A", [["year", "2020"]], 1]));
    // Both numbers find it.
    let found = host.store.delivery(number).await.unwrap().unwrap();
    assert_eq!((found.id.as_deref(), found.order_number), (Some("A"), Some(number)));
    assert_eq!(host.store.delivery_audit(number).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_order_whose_host_died_is_unclear_and_never_called_twice() {
    let mut host = TestHost::new(&strict()).await;
    let number = host.placed("2020").await;
    let epoch = host.duty().epoch;
    assert!(host.store.take_order(host.feed(), epoch).await.unwrap().is_some());
    host.crash().await;
    assert!(!host.duty().order().await.unwrap());
    let left = host.store.delivery(number).await.unwrap().unwrap();
    assert_eq!(left.tally.state, State::Unclear);
    assert_eq!(host.duty().tend().await.unwrap().unwrap().unclear, 1, "somebody must be told");
    assert!(host.stub.calls.lock().unwrap().is_empty());
    // Its messages are kept, and a person binds its id.
    host.consume(&[start("A", 1), part("A", "x"), end("A", 1)]).await;
    assert_eq!(host.state("A").await, Some(State::Unbound));
    let rules = tolk::delivery::Rules::of(&host.duty().config);
    assert_eq!(host.store.bind_delivery(number, "A", &rules, &by()).await.unwrap(), Done::Parts(0));
    host.tended().await;
    assert_eq!(host.account("A").await.handled, 1);
}

#[tokio::test]
async fn an_operator_invalidates_a_delivery_as_a_whole() {
    let mut host = TestHost::new(SETTINGS).await;
    host.consume(&[start("A", 2), part("A", "x"), start("B", 0), end("B", 0)]).await;
    let number = |host: &TestHost, id: &'static str| {
        let (store, feed) = (host.store.clone(), host.feed());
        async move { store.delivery_by_id(feed, id).await.unwrap().unwrap().number }
    };
    let (a, b) = (number(&host, "A").await, number(&host, "B").await);
    assert_eq!(host.store.invalidate_delivery(a, &by()).await.unwrap(), Done::Parts(1));
    assert_eq!(host.store.invalidate_delivery(b, &by()).await.unwrap(), Done::Refused(State::Complete));
    assert_eq!(host.store.invalidate_delivery(99, &by()).await.unwrap(), Done::Unknown);
    host.tended().await;
    assert_eq!(host.words().await[1], "ignored");
    let audit = host.store.delivery_audit(a).await.unwrap();
    assert_eq!((audit[0].kind.as_str(), audit[0].by.as_str(), audit[0].why.as_str()), ("invalidate", "test", "because"));
}

#[tokio::test]
async fn a_crash_between_completion_and_release_holds_nothing_for_ever() {
    let mut host = TestHost::new(SETTINGS).await;
    let parts: Vec<Value> = (0..50).map(|i| part("A", &format!("k{i}"))).collect();
    host.consume(&[start("A", 50)]).await;
    host.consume(&parts).await;
    assert_eq!(host.account("A").await.by_status["held"], 50);
    host.append(&[end("A", 50)]).await;
    host.crash().await;
    host.tended().await;
    assert_eq!(host.account("A").await.handled, 50);
    assert_eq!(host.outputs().await.len(), 50);
}
