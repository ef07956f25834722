//! `tolk test` and `tolk inspect`: the real binary on real components and files of captured messages.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::sandbox::guest::{self, Guest};

/// A folder with a component and a file of captures.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(guest: &Guest, captures: &str) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(bench.path("plugin.wasm"), guest.component()).unwrap();
        std::fs::create_dir(bench.path("captures")).unwrap();
        std::fs::write(bench.captures(), captures).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn captures(&self) -> PathBuf {
        self.path("captures/a.jsonl")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.captures()).unwrap()
    }

    /// Runs `tolk test plugin.wasm` in the folder; exit code, stdout, stderr.
    fn test(&self, more: &[&str]) -> (i32, String, String) {
        tolk(self.folder.path(), &[&["test", "plugin.wasm"], more].concat())
    }

    fn json(&self, more: &[&str]) -> (i32, Value) {
        let (code, stdout, stderr) = self.test(&[&["--output", "json"], more].concat());
        (code, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}")))
    }
}

fn tolk(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_tolk")).args(arguments).current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

const CAPTURES: &str = r#"{"name": "as it was", "table": "T", "key": "1", "payload": {"status": "A"}, "expected": {"outcome": "translated", "outputs": [{"target": "out", "action": "put", "key": "1", "payload": {"status": "A"}}]}}

{"name": "changed", "table": "T", "key": "2", "payload": {"status": "HAR_SLUTTET"}, "expected": {"outcome": "translated", "outputs": [{"target": "out", "action": "put", "key": "2", "payload": {"status": "DELTAR"}}]}}
{"table": "T", "key": "3", "payload": {"amount": 1.50}}
"#;

#[test]
fn a_difference_is_told_by_path_and_ends_with_1() {
    let bench = Bench::new(&guest::identity(), CAPTURES);
    let (code, stdout, stderr) = bench.test(&[]);
    assert_eq!(code, 1, "{stdout}{stderr}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].contains("PASS [") && lines[0].ends_with("captures/a.jsonl:1 as it was"), "{stdout}");
    assert!(lines[1].contains("FAIL [") && lines[1].ends_with("captures/a.jsonl:3 changed"), "{stdout}");
    assert!(lines[2].contains("NEW [") && lines[2].ends_with("captures/a.jsonl:4 T 3 -> translated, 1 output"), "{stdout}");
    assert!(stdout.contains("3 cases: 1 passed, 1 failed, 1 new"), "{stdout}");
    let last = lines.last().unwrap();
    assert_eq!(last.trim(), "outputs[0].payload.status: \"DELTAR\" -> \"HAR_SLUTTET\"");
    assert!(!stdout.contains('\u{1b}'), "no colours into a pipe");
}

#[test]
fn what_is_ignored_or_filtered_away_does_not_fail() {
    let bench = Bench::new(&guest::identity(), CAPTURES);
    assert_eq!(bench.test(&["--ignore", "$.outputs[*].payload.status"]).0, 0);
    let (code, report) = bench.json(&["--filter", "as it was"]);
    assert_eq!((code, report["passed"].as_u64(), report["cases"].as_array().map(Vec::len)), (0, Some(1), Some(1)));
    assert_eq!(bench.test(&["--filter", "a.jsonl:4", "--strict"]).0, 1, "what is new fails only if asked to");
    assert_eq!(bench.test(&["--ignore", "a["]).0, 2);
}

#[test]
fn blessing_makes_it_pass_and_leaves_the_rest_as_it_was() {
    let bench = Bench::new(&guest::identity(), CAPTURES);
    let (code, stdout, stderr) = bench.test(&["--bless", "captures"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("\"DELTAR\" -> \"HAR_SLUTTET\"") && stdout.contains("2 blessed"), "{stdout}");
    let text = bench.text();
    let (old, new): (Vec<&str>, Vec<&str>) = (CAPTURES.lines().collect(), text.lines().collect());
    assert_eq!((old[0], old[1], old.len()), (new[0], new[1], new.len()));
    assert!(new[3].starts_with(r#"{"table": "T", "key": "3", "payload": {"amount": 1.50}, "expected": {"#), "{text}");
    let (code, report) = bench.json(&[]);
    assert_eq!((code, &report["passed"], &report["new"]), (0, &json!(3), &json!(0)));
    bench.test(&["--bless"]);
    assert_eq!(bench.text(), text, "blessing twice changes nothing");
}

#[test]
fn limits_used_are_shown() {
    let bench = Bench::new(&guest::identity(), CAPTURES);
    let (_, report) = bench.json(&[]);
    let used = &report["cases"][0]["used"];
    assert_eq!((&used["rounds"], &used["outputs"], &used["bytes"]), (&json!(1), &json!(1), &json!(15)));
    assert!(used["memory_bytes"].as_u64().unwrap() >= 2 << 16, "{used}");
    let (_, stdout, _) = bench.test(&["-v"]);
    assert!(stdout.contains(" µs CPU, 128 KiB memory, 1 rounds, 0 needs, 1 outputs, 15 bytes"), "{stdout}");
}

#[test]
fn a_trap_fails_its_case_only() {
    let trap_on_empty_key = format!("(if (i32.eqz (i32.load offset={} (local.get $args))) (then unreachable))", guest::KEY_AT + 4);
    let guest = Guest::translating(guest::translated(&trap_on_empty_key, 0));
    let lines = [
        r#"{"table": "T", "key": "", "payload": 1}"#,
        r#"{"table": "T", "key": "k", "payload": 1, "expected": {"outcome": "translated"}}"#,
        r#"{"table": "T", "key": "", "payload": 1, "expected": {"outcome": "trouble", "code": "trap"}}"#,
    ];
    let bench = Bench::new(&guest, &lines.join("\n"));
    let (code, report) = bench.json(&["--bless"]);
    let results: Vec<_> = report["cases"].as_array().unwrap().iter().map(|case| case["result"].as_str().unwrap()).collect();
    assert_eq!((code, results), (1, vec!["fail", "pass", "pass"]));
    let trouble = report["cases"][0]["trouble"].as_str().unwrap();
    let digest = report["digest"].as_str().unwrap();
    assert!(trouble.starts_with("trap: ") && trouble.contains(&digest[..12]), "{trouble}");
    assert_eq!(bench.text(), lines.join("\n"), "a trap is never blessed");
}

#[test]
fn what_outlives_a_message_is_found() {
    let count = "(global.set $count (i32.add (global.get $count) (i32.const 1))) (i32.store8 (i32.const 4096) (global.get $count))";
    let counter = Guest {
        fields: "(global $count (mut i32) (i32.const 47))".to_owned(),
        ..Guest::translating(guest::translated(&format!("{count} {}", guest::output(guest::TARGET, "i32.const 4096", "i32.const 1")), 1))
    };
    let line = r#"{"table": "T", "payload": 1}"#;
    let bench = Bench::new(&counter, &format!("{line}\n{line}\n"));
    assert_eq!(bench.test(&[]).0, 0);
    let (code, report) = bench.json(&["--determinism"]);
    assert_eq!((code, &report["cases"][0]["result"]), (1, &json!("new")));
    let trouble = report["cases"][1]["trouble"].as_str().unwrap();
    assert!(trouble.starts_with("nondeterministic: ") && trouble.contains("outputs[0].payload: 1 -> 0"), "{trouble}");
}

#[test]
fn what_cannot_be_run_is_said_with_what_to_do() {
    let bench = Bench::new(&guest::identity(), "{\"table\": \"T\"}\n{\"payload\": 1}\n");
    let (code, stdout, _) = bench.test(&[]);
    assert_eq!(code, 1);
    assert!(stdout.contains("payload") && stdout.contains("--table NAME"), "{stdout}");
    assert_eq!(bench.test(&["--table", "T", "--filter", "a.jsonl:2"]).0, 0);
    let (code, _, stderr) = bench.test(&["nowhere"]);
    assert!(code == 2 && stderr.contains("nowhere") && stderr.contains("tolk capture"), "{code}: {stderr}");
    std::fs::write(bench.path("plugin.wasm"), b"not wasm").unwrap();
    let (code, _, stderr) = bench.test(&[]);
    assert!(code == 4 && stderr.contains("plugin.wasm"), "{code}: {stderr}");
    std::fs::remove_file(bench.path("plugin.wasm")).unwrap();
    assert_eq!(bench.test(&[]).0, 3);
}

#[test]
fn inspect_shows_what_a_component_is() {
    let bench = Bench::new(&guest::identity(), "");
    let (code, stdout, _) = tolk(bench.folder.path(), &["inspect", "plugin.wasm", "--output", "json"]);
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    let bytes = std::fs::read(bench.path("plugin.wasm")).unwrap();
    assert_eq!(code, 0);
    assert_eq!(
        (shown["digest"].as_str(), shown["size"].as_u64()),
        (Some(tolk::plugin::Digest::of(&bytes).to_string().as_str()), Some(bytes.len() as u64))
    );
    assert_eq!((&shown["imports"], &shown["description"]["targets"]), (&json!([]), &json!(["out"])));
    let (_, stdout, _) = tolk(bench.folder.path(), &["inspect", "plugin.wasm"]);
    assert!(stdout.contains("plugin      guest@1.0.0") && stdout.contains("imports     none"), "{stdout}");
    std::fs::write(bench.path("plugin.wasm"), &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(tolk(bench.folder.path(), &["inspect", "plugin.wasm"]).0, 4);
}
