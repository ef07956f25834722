//! Remote systems that are broken or mean harm, called by real hosts: what they cost is one attempt of one message, within its deadline and its
//! cap, and nobody is led where no endpoint points.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::plugins::peak_kb;
use crate::preload;
use crate::records::ends;
use crate::script::{ANY_ATTEMPT, Message, Saw};
use crate::stub::{Reply, Request, Stub};
use crate::table::{Case, Experiment, experiment};
use crate::world::{Resends, World};

pub fn all() -> Vec<Experiment> {
    vec![
        experiment!(
            "H01",
            short,
            "an endpoint hangs, drips, resets, answers 500, 429, 1 GiB, a redirect to a metadata address, gzip",
            misbehaves
        ),
        experiment!("H02", short, "names that turn into a cloud's metadata address, at once or later; odd ways to write it", names),
        experiment!("H03", short, "answers after our time-out; a host killed during a call", late),
    ]
}

/// A server on a thread of its own: an experiment blocks its runtime now and then.
fn serve(decide: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Stub {
    let (started, stub) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            started.send(Stub::start(decide).await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    stub.recv().unwrap()
}

/// Points the endpoint of the world's config somewhere.
fn point(world: &World, base_url: &str, settings: &str) {
    let config = world.rig.tolk.read("tolk.toml");
    let (before, rest) = config.split_once("[endpoints.e]").unwrap();
    let after = rest.split_once("[limits.").unwrap().1;
    let endpoint = format!("[endpoints.e]\nbase_url = {base_url:?}\npath = \"/{{item}}\"\n{settings}\n");
    world.rig.tolk.write("tolk.toml", &format!("{before}{endpoint}[limits.{after}"));
}

/// A message that calls; handled when it is answered with 200, whichever attempt that is.
fn calling(world: &mut World, item: &str) -> Message {
    let saw = Saw::Values(vec![200.into()]);
    world.scripts.script("b", &format!("call-{item}"), json!({ "call": item }), ANY_ATTEMPT, saw)
}

/// The item that a request asks for, without its number.
fn item(request: &Request) -> &str {
    request.path.trim_start_matches('/').split('-').next().unwrap_or_default()
}

async fn misbehaves(case: Case) -> String {
    let healed = Arc::new(AtomicBool::new(false));
    let trap = serve(|_, _| Reply::json(200, "{\"secret\":1}"));
    let (is_healed, secret) = (healed.clone(), trap.url());
    let stub = serve(move |_, request| {
        let gone = |to: &str| Reply::json(302, "").with_header("location", to);
        match item(request) {
            "redirect" => gone("http://169.254.169.254/latest/meta-data"),
            "elsewhere" => gone(&secret),
            "huge" => Reply::Huge { bytes: 1 << 30, declared: false },
            "declared" => Reply::Huge { bytes: 1 << 30, declared: true },
            "gzip" => Reply::json(200, "\u{1f}bomb").with_header("content-encoding", "gzip"),
            _ if is_healed.load(Ordering::SeqCst) => Reply::json(200, "{}"),
            "hang" => Reply::Hang,
            "drip" => Reply::Drip(Duration::from_millis(100)),
            "reset" => Reply::Reset,
            "torn" => Reply::Torn("{\"half\":".to_owned()),
            "nonsense" => Reply::Raw(b"SSH-2.0-x\r\n".to_vec()),
            "throttled" => Reply::json(429, "").with_header("retry-after", "1"),
            _ => Reply::json(500, "boom"),
        }
    });
    let mut world = World::shared(case.seed).await;
    let settings = "timeout_ms = 300\ntries = 1\naway_ms = [200]\nbody_bytes_max = 1100000\nbreaker_failures = 5\nbreaker_open_ms = 300";
    point(&world, &stub.url(), settings);
    // What is broken for good fails in the end, by its own name; tried less often than what comes back.
    world.configure("attempts_max = 10", "attempts_max = 4, classes = { remote-status = { attempts_max = 1000, backoff_ms = [200] } }");
    let (for_good, passing): (&[(&str, &str)], _) = (
        &[
            ("redirect", "remote-redirect"),
            ("elsewhere", "remote-redirect"),
            ("huge", "remote-too-large"),
            ("declared", "remote-too-large"),
            ("gzip", "remote-encoding"),
        ],
        ["hang", "drip", "reset", "torn", "nonsense", "throttled", "broken"],
    );
    world.start(2);
    world.load(100);
    world.until_ended(40).await;
    let before: i64 = world.hosts.iter().map(peak_kb).max().unwrap();
    for number in 0..if case.full { 20 } else { 2 } {
        let broken: Vec<Message> = for_good
            .iter()
            .map(|(word, code)| {
                let message = calling(&mut world, &format!("{word}-{number}"));
                Message { status: "failed", code: Some(code), outputs: Vec::new(), ..message }
            })
            .collect();
        world.send(broken);
        let passing: Vec<Message> = passing.iter().map(|word| calling(&mut world, &format!("{word}-{number}"))).collect();
        world.send(passing);
    }
    // Everything that calls nobody goes on meanwhile.
    world.load(100);
    let calls = world.sent.iter().filter(|message| message.captured.key.as_ref().unwrap().starts_with(b"call-")).count();
    let others = world.sent.len() - calls - 40;
    world.until_ended(others).await;
    let sql = "SELECT count(*) FROM work WHERE code IN ('endpoint-away', 'remote-status')";
    world.until("calls that failed wait for another try", async |world| (world.books.count(sql).await > 0, String::new())).await;
    healed.store(true, Ordering::SeqCst);
    world.come_to_rest().await;
    let grown = (world.hosts.iter().map(peak_kb).max().unwrap() - before) / 1024;
    assert!(grown < 100, "bodies of 1 GiB let a host grow by {grown} MiB");
    assert_eq!(trap.count(), 0, "nobody follows a redirect");
    let requests = stub.count();
    format!("{requests} requests of {calls} messages, hosts grew by {grown} MiB; {}", world.rest(Resends::Suffix).await)
}

async fn names(case: Case) -> String {
    // Each answer ends its connection, so that the name is asked for again.
    let stub = serve(|_, _| Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}".to_vec()));
    let mut world = World::shared(case.seed).await;
    let library = preload::library(&world, "names");
    world.environment.push(("LD_PRELOAD".to_owned(), library));
    let port = stub.address.port();
    let settings = "timeout_ms = 2000\naway_ms = [300]\nbreaker_failures = 0";
    let mut refused = 0;
    for (host, good) in [("rebinding.test", 1), ("metadata.test", 0), ("mapped.test", 0)] {
        point(&world, &format!("http://{host}:{port}"), settings);
        let (asked, handled) = (stub.count(), world.rig.counts().await.get("handled").copied().unwrap_or_default());
        let messages: Vec<Message> = (0..3).map(|number| calling(&mut world, &format!("{host}-{number}"))).collect();
        world.start(1);
        for message in &messages {
            world.rig.produce(std::slice::from_ref(message));
        }
        refused += messages.len() - good;
        let sql = "SELECT count(*) FROM work WHERE reason LIKE '%169.254.169.254%allow_addresses%'";
        world
            .until(&format!("{host} is refused"), async |world| {
                let (count, counts) = (world.books.count(sql).await, world.rig.counts().await);
                let now = counts.get("handled").copied().unwrap_or_default();
                (count == i64::try_from(refused).unwrap() && now == handled + good, format!("{count} refused, {counts:?}"))
            })
            .await;
        assert_eq!(stub.count() - asked, good, "{host}: only what resolves to a good address goes out");
        world.hosts.remove(0).terminate().await;
    }
    let spelled =
        ["169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]"];
    for host in spelled {
        point(&world, &format!("http://{host}:{port}"), settings);
        let said = world.rig.tolk.run(&["run"]);
        assert_ne!(said.code, 0, "{host}: {said:?}");
        said.complains(&["endpoints.e", "allow_addresses"]);
    }
    // Once it is where it should be, all go on.
    point(&world, &stub.url(), settings);
    world.start(1);
    ends(&mut world, &BTreeMap::from([("handled".to_owned(), 9)])).await;
    world.books.balance().await;
    format!(
        "{refused} of 9 calls refused after the name was resolved, 1 before it was bound anew; {} spellings refused at the start",
        spelled.len()
    )
}

async fn late(case: Case) -> String {
    let seen: Arc<std::sync::Mutex<BTreeMap<String, usize>>> = Arc::default();
    let times = seen.clone();
    let stub = serve(move |_, request| {
        let mut times = times.lock().unwrap();
        let count = times.entry(request.path.clone()).or_default();
        *count += 1;
        match (*count, item(request)) {
            // It has done what it was asked for, and says so too late.
            (1, "late") => Reply::After(Duration::from_millis(900), Box::new(Reply::json(200, "{}"))),
            (1, "killed") => Reply::Hang,
            _ => Reply::json(200, "{}"),
        }
    });
    let mut world = World::shared(case.seed).await;
    point(&world, &stub.url(), "method = \"POST\"\ntimeout_ms = 300\naway_ms = [200]\nbreaker_failures = 0\ntries = 1");
    world.start(1);
    let count = if case.full { 40 } else { 6 };
    let messages: Vec<Message> = (0..count).map(|number| calling(&mut world, &format!("late-{number}"))).collect();
    world.send(messages);
    world.until_ended(count).await;
    point(&world, &stub.url(), "method = \"POST\"\ntimeout_ms = 20000\naway_ms = [200]\nbreaker_failures = 0\ntries = 1");
    world.hosts.remove(0).terminate().await;
    world.start(1);
    let messages: Vec<Message> = (0..3).map(|number| calling(&mut world, &format!("killed-{number}"))).collect();
    world.send(messages);
    world.until("the calls are under way", async |_| (stub.count() == 2 * count + 3, stub.count().to_string())).await;
    world.hosts.remove(0).kill();
    world.start(1);
    let figures = world.rest(Resends::Suffix).await;
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for request in stub.requests() {
        let key = request.header("idempotency-key").unwrap_or_else(|| panic!("no key: {request:?}")).to_owned();
        keys.entry(request.path).or_default().push(key);
    }
    assert_eq!(keys.len(), count + 3);
    for (path, keys) in &keys {
        assert!(keys.len() == 2 && keys[0] == keys[1], "{path} was called with {keys:?}");
    }
    let different: std::collections::BTreeSet<&String> = keys.values().flatten().collect();
    assert_eq!(different.len(), keys.len(), "each call has a key of its own");
    format!("{count} late answers and 3 calls of a killed host, each made again with the same Idempotency-Key; {figures}")
}
