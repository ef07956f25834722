//! Limits fire, name themselves and what was used, and cost one message and one instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tolk::plugin::{Context, Limits};
use tolk::runtime::{Instances, Trouble};

use super::guest::{self, Guest, KEY_AT, TARGET, output, translated};
use super::{load, load_with, message, number_after, once, runtime, translation, trouble};

const LOOP: &str = "(loop $again (br $again)) unreachable";

#[test]
fn an_endless_loop_ends_at_the_cpu_limit() {
    let translator = load(&Guest::translating(LOOP));
    trouble(&translator, "cpu-limit", &["cpu_ms_max is 100 ms, used "]);
    let text = once(&translator).unwrap_err().text;
    let used = number_after(&text, "used ");
    assert!((100..1_000).contains(&used), "{text}");
}

#[test]
fn an_endless_configure_is_refused_at_loading() {
    let guest = Guest { configure: LOOP.to_owned(), ..Guest::default() };
    let error = runtime().load_component(&guest.component(), Limits::default(), "").err().expect("no translator").to_string();
    assert!(error.contains("configure: cpu-limit") && error.contains("cpu_ms_max is 100 ms"), "{error}");
}

#[test]
fn a_memory_bomb_ends_at_the_memory_limit() {
    let translator = load(&Guest::translating("(loop $again (drop (memory.grow (i32.const 16))) (br $again)) unreachable"));
    // 64 MiB: 1024 pages; it has 2 and takes 16 at a time.
    trouble(&translator, "memory-limit", &["memory_bytes_max is 67108864 bytes", "used 66191360 and asked for 67239936"]);
}

#[test]
fn a_table_bomb_ends_at_the_table_limit() {
    let bomb = "(loop $again (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $again)) unreachable";
    let guest = Guest { fields: "(table $t 0 funcref)".to_owned(), ..Guest::translating(bomb) };
    trouble(&load(&guest), "table-limit", &["at most 65536 elements", "used 65000 and asked for 66000"]);
}

#[test]
fn deep_recursion_ends_at_the_stack_limit() {
    let fields = "(func $deep (param i32) (result i32) (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))";
    let guest = Guest { fields: fields.to_owned(), ..Guest::translating("(drop (call $deep (i32.const 0))) unreachable") };
    trouble(&load(&guest), "stack-overflow", &["limit is 524288 bytes"]);
}

#[test]
fn a_trap_names_itself() {
    trouble(&load(&Guest::translating("unreachable")), "trap", &["unreachable"]);
    let far = Guest::translating("(drop (i32.load (i32.const 0x7fffffff))) unreachable");
    trouble(&load(&far), "trap", &["out of bounds memory"]);
}

#[test]
fn a_huge_output_is_counted() {
    let huge = output(TARGET, "i32.const 65536", "i32.const 9437184");
    let guest = Guest { pages: 160, ..Guest::translating(translated(&huge, 1)) };
    trouble(&load(&guest), "output-limit", &["output_bytes_max is 8388608 bytes, used 9437187"]);
}

#[test]
fn too_many_outputs_are_counted() {
    let guest = Guest { pages: 10, ..Guest::translating(guest::many_outputs(2_000)) };
    trouble(&load(&guest), "output-limit", &["outputs_max is 1000, used 2000"]);
}

#[test]
fn a_million_outputs_are_not_even_copied() {
    let guest = Guest { pages: 1_300, ..Guest::translating(guest::many_outputs(1_000_000)) };
    let limits = Limits { memory_bytes_max: 128 << 20, ..Limits::default() };
    let translator = load_with(&guest, limits);
    trouble(&translator, "output-limit", &["outputs_max 1000", "output_bytes_max is 8388608 bytes", "used more than "]);
}

#[test]
fn a_flood_in_the_log_is_cut_and_said() {
    // 100 lines of 1,000 zero bytes each, which are control characters: escaped, then cut to 16 KiB together.
    let lines = guest::many_log_lines;
    let flood = Guest { pages: 10, ..Guest::translating(lines(100)) };
    let verdict = once(&load(&flood)).expect("a flood is no failure");
    let last = verdict.log.last().expect("the cut is said");
    assert!(last.contains("log_bytes_max is 16384") && number_after(last, "used ") >= 100_000, "{last}");
    assert!(verdict.log.iter().map(String::len).sum::<usize>() < 17_000);
    assert!(verdict.log[0].starts_with("\\u{0}\\u{0}"), "{}", verdict.log[0]);

    let deluge = Guest { pages: 10, ..Guest::translating(lines(40_000)) };
    trouble(&load(&deluge), "output-limit", &["output_bytes_max is 8388608 bytes", "used more than "]);
}

/// Counts its messages in a global; traps on a message whose key starts with `T`, loops on `L`.
fn counting() -> Guest {
    let first = format!("(i32.load8_u (i32.load offset={KEY_AT} (local.get $args)))");
    let count = "(global.set $count (i32.add (global.get $count) (i32.const 1)))
                 (i32.store8 (i32.const 4096) (global.get $count))";
    let out = output(TARGET, "i32.const 4096", "i32.const 1");
    let commands = format!("(if (i32.eq {first} (i32.const 84)) (then unreachable)) (if (i32.eq {first} (i32.const 76)) (then {LOOP}))");
    Guest {
        fields: "(global $count (mut i32) (i32.const 0))".to_owned(),
        ..Guest::translating(translated(&format!("{commands} {count} {out}"), 1))
    }
}

#[test]
fn state_survives_a_message_and_is_gone_after_a_trap() {
    let translator = load(&counting());
    let mut instances = runtime().here();
    let mut send = |key: &str| -> Result<u8, Trouble> {
        let verdict = translator.translate(&mut instances, &message(key, b""), "feed", &Context::default())?;
        Ok(translation(verdict).outputs[0].payload.as_ref().unwrap()[0])
    };
    assert_eq!((send("a").unwrap(), send("b").unwrap(), send("c").unwrap()), (1, 2, 3));
    assert_eq!(send("T").unwrap_err().code, "trap");
    assert_eq!((send("a").unwrap(), send("b").unwrap()), (1, 2));
    assert_eq!(send("L").unwrap_err().code, "cpu-limit");
    assert_eq!(send("a").unwrap(), 1);
}

#[test]
fn a_message_is_not_blamed_for_what_an_earlier_one_left() {
    // Traps whenever it has served a message before.
    let count = "(if (global.get $count) (then unreachable)) (global.set $count (i32.const 1))";
    let guest = Guest { fields: "(global $count (mut i32) (i32.const 0))".to_owned(), ..Guest::translating(translated(count, 0)) };
    let translator = load(&guest);
    let mut instances = runtime().here();
    for _ in 0..3 {
        translator.translate(&mut instances, &message("k", b""), "feed", &Context::default()).expect("a fresh instance serves it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_go_on_while_one_loops() {
    let looping = load_with(&Guest::translating(LOOP), Limits { cpu_ms_max: 500, ..Limits::default() });
    let echoing = load(&guest::identity());
    let served = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    type Task = Box<dyn FnOnce(&mut Instances) -> Result<usize, Trouble> + Send>;
    let mut tasks: Vec<Task> = Vec::new();
    let (seen, end) = (served.clone(), ended.clone());
    tasks.push(Box::new(move |instances| {
        let result = looping.translate(instances, &message("k", b"p"), "feed", &Context::default());
        end.store(true, Ordering::SeqCst);
        result.map(|_| 0).map_err(|trouble| Trouble { code: trouble.code, text: seen.load(Ordering::SeqCst).to_string() })
    }));
    for _ in 0..100 {
        let (echoing, served, ended) = (echoing.clone(), served.clone(), ended.clone());
        tasks.push(Box::new(move |instances| {
            let verdict = echoing.translate(instances, &message("k", b"payload"), "feed", &Context::default())?;
            assert_eq!(translation(verdict).outputs[0].payload.as_deref(), Some(&b"payload"[..]));
            served.fetch_add(1, Ordering::SeqCst);
            Ok(usize::from(!ended.load(Ordering::SeqCst)))
        }));
    }
    let mut results = runtime().run(tasks).await;
    let trouble = results.remove(0).unwrap_err();
    assert_eq!((trouble.code, trouble.text.as_str()), ("cpu-limit", "100"), "all neighbours were served before the loop ended");
    assert_eq!(results.into_iter().map(|result| result.unwrap()).sum::<usize>(), 100);
}
