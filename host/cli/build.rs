//! `tolk build`: compiles a plugin's crate for wasm32-unknown-unknown and encodes the component, which then imports nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use wit_component::ComponentEncoder;

use crate::cli::Exit;
use crate::cli::shell::{Shell, Stop};
use crate::plugin::Digest;

/// The compilation target: its standard library imports nothing.
const TARGET: &str = "wasm32-unknown-unknown";

/// The cargo profile of plugins. A workspace may define it; what it leaves out, and profiles that do not exist, is this.
const PROFILE: &str = "plugin";
const PROFILE_DEFAULTS: [(&str, &str); 6] =
    [("inherits", "\"release\""), ("opt-level", "3"), ("lto", "true"), ("codegen-units", "1"), ("panic", "\"abort\""), ("strip", "true")];

/// Arguments of `tolk build`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Folders of the plugins' crates
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
}

/// A built plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Where the component is.
    pub path: PathBuf,
    /// Its identity.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: usize,
}

pub(super) fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    for path in &args.paths {
        let built = build(path, &|text| shell.note(text))?;
        shell.say(format_args!("{}  sha256:{}  {} bytes", built.path.display(), built.digest, built.size))?;
    }
    Ok(Exit::Ok)
}

/// Builds the plugin whose crate is in `folder`; `note` gets words to the person. Compiler messages go to stderr.
pub fn build(folder: &Path, note: &dyn Fn(&str)) -> anyhow::Result<Built> {
    let package = Package::of(folder)?;
    ensure_target(folder, note)?;
    let module = compile(folder, &package)?;
    let bytes = std::fs::read(&module).map_err(|error| anyhow::Error::new(error).context(format!("read {}", module.display())))?;
    let component = encode(&bytes, &package.name)?;
    let path = package.target_folder.join("tolk").join(format!("{}.wasm", package.name));
    replace(&path, &component).map_err(|error| anyhow::Error::new(error).context(format!("write {}", path.display())))?;
    Ok(Built { path, digest: Digest::of(&component), size: component.len() })
}

/// What cargo knows of a crate.
struct Package {
    name: String,
    workspace: PathBuf,
    target_folder: PathBuf,
}

impl Package {
    fn of(folder: &Path) -> anyhow::Result<Self> {
        let manifest = folder.join("Cargo.toml");
        if !manifest.is_file() {
            let stop = Stop::usage(format!("build {}: there is no Cargo.toml in it", folder.display()));
            return Err(stop.next("name the folder of a plugin's crate, or make one with `tolk new NAME`").into());
        }
        let output = run_tool(cargo(folder).args(["metadata", "--no-deps", "--format-version", "1"]))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(Stop::usage(format!("read {}: {}", manifest.display(), text.trim())).into());
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let manifest = manifest.canonicalize()?;
        let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let package = packages.iter().find(|package| {
            package["manifest_path"].as_str().is_some_and(|path| Path::new(path).canonicalize().is_ok_and(|path| path == manifest))
        });
        let Some(package) = package else {
            return Err(Stop::usage(format!("build {}: its Cargo.toml has no [package]", folder.display())).into());
        };
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let targets = package["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        let cdylib = |target: &Value| target["crate_types"].as_array().is_some_and(|types| types.iter().any(|it| it == "cdylib"));
        if !targets.iter().any(cdylib) {
            let stop = Stop::usage(format!("build {name}: the crate makes no module that can become a component"));
            return Err(stop.next("add `[lib]` with `crate-type = [\"cdylib\"]` to its Cargo.toml").into());
        }
        let path = |key: &str| PathBuf::from(metadata[key].as_str().unwrap_or_default());
        Ok(Self { name, workspace: path("workspace_root"), target_folder: path("target_directory") })
    }

    /// The settings that the workspace's own profile does not make, as arguments of cargo.
    fn profile_settings(&self) -> Vec<String> {
        let manifest = std::fs::read_to_string(self.workspace.join("Cargo.toml")).unwrap_or_default();
        let own = manifest.parse::<toml::Table>().unwrap_or_default();
        let own = own.get("profile").and_then(|profiles| profiles.get(PROFILE));
        PROFILE_DEFAULTS
            .iter()
            .filter(|(key, _)| own.is_none_or(|own| own.get(key).is_none()))
            .map(|(key, value)| format!("--config=profile.{PROFILE}.{key}={value}"))
            .collect()
    }
}

/// Sees to it that the toolchain can compile for wasm; adds the target with rustup where it is missing.
fn ensure_target(folder: &Path, note: &dyn Fn(&str)) -> anyhow::Result<()> {
    let output = run_tool(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).current_dir(folder))?;
    if output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir() {
        return Ok(());
    }
    note(&format!("the toolchain lacks {TARGET}; adding it: rustup target add {TARGET}"));
    let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(folder).stdout(Stdio::null()).status();
    if added.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let stop = Stop::environment(format!("compile for {TARGET}: the toolchain lacks the target, and rustup could not add it"));
    Err(stop.next(format!("install it: `rustup target add {TARGET}`, or your system's package of Rust's wasm target")).into())
}

/// Compiles the crate; the path of the module.
fn compile(folder: &Path, package: &Package) -> anyhow::Result<PathBuf> {
    let mut command = cargo(folder);
    command.args(["build", "--lib", "--target", TARGET, "--profile", PROFILE, "--message-format", "json-render-diagnostics"]);
    command.args(package.profile_settings()).stderr(Stdio::inherit());
    let output = run_tool(&mut command)?;
    if !output.status.success() {
        let stop = Stop::environment(format!("compile {}: cargo says why, above", package.name));
        return Err(Stop { exit: Exit::Findings, ..stop }.into());
    }
    let messages = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut modules = messages.filter(|message| message["reason"] == "compiler-artifact").flat_map(|message| {
        let files = message["filenames"].as_array().cloned().unwrap_or_default();
        files.into_iter().filter_map(|file| file.as_str().map(PathBuf::from))
    });
    // Dependencies come first, the crate itself last.
    let module = modules.rfind(|file| file.extension().is_some_and(|it| it == "wasm"));
    module.ok_or_else(|| Stop::environment(format!("compile {}: cargo names no module that it made", package.name)).into())
}

/// Encodes a core module as a component.
fn encode(module: &[u8], name: &str) -> anyhow::Result<Vec<u8>> {
    let section = b"component-type:";
    if !module.windows(section.len()).any(|window| window == section) {
        let stop = Stop::usage(format!("encode {name}: it registers no translator"));
        return Err(stop.next("add `tolk_sdk::register!(YourTranslator);` at the top level of src/lib.rs").into());
    }
    let encoded = ComponentEncoder::default().module(module).and_then(|encoder| encoder.validate(true).encode());
    encoded.map_err(|error| Stop::usage(format!("encode {name} as a component: {error:#}")).into())
}

/// Writes a file so that nobody ever reads half of it.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path)
}

fn cargo(folder: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(folder);
    // Set by an outer `cargo run` or `cargo test`: a path into its own toolchain.
    command.env_remove("CARGO");
    command
}

fn run_tool(command: &mut Command) -> anyhow::Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.output().map_err(|error| {
        let stop = Stop::environment(format!("run {name}: {error}"));
        stop.next("install Rust from https://rustup.rs, or put it on the PATH").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(result: anyhow::Result<impl std::fmt::Debug>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn what_is_no_plugin_is_said_before_anything_is_compiled() {
        let folder = tempfile::tempdir().unwrap();
        let check = |manifest: Option<&str>, text: &str| {
            if let Some(manifest) = manifest {
                std::fs::create_dir_all(folder.path().join("src")).unwrap();
                std::fs::write(folder.path().join("src/lib.rs"), "").unwrap();
                std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
            }
            let found = error(build(folder.path(), &|_| ()));
            assert!(found.contains(text), "{found}");
        };
        check(None, "there is no Cargo.toml in it");
        check(Some("[package"), "Cargo.toml");
        check(Some("[package]\nname = \"plain\"\nedition = \"2024\"\n[workspace]\n"), "build plain: the crate makes no module");
    }

    #[test]
    fn a_module_without_a_translator_is_no_plugin() {
        let module = [0, b'a', b's', b'm', 1, 0, 0, 0];
        assert!(error(encode(&module, "empty")).contains("it registers no translator"));
    }

    #[test]
    fn a_workspace_may_set_the_profile() {
        let folder = tempfile::tempdir().unwrap();
        let package = Package { name: String::new(), workspace: folder.path().to_owned(), target_folder: PathBuf::new() };
        assert_eq!(package.profile_settings().len(), PROFILE_DEFAULTS.len());
        std::fs::write(folder.path().join("Cargo.toml"), "[profile.plugin]\ninherits = \"release\"\nopt-level = \"s\"\n").unwrap();
        let settings = package.profile_settings();
        assert!(settings.len() == 4 && !settings.iter().any(|it| it.contains("opt-level")), "{settings:?}");
    }
}
