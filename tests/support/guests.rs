//! The guests of `tests/guests` and the translators of `plugins`, built as components once per test process.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

use tolk::cli::build;

static BUILT: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);

/// Where the component of a crate is, built where it must be; `folder` is relative to the root, such as `tests/guests/scripted`.
pub fn component_path(folder: &str) -> PathBuf {
    // One build at a time: cargo would wait for its own lock anyway.
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = built.get(folder) {
        return path.clone();
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = build::build(&root.join(folder), &|_| {}).unwrap_or_else(|error| panic!("{folder} does not build: {error:#}")).path;
    built.insert(folder.to_owned(), path.clone());
    path
}

/// The component of a crate.
pub fn component(folder: &str) -> Vec<u8> {
    std::fs::read(component_path(folder)).expect("it was just built")
}
