//! The inert WASI: the clock stands at `now`, random numbers come from the message, output is the log, waiting takes no time.

use tolk::message::Message;
use tolk::plugin::{Context, Limits, Verdict};

use super::guest::{Guest, TARGET, output, translated};
use super::{message, runtime, translation};

const PACKAGES: &str = "
package wasi:io@0.2.6 {
    interface error { resource error; }
    interface poll { resource pollable { block: func(); ready: func() -> bool; } poll: func(in: list<borrow<pollable>>) -> list<u32>; }
    interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
    }
}
package wasi:cli@0.2.6 { interface stdout { use wasi:io/streams@0.2.6.{output-stream}; get-stdout: func() -> output-stream; } }
package wasi:random@0.2.6 { interface random { get-random-u64: func() -> u64; } }
package wasi:clocks@0.2.6 {
    interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
    interface monotonic-clock {
        use wasi:io/poll@0.2.6.{pollable};
        now: func() -> u64;
        subscribe-duration: func(when: u64) -> pollable;
    }
}";

/// Says a line, sleeps an hour, and puts out 24 bytes: the wall clock's seconds, the monotonic clock's time, a random number.
fn curious() -> Guest {
    let worlds = ["wasi:io/poll", "wasi:cli/stdout", "wasi:random/random", "wasi:clocks/wall-clock", "wasi:clocks/monotonic-clock"];
    let imports = r#"
      (import "wasi:cli/stdout@0.2.6" "get-stdout" (func $stdout (result i32)))
      (import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
      (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
      (import "wasi:random/random@0.2.6" "get-random-u64" (func $random (result i64)))
      (import "wasi:clocks/wall-clock@0.2.6" "now" (func $wall (param i32)))
      (import "wasi:clocks/monotonic-clock@0.2.6" "now" (func $clock (result i64)))
      (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $sleep (param i64) (result i32)))"#;
    let work = "(call $write (call $stdout) (i32.const 16) (i32.const 5) (i32.const 8192))
        (call $block (call $sleep (i64.const 3600000000000)))
        (call $wall (i32.const 8208))
        (i64.store (i32.const 4096) (i64.load (i32.const 8208)))
        (i64.store (i32.const 4104) (call $clock))
        (i64.store (i32.const 4112) (call $random))";
    let out = output(TARGET, "i32.const 4096", "i32.const 24");
    Guest {
        imports: imports.to_owned(),
        wit: (PACKAGES.to_owned(), worlds.iter().map(|name| format!("import {name}@0.2.6;\n")).collect()),
        ..Guest::translating(translated(&format!("{work} {out}"), 1))
    }
}

fn numbers(verdict: Verdict) -> [u64; 3] {
    let payload = translation(verdict).outputs[0].payload.clone().expect("a payload");
    let number = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("eight bytes"));
    [number(0), number(8), number(16)]
}

#[test]
fn time_stands_and_chance_comes_from_the_message() {
    let component = curious().component();
    let inspection = runtime().inspect(&component).expect("a plugin");
    assert!(inspection.imports.iter().any(|import| import == "wasi:clocks/wall-clock@0.2.6"), "{:?}", inspection.imports);
    let translator = runtime().load_component(&component, Limits::default(), "").expect("it loads");
    let mut instances = runtime().here();
    let mut send = |message: &Message, attempt: u32| {
        let context = Context { now_ms: 1_700_000_000_123, attempt, ..Context::default() };
        let verdict = translator.translate(&mut instances, message, "feed", &context).expect("a verdict");
        assert_eq!(verdict.log, ["guest"]);
        numbers(verdict)
    };
    let [seconds, monotonic, chance] = send(&message("a", b""), 0);
    assert_eq!((seconds, monotonic), (1_700_000_000, 1_700_000_000_123_000_000));
    assert_eq!(send(&message("a", b""), 0)[2], chance, "the same message draws the same number on a warm instance");
    assert_ne!(send(&message("b", b""), 0)[2], chance);
    assert_ne!(send(&message("a", b""), 1)[2], chance);
}

#[tokio::test]
async fn it_also_runs_where_an_async_runtime_is() {
    let translator = runtime().load_component(&curious().component(), Limits::default(), "").expect("it loads");
    let verdict = translator.translate(&mut runtime().here(), &message("a", b""), "feed", &Context::default()).expect("a verdict");
    assert_eq!(verdict.log, ["guest"]);
    let task =
        move |instances: &mut tolk::runtime::Instances| translator.translate(instances, &message("a", b""), "feed", &Context::default());
    let verdict = runtime().run(vec![task]).await.remove(0).expect("a verdict");
    assert_eq!(verdict.log, ["guest"]);
}
