//! What only PostgreSQL promises: several hosts at once, both transports, strings that its text cannot hold, a server that is away.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tolk::message::{Prejudged, Status};
use tolk::plugin::Write;
use tolk::store::{Appended, Clock, Config, Error, Found, Host, LaneStep, OutputCursor, Read, Settled, Settlement, Store, Verdict, open};

use super::rig::{LANES, LEASE_MS, Rig, by_index, by_key, done, end, entry, output, put, put_indexed, row, stays};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn living_hosts_share_lanes_and_a_leaver_gives_them_back() {
    let rig = Rig::postgres().await;
    let first = rig.owner().await;
    assert_eq!(first.owned.lanes.len(), usize::from(LANES));
    let other = rig.door().await;
    let second = other.join("second", LEASE_MS).await.unwrap();
    assert_eq!(other.claim(&second, &first.wanted()).await.unwrap().lanes.len(), 0, "everything is taken yet");
    let kept = first.store.claim(&first.host, &first.wanted()).await.unwrap();
    let taken = other.claim(&second, &first.wanted()).await.unwrap();
    assert_eq!((kept.lanes.len(), taken.lanes.len()), (2, 2));
    assert_eq!((kept.targets.len(), taken.targets.len()), (1, 1));
    assert!(taken.targets[0].taken_over, "its sends may be under way");
    for lane in &taken.lanes {
        assert!(lane.epoch > first.epoch(lane.lane), "the epoch rises at every change of owner");
    }
    first.store.leave(&first.host).await.unwrap();
    let all = other.claim(&second, &first.wanted()).await.unwrap();
    assert_eq!((all.lanes.len(), all.feeds.len(), all.targets.len()), (4, 1, 2));
    let left = all.targets.iter().find(|target| target.target == kept.targets[0].target).unwrap();
    assert!(!left.taken_over, "who left has nothing under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_joins_during_a_claim_stays() {
    let rig = Rig::postgres().await;
    let first = rig.owner().await;
    let other = rig.door().await;
    let second = other.join("second", LEASE_MS).await.unwrap();
    other.claim(&second, &first.wanted()).await.unwrap();
    // The claim has read who lives, and waits for lanes that it wants to give away.
    let lock = connection_of(&rig, &second, "BEGIN; SELECT lane FROM lane FOR UPDATE").await;
    let claiming = tokio::spawn({
        let (store, host, wanted) = (first.store.clone(), first.host.clone(), first.wanted());
        async move { store.claim(&host, &wanted).await }
    });
    let mut looking = connection_of(&rig, &second, "SELECT 1").await;
    let waits =
        "SELECT EXISTS (SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.application_name = $1)";
    let name = format!("tolk/{}", first.host.id);
    while !sqlx::query_scalar::<_, bool>(waits).bind(&name).fetch_one(&mut looking).await.unwrap() {
        tokio::task::yield_now().await;
    }
    let newcomer = rig.door().await;
    let third = newcomer.join("third", LEASE_MS).await.unwrap();
    drop(lock);
    let kept = claiming.await.unwrap().unwrap();
    assert_eq!(kept.lanes.len(), usize::from(LANES) / 2, "half goes to the second, who was there");
    assert!(newcomer.renew(&third, LEASE_MS).await.unwrap(), "the third host's lease is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_owner_is_seen_without_a_claim() {
    let rig = Rig::postgres().await;
    let first = rig.owner().await;
    let other = rig.door().await;
    let mut known = other.ownership().await.unwrap();
    let mut changed = async |what: &str| {
        let now = other.ownership().await.unwrap();
        assert_ne!(now, known, "{what}");
        assert_eq!(now, other.ownership().await.unwrap(), "{what}: and nothing since");
        known = now;
    };
    let second = other.join("second", LEASE_MS).await.unwrap();
    changed("a host joined").await;
    other.claim(&second, &first.wanted()).await.unwrap();
    changed("it said what it wants").await;
    first.store.claim(&first.host, &first.wanted()).await.unwrap();
    other.claim(&second, &first.wanted()).await.unwrap();
    changed("lanes moved").await;
    rig.pass_ms(LEASE_MS as i64 / 2);
    other.renew(&second, LEASE_MS).await.unwrap();
    rig.pass_ms(LEASE_MS as i64 / 2 + 1);
    changed("a lease ran out").await;
    other.claim(&second, &first.wanted()).await.unwrap();
    changed("it was taken over").await;
    other.leave(&second).await.unwrap();
    changed("a host left").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_hosts_locks_end_when_it_is_taken_over() {
    let rig = Rig::postgres().await;
    let first = rig.owner().await;
    let stopped = connection_of(&rig, &first.host, "BEGIN; SELECT number FROM settlement_guard FOR UPDATE").await;
    rig.pass_ms(LEASE_MS as i64 + 1);
    let other = rig.door().await;
    let second = other.join("second", LEASE_MS).await.unwrap();
    let owned = other.claim(&second, &first.wanted()).await.unwrap();
    assert_eq!(owned.lanes.len(), usize::from(LANES));
    assert!(owned.targets.iter().all(|target| target.taken_over), "its sends may be under way");
    drop(stopped);
}

/// A connection that carries a host's name and has run some statements.
async fn connection_of(rig: &Rig, host: &Host, sql: &'static str) -> sqlx::PgConnection {
    let options: sqlx::postgres::PgConnectOptions = rig.config.url.parse().unwrap();
    let options = options.application_name(&format!("tolk/{}", host.id)).options([("search_path", &rig.config.schema)]);
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settlements_of_two_hosts_are_serialisable() {
    const EACH: usize = 15;
    let rig = Rig::postgres().await;
    let first = rig.owner().await;
    let other = rig.door().await;
    let second = other.join("second", LEASE_MS).await.unwrap();
    // Each adds one to the same entry; whoever read an old value must read again.
    let ones = count(first.store.clone(), first.host.clone(), EACH);
    let others = count(other.clone(), second, EACH);
    let (ones, others) = tokio::join!(tokio::spawn(ones), tokio::spawn(others));
    let mut numbers = [ones.unwrap(), others.unwrap()].concat();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 2 * EACH);
    let found = other.read(&[entry("counter", "only")]).await.unwrap().found;
    assert_eq!(found, [Found::Entry(Some(Bytes::from((2 * EACH).to_string())))]);
}

/// Adds one to the counter so many times; the numbers of the settlements that did.
async fn count(store: Arc<dyn Store>, host: Host, times: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    let mut batch = i64::from(host.number) << 32;
    while numbers.len() < times {
        let snapshot = store.read(&[entry("counter", "only")]).await.unwrap();
        let Found::Entry(value) = &snapshot.found[0] else { panic!("{snapshot:?}") };
        let value: usize = value.as_ref().map_or(0, |value| std::str::from_utf8(value).unwrap().parse().unwrap());
        let settled = Settled {
            reads: vec![Read { request: entry("counter", "only"), at: snapshot.at }],
            writes: vec![put("counter", "only", &(value + 1).to_string())],
            ..nowhere()
        };
        batch += 1;
        match store.settle(&host, batch, &Settlement { settled: vec![settled], ..Settlement::default() }).await.unwrap() {
            Verdict::Committed { settlement, .. } => numbers.push(settlement),
            Verdict::Stale(stale) => assert_eq!((stale[0].index, stale[0].read), (0, Some(0))),
            Verdict::Fenced(lanes) => panic!("fenced: {lanes:?}"),
        }
    }
    numbers
}

/// A settled message of no lane: a settlement of it needs no fence.
fn nowhere() -> Settled {
    let new = row(0, 0, "k");
    Settled {
        place: super::rig::place(tolk::message::FeedId(0), 0, 0),
        run: 0,
        id: new.id,
        key_hash: new.key_hash,
        reads: Vec::new(),
        outputs: Vec::new(),
        writes: Vec::new(),
        bindings: Vec::new(),
        work: None,
        had_work: false,
        end: None,
        answers: None,
        activation: None,
        received_ms: 0,
        delivery: None,
        drops_older: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_transports_store_the_same() {
    let rig = Rig::postgres().await;
    let url = tokio::task::spawn_blocking(crate::support::postgres_tcp_url).await.unwrap().to_owned();
    let tcp = open(&Config { url, ..rig.config.clone() }, Clock::Database).await.unwrap();
    let socket = rig.owner().await;
    let mut rows = [row(0, 0, "k"), row(1, 1, "k"), row(0, 2, "k")];
    rows[0].captured.headers =
        vec![("h".into(), None), ("h".into(), Some(Bytes::new())), ("ø".into(), Some(Bytes::from_static(b"\0\xff")))];
    rows[0].captured.key = Some(Bytes::from_static(b"\0"));
    rows[1].captured.payload = None;
    rows[1].captured.timestamp_ms = Some(-1);
    rows[2].captured.payload = Some(Bytes::from(vec![7; 100_000]));
    rows[2].prejudged = Some(Prejudged { status: Status::Invalid, code: "no-key".into(), reason: "NUL \0 in it".into() });
    let mut seen = Vec::new();
    for (store, from) in [(&socket.store, 0_i64), (&tcp, 100)] {
        let mut rows = rows.clone();
        rows.iter_mut().for_each(|row| row.captured.offset += from);
        let expected = store.positions(socket.feed).await.unwrap().first().map(|position| position.next_offset);
        let advance = tolk::store::Advance { partition: 0, expected, next_offset: from + 3 };
        let answer = store.append(socket.feed, socket.feed_epoch(), &rows, &[advance]).await.unwrap();
        assert_eq!(answer, Appended::Done { duplicates: 0 });
        let mut found = socket.fetch().await;
        found.retain(|message| message.captured.offset >= from);
        let batch = socket.next_batch();
        let mut whole = output("a", "key", "payload");
        whole.headers = rows[0].captured.headers.clone();
        whole.version = Some(u64::MAX);
        let bare = tolk::plugin::Output { target: "a".into(), action: tolk::plugin::Action::Delete, ..Default::default() };
        let settled = Settled { outputs: vec![whole, bare], ..done(&found[0]) };
        let lane = LaneStep { feed: socket.feed, lane: 0, epoch: socket.epoch(0), cursor: found[0].place.n };
        let settlement = Settlement { lanes: vec![lane], settled: vec![settled], ..Settlement::default() };
        let answer = store.settle(&socket.host, batch, &settlement).await.unwrap();
        let Verdict::Committed { settlement, .. } = answer else { panic!("{answer:?}") };
        let (outputs, _) = store.outputs("a", OutputCursor { settlement: settlement - 1, index: i32::MAX }, 10, 1 << 20).await.unwrap();
        let outputs: Vec<_> =
            outputs.into_iter().map(|row| (row.cursor.index, row.action, row.key, row.payload, row.headers, row.version)).collect();
        found.iter_mut().for_each(|message| message.captured.offset -= from);
        let messages: Vec<_> = found.into_iter().map(|message| (message.captured, message.prejudged, message.table)).collect();
        seen.push((messages, outputs));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(
        seen[0].0.iter().map(|(captured, ..)| captured).collect::<Vec<_>>(),
        [&rows[0].captured, &rows[2].captured, &rows[1].captured]
    );
    assert_eq!(seen[0].1.len(), 2);
    // Large batches take the other way over TCP.
    let mut large = row(3, 200, "k");
    large.captured.payload = Some(Bytes::from(vec![9; 5 << 20]));
    let advance = tolk::store::Advance { partition: 0, expected: Some(103), next_offset: 201 };
    let answer = tcp.append(socket.feed, socket.feed_epoch(), &[large.clone()], &[advance]).await.unwrap();
    assert_eq!(answer, Appended::Done { duplicates: 0 });
    assert_eq!(socket.fetch().await.pop().unwrap().captured, large.captured);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strings_with_nul_are_kept_and_ordered() {
    let rig = Rig::postgres().await;
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b"]).await;
    let nul = put_indexed("c\0", "a\0b", "v", &[("i\0", "x\0y")]);
    let mut stuck = stays(&messages[1], Status::Failed, true, None);
    stuck.work.as_mut().unwrap().reason = "a\0reason".into();
    let ended = Settled {
        writes: vec![nul, put("c\0", "a", "v"), put("c\0", "b", "v")],
        end: Some(end(Status::Handled, None)),
        ..done(&messages[0])
    };
    owner.commit(vec![Settled { end: ended.end.clone().map(|end| tolk::store::End { reason: "\0".into(), ..end }), ..ended }, stuck]).await;
    let keys = |items: Vec<(String, Bytes)>| items.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(owner.store.entries(&by_key("c\0", "a")).await.unwrap()), ["a", "a\0b"]);
    assert_eq!(keys(owner.store.entries(&by_key("c\0", "a\0")).await.unwrap()), ["a\0b"]);
    assert_eq!(keys(owner.store.entries(&by_index("c\0", "i\0", "x\0")).await.unwrap()), ["a\0b"]);
    assert_eq!(owner.store.message(messages[0].id).await.unwrap().unwrap().status.reason.as_deref(), Some("\0"));
    assert_eq!(owner.store.rows(&[messages[1].place]).await.unwrap()[0].row.reason, "a\0reason");
    let removal = Write { value: None, indexes: Vec::new(), ..put("c\0", "a\0b", "") };
    owner.write(vec![removal]).await;
    assert!(owner.store.entries(&by_index("c\0", "i\0", "x")).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_named_without_its_password() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://tolk:secret@127.0.0.1:{port}/tolk");
    let config = Config { url, schema: "tolk".into(), connections_max: 2, statement_timeout_ms: 1_000 };
    let store = open(&config, Clock::Database).await.unwrap();
    let verb = tokio::time::timeout(Duration::from_secs(9), store.revision());
    let error = verb.await.expect("a refused connection is known at once").unwrap_err();
    assert!(matches!(error, Error::Away { .. }) && error.is_transient(), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&port.to_string()) && text.contains("refused") && !text.contains("secret"), "{text}");
}
