//! Cases of `Schema`: migrations, the secret, the clock.

use std::collections::HashSet;

use tolk::store::{Clock, Error, open};

use super::rig::{Rig, START_MS};

pub async fn migrate_twice_is_a_no_op(rig: Rig) {
    let (found, known) = rig.store.schema_version().await.unwrap();
    assert!(found > 0);
    assert_eq!(found, known);
    assert_eq!(rig.store.migrate().await.unwrap(), Vec::<String>::new());
    assert_eq!(rig.door().await.migrate().await.unwrap(), Vec::<String>::new());
}

pub async fn hosts_may_migrate_at_once(mut rig: Rig) {
    if rig.is_postgres() {
        rig.config.schema += "_b";
    } else {
        rig.config.url += "_b";
    }
    let doors = [rig.door().await, rig.door().await, rig.door().await];
    assert_eq!(doors[0].schema_version().await.unwrap().0, 0);
    let (a, b, c) = tokio::join!(doors[0].migrate(), doors[1].migrate(), doors[2].migrate());
    let applied: Vec<String> = [a.unwrap(), b.unwrap(), c.unwrap()].concat();
    assert!(!applied.is_empty());
    assert_eq!(applied.iter().collect::<HashSet<_>>().len(), applied.len(), "each is applied once: {applied:?}");
    let (found, known) = doors[0].schema_version().await.unwrap();
    assert_eq!(found, known);
}

pub async fn a_newer_schema_is_refused(rig: Rig) {
    rig.store.join("case", 1_000).await.unwrap();
    rig.execute("insert into {schema}schema_version (version, name, applied_ms) values (9999, 'from-the-future', 0)").await;
    let (found, known) = rig.store.schema_version().await.unwrap();
    assert_eq!(found, 9999);
    assert!(known < 9999);
    let refused = rig.door().await.migrate().await.unwrap_err();
    assert!(matches!(refused, Error::Schema { found: 9999, .. }), "{refused}");
    let refused = rig.door().await.join("case", 1_000).await.unwrap_err();
    assert!(matches!(refused, Error::Schema { found: 9999, .. }), "{refused}");
    let refused = rig.store.join("case", 1_000).await.unwrap_err();
    assert!(matches!(refused, Error::Schema { found: 9999, .. }), "a host that ran before the migration joins again: {refused}");
}

pub async fn the_secret_is_made_once(rig: Rig) {
    let (door, other) = (rig.door().await, rig.door().await);
    let (a, b) = tokio::join!(door.secret(), other.secret());
    let secret = rig.store.secret().await.unwrap();
    assert_ne!(secret, [0; 32]);
    assert_eq!(a.unwrap(), secret);
    assert_eq!(b.unwrap(), secret);
}

pub async fn time_is_the_clock_that_was_given(rig: Rig) {
    assert_eq!(rig.store.now_ms().await.unwrap(), START_MS);
    rig.pass_ms(5);
    assert_eq!(rig.store.now_ms().await.unwrap(), START_MS + 5);
    let real = open(&rig.config, Clock::Database).await.unwrap();
    assert!(real.now_ms().await.unwrap() > START_MS + 60_000);
    assert!(!real.about().await.unwrap().is_empty());
}
