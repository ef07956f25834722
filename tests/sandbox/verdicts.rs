//! Verdicts that break the contract are not taken, whatever they are.

use tolk::plugin::{Context, Limits};
use tolk::runtime::{Config, Runtime};

use super::guest::{self, Guest, NAME, NAMESPACE, TARGET, VERDICT, output, store, store_byte, translated};
use super::{load, message, once, runtime, settings, translation, trouble};

/// A guest with one binding.
fn binding(namespace: (u32, u32), key: (u32, u32), id: (u32, u32)) -> Guest {
    Guest::translating(guest::binding(namespace, key, id))
}

#[test]
fn the_identity_hands_back_key_and_payload() {
    let translator = load(&guest::identity());
    let payload: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut instances = runtime().here();
    for _ in 0..50 {
        let verdict = translator.translate(&mut instances, &message("key", &payload), "feed", &Context::default()).expect("a verdict");
        let output = translation(verdict).outputs.remove(0);
        assert_eq!((output.target.as_str(), output.key.as_deref()), ("out", Some(&b"key"[..])));
        assert_eq!(output.payload.as_deref(), Some(&payload[..]));
    }
    assert_eq!((translator.description().name.as_str(), translator.imports()), ("guest", &[][..]));
}

#[test]
fn an_id_that_is_no_uuid_is_refused() {
    trouble(&load(&binding(NAMESPACE, NAME, NAME)), "invalid-outcome", &["\"guest\", not a uuid of 36 characters"]);
}

#[test]
fn an_empty_key_is_refused() {
    trouble(&load(&binding(NAMESPACE, (0, 0), NAME)), "invalid-outcome", &["the key of a binding is empty"]);
}

#[test]
fn what_the_sheet_does_not_name_is_refused() {
    trouble(&load(&binding(TARGET, NAME, NAME)), "not-described", &["\"out\"", "namespaces: person"]);
    let out = output(NAME, "i32.const 0", "i32.const 0");
    trouble(&load(&Guest::translating(translated(&out, 1))), "not-described", &["\"guest\"", "targets: out"]);
}

#[test]
fn broken_records_are_traps_not_panics() {
    // An outcome of case 200; a list beyond the memory; a target that is no UTF-8.
    trouble(&load(&Guest::translating(format!("{} i32.const {VERDICT}", store_byte(VERDICT, 200)))), "trap", &["discriminant"]);
    trouble(&load(&Guest::translating(translated("", 0x0fff_ffff))), "trap", &["bounds"]);
    let text = format!("{} {}", store(4096, &[0xffff_ffff]), output((4096, 4), "i32.const 0", "i32.const 0"));
    trouble(&load(&Guest::translating(translated(&text, 1))), "trap", &["utf-8"]);
    trouble(&load(&Guest::translating("i32.const 0x7ffffff8")), "trap", &["bounds"]);
}

#[test]
fn a_refused_config_says_why() {
    // Result at 160: err, with the text at 16.
    let configure = format!("{} {} i32.const 160", store_byte(160, 1), store(164, &[NAME.0, NAME.1]));
    let guest = Guest { configure, ..Guest::default() };
    let error = runtime().load_component(&guest.component(), Limits::default(), "x").err().expect("no translator").to_string();
    assert!(error.contains("refuses its config: guest"), "{error}");
}

#[test]
fn an_instance_retires_and_others_are_made_in_its_place() {
    let count = "(global.set $count (i32.add (global.get $count) (i32.const 1))) (i32.store8 (i32.const 4096) (global.get $count))";
    let out = output(TARGET, "i32.const 4096", "i32.const 1");
    let guest = Guest {
        fields: "(global $count (mut i32) (i32.const 0))".to_owned(),
        ..Guest::translating(translated(&format!("{count} {out}"), 1))
    };
    let counts = |settings: &Config| -> Vec<u8> {
        let runtime = Runtime::new(settings).expect("the runtime starts");
        let translator = runtime.load_component(&guest.component(), Limits::default(), "").expect("the guest loads");
        let mut instances = runtime.here();
        let mut send = || translator.translate(&mut instances, &message("k", b""), "feed", &Context::default()).expect("a verdict");
        (0..4).map(|_| translation(send()).outputs[0].payload.as_ref().expect("a payload")[0]).collect()
    };
    let small = Config { threads: 1, instances_max: 3, ..settings() };
    assert_eq!(counts(&small), [1, 2, 3, 4]);
    assert_eq!(counts(&Config { instance_messages_max: 2, ..small.clone() }), [1, 2, 1, 2]);
    // A recheck on a fresh instance finds the difference; the fresh answer is taken, and the instance that gave it stays.
    assert_eq!(counts(&Config { recheck_one_in: 1, ..small }), [1, 1, 1, 1]);
}

#[test]
fn more_plugins_than_instances_take_turns() {
    let runtime = Runtime::new(&Config { threads: 1, instances_max: 3, ..settings() }).expect("the runtime starts");
    let mut instances = runtime.here();
    for _ in 0..2 {
        for name in 0..5 {
            let guest = Guest { fields: format!("(global i32 (i32.const {name}))"), ..guest::identity() };
            let translator = runtime.load_component(&guest.component(), Limits::default(), "").expect("the guest loads");
            let verdict = translator.translate(&mut instances, &message("k", b"p"), "feed", &Context::default());
            assert!(verdict.is_ok(), "{verdict:?}");
        }
    }
    assert!(once(&load(&guest::identity())).is_ok());
}
