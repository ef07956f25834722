//! Cases of `Leases`: who owns what, for how long, and how a former owner is kept out.

use tolk::store::{Appended, LaneStep, OutputCursor, Settlement, Verdict, Wanted};

use super::rig::{LANES, LEASE_MS, Owner, Rig, row};

pub async fn feeds_and_targets_keep_their_numbers(rig: Rig) {
    let names = [("one".to_owned(), 4), ("two".to_owned(), 8)];
    let first = rig.store.register(&names, &["t".to_owned()]).await.unwrap();
    assert_eq!((first[0].1, first[1].1), (4, 8));
    assert_ne!(first[0].0, first[1].0);
    let again = rig.store.register(&[("two".to_owned(), 99), ("one".to_owned(), 1)], &["t".to_owned()]).await.unwrap();
    assert_eq!(again, vec![first[1], first[0]], "the lanes of a known feed stay as they were");
}

pub async fn the_only_host_gets_everything(rig: Rig) {
    let owner = rig.owner().await;
    assert_eq!(owner.owned.feeds.iter().map(|(feed, _)| *feed).collect::<Vec<_>>(), vec![owner.feed]);
    let mut lanes: Vec<_> = owner.owned.lanes.iter().map(|lane| lane.lane).collect();
    lanes.sort_unstable();
    assert_eq!(lanes, (0..i32::from(LANES)).collect::<Vec<_>>());
    assert!(owner.owned.lanes.iter().all(|lane| lane.epoch > 0 && lane.cursor == 0 && lane.feed == owner.feed));
    let mut targets: Vec<_> = owner.owned.targets.iter().map(|target| target.target.as_str()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["a", "b"]);
    assert!(owner.owned.targets.iter().all(|target| !target.taken_over && target.cursor.settlement == 0));
}

pub async fn claiming_again_changes_nothing(rig: Rig) {
    let owner = rig.owner().await;
    let again = owner.store.claim(&owner.host, &owner.wanted()).await.unwrap();
    let sorted = |mut lanes: Vec<tolk::store::LaneLease>| {
        lanes.sort_by_key(|lane| lane.lane);
        lanes
    };
    assert_eq!(sorted(again.lanes), sorted(owner.owned.lanes.clone()));
    assert_eq!(again.feeds, owner.owned.feeds);
    assert_eq!(again.targets.len(), 2);
    for target in again.targets {
        assert_eq!(target.epoch, owner.target_epoch(&target.target));
    }
}

pub async fn a_lease_must_be_renewed_in_time(rig: Rig) {
    let owner = rig.owner().await;
    rig.pass_ms(LEASE_MS as i64 - 1);
    assert!(owner.store.renew(&owner.host, LEASE_MS).await.unwrap());
    rig.pass_ms(LEASE_MS as i64 - 1);
    assert!(owner.store.renew(&owner.host, LEASE_MS).await.unwrap());
    rig.pass_ms(LEASE_MS as i64 + 1);
    assert!(!owner.store.renew(&owner.host, LEASE_MS).await.unwrap());
}

pub async fn what_is_given_back_is_free_at_once(rig: Rig) {
    let first = rig.owner().await;
    first.store.leave(&first.host).await.unwrap();
    assert!(!first.store.renew(&first.host, LEASE_MS).await.unwrap());
    let second = Owner::new(rig.door().await).await;
    assert_eq!(second.owned.lanes.len(), usize::from(LANES));
    assert_ne!(second.host.number, first.host.number);
    assert_ne!(second.host.id, first.host.id);
    assert!((0..4).all(|lane| second.epoch(lane) > first.epoch(lane)));
    assert!(second.owned.targets.iter().all(|target| !target.taken_over));
}

pub async fn an_expired_host_is_taken_over_and_fenced(mut rig: Rig) {
    let store = rig.door().await;
    let zombie = Owner::new(std::mem::replace(&mut rig.store, store)).await;
    zombie.append(&[row(0, 0, "k")]).await;
    let (host, feed, feed_epoch) = (zombie.host.clone(), zombie.feed, zombie.feed_epoch());
    let (lane_epoch, target_epoch) = (zombie.epoch(0), zombie.target_epoch("a"));
    // The process is gone; its lease is not.
    drop(zombie);
    rig.pass_ms(LEASE_MS as i64 + 1);
    let next = rig.owner().await;
    assert_eq!(next.owned.lanes.len(), usize::from(LANES));
    assert_eq!(next.epoch(0), lane_epoch + 1);
    assert_eq!(next.feed_epoch(), feed_epoch + 1);
    assert_eq!(next.target_epoch("a"), target_epoch + 1);
    assert!(next.owned.targets.iter().all(|target| target.taken_over));

    let store = &rig.store;
    let step = LaneStep { feed, lane: 0, epoch: lane_epoch, cursor: 1 };
    let late = Settlement { lanes: vec![step], ..Settlement::default() };
    assert_eq!(store.settle(&host, 1, &late).await.unwrap(), Verdict::Fenced(vec![(feed, 0)]));
    assert_eq!(store.append(feed, feed_epoch, &[row(0, 1, "k")], &[]).await.unwrap(), Appended::Fenced);
    let cursor = OutputCursor { settlement: 1, index: 0 };
    assert!(!store.published("a", target_epoch, cursor, &[]).await.unwrap());
    assert!(!store.renew(&host, LEASE_MS).await.unwrap());
    assert_eq!(next.fetch().await.len(), 1);
}

pub async fn released_lanes_are_fenced(rig: Rig) {
    let owner = rig.owner().await;
    owner.append(&[row(0, 0, "k")]).await;
    owner.store.release_lanes(&owner.host, owner.feed).await.unwrap();
    let step = LaneStep { feed: owner.feed, lane: 0, epoch: owner.epoch(0), cursor: 1 };
    let late = Settlement { lanes: vec![step], ..Settlement::default() };
    let verdict = owner.store.settle(&owner.host, owner.next_batch(), &late).await.unwrap();
    assert_eq!(verdict, Verdict::Fenced(vec![(owner.feed, 0)]));
    let kept = owner.store.claim(&owner.host, &Wanted { feeds: Vec::new(), ..owner.wanted() }).await.unwrap();
    assert_eq!(kept.targets.len(), 2, "the targets stay");
    assert!(kept.lanes.is_empty());
    let again = owner.store.claim(&owner.host, &owner.wanted()).await.unwrap();
    assert_eq!(again.lanes.len(), usize::from(LANES));
    assert!(again.lanes.iter().all(|lane| lane.epoch > owner.epoch(lane.lane)));
}

pub async fn what_is_abandoned_is_free_but_may_be_sending(rig: Rig) {
    let first = rig.owner().await;
    rig.pass_ms(LEASE_MS as i64 + 1);
    first.store.abandon(&first.host).await.unwrap();
    let again = rig.owner().await;
    assert_eq!(again.owned.lanes.len(), usize::from(LANES));
    assert!(again.owned.targets.iter().all(|target| target.taken_over), "its last sends may be under way");
}

pub async fn deaths_of_owners_are_counted_until_a_lane_is_calm(mut rig: Rig) {
    for died in 0..2 {
        let store = rig.door().await;
        let zombie = Owner::new(std::mem::replace(&mut rig.store, store)).await;
        zombie.append(&[row(0, died, "k")]).await;
        assert!(zombie.owned.lanes.iter().all(|lane| i64::from(lane.crashes) == died));
        drop(zombie);
        rig.pass_ms(LEASE_MS as i64 + 1);
    }
    let owner = rig.owner().await;
    let crashes = |owned: &tolk::store::Owned| {
        let mut lanes = owned.lanes.clone();
        lanes.sort_by_key(|lane| lane.lane);
        lanes.iter().map(|lane| (lane.crashes, lane.tail)).collect::<Vec<_>>()
    };
    assert_eq!(crashes(&owner.owned)[..2], [(2, 2), (2, 0)]);
    let stranger = tolk::store::Host { id: uuid::Uuid::new_v4(), ..owner.host.clone() };
    owner.store.calm(&stranger, &[(owner.feed, 1)]).await.unwrap();
    owner.store.calm(&owner.host, &[(owner.feed, 0)]).await.unwrap();
    let claimed = owner.store.claim(&owner.host, &owner.wanted()).await.unwrap();
    assert_eq!(crashes(&claimed)[..2], [(0, 2), (2, 0)], "only what the owner says of its own");
    owner.store.leave(&owner.host).await.unwrap();
    let next = Owner::new(rig.door().await).await;
    assert_eq!(crashes(&next.owned)[..2], [(0, 2), (2, 0)], "who leaves has not died");
    rig.pass_ms(LEASE_MS as i64 + 1);
    next.store.abandon(&next.host).await.unwrap();
    let again = Owner::new(next.store.clone()).await;
    assert_eq!(crashes(&again.owned)[..2], [(0, 2), (2, 0)], "nor has who comes too late");
}
