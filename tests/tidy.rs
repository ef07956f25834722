//! The house rules, read off the text of the project: who may use which crate and which module, and how files and names look.

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use text::{File, code_only, identifiers, words};

/// Outside crates and the only places of `host/` that may name them.
const ROOMS: &[(&str, &[&str])] = &[
    ("wasmtime", &["host/runtime"]),
    ("wasmtime_wasi", &["host/runtime"]),
    ("wasmparser", &["host/runtime"]),
    ("wit_component", &["host/runtime", "host/cli/build"]),
    ("sqlx", &["host/store"]),
    ("rdkafka", &["host/source/kafka", "host/sink/kafka"]),
    ("reqwest", &["host/endpoint"]),
    ("rustls", &["host/endpoint"]),
    ("ipnet", &["host/endpoint"]),
    ("axum", &["host/admin"]),
    ("hyper", &["host/admin"]),
    ("hyper_util", &["host/admin"]),
    ("jsonwebtoken", &["host/admin"]),
    ("prometheus_client", &["host/admin"]),
    ("ring", &["host/admin"]),
    ("subtle", &["host/admin"]),
    ("clap", &["host/cli"]),
    ("clap_complete", &["host/cli"]),
    ("comfy_table", &["host/cli"]),
    ("indicatif", &["host/cli"]),
    ("toml", &["host/config", "host/cli"]),
    ("tracing_subscriber", &["host/telemetry"]),
];

const NOUNS: &[&str] = &["message", "plugin", "feed", "delivery", "trouble", "faults"];
const ALL_ROOMS: &[&str] = &["store", "source", "sink", "endpoint", "runtime", "registry"];

/// What each module of the house may use beside itself and the nouns. Doors (`cli`, `admin`) and `lib`, `main` may use everything.
const MAY_USE: &[(&str, &[&str])] = &[
    ("message", &[]),
    ("feed", &[]),
    ("delivery", &[]),
    ("plugin", &[]),
    ("trouble", &[]),
    ("faults", &[]),
    ("store", &[]),
    ("source", &[]),
    ("endpoint", &[]),
    ("runtime", &[]),
    ("sink", &["store", "source"]),
    ("registry", &["store", "runtime"]),
    ("ingest", &["store", "source", "endpoint"]),
    ("translate", &["store", "endpoint", "runtime", "registry"]),
    ("publish", &["store", "sink"]),
    ("upkeep", &["store"]),
    ("check", &["store", "source", "endpoint", "runtime", "registry", "translate"]),
    ("explain", &["store", "source", "check", "translate", "registry", "endpoint", "config"]),
    ("replay", &["store", "check", "translate", "endpoint", "runtime"]),
    ("config", ALL_ROOMS),
    ("telemetry", &[]),
    (
        "app",
        &["store", "source", "sink", "endpoint", "runtime", "registry", "ingest", "translate", "publish", "upkeep", "config", "telemetry"],
    ),
];

/// Words that the glossary has another word for.
const SYNONYMS: &[&str] =
    &["msg", "queue", "dlq", "manager", "handler", "service", "processor", "utils", "util", "helpers", "helper", "common"];

/// Names that outside crates chose.
const FOREIGN: &[&str] = &[
    "QueueFull",
    "rd_kafka_queue_",
    "tokio_util",
    "futures_util",
    "Error::msg",
    "hyper_util::service",
    "hyper_util",
    "TowerToHyperService",
    "SERVICE_UNAVAILABLE",
    "JwkUtils",
    "jwk_utils",
    "jwk.common",
];

const LINES_MAX: usize = 600;

/// Fails with all findings at once.
fn none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

fn rust_files() -> Vec<File> {
    let files: Vec<File> = text::files(&["host", "plugins", "tests"]).into_iter().filter(|file| file.path.ends_with(".rs")).collect();
    assert!(files.len() > 40, "the scan finds the project's files, but found only {}", files.len());
    files
}

/// The module of `host/` that a file belongs to: `host/store/sqlite.rs` is of `store`.
fn module(path: &str) -> Option<&str> {
    path.strip_prefix("host/")?.split('/').next().map(|name| name.trim_end_matches(".rs"))
}

#[test]
fn outside_crates_stay_in_their_rooms() {
    let mut findings = Vec::new();
    for file in rust_files().iter().filter(|file| file.path.starts_with("host/")) {
        // A unit test may read its input with whatever reads it.
        for (number, line) in code_only(&file.text).lines().take_while(|line| *line != "mod tests {").enumerate() {
            for (name, rooms) in ROOMS.iter().filter(|(name, _)| text::names_path(line, name)) {
                if !rooms.iter().any(|room| file.path.starts_with(room)) {
                    findings.push(format!("{}:{}: uses {name}, which only {} may", file.path, number + 1, rooms.join(" and ")));
                }
            }
        }
    }
    none("an outside crate is used in one room only", findings);
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        MAY_USE.iter().map(|(module, rooms)| (*module, rooms.iter().chain(NOUNS).copied().collect())).collect();
    let mut findings = Vec::new();
    for file in rust_files() {
        let Some(module) = module(&file.path).filter(|module| !["cli", "admin", "lib", "main"].contains(module)) else { continue };
        let Some(allowed) = allowed.get(module) else {
            findings.push(format!("{}: `{module}` has no row in MAY_USE of tests/tidy.rs", file.path));
            continue;
        };
        for (number, used) in text::crate_uses(&code_only(&file.text)) {
            if used != module && !allowed.contains(used.as_str()) {
                findings.push(format!("{}:{number}: `{module}` uses `{used}`, which is not below it", file.path));
            }
        }
    }
    none("doors use app, app uses loops, loops use rooms, rooms use nouns", findings);
}

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    let mut findings = Vec::new();
    for file in rust_files() {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            findings.push(format!("{}: {lines} lines, at most {LINES_MAX}", file.path));
        }
        if !file.text.starts_with("//! ") {
            findings.push(format!("{}: does not start with //!", file.path));
        }
        if Path::new(&file.path).file_name().is_some_and(|name| name == "mod.rs") {
            findings.push(format!("{}: write room.rs beside room/ in place of mod.rs", file.path));
        }
    }
    none("every file has a head, no mod.rs, and a size that one can read", findings);
}

#[test]
fn names_come_from_the_glossary() {
    let mut findings = Vec::new();
    for file in rust_files().iter().filter(|file| !file.path.starts_with("tests/")) {
        let stem = Path::new(&file.path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let code = FOREIGN.iter().fold(code_only(&file.text), |code, name| code.replace(name, ""));
        let in_code = code.lines().enumerate().flat_map(|(number, line)| identifiers(line).map(move |name| (number + 1, name)));
        for (number, name) in in_code.chain([(1, stem)]) {
            if let Some(word) = words(name).iter().find(|word| SYNONYMS.contains(&word.as_str())) {
                findings.push(format!("{}:{number}: `{name}`: the glossary has a word for \"{word}\"", file.path));
            }
        }
    }
    none("one word for one thing", findings);
}

#[test]
fn both_stores_have_the_same_migrations() {
    let names = |store: &str| -> Vec<String> {
        let mut names: Vec<String> = text::files(&["migrations"])
            .into_iter()
            .filter_map(|file| file.path.strip_prefix(&format!("migrations/{store}/")).map(str::to_owned))
            .collect();
        names.sort();
        names
    };
    let postgres = names("postgres");
    assert!(!postgres.is_empty(), "there are migrations");
    assert_eq!(postgres, names("sqlite"), "migrations/postgres and migrations/sqlite have equal numbers and names");
    for (i, name) in postgres.iter().enumerate() {
        let number = name.split('_').next().and_then(|number| number.parse().ok());
        assert_eq!(number, Some(i + 1), "migrations are numbered without gaps, but {name} stands in place {}", i + 1);
    }
}

#[test]
fn each_side_has_one_place_of_generated_bindings() {
    let places = |side: &str, macros: &[&str]| -> Vec<String> {
        let files = rust_files().into_iter().filter(|file| file.path.starts_with(side));
        files.filter(|file| macros.iter().any(|name| code_only(&file.text).contains(name))).map(|file| file.path).collect()
    };
    assert_eq!(places("host/", &["bindgen!"]), ["host/runtime/bindings.rs"], "the host's bindings");
    let sdk = places("plugins/", &["generate!"]);
    assert!(
        sdk.len() <= 1 && sdk.iter().all(|path| path.starts_with("plugins/sdk-rust/")),
        "the SDK's bindings are in one file of it: {sdk:?}"
    );
}

#[test]
fn nothing_names_a_folder_of_one_machine() {
    let homes = ["home", "root", "Users"].map(|folder| format!("/{folder}/"));
    let mut findings = Vec::new();
    for file in text::files(&["."]) {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(home) = homes.iter().find(|home| text::starts_a_path(line, home)) {
                findings.push(format!("{}:{}: names a path below {home}", file.path, number + 1));
            }
        }
    }
    none("the project works on every machine", findings);
}
