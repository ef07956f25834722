//! `tolk new`: a translator's crate that builds and passes its test untouched, with the SDK inside, so that this binary is all it needs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::Exit;
use crate::cli::shell::{Shell, Stop};

/// Arguments of `tolk new`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The new crate's folder; its last part is the plugin's name
    #[arg(value_name = "NAME")]
    folder: PathBuf,
}

/// Files of a new crate; `__NAME__` stands for its name.
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("new/manifest.toml")),
    ("src/lib.rs", include_str!("new/lib.rs")),
    ("captures/sample.jsonl", include_str!("new/sample.jsonl")),
    ("README.md", include_str!("new/README.md")),
    (".gitignore", include_str!("new/gitignore")),
];

/// The SDK as it goes into `sdk/`.
const SDK: [(&str, &str); 11] = [
    ("Cargo.toml", include_str!("../../plugins/sdk-rust/Cargo.toml")),
    ("rustfmt.toml", include_str!("../../rustfmt.toml")),
    ("wit/translator.wit", include_str!("../../wit/translator.wit")),
    ("src/component.rs", include_str!("../../plugins/sdk-rust/src/component.rs")),
    ("src/context.rs", include_str!("../../plugins/sdk-rust/src/context.rs")),
    ("src/description.rs", include_str!("../../plugins/sdk-rust/src/description.rs")),
    ("src/lib.rs", include_str!("../../plugins/sdk-rust/src/lib.rs")),
    ("src/message.rs", include_str!("../../plugins/sdk-rust/src/message.rs")),
    ("src/outcome.rs", include_str!("../../plugins/sdk-rust/src/outcome.rs")),
    ("src/request.rs", include_str!("../../plugins/sdk-rust/src/request.rs")),
    ("src/time.rs", include_str!("../../plugins/sdk-rust/src/time.rs")),
];
const SDK_TESTING: [(&str, &str); 2] = [
    ("src/testing.rs", include_str!("../../plugins/sdk-rust/src/testing.rs")),
    ("src/testing/captured.rs", include_str!("../../plugins/sdk-rust/src/testing/captured.rs")),
];

/// Where the SDK finds the WIT in this repository, and where in a new crate.
const WIT_HERE: &str = "path: \"../../wit\"";
const WIT_THERE: &str = "path: \"wit\"";

/// The versions of dependencies that this binary was built and tested with.
const LOCK: &str = include_str!("../../Cargo.lock");

pub(super) fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let name = name_of(&args.folder)?;
    let folder = args.folder.display();
    if let Some(parent) = args.folder.parent() {
        fs::create_dir_all(parent).map_err(|error| anyhow::Error::new(error).context(format!("make {}", parent.display())))?;
    }
    fs::create_dir(&args.folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            anyhow::Error::new(Stop::usage(format!("make {folder}: it exists already")).next("choose another name, or remove it"))
        }
        _ => anyhow::Error::new(error).context(format!("make {folder}")),
    })?;
    for (path, text) in files(&name) {
        write(&args.folder.join(&path), &text).map_err(|error| anyhow::Error::new(error).context(format!("write {folder}/{path}")))?;
    }
    shell.note(format_args!("made {folder}, a translator with a sample; next:"));
    shell.note(format_args!("  cd {folder}"));
    shell.note("  cargo test    run its test, natively");
    shell.note(format_args!("  tolk build    make target/tolk/{name}.wasm"));
    shell.note(format_args!("  tolk test target/tolk/{name}.wasm    run the component against its captures"));
    Ok(Exit::Ok)
}

/// Every file of a new crate, by its path.
fn files(name: &str) -> impl Iterator<Item = (String, String)> {
    let own = FILES.iter().map(move |(path, text)| ((*path).to_owned(), text.replace("__NAME__", name)));
    let sdk = SDK.iter().chain(&SDK_TESTING).map(|(path, text)| (format!("sdk/{path}"), text.replace(WIT_HERE, WIT_THERE)));
    own.chain(sdk).chain([("Cargo.lock".to_owned(), lock())])
}

/// The name of a crate in a folder.
fn name_of(folder: &Path) -> anyhow::Result<String> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_');
    if !letters || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        let stop = Stop::usage(format!("make \"{name}\": a plugin's name starts with a letter and has only a-z, 0-9, - and _"));
        return Err(stop.next("tolk new my-translator").into());
    }
    // Crates of the sample's own build; what else cargo refuses, it says itself.
    if ["tolk-sdk", "tolk_sdk", "serde", "serde_json", "test", "core", "std", "alloc"].contains(&name) {
        return Err(Stop::usage(format!("make \"{name}\": another crate has this name")).next("tolk new my-translator").into());
    }
    Ok(name.to_owned())
}

/// The part of our lock file that the SDK needs; cargo adds the new crate itself.
fn lock() -> String {
    let (head, packages) = LOCK.split_once("[[package]]\n").unwrap_or((LOCK, ""));
    let packages: Vec<&str> = packages.split("[[package]]\n").map(str::trim_end).collect();
    let mut wanted = vec!["tolk-sdk"];
    let mut kept = BTreeSet::new();
    while let Some(want) = wanted.pop() {
        // A dependency is a name, with a version where the lock file has several.
        let mut words = want.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next());
        let fits = |package: &&str| field(package, "name") == name && version.is_none_or(|version| field(package, "version") == version);
        let found = packages.iter().position(fits);
        if let Some(at) = found.filter(|at| kept.insert(*at)) {
            wanted.extend(packages[at].lines().filter_map(|line| line.strip_prefix(" \"")?.strip_suffix("\",")));
        }
    }
    let kept = kept.into_iter().map(|at| format!("[[package]]\n{}\n", packages[at]));
    format!("{head}{}", kept.collect::<Vec<_>>().join("\n"))
}

/// The value of a field of a package in a lock file.
fn field<'a>(package: &'a str, name: &str) -> &'a str {
    package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"')).unwrap_or_default()
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_sdk_goes_along() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/sdk-rust/src");
        let mut here = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for file in fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
                match file.is_dir() {
                    true => folders.push(file),
                    false => here.push(format!("src/{}", file.strip_prefix(&root).unwrap().display())),
                }
            }
        }
        let embedded: Vec<&str> = SDK.iter().chain(&SDK_TESTING).map(|(path, _)| *path).filter(|path| path.starts_with("src/")).collect();
        here.sort();
        assert_eq!(here, {
            let mut sorted = embedded;
            sorted.sort_unstable();
            sorted
        });
    }

    #[test]
    fn a_new_crate_finds_its_wit_and_its_name() {
        let files: Vec<_> = files("my-plugin").collect();
        let text = |path: &str| &files.iter().find(|(name, _)| name == path).unwrap().1;
        assert!(text("sdk/src/component.rs").contains(WIT_THERE));
        assert!(text("Cargo.toml").contains("name = \"my-plugin\""));
        assert!(files.iter().all(|(_, text)| !text.contains("__NAME__") && !text.contains("../..")));
    }

    #[test]
    fn the_lock_file_holds_what_the_sdk_needs_and_no_more() {
        let lock: toml::Table = lock().parse().unwrap();
        let names: Vec<&str> = lock["package"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        for name in ["tolk-sdk", "serde", "serde_json", "serde_derive", "wit-bindgen", "wit-bindgen-rust-macro", "syn"] {
            assert!(names.contains(&name), "{name} is missing");
        }
        assert!(!names.contains(&"wasmtime") && !names.contains(&"tolk"), "{names:?}");
    }

    #[test]
    fn names_that_cannot_be_crates_are_refused() {
        for name in ["", "7up", "Big", "a b", "serde", "a/..", "ærlig"] {
            assert!(name_of(Path::new(name)).is_err(), "{name}");
        }
        assert_eq!(name_of(Path::new("some/folder/my-plugin_2")).unwrap(), "my-plugin_2");
    }
}
