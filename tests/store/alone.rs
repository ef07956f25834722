//! What only SQLite promises: one host on one file, and commands that read beside it.

use tolk::store::{Clock, Config, Error, Filter, open};

use super::plugins::activation;
use super::rig::{LEASE_MS, Owner, Rig, put, row};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_host_is_refused() {
    let mut rig = Rig::sqlite().await;
    let first = rig.owner().await;
    let door = rig.door().await;
    let refused = door.join("second", LEASE_MS).await.unwrap_err();
    assert!(matches!(&refused, Error::InUse { path, other } if path.ends_with("tolk.db") && other.contains("case")), "{refused}");
    assert!(!refused.is_transient());
    // An expired lease does not help: the process lives.
    rig.pass_ms(LEASE_MS as i64 + 1);
    assert!(door.join("second", LEASE_MS).await.is_err());
    // The same host may join again.
    let again = first.store.join("case", LEASE_MS).await.unwrap();
    assert_ne!(again.number, first.host.number);
    // A host that is gone frees the file at once, whatever its lease says.
    drop(first);
    rig.store = door.clone();
    let second = Owner::new(door).await;
    assert!(second.owned.targets.iter().all(|target| target.taken_over));
    second.store.leave(&second.host).await.unwrap();
    Owner::new(rig.door().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_work_beside_a_host() {
    let rig = Rig::sqlite().await;
    let owner = rig.owner().await;
    owner.append(&[row(0, 0, "k")]).await;
    let door = rig.door().await;
    assert_eq!(door.messages(&Filter { limit: 9, ..Filter::default() }).await.unwrap().len(), 1);
    let revision = door.activate(&activation("T", tolk::plugin::Digest::of(b"x"), 1)).await.unwrap();
    door.put_entries(&[put("c", "k", "v")], &[]).await.unwrap();
    assert_eq!(owner.store.revision().await.unwrap(), revision);
    assert!(owner.store.renew(&owner.host, LEASE_MS).await.unwrap());
}

#[tokio::test]
async fn memory_is_refused() {
    for url in ["sqlite::memory:", "sqlite://x?mode=memory"] {
        let config = Config { url: url.to_owned(), ..without_url() };
        assert!(matches!(open(&config, Clock::Database).await, Err(Error::Config(_))), "{url}");
    }
}

fn without_url() -> Config {
    Config { url: String::new(), schema: String::new(), connections_max: 2, statement_timeout_ms: 1_000 }
}
