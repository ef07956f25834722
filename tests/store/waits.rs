//! Cases of waits: whoever waits for something is woken by whatever changes it, and by nothing else.

use tolk::message::{Message, Status};
use tolk::plugin::{Cause, Request};
use tolk::store::{Settled, Verdict, WorkRow};
use uuid::Uuid;

use super::rig::{Owner, Rig, binding, by_index, by_key, done, entry, put, put_indexed, remove, stays, waits, work_row};

/// A message that waits for these, as of now.
async fn waiting(owner: &Owner, key: &str, on: &[Request]) -> Message {
    let message = owner.messages(&[key]).await.remove(0);
    let at = owner.now_at().await;
    owner.commit(vec![waits(&message, on, at)]).await;
    message
}

/// Settles one message with this, and gives the number of those it woke.
async fn wakes(owner: &Owner, change: impl FnOnce(Settled) -> Settled) -> usize {
    let message = owner.messages(&["changer"]).await.remove(0);
    match owner.settle(vec![change(done(&message))]).await {
        Verdict::Committed { woken, .. } => woken,
        other => panic!("not committed: {other:?}"),
    }
}

async fn wakes_by(owner: &Owner, write: tolk::plugin::Write) -> usize {
    wakes(owner, |settled| Settled { writes: vec![write], ..settled }).await
}

/// The row is due now, because it was woken, and waits for nothing any more.
async fn assert_woken(rig: &Rig, owner: &Owner, message: &Message) {
    let row = owner.store.rows(&[message.place]).await.unwrap().remove(0).row;
    assert_eq!((row.status, row.cause, row.due_ms), (Status::Pending, Cause::Woken, Some(rig.now_ms())));
    let due = owner.store.due(&owner.lanes(), &[], 100, 1 << 30).await.unwrap();
    assert!(due.iter().any(|due| due.row.place == message.place));
    assert!(owner.store.message(message.id).await.unwrap().unwrap().waits.is_empty());
}

async fn assert_waits(owner: &Owner, message: &Message, on: &[Request]) {
    let row = owner.store.rows(&[message.place]).await.unwrap().remove(0).row;
    assert_eq!((row.status, row.cause), (Status::Waiting, Cause::TimedOut));
    assert_eq!(owner.store.message(message.id).await.unwrap().unwrap().waits, on);
}

pub async fn an_entry_that_appears_wakes(rig: Rig) {
    let owner = rig.owner().await;
    let on = [entry("c", "k"), entry("c", "k2")];
    let message = waiting(&owner, "m", &on).await;
    let other = waiting(&owner, "n", &on[1..]).await;
    rig.pass_ms(7);
    assert_eq!(wakes_by(&owner, put("c", "other", "v")).await, 0);
    assert_eq!(wakes_by(&owner, put("d", "k", "v")).await, 0);
    assert_waits(&owner, &message, &on).await;
    assert_eq!(wakes_by(&owner, put("c", "k", "v")).await, 1);
    assert_woken(&rig, &owner, &message).await;
    assert_waits(&owner, &other, &on[1..]).await;
    assert_eq!(wakes_by(&owner, put("c", "k2", "v")).await, 1, "only who still waits");
    assert_woken(&rig, &owner, &other).await;
}

pub async fn an_entry_that_changes_or_goes_wakes(rig: Rig) {
    let owner = rig.owner().await;
    owner.write(vec![put("c", "k", "v")]).await;
    let message = waiting(&owner, "m", &[entry("c", "k")]).await;
    assert_eq!(wakes_by(&owner, put_indexed("c", "k", "v", &[("i", "x")])).await, 1);
    assert_woken(&rig, &owner, &message).await;
    let message = waiting(&owner, "n", &[entry("c", "k")]).await;
    assert_eq!(wakes_by(&owner, put("c", "k", "v2")).await, 1);
    assert_woken(&rig, &owner, &message).await;
    let message = waiting(&owner, "o", &[entry("c", "k")]).await;
    assert_eq!(wakes_by(&owner, remove("c", "k")).await, 1);
    assert_woken(&rig, &owner, &message).await;
}

pub async fn a_bound_id_wakes(rig: Rig) {
    let owner = rig.owner().await;
    let id = Uuid::new_v4();
    let known = Request::KnownId { namespace: "n".to_owned(), key: "k".to_owned() };
    let key_of = Request::KeyOf { namespace: "n".to_owned(), id: id.to_string().to_uppercase() };
    let by_name = waiting(&owner, "m", &[known]).await;
    let by_id = waiting(&owner, "o", &[key_of]).await;
    let bind = async |namespace: &str, key: &str, id| {
        wakes(&owner, |settled| Settled { bindings: vec![binding(namespace, key, id)], ..settled }).await
    };
    assert_eq!(bind("n", "other", Uuid::new_v4()).await, 0);
    assert_eq!(bind("m", "k", id).await, 0);
    assert_eq!(bind("n", "k", id).await, 2);
    assert_woken(&rig, &owner, &by_name).await;
    assert_woken(&rig, &owner, &by_id).await;
    assert_eq!(bind("n", "k", id).await, 0, "bound already");
}

pub async fn a_scan_wakes(rig: Rig) {
    let owner = rig.owner().await;
    let keys = [Request::Entries(by_key("c", "a%"))];
    let index = [Request::Entries(by_index("c", "i", "x"))];
    let by_prefix = waiting(&owner, "m", &keys).await;
    let by_value = waiting(&owner, "n", &index).await;
    assert_eq!(wakes_by(&owner, put_indexed("c", "aa", "v", &[("j", "x"), ("i", "y")])).await, 0);
    assert_eq!(wakes_by(&owner, put_indexed("d", "a%", "v", &[("i", "x")])).await, 0);
    assert_eq!(wakes_by(&owner, put("c", "a%1", "v")).await, 1);
    assert_woken(&rig, &owner, &by_prefix).await;
    assert_waits(&owner, &by_value, &index).await;
    assert_eq!(wakes_by(&owner, put_indexed("c", "1", "v", &[("i", "xyz")])).await, 1);
    assert_woken(&rig, &owner, &by_value).await;
    // An entry that leaves the scan wakes too.
    let leaves = waiting(&owner, "o", &index).await;
    let goes = waiting(&owner, "p", &keys).await;
    assert_eq!(wakes_by(&owner, put_indexed("c", "1", "v", &[("i", "y")])).await, 1);
    assert_woken(&rig, &owner, &leaves).await;
    assert_eq!(wakes_by(&owner, remove("c", "a%1")).await, 1);
    assert_woken(&rig, &owner, &goes).await;
    let everything = waiting(&owner, "q", &[Request::Entries(by_key("c", ""))]).await;
    assert_eq!(wakes_by(&owner, put("c", "z", "v")).await, 1);
    assert_woken(&rig, &owner, &everything).await;
}

pub async fn an_equal_write_wakes_nobody(rig: Rig) {
    let owner = rig.owner().await;
    owner.write(vec![put_indexed("c", "k", "v", &[("i", "x")])]).await;
    let on = [entry("c", "k"), Request::Entries(by_key("c", "")), Request::Entries(by_index("c", "i", ""))];
    let message = waiting(&owner, "m", &on).await;
    assert_eq!(wakes_by(&owner, put_indexed("c", "k", "v", &[("i", "x")])).await, 0);
    assert_waits(&owner, &message, &on).await;
}

pub async fn a_wait_is_woken_by_its_own_settlement(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["early", "writer", "late"]).await;
    let at = owner.now_at().await;
    let on = [entry("c", "k")];
    let writer = Settled { writes: vec![put("c", "k", "v")], ..done(&messages[1]) };
    // In the order of serialisation the first began to wait before the write, the last after it.
    let verdict = owner.settle(vec![waits(&messages[0], &on, at), writer, waits(&messages[2], &on, at)]).await;
    assert!(matches!(verdict, Verdict::Committed { woken: 1, .. }), "{verdict:?}");
    assert_woken(&rig, &owner, &messages[0]).await;
    assert_waits(&owner, &messages[2], &on).await;
}

pub async fn crossing_settlements_lose_no_wake_up(rig: Rig) {
    let owner = rig.owner().await;
    let on = [entry("c", "k")];
    for round in 0..20 {
        let messages = owner.messages(&[&format!("waiter{round}"), &format!("writer{round}")]).await;
        let at = owner.now_at().await;
        let writer = Settled { writes: vec![put("c", "k", &format!("v{round}"))], ..done(&messages[1]) };
        let (writes, begins) = (owner.settlement(vec![writer]), owner.settlement(vec![waits(&messages[0], &on, at)]));
        let (one, two) = (owner.next_batch(), owner.next_batch());
        let (wrote, began) = tokio::join!(owner.store.settle(&owner.host, one, &writes), owner.store.settle(&owner.host, two, &begins));
        let Verdict::Committed { woken, .. } = wrote.unwrap() else { panic!("the writer read nothing") };
        match began.unwrap() {
            // It began to wait first: the write woke it.
            Verdict::Committed { .. } => {
                assert_eq!(woken, 1);
                assert_woken(&rig, &owner, &messages[0]).await;
                owner.commit(vec![Settled { had_work: true, ..done(&messages[0]) }]).await;
            }
            // The write was first: what it was about to wait for is no longer what it read.
            Verdict::Stale(stale) => {
                assert_eq!((stale.len(), stale[0].read, woken), (1, Some(0), 0));
                owner.commit(vec![done(&messages[0])]).await;
            }
            Verdict::Fenced(lanes) => panic!("fenced: {lanes:?}"),
        }
    }
}

pub async fn put_entries_wakes(rig: Rig) {
    let owner = rig.owner().await;
    let id = Uuid::new_v4();
    let known = Request::KnownId { namespace: "n".to_owned(), key: "k".to_owned() };
    let for_entry = waiting(&owner, "m", &[entry("c", "k")]).await;
    let for_id = waiting(&owner, "o", &[known]).await;
    // What waits with a try of its own that replaced the wait is not woken.
    let again = waiting(&owner, "p", &[entry("c", "k")]).await;
    let retry = Some(work_row(&again, Status::Retry, true, Some(rig.now_ms() + 9)));
    owner.commit(vec![Settled { work: retry, had_work: true, ..stays(&again, Status::Retry, true, None) }]).await;
    // A try that something brings forward is.
    let sooner = waiting(&owner, "q", &[entry("c", "k")]).await;
    let retry = WorkRow { waits: vec![entry("c", "k")], ..work_row(&sooner, Status::Retry, true, Some(rig.now_ms() + 9_000)) };
    owner.commit(vec![Settled { work: Some(retry), had_work: true, ..stays(&sooner, Status::Retry, true, None) }]).await;
    owner.store.put_entries(&[put("c", "k", "v")], &[binding("n", "k", id)]).await.unwrap();
    assert_woken(&rig, &owner, &sooner).await;
    assert_woken(&rig, &owner, &for_entry).await;
    assert_woken(&rig, &owner, &for_id).await;
    let row = owner.store.rows(&[again.place]).await.unwrap().remove(0).row;
    assert_eq!((row.status, row.due_ms), (Status::Retry, Some(rig.now_ms() + 9)));
}
