//! Cases of `Work`: what the cursor has passed unfinished, when it is due, and who holds back whom.

use tolk::message::{KeyHash, Status};
use tolk::plugin::Cause;
use tolk::store::{BlockedKey, Settled, Verdict, WorkRow};

use super::rig::{Rig, done, place, row, stays, work_row};

const ALL: (i64, i64) = (1_000, 1 << 40);

pub async fn blocking_rows_block_their_key(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["x", "y", "z"]).await;
    owner
        .commit(vec![
            stays(&messages[0], Status::Retry, true, Some(1)),
            stays(&messages[1], Status::Failed, false, None),
            stays(&messages[2], Status::Failed, true, None),
        ])
        .await;
    let key = |name: &str| BlockedKey { feed: owner.feed, lane: 0, key_hash: KeyHash::of("T", name.as_bytes()) };
    let mut blocked = owner.store.blocked(&owner.lanes()).await.unwrap();
    let mut expected = vec![key("x"), key("z")];
    blocked.sort_by_key(|key| key.key_hash);
    expected.sort_by_key(|key| key.key_hash);
    assert_eq!(blocked, expected);
    assert!(owner.store.blocked(&[(owner.feed, 1)]).await.unwrap().is_empty());
    assert!(owner.store.blocked(&[]).await.unwrap().is_empty());
}

pub async fn due_rows_come_oldest_first(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "c", "d", "e"]).await;
    let now = rig.now_ms();
    let mut first = stays(&messages[0], Status::Retry, true, Some(now - 1));
    let row = first.work.as_mut().unwrap();
    (row.attempts, row.cause, row.waiting_since_ms, row.activation) = (3, Cause::Retry, Some(7), None);
    let expected: WorkRow = row.clone();
    owner
        .commit(vec![
            first,
            stays(&messages[1], Status::Retry, true, Some(now - 50)),
            stays(&messages[2], Status::Waiting, true, Some(now)),
            stays(&messages[3], Status::Retry, true, Some(now + 10)),
            stays(&messages[4], Status::Failed, true, None),
        ])
        .await;
    let due = async |in_hand: &[_], rows, bytes| {
        let due = owner.store.due(&owner.lanes(), in_hand, rows, bytes).await.unwrap();
        due.iter().map(|due| due.row.place.n).collect::<Vec<_>>()
    };
    assert_eq!(due(&[], ALL.0, ALL.1).await, [2, 1, 3]);
    assert_eq!(due(&[], 2, ALL.1).await, [2, 1]);
    assert_eq!(due(&[], ALL.0, 1).await, [2]);
    assert_eq!(due(&[messages[1].place, messages[2].place], 1, ALL.1).await, [1]);
    let whole = owner.store.due(&owner.lanes(), &[], ALL.0, ALL.1).await.unwrap().remove(1);
    assert_eq!(whole.row, expected);
    assert_eq!(whole.message.captured, messages[0].captured);
    assert_eq!(whole.message.place, messages[0].place);
    assert_eq!(owner.store.next_due_ms(&owner.lanes()).await.unwrap(), Some(now - 50));
    assert_eq!(owner.store.next_due_ms(&[(owner.feed, 2)]).await.unwrap(), None);
    rig.pass_ms(10);
    assert_eq!(due(&[], ALL.0, ALL.1).await, [2, 1, 3, 4]);
}

pub async fn running_rows_resume(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "c"]).await;
    owner
        .commit(vec![
            stays(&messages[0], Status::Pending, true, None),
            stays(&messages[1], Status::Failed, true, None),
            stays(&messages[2], Status::Retry, true, Some(rig.now_ms() + 5)),
        ])
        .await;
    assert!(owner.store.due(&owner.lanes(), &[], ALL.0, ALL.1).await.unwrap().is_empty());
    assert_eq!(owner.store.resume(&[(owner.feed, 3)]).await.unwrap(), 0);
    assert_eq!(owner.store.resume(&owner.lanes()).await.unwrap(), 1);
    let due = owner.store.due(&owner.lanes(), &[], ALL.0, ALL.1).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].row.place, messages[0].place);
    assert_eq!(due[0].row.due_ms, Some(rig.now_ms()));
    let places = [messages[2].place, messages[0].place, place(owner.feed, 1, 9)];
    let rows = owner.store.rows(&places).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.row.place.n).collect::<Vec<_>>(), [1, 3]);
}

fn leaves(settled: Settled) -> Settled {
    Settled { had_work: true, ..settled }
}

pub async fn behind_rows_are_released_one_by_one(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["k", "k", "other", "k"]).await;
    let key = BlockedKey { feed: owner.feed, lane: 0, key_hash: messages[0].key_hash };
    owner
        .commit(vec![
            stays(&messages[0], Status::Retry, true, Some(rig.now_ms() + 1_000)),
            stays(&messages[1], Status::Behind, true, None),
            stays(&messages[2], Status::Failed, true, None),
            stays(&messages[3], Status::Behind, true, None),
        ])
        .await;
    let behind = owner.store.behind(key, 1, 10).await.unwrap();
    assert_eq!(behind.iter().map(|row| row.row.place.n).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(behind[0].message.id, messages[1].id);
    assert_eq!(owner.store.behind(key, 1, 1).await.unwrap().len(), 1);

    rig.pass_ms(3);
    let verdict = owner.settle(vec![leaves(done(&messages[0]))]).await;
    assert!(matches!(&verdict, Verdict::Committed { still_blocked, .. } if *still_blocked == [key]), "{verdict:?}");
    let due = owner.store.due(&owner.lanes(), &[], ALL.0, ALL.1).await.unwrap();
    assert_eq!(due.iter().map(|row| (row.row.place.n, row.row.status)).collect::<Vec<_>>(), [(2, Status::Pending)]);
    assert_eq!(due[0].row.due_ms, Some(rig.now_ms()));
    assert_eq!(owner.store.behind(key, 2, 10).await.unwrap()[0].row.status, Status::Behind);

    // The last two leave in one settlement.
    let verdict = owner.settle(vec![leaves(done(&messages[1])), leaves(done(&messages[3]))]).await;
    assert!(matches!(&verdict, Verdict::Committed { still_blocked, .. } if still_blocked.is_empty()), "{verdict:?}");
    assert!(owner.store.due(&owner.lanes(), &[], ALL.0, ALL.1).await.unwrap().is_empty());
}

pub async fn a_row_that_stops_blocking_releases_its_key(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["k", "k"]).await;
    let key = BlockedKey { feed: owner.feed, lane: 0, key_hash: messages[0].key_hash };
    owner.commit(vec![stays(&messages[0], Status::Retry, true, Some(1)), stays(&messages[1], Status::Behind, true, None)]).await;
    // As policy `skip` has it: the failed row stays and holds nothing back.
    let failed = Settled { work: Some(work_row(&messages[0], Status::Failed, false, None)), ..leaves(done(&messages[0])) };
    let verdict = owner.settle(vec![failed]).await;
    assert!(matches!(&verdict, Verdict::Committed { still_blocked, .. } if *still_blocked == [key]), "{verdict:?}");
    let due = owner.store.due(&owner.lanes(), &[], ALL.0, ALL.1).await.unwrap();
    assert_eq!(due.iter().map(|row| row.row.place.n).collect::<Vec<_>>(), [2]);
}

pub async fn a_released_key_without_rows_is_free(rig: Rig) {
    let owner = rig.owner().await;
    owner.append(&[row(1, 0, "k"), row(2, 1, "k2")]).await;
    let messages = owner.fetch().await;
    owner.commit(vec![stays(&messages[0], Status::Retry, true, Some(1)), stays(&messages[1], Status::Retry, true, Some(1))]).await;
    // One stays blocked by itself: that is no release.
    let again = Settled { work: Some(work_row(&messages[1], Status::Retry, true, Some(9))), ..leaves(done(&messages[1])) };
    let verdict = owner.settle(vec![leaves(done(&messages[0])), again]).await;
    assert!(matches!(&verdict, Verdict::Committed { still_blocked, .. } if still_blocked.is_empty()), "{verdict:?}");
    let blocked = owner.store.blocked(&owner.lanes()).await.unwrap();
    assert_eq!(blocked.iter().map(|key| key.lane).collect::<Vec<_>>(), [2]);
    let left = owner.store.rows(&[messages[0].place, messages[1].place]).await.unwrap();
    assert_eq!(left.iter().map(|row| (row.row.place.lane, row.row.due_ms)).collect::<Vec<_>>(), [(2, Some(9))]);
}

pub async fn a_row_behind_nobody_is_due(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["k", "k", "k"]).await;
    owner.commit(vec![done(&messages[0])]).await;
    // Its owner thought that the first still stood before it.
    owner.commit(vec![stays(&messages[1], Status::Behind, true, None), stays(&messages[2], Status::Behind, true, None)]).await;
    let due = owner.store.due(&owner.lanes(), &[], ALL.0, ALL.1).await.unwrap();
    assert_eq!(due.iter().map(|row| (row.row.place.n, row.row.status)).collect::<Vec<_>>(), [(2, Status::Pending)]);
}
