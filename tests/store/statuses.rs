//! Cases of the view: each status a person can see, with its code, reason, attempts, digest and times.

use std::sync::Arc;

use tolk::message::{Message, NewMessage, Prejudged, Status};
use tolk::store::{MessageStatus, Range, Settled, Settlement, Verdict};

use super::messages::active_plugin;
use super::rig::{Owner, Rig, START_MS, done, end, row, stays};

async fn status(owner: &Owner, message: &Message) -> MessageStatus {
    owner.store.message(message.id).await.unwrap().unwrap().status
}

pub async fn work_shows_its_own_status(rig: Rig) {
    let owner = rig.owner().await;
    let (activation, digest) = active_plugin(&owner, b"one").await;
    let statuses = [Status::Pending, Status::Retry, Status::Waiting, Status::Behind, Status::Held, Status::Failed, Status::Stopped];
    // Whoever is behind is so by an earlier message of its key.
    let key = |status: &Status| if *status == Status::Behind { "retry" } else { status.as_str() };
    let keys: Vec<_> = statuses.iter().map(key).collect();
    let messages = owner.messages(&keys).await;
    let stay = |(message, status): (&Message, Status)| {
        let mut settled = stays(message, status, true, (status == Status::Retry).then_some(START_MS + 99));
        let row = settled.work.as_mut().unwrap();
        (row.attempts, row.activation) = (3, Some(activation));
        settled
    };
    rig.pass_ms(4);
    owner.commit(messages.iter().zip(statuses).map(stay).collect()).await;
    for (message, expected) in messages.iter().zip(statuses) {
        let found = status(&owner, message).await;
        assert_eq!(found.status, expected.as_str());
        assert_eq!((found.code.as_deref(), found.reason.as_deref()), (Some("a-code"), Some("a reason")));
        assert_eq!((found.attempts, found.digest), (3, Some(digest.to_string())));
        assert_eq!(found.settled_ms, Some(START_MS + 4));
        assert_eq!(found.due_ms, (expected == Status::Retry).then_some(START_MS + 99));
        assert_eq!(found.key.as_deref(), Some(key(&expected)));
    }
}

pub async fn ends_show_their_status(rig: Rig) {
    let owner = rig.owner().await;
    let (activation, digest) = active_plugin(&owner, b"one").await;
    let statuses = [Status::Handled, Status::Ignored, Status::Invalid, Status::Failed, Status::Finished];
    let messages = owner.messages(&["a", "b", "c", "d", "e"]).await;
    let ends = |(message, status): (&Message, Status)| Settled { end: Some(end(status, Some(activation))), ..done(message) };
    rig.pass_ms(4);
    let settlement = owner.commit(messages.iter().zip(statuses).map(ends).collect()).await;
    for (message, expected) in messages.iter().zip(statuses) {
        let found = owner.store.message(message.id).await.unwrap().unwrap();
        assert_eq!((found.settlement, found.now_ms), (Some(settlement), Some(START_MS + 5)));
        assert_eq!(found.status.status, expected.as_str());
        assert_eq!((found.status.code.as_deref(), found.status.reason.as_deref()), (Some("a-code"), Some("a reason")));
        assert_eq!((found.status.attempts, found.status.digest), (2, Some(digest.to_string())));
        assert_eq!((found.status.settled_ms, found.status.due_ms), (Some(START_MS + 4), None));
    }
}

pub async fn a_plain_message_is_handled_by_its_range(rig: Rig) {
    let owner = rig.owner().await;
    let (old, old_digest) = active_plugin(&owner, b"old").await;
    let (new, new_digest) = active_plugin(&owner, b"new").await;
    owner.append(&[row(0, 0, "a"), NewMessage { table: Arc::from("U\""), ..row(0, 1, "b") }, row(0, 2, "c"), row(0, 3, "d")]).await;
    let messages = owner.fetch().await;
    // The third stays in work; the ranges of the first settlement cover it all the same.
    let stay = stays(&messages[2], Status::Retry, true, Some(1));
    let first = owner.settlement(vec![done(&messages[0]), done(&messages[1]), stay, done(&messages[3])]);
    let activations = vec![(Arc::from("T"), old), (Arc::from("U\""), new)];
    let range = Range { feed: owner.feed, lane: 0, from: 1, to: 4, now_ms: 5, activations };
    let first = Settlement { ranges: vec![range], ..first };
    assert!(matches!(owner.store.settle(&owner.host, owner.next_batch(), &first).await.unwrap(), Verdict::Committed { .. }));
    let digests = async |message| {
        let found = status(&owner, message).await;
        (found.status, found.digest)
    };
    assert_eq!(digests(&messages[0]).await, ("handled".to_owned(), Some(old_digest.to_string())));
    assert_eq!(digests(&messages[1]).await, ("handled".to_owned(), Some(new_digest.to_string())));
    assert_eq!(digests(&messages[2]).await, ("retry".to_owned(), None));
    assert_eq!(digests(&messages[3]).await, ("handled".to_owned(), Some(old_digest.to_string())));
    // Later it is handled by another plugin: its own range counts, for it alone.
    rig.pass_ms(50);
    owner.commit_by(new, 7, vec![Settled { had_work: true, ..done(&messages[2]) }]).await;
    let found = status(&owner, &messages[2]).await;
    assert_eq!((found.status.as_str(), found.digest, found.settled_ms), ("handled", Some(new_digest.to_string()), Some(START_MS + 50)));
    assert_eq!((found.code, found.reason, found.attempts), (None, None, 0));
    assert_eq!(digests(&messages[0]).await.1, Some(old_digest.to_string()));
    assert_eq!(status(&owner, &messages[0]).await.settled_ms, Some(START_MS));
}

pub async fn nobody_judged_it_yet(rig: Rig) {
    let owner = rig.owner().await;
    let prejudged = Prejudged { status: Status::Invalid, code: "no-table".to_owned(), reason: "no pointer".to_owned() };
    owner.append(&[NewMessage { prejudged: Some(prejudged), ..row(0, 0, "a") }]).await;
    let message = owner.fetch().await.remove(0);
    let found = status(&owner, &message).await;
    assert_eq!(found.status, "pending", "until it is settled");
    assert_eq!((found.settled_ms, found.due_ms, found.digest, found.attempts), (None, None, None, 0));
    assert_eq!(found.received_ms, START_MS);
}
