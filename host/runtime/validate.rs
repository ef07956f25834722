//! What can be known of a component before a compiler sees it: that it is one, that it is valid under the engine's features, what it
//! imports and exports, and how large it declares itself to be.

use wasmparser::{CanonicalFunction, CanonicalOption, Encoding, MemoryType, Parser, Payload, TableInit, TypeRef, Validator, WasmFeatures};

use super::engine::{CORE_INSTANCES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use super::{Config, Error, log, wasi};

/// The interface that makes a component a plugin, without its version.
const INTERFACE: &str = "tolk:translator/translator";
/// Its version; a later patch of the same minor version fits.
const VERSION: &str = "0.1.";
/// Functions of all modules of a component.
const FUNCTIONS_MAX: u32 = 200_000;
/// Imports that are listed in an error.
const LISTED_MAX: usize = 12;
const PAGE_BYTES: u64 = 64 << 10;

const BUILD: &str = "build a component with \"tolk build\"";

/// Looks through a component; returns its imports.
pub(super) fn check(component: &[u8], settings: &Config) -> Result<Vec<String>, Error> {
    size_and_kind(component, settings)?;
    let features = features();
    Validator::new_with_features(features).validate_all(component).map_err(|error| refused(&explain(&error)))?;
    let mut seen = Seen { settings, imports: Vec::new(), exports: Vec::new(), memories: 0, tables: 0, modules: 0, functions: 0 };
    seen.walk(component)?;
    seen.judge()?;
    Ok(seen.imports)
}

fn refused(text: &str) -> Error {
    Error::Refused(text.to_owned())
}

fn size_and_kind(component: &[u8], settings: &Config) -> Result<(), Error> {
    if component.len() > settings.component_bytes_max {
        let text = format!("it has {} bytes, runtime.component_bytes_max is {}", component.len(), settings.component_bytes_max);
        return Err(refused(&text));
    }
    if component.is_empty() {
        return Err(refused(&format!("it is empty; {BUILD}")));
    }
    if !component.starts_with(b"\0asm") {
        return Err(refused(&format!("it is not WebAssembly (its first bytes are not \\0asm); {BUILD}")));
    }
    if Parser::is_core_wasm(component) {
        return Err(refused(&format!("it is a core module, not a component; {BUILD}")));
    }
    if component.len() < 8 {
        return Err(refused(&format!("it is cut off after {} bytes; copy it again", component.len())));
    }
    if !Parser::is_component(component) {
        return Err(refused(&format!("it is a WebAssembly binary of a version that this host does not know; {BUILD}")));
    }
    Ok(())
}

/// What the engine runs, and no more: no threads, no 64-bit memories, no garbage collector, no exceptions, nothing asynchronous.
fn features() -> WasmFeatures {
    let mut features = WasmFeatures::default();
    features.remove(WasmFeatures::THREADS | WasmFeatures::SHARED_EVERYTHING_THREADS);
    features.remove(WasmFeatures::MEMORY64 | WasmFeatures::MULTI_MEMORY);
    features.remove(WasmFeatures::EXCEPTIONS | WasmFeatures::LEGACY_EXCEPTIONS);
    features.remove(WasmFeatures::GC | WasmFeatures::FUNCTION_REFERENCES);
    features.remove(WasmFeatures::CM_ASYNC);
    features
}

fn explain(error: &wasmparser::BinaryReaderError) -> String {
    let message = log::plain(error.message(), 512);
    let advice = if message.contains("unexpected end") {
        "it is cut off; copy it again"
    } else if message.contains("memory64") || message.contains("64-bit memor") {
        "plugins have 32-bit memories: build for wasm32"
    } else {
        "rebuild it without WebAssembly features that this host leaves out (threads, 64-bit or several memories, exceptions, \
         garbage collection, async)"
    };
    format!("it is not valid at byte {}: {message}; {advice}", error.offset())
}

struct Seen<'a> {
    settings: &'a Config,
    imports: Vec<String>,
    exports: Vec<String>,
    memories: u32,
    tables: u32,
    modules: u32,
    functions: u32,
}

impl Seen<'_> {
    /// Visits the component and everything nested in it.
    fn walk(&mut self, component: &[u8]) -> Result<(), Error> {
        let mut nesting: Vec<Encoding> = Vec::new();
        for payload in Parser::new(0).parse_all(component) {
            let payload = payload.map_err(|error| refused(&explain(&error)))?;
            match payload {
                Payload::Version { encoding, .. } => nesting.push(encoding),
                Payload::End(_) => {
                    nesting.pop();
                }
                payload => self.visit(&payload, nesting.len() == 1).map_err(|error| match error {
                    Found::Unreadable(error) => refused(&explain(&error)),
                    Found::Bad(text) => Error::Refused(text),
                })?,
            }
        }
        Ok(())
    }

    fn visit(&mut self, payload: &Payload<'_>, outermost: bool) -> Result<(), Found> {
        match payload {
            Payload::ModuleSection { .. } => self.modules += 1,
            Payload::FunctionSection(functions) => self.functions = self.functions.saturating_add(functions.count()),
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    if let TypeRef::Memory(memory) = import?.ty {
                        self.memory(&memory)?;
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories.clone() {
                    self.memories += 1;
                    self.memory(&memory?)?;
                }
            }
            Payload::TableSection(tables) => {
                for table in tables.clone() {
                    self.tables += 1;
                    let table = table?;
                    let initial = table.ty.initial;
                    debug_assert!(matches!(table.init, TableInit::RefNull | TableInit::Expr(_)));
                    if initial > TABLE_ELEMENTS_MAX as u64 {
                        let text = format!("it declares a table of {initial} elements, at most {TABLE_ELEMENTS_MAX} are given");
                        return Err(Found::Bad(text));
                    }
                }
            }
            Payload::ComponentImportSection(imports) if outermost => {
                for import in imports.clone() {
                    self.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if outermost => {
                for export in exports.clone() {
                    self.exports.push(export?.name.name.to_owned());
                }
            }
            Payload::ComponentCanonicalSection(functions) => {
                for function in functions.clone() {
                    canonical(&function?)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn memory(&self, memory: &MemoryType) -> Result<(), Found> {
        let bytes = memory.initial.saturating_mul(PAGE_BYTES);
        let max = self.settings.memory_bytes_max;
        if bytes > max as u64 {
            return Err(Found::Bad(format!(
                "it declares a memory of {bytes} bytes, runtime.memory_bytes_max is {max}; link it with a smaller initial memory"
            )));
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), Error> {
        if self.memories > 1 {
            return Err(refused(&format!("it has {} memories, at most 1 is given; {BUILD}", self.memories)));
        }
        if self.tables > TABLES_MAX || self.modules > CORE_INSTANCES_MAX {
            return Err(refused(&format!(
                "it has {} tables and {} modules, at most {TABLES_MAX} and {CORE_INSTANCES_MAX} are given; {BUILD}",
                self.tables, self.modules
            )));
        }
        if self.functions > FUNCTIONS_MAX {
            return Err(refused(&format!("it has {} functions, at most {FUNCTIONS_MAX} are taken", self.functions)));
        }
        self.judge_imports()?;
        self.judge_exports()
    }

    fn judge_imports(&self) -> Result<(), Error> {
        let unknown: Vec<&str> = self.imports.iter().map(String::as_str).filter(|import| !is_inert(import)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let mut listed: Vec<String> = unknown.iter().take(LISTED_MAX).map(|name| log::plain(name, 128)).collect();
        if unknown.len() > LISTED_MAX {
            listed.push(format!("and {} more", unknown.len() - LISTED_MAX));
        }
        let starts = |prefix: &str| unknown.iter().any(|import| import.starts_with(prefix));
        let advice = if starts("wasi:http") || starts("wasi:sockets") {
            "a translator has no network: return the need of a call to a configured endpoint, and build without HTTP and sockets \
             (Rust: wasm32-unknown-unknown; componentize-js: --disable http; componentize-py: --stub-wasi)"
        } else if starts("wasi:") {
            "this host gives an inert WASI 0.2 only; build for wasm32-unknown-unknown with \"tolk build\""
        } else {
            "a translator imports nothing: what it needs it returns as needs"
        };
        Err(refused(&format!("it imports {}; {advice}", listed.join(", "))))
    }

    fn judge_exports(&self) -> Result<(), Error> {
        let version = self.exports.iter().find_map(|export| export.strip_prefix(INTERFACE));
        match version {
            Some(version) if version.strip_prefix('@').is_some_and(|version| version.starts_with(VERSION)) => Ok(()),
            Some(version) => {
                let version = log::plain(version.trim_start_matches('@'), 32);
                Err(refused(&format!(
                    "it is made for version {version} of {INTERFACE}, this host speaks {VERSION}x; rebuild it with a matching SDK"
                )))
            }
            None => {
                let exports: Vec<String> = self.exports.iter().take(LISTED_MAX).map(|name| log::plain(name, 128)).collect();
                let exports = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
                Err(refused(&format!("it exports {exports}, not {INTERFACE}: it is of another world; build it with a Tolk SDK")))
            }
        }
    }
}

fn is_inert(import: &str) -> bool {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    version.starts_with("0.2.") && wasi::INTERFACES.contains(&name)
}

/// Why a section is not taken.
enum Found {
    Unreadable(wasmparser::BinaryReaderError),
    Bad(String),
}

impl From<wasmparser::BinaryReaderError> for Found {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Unreadable(error)
    }
}

/// Strings cross the border as UTF-8 only: transcoding is where runtimes had holes, and nothing here needs it.
fn canonical(function: &CanonicalFunction) -> Result<(), Found> {
    let options = match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => options,
        _ => return Ok(()),
    };
    let other = options.iter().any(|option| matches!(option, CanonicalOption::UTF16 | CanonicalOption::CompactUTF16));
    match other {
        true => Err(Found::Bad("it passes strings in another encoding than UTF-8; rebuild it with a tool that uses UTF-8".to_owned())),
        false => Ok(()),
    }
}
