//! What a hostile or broken plugin can do: nothing to anybody else. Each story names the code, the limit and the used value that a person
//! gets to read.

pub mod guest;

mod artefacts;
mod inert;
mod limits;
mod refusals;
mod registry;
mod verdicts;

use std::sync::{Arc, LazyLock};

use tolk::message::{Captured, FeedId, KeyHash, Message, Place};
use tolk::plugin::{Context, Limits, Outcome, Translation, Verdict};
use tolk::runtime::{Config, Runtime, Translator, Trouble};
use uuid::Uuid;

/// One runtime for the stories that do not need their own.
pub fn runtime() -> Arc<Runtime> {
    static RUNTIME: LazyLock<Arc<Runtime>> = LazyLock::new(|| Runtime::new(&settings()).expect("the runtime starts"));
    RUNTIME.clone()
}

/// Settings of a small runtime whose compiling child is the built binary, not this test.
pub fn settings() -> Config {
    Config { threads: 2, instances_max: 32, compiler: Some(env!("CARGO_BIN_EXE_tolk").into()), ..Config::default() }
}

/// A message with a key and a payload.
pub fn message(key: &str, payload: &[u8]) -> Message {
    let key = key.as_bytes();
    Message {
        place: Place { feed: FeedId(1), lane: 0, n: 1 },
        id: Uuid::from_u128(u128::from(KeyHash::of("t", key).0[0]) + 1),
        table: "t".into(),
        key_hash: KeyHash::of("t", key),
        captured: Captured { key: Some(key.to_vec().into()), payload: Some(payload.to_vec().into()), ..Captured::default() },
        received_ms: 1,
        prejudged: None,
        delivery: None,
    }
}

/// Loads a guest under the default limits.
fn load(guest: &guest::Guest) -> Arc<Translator> {
    load_with(guest, Limits::default())
}

fn load_with(guest: &guest::Guest, limits: Limits) -> Arc<Translator> {
    runtime().load_component(&guest.component(), limits, "").expect("the guest loads")
}

/// Translates one message on a fresh instance.
fn once(translator: &Translator) -> Result<Verdict, Trouble> {
    translator.translate(&mut runtime().here(), &message("k", b"p"), "feed", &Context::default())
}

/// Asserts a trouble's code and that its text says all of this, and the plugin's digest.
fn trouble(translator: &Translator, code: &str, says: &[&str]) {
    let trouble = once(translator).expect_err("a trouble");
    assert_eq!(trouble.code, code, "{trouble:?}");
    let digest = translator.digest().short();
    for word in says.iter().chain([&digest.as_str()]) {
        assert!(trouble.text.contains(word), "\"{word}\" is missing: {trouble:?}");
    }
}

/// The number that follows a text.
fn number_after(text: &str, before: &str) -> u64 {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("\"{before}\" is missing: {text}")).1;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number follows")
}

fn translation(verdict: Verdict) -> Translation {
    match verdict.outcome {
        Outcome::Translated(translation) => translation,
        other => panic!("not translated: {other:?}"),
    }
}
