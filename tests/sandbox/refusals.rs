//! What is not a plugin is refused before a compiler sees it, with a text that says what to do.

use tolk::runtime::{Config, Runtime};

use super::guest::{self, Guest};
use super::{runtime, settings};

fn refused(component: &[u8], says: &[&str]) {
    let error = runtime().inspect(component).expect_err("refused").to_string();
    assert!(error.starts_with("take the component: "), "{error}");
    for word in says {
        assert!(error.contains(word), "\"{word}\" is missing: {error}");
    }
}

fn refused_text(component: &str, says: &[&str]) {
    refused(&wat::parse_str(component).expect("well-formed"), says);
}

#[test]
fn bytes_that_are_no_component_are_refused() {
    refused(b"", &["empty", "tolk build"]);
    refused(b"#!/bin/sh\n", &["not WebAssembly"]);
    refused_text("(module)", &["core module", "tolk build"]);
    let whole = guest::identity().component();
    for length in [6, 8, 9, whole.len() / 2, whole.len() - 1] {
        let error = runtime().inspect(&whole[..length]).expect_err("refused").to_string();
        assert!(error.contains("cut off") || error.contains("exports nothing"), "{length}: {error}");
    }
}

#[test]
fn flipped_bytes_are_refused_or_run_but_never_panic() {
    let whole = guest::identity().component();
    let mut refusals = 0;
    for at in (8..whole.len()).step_by(37) {
        let mut broken = whole.clone();
        broken[at] ^= 0x55;
        refusals += usize::from(runtime().inspect(&broken).is_err());
    }
    assert!(refusals > 0);
}

#[test]
fn another_world_is_refused() {
    refused_text("(component)", &["exports nothing", "not tolk:translator/translator"]);
    refused_text("(component (instance $i) (export \"acme:db/query@1.0.0\" (instance $i)))", &["acme:db/query@1.0.0", "another world"]);
    refused_text("(component (instance $i) (export \"tolk:translator/translator@9.0.0\" (instance $i)))", &["version 9.0.0", "0.1.x"]);
    refused_text("(component (instance $i) (export \"tolk:translator/translator@0.1.0\" (instance $i)))", &["contract", "describe"]);
}

#[test]
fn imports_are_refused_by_name_with_advice() {
    let import = |name: &str| format!("(component (import \"{name}\" (instance)))");
    refused_text(&import("wasi:sockets/tcp@0.2.0"), &["wasi:sockets/tcp@0.2.0", "no network"]);
    refused_text(&import("wasi:http/outgoing-handler@0.2.0"), &["wasi:http/outgoing-handler@0.2.0", "--disable http"]);
    refused_text(&import("wasi:cli/environment@0.3.0"), &["wasi:cli/environment@0.3.0", "WASI 0.2"]);
    refused_text(&import("acme:db/query"), &["acme:db/query", "imports nothing"]);
}

#[test]
fn declared_sizes_are_refused_with_limit_and_value() {
    refused_text("(component (core module (memory 65536)))", &["memory of 4294967296 bytes", "memory_bytes_max is 268435456"]);
    refused_text("(component (core module (table 100000 funcref)))", &["table of 100000 elements", "at most 65536"]);
    refused_text("(component (core module (memory 1)) (core module (memory 1)))", &["2 memories", "at most 1"]);
    let small =
        Runtime::new(&Config { component_bytes_max: 1_000, threads: 1, instances_max: 4, ..settings() }).expect("the runtime starts");
    let component = guest::identity().component();
    let error = small.inspect(&component).expect_err("refused").to_string();
    assert!(error.contains("component_bytes_max is 1000") && error.contains(&format!("has {} bytes", component.len())), "{error}");
}

#[test]
fn features_that_the_engine_leaves_out_are_refused() {
    refused_text("(component (core module (memory 1 1 shared)))", &["threads"]);
    refused_text("(component (core module (memory i64 1)))", &["memor"]);
    refused_text("(component (core module (tag)))", &["exceptions"]);
    let utf16 = r#"(component
        (core module $m (memory (export "memory") 1) (func (export "f") (param i32 i32))
            (func (export "r") (param i32 i32 i32 i32) (result i32) unreachable))
        (core instance $i (instantiate $m))
        (func (export "f") (param "s" string)
            (canon lift (core func $i "f") string-encoding=utf16 (memory $i "memory") (realloc (func $i "r")))))"#;
    refused_text(utf16, &["UTF-8"]);
}

#[test]
fn a_plugin_that_does_not_start_is_refused_with_its_trap() {
    let guest = Guest { fields: "(func $boom unreachable) (start $boom)".to_owned(), ..Guest::default() };
    let error = runtime().inspect(&guest.component()).expect_err("refused").to_string();
    assert!(error.contains("its start: trap") && error.contains("unreachable"), "{error}");
}

#[test]
fn an_inspection_tells_the_sheet() {
    let component = guest::identity().component();
    let inspection = runtime().inspect(&component).expect("a plugin");
    assert_eq!((inspection.size, inspection.imports.len()), (component.len(), 0));
    let sheet = inspection.description;
    assert_eq!((sheet.name.as_str(), sheet.version.as_str()), ("guest", "1.0.0"));
    assert_eq!((sheet.tables, sheet.targets), (vec!["*".to_owned()], vec!["out".to_owned()]));
}
