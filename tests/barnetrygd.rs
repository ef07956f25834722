//! The barnetrygd translator as a component: its golden cases, played by `tolk test` as its authors would.

use std::path::Path;
use std::process::Command;

use crate::support::guests;

#[test]
fn the_translator_plays_its_golden_cases() {
    let component = guests::component_path("plugins/barnetrygd/mottaker");
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/barnetrygd/mottaker/cases.jsonl");
    let output = Command::new(env!("CARGO_BIN_EXE_tolk")).arg("test").arg(component).arg(&cases).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let count = std::fs::read_to_string(&cases).unwrap().lines().count();
    assert!(output.status.success() && text.contains(&format!("{count} passed")), "{text}");
}
