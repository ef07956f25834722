//! Hostile and broken plugins in real hosts: none costs more than its own message, its limit and its instance.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::guest::{self, Guest, KEY_AT, LIST, NAME, NAMESPACE, TARGET, VERDICT, output, store, store_byte, translated};
use crate::rig::{Rig, Running};
use crate::script::Message;
use crate::table::{Case, Experiment, experiment};
use crate::tolk_binary::Said;
use crate::world::{Resends, World};

pub fn all() -> Vec<Experiment> {
    vec![
        experiment!("P03 P04", short, "endless loops on every CPU thread", loops),
        experiment!("P05 P06 P07 P08 P09", short, "memory, table, stack and output bombs, traps, verdicts against the contract", hostile),
        experiment!("P10 P11", short, "plugins that ask for the outside or keep state", impure),
        experiment!("P15", long, "a compile bomb is pushed while a host works", compile_bomb),
    ]
}

/// Pushes a component; its digest.
pub fn push(rig: &Rig, component: &[u8]) -> String {
    std::fs::write(rig.tolk.path("pushed.wasm"), component).unwrap();
    rig.tolk.run(&["push", "pushed.wasm"]).expect(0).out.split_whitespace().next().unwrap().to_owned()
}

/// Makes a plugin active that may ask for other things than the one before.
pub fn widened(rig: &Rig, digest: &str, table: &str, timeout_s: &str) -> Said {
    rig.tolk.run(&["activate", digest, "--feed", "f", "--table", table, "--allow-widening", "--timeout-s", timeout_s])
}

/// A message that ends failed.
fn failing(world: &mut World, table: &str, key: &str, code: &'static str) -> Message {
    let message = world.scripts.put(table, key);
    Message { status: "failed", code: Some(code), outputs: Vec::new(), ..message }
}

async fn loops(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    let address = crate::tolk_binary::closed_port();
    world.configure("[store]", &format!("[runtime]\nthreads = 2\n[admin]\nlisten = {address:?}\n[store]"));
    world.configure("cpu_ms_max = 1000", "cpu_ms_max = 200");
    world.start(1);
    let pieces = if case.full { 10 } else { 2 };
    world.load(50);
    world.plain(60).await;
    let quiet = world.plain(pieces * 60).await;
    let asked = Arc::new(AtomicBool::new(true));
    let (asking, to) = (asked.clone(), address.clone());
    let asker = std::thread::spawn(move || slowest_answer(&to, &asking));
    // More of them than threads, each until its limit of CPU time.
    let count = if case.full { 24 } else { 4 };
    for number in 0..count {
        let mut message = failing(&mut world, "b", &format!("loop-{number}"), "cpu-limit");
        message.captured.payload = Some(json!({ "table": "b", "key": format!("loop-{number}"), "do": "loop" }).to_string().into());
        world.send(vec![message]);
    }
    let busy = world.plain(pieces * 60).await;
    world
        .until("the loops are ended", async |world| {
            let failed = world.books.count("SELECT count(*) FROM work WHERE code = 'cpu-limit'").await;
            (failed == count, failed.to_string())
        })
        .await;
    asked.store(false, Ordering::SeqCst);
    let (answers, slowest) = asker.join().unwrap();
    let host = &world.hosts[0];
    assert!(!host.said().contains("the lease had run out"), "timers fire while every thread loops");
    assert!(answers > 10 && slowest < Duration::from_secs(1), "{answers} answers of /livez and /readyz, the slowest in {slowest:?}");
    let rows = world.rig.tolk.run(&["messages", "--code", "cpu-limit", "--limit", "1000", "-o", "json"]).expect(0).json();
    let most = rows.as_array().unwrap().iter().map(|row| used(row["reason"].as_str().unwrap())).max().unwrap();
    assert!((200..400).contains(&most), "a limit of 200 ms ended a loop after {most} ms");
    let figures = world.rest(Resends::Suffix).await;
    format!(
        "{count} loops on 2 threads, ended by {most} ms of CPU at most for a limit of 200; {answers} health answers, the slowest {slowest:.0?}; \
         {} messages in {quiet:.1?} before, {busy:.1?} beside them; {figures}",
        pieces * 60
    )
}

/// The number after "used" in a reason.
fn used(reason: &str) -> u64 {
    let rest = reason.split("used ").nth(1).unwrap_or_else(|| panic!("no used value in {reason}"));
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// Asks for health until told to stop: how many answers there were, and the slowest.
fn slowest_answer(address: &str, go_on: &AtomicBool) -> (usize, Duration) {
    let (mut answers, mut slowest) = (0, Duration::ZERO);
    while go_on.load(Ordering::SeqCst) {
        for path in ["/livez", "/readyz"] {
            let began = Instant::now();
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
            slowest = slowest.max(began.elapsed());
            answers += 1;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    (answers, slowest)
}

/// What a message's key asks of the hostile guest, by its first letter, and the code that it must end with.
fn hostilities() -> Vec<(char, String, &'static str)> {
    let fill = "(loop $again
        (local.set $i (memory.grow (i32.const 16)))
        (memory.fill (i32.mul (local.get $i) (i32.const 65536)) (i32.const 1) (i32.const 1048576))
        (br $again)) unreachable";
    let utf8 = format!("{} {}", store(4096, &[0xffff_ffff]), output((4096, 4), "i32.const 0", "i32.const 0"));
    let undeclared = output(NAME, "i32.const 0", "i32.const 0");
    let huge = output(TARGET, "i32.const 65536", "i32.const 9437184");
    let returned = |instructions: String| format!("{instructions} return");
    vec![
        ('M', fill.to_owned(), "memory-limit"),
        ('T', "(loop $again (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $again)) unreachable".to_owned(), "table-limit"),
        ('O', returned(translated(&huge, 1)), "output-limit"),
        ('C', returned(guest::many_outputs(2_000)), "output-limit"),
        ('X', returned(guest::many_outputs(1_000_000)), "output-limit"),
        ('G', returned(guest::many_log_lines(40_000)), "output-limit"),
        ('R', "(drop (call $deep (i32.const 0))) unreachable".to_owned(), "stack-overflow"),
        ('U', "unreachable".to_owned(), "trap"),
        ('B', "(drop (i32.load (i32.const 0x7fffffff))) unreachable".to_owned(), "trap"),
        ('D', format!("{} (return (i32.const {VERDICT}))", store_byte(VERDICT, 200)), "trap"),
        ('F', returned(translated("", 0x0fff_ffff)), "trap"),
        ('8', returned(translated(&utf8, 1)), "trap"),
        ('I', returned(guest::binding(NAMESPACE, NAME, NAME)), "invalid-outcome"),
        ('E', returned(guest::binding(NAMESPACE, (0, 0), NAME)), "invalid-outcome"),
        ('N', returned(guest::binding(TARGET, NAME, NAME)), "not-described"),
        ('K', returned(translated(&undeclared, 1)), "not-described"),
    ]
}

fn hostile_guest() -> Guest {
    let first = format!("(i32.load8_u (i32.load offset={KEY_AT} (local.get $args)))");
    let cases: String = hostilities()
        .iter()
        .map(|(letter, instructions, _)| format!("(if (i32.eq {first} (i32.const {})) (then {instructions}))\n", u32::from(*letter)))
        .collect();
    let deep = "(func $deep (param i32) (result i32) (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))";
    // Room for a million outputs at LIST.
    let pages = 1_300;
    assert!(pages * 65_536 > LIST + 80_000_000);
    Guest {
        fields: format!("{deep} (table $t 0 funcref)"),
        pages,
        ..Guest::translating(format!("{cases} {}", guest::identity().translate))
    }
}

async fn hostile(case: Case) -> String {
    let mut world = World::files(case.seed).await;
    world.configure("[feeds.f.tables.a]", "[feeds.f.tables.h]\n[feeds.f.tables.a]");
    let digest = push(&world.rig, &hostile_guest().component());
    world.rig.activate(&digest, "h", "");
    world.start(1);
    neighbours(&mut world, "before");
    world.load(100);
    let most = world.sent.len() - 40;
    world.until_ended(most).await;
    let before = peak_kb(&world.hosts[0]);
    let rounds = if case.full { 10 } else { 1 };
    for round in 0..rounds {
        for (letter, _, code) in hostilities() {
            let message = failing(&mut world, "h", &format!("{letter}-{round}"), code);
            world.send(vec![message]);
            neighbours(&mut world, &format!("a-{letter}-{round}"));
            let all = world.sent.len() - 40;
            world.until_ended(all).await;
        }
    }
    assert!(world.hosts[0].lives(), "the process lives");
    let grown = (peak_kb(&world.hosts[0]) - before) / 1024;
    // One bomb at a time: its limit and a tenth; beside it, what one verdict may hold and what the machine keeps.
    assert!(grown < 128 + 13 + 2 * 8 + 24, "the host grew by {grown} MiB for a limit of 128 MiB");
    let starts = world.hosts[0].said().matches("joined").count();
    assert_eq!(starts, 1, "nothing cost the host its lease");
    let count = rounds * hostilities().len();
    format!("{count} hostile messages, each failed with its code, the host grew by {grown} MiB; {}", world.rest(Resends::Suffix).await)
}

/// Messages of other keys for the hostile plugin, which it puts out as they are.
fn neighbours(world: &mut World, key: &str) {
    let messages: Vec<Message> = (0..4).map(|number| world.echoed("h", &format!("a-{key}-{number}"))).collect();
    world.send(messages);
}

/// The most memory that a process has had, in kB.
pub fn peak_kb(host: &Running) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Puts out the number of messages that its instance has served, as a digit.
fn counting() -> Guest {
    let count = "(global.set $count (i32.add (global.get $count) (i32.const 1)))
        (i32.store8 (i32.const 4096) (i32.add (i32.const 48) (global.get $count)))";
    let out = output(TARGET, "i32.const 4096", "i32.const 1");
    let key = format!(
        "{} (i32.store (i32.const {}) (i32.load offset={KEY_AT} (local.get $args)))
         (i32.store (i32.const {}) (i32.load offset={} (local.get $args))) ",
        store_byte(LIST + 12, 1),
        LIST + 16,
        LIST + 20,
        KEY_AT + 4
    );
    Guest {
        fields: "(global $count (mut i32) (i32.const 0))".to_owned(),
        ..Guest::translating(translated(&format!("{count} {out} {key}"), 1))
    }
}

async fn impure(case: Case) -> String {
    let mut world = World::files(case.seed).await;
    let before = world.rig.tolk.run(&["plugins", "-o", "json"]).expect(0).out;
    let asks = ["wasi:sockets/tcp@0.2.0", "wasi:http/outgoing-handler@0.2.0", "acme:clock/now"];
    for ask in asks {
        let component = wat::parse_str(format!("(component (import \"{ask}\" (instance)))")).unwrap();
        std::fs::write(world.rig.tolk.path("asks.wasm"), component).unwrap();
        let said = world.rig.tolk.run(&["push", "asks.wasm"]);
        assert_ne!(said.code, 0, "{said:?}");
        said.complains(&[ask]);
    }
    assert_eq!(world.rig.tolk.run(&["plugins", "-o", "json"]).expect(0).out, before, "nothing of it is stored");
    let digest = push(&world.rig, &counting().component());
    widened(&world.rig, &digest, "a", "60").expect(0);
    let mut figures = Vec::new();
    for (settings, what) in [("", "warm"), ("recheck_one_in = 1\n", "rechecked"), ("instance_messages_max = 1\n", "fresh")] {
        world.configure("[store]", &format!("[runtime]\nthreads = 1\n{settings}[store]"));
        let messages: Vec<Message> = (0..8).map(|number| world.scripts.put("a", &format!("{what}-{number}"))).collect();
        world.start(1);
        // One batch after the other, so that instances are warm.
        for pair in messages.chunks(2) {
            world.send(pair.to_vec());
            let all = world.sent.len();
            world.until_ended(all).await;
        }
        let host = world.hosts.remove(0);
        let differ = host.said().matches("depends on earlier messages").count();
        host.terminate().await;
        let own: Vec<u64> = world
            .rig
            .outputs()
            .iter()
            .filter(|out| out.key.starts_with(what.as_bytes()))
            .map(|out| out.payload.as_u64().unwrap())
            .collect();
        assert_eq!(own.len(), 8);
        let state = own.iter().any(|count| *count > 1);
        assert_eq!((state, differ > 0), (what == "warm", what == "rechecked"), "{what}: {own:?}, told {differ} times");
        figures.push(format!("{what} {own:?}"));
        world.configure(&format!("[runtime]\nthreads = 1\n{settings}[store]"), "[store]");
    }
    world.books.balance().await;
    format!("{} imports refused; what a counter in the plugin gave: {}", asks.len(), figures.join(", "))
}

async fn compile_bomb(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    let config = world.rig.tolk.read("tolk.toml");
    let ends = [("compile_s_max = 1", "compile_s_max is 1 s"), ("compile_bytes_max = 104857600", "compile_bytes_max is 104857600 bytes")];
    for (number, (limit, _)) in ends.iter().enumerate() {
        world.rig.tolk.write(&format!("narrow-{number}.toml"), &config.replace("[store]", &format!("[runtime]\n{limit}\n[store]")));
    }
    std::fs::write(world.rig.tolk.path("bomb.wasm"), guest::bomb(30_000)).unwrap();
    let before = world.rig.tolk.run(&["plugins", "-o", "json"]).expect(0).out;
    world.start(1);
    for (number, (_, says)) in ends.iter().enumerate() {
        world.load(60);
        let said = world.rig.tolk.run(&["push", "bomb.wasm", "--config", &format!("narrow-{number}.toml")]);
        assert_ne!(said.code, 0, "{said:?}");
        said.complains(&[says]);
    }
    assert_eq!(world.rig.tolk.run(&["plugins", "-o", "json"]).expect(0).out, before, "nothing of it is stored");
    assert!(world.hosts[0].lives());
    format!("refused by its time and by its memory, nothing stored; {}", world.rest(Resends::Suffix).await)
}
