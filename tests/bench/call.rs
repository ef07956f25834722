//! The cost of a call: an identity translator with a message of 1 kB, against a native closure that does the same.

use std::hint::black_box;

use bytes::Bytes;
use tolk::message::{FeedId, KeyHash, Message, Place};
use tolk::plugin::{Context, Limits, Outcome, Output, Translation, Verdict};
use tolk::runtime::{Config, Runtime, thread_cpu};
use uuid::Uuid;

use crate::house::Guest;
use crate::input;
use crate::report::{Need, Pair, Report};

const CALLS: u32 = 20_000;
const ROUNDS: usize = 15;

/// Measures the row `call-overhead`: nanoseconds a call beyond the closure's.
pub fn measure(guest: &Guest, report: &mut Report) {
    let runtime = Runtime::new(&Config::default()).unwrap();
    let translator = runtime.load_component(&guest.component, Limits::default(), "identity").unwrap();
    let mut instances = runtime.here();
    let captured = input::events(1, 1).remove(0);
    let payload = captured.payload.clone().unwrap();
    let message = Message {
        place: Place { feed: FeedId(1), lane: 0, n: 1 },
        id: Uuid::from_u128(7),
        table: "SHOP.ITEM".into(),
        key_hash: KeyHash::of("SHOP.ITEM", b"1"),
        captured,
        received_ms: 1,
        prejudged: None,
        delivery: None,
    };
    let context = Context::default();
    let mut call = || translator.translate(&mut instances, black_box(&message), "shop", black_box(&context)).unwrap();
    let native = || native(black_box(&message), black_box(&context));
    assert_eq!(call(), native(), "both do the same work");
    let Outcome::Translated(translation) = call().outcome else { panic!("it puts out one message") };
    assert_eq!(translation.outputs[0].payload.as_ref(), Some(&payload));
    let turns = (0..ROUNDS).map(|_| {
        let (called, closure) = (nanoseconds(&mut call), nanoseconds(native));
        Pair { value: called - closure, ceiling: closure }
    });
    report.add("call-overhead".to_owned(), "ns", turns.collect(), Need::Value(1_000.0), "a native closure's call".to_owned());
}

fn native(message: &Message, _context: &Context) -> Verdict {
    let copy = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| Bytes::copy_from_slice(bytes));
    let output = Output {
        target: "out".to_owned(),
        key: Some(copy(&message.captured.key).unwrap_or_default()),
        payload: Some(copy(&message.captured.payload).unwrap_or_default()),
        ..Output::default()
    };
    Verdict { outcome: Outcome::Translated(Translation { outputs: vec![output], ..Translation::default() }), log: Vec::new() }
}

/// The thread's CPU time: what else runs on the machine is not the call's.
fn nanoseconds(mut call: impl FnMut() -> Verdict) -> f64 {
    let started = thread_cpu();
    for _ in 0..CALLS {
        black_box(call());
    }
    (thread_cpu() - started).as_nanos() as f64 / f64::from(CALLS)
}
