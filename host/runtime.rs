//! The room of wasmtime: one engine, compiled components, warm instances, limits that fire. The only module that knows wasmtime.

pub mod bindings;
pub mod compile;
pub mod engine;
pub mod instance;
pub mod threads;
pub mod validate;
pub mod wasi;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::message::Message;
use crate::plugin::{Context, Description, Digest, Limits, Verdict};

/// `[runtime]`: settings of the engine; the limits of single plugins are `plugin::Limits`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// CPU threads that run guests; 0: as many as the machine has cores.
    pub threads: usize,
    /// The epoch's tick, in milliseconds: how exact a CPU limit is.
    pub tick_ms: u64,
    /// Instances live at one time, over all plugins and threads.
    pub instances_max: u32,
    /// Messages after which a warm instance is retired.
    pub instance_messages_max: u64,
    /// The largest memory any plugin may be given, in bytes.
    pub memory_bytes_max: usize,
    /// The largest component that is taken, in bytes.
    pub component_bytes_max: usize,
    /// Time a compilation may take, in seconds.
    pub compile_s_max: u64,
    /// Memory a compilation may take, in bytes.
    pub compile_bytes_max: u64,
    /// One message in this many runs again on a fresh instance and is compared; 0: none.
    pub recheck_one_in: u64,
    /// The program that compiles components in a child process; default: this one. Tests, whose program is another, set it.
    #[serde(skip)]
    pub compiler: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: 0,
            tick_ms: 5,
            instances_max: 256,
            instance_messages_max: 100_000,
            memory_bytes_max: 256 << 20,
            component_bytes_max: 64 << 20,
            compile_s_max: 120,
            compile_bytes_max: 4 << 30,
            recheck_one_in: 0,
            compiler: None,
        }
    }
}

/// Why a component is not taken, or cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a component that this host runs; the text says what is wrong and what to do.
    #[error("take the component: {0}")]
    Refused(String),
    /// It compiled, but does not start: traps in its start, `describe` or `configure`.
    #[error("start plugin {digest}: {reason}")]
    Start { digest: Digest, reason: String },
    /// The engine or the machine does not do what is asked.
    #[error("run components: {0}")]
    Engine(String),
}

/// What a component is, found without trusting it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Its identity, 64 hexadecimal digits.
    pub digest: String,
    /// Its size in bytes.
    pub size: usize,
    /// Its imports; empty, or interfaces of the inert WASI.
    pub imports: Vec<String>,
    /// Its capability sheet.
    pub description: Description,
}

/// What went wrong in a call; one message and one instance are lost, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// A stable code: `trap`, `cpu-limit`, `memory-limit`, `stack-overflow`, `output-limit`, `invalid-outcome`, `engine`.
    pub code: &'static str,
    /// Names the digest, the limit and the used value where there is one.
    pub text: String,
}

/// The engine and its CPU threads.
pub struct Runtime {}

/// A loaded plugin with its config: what translates messages.
pub struct Translator {}

/// The warm instances of one thread.
pub struct Instances {}

impl Runtime {
    /// Makes the engine and starts its threads.
    pub fn new(_config: &Config) -> Result<Arc<Self>, Error> {
        Err(missing())
    }

    /// What a compiled artefact fits: wasmtime's version, the machine and the engine's settings.
    pub fn engine_key(&self) -> String {
        String::new()
    }

    /// Validates a component and asks it what it is. Compiles in this process.
    pub fn inspect(&self, _component: &[u8]) -> Result<Inspection, Error> {
        Err(missing())
    }

    /// Compiles a component in a child process; the artefact is sealed with the secret.
    pub async fn compile(&self, _component: &[u8], _secret: &[u8; 32]) -> Result<Vec<u8>, Error> {
        Err(missing())
    }

    /// Loads a sealed artefact and configures it once, to see that it starts.
    pub fn load(
        &self,
        _digest: Digest,
        _artefact: &[u8],
        _secret: &[u8; 32],
        _limits: Limits,
        _config: &str,
    ) -> Result<Arc<Translator>, Error> {
        Err(missing())
    }

    /// Compiles in this process and loads: for the plugin harness and tests.
    pub fn load_component(&self, _component: &[u8], _limits: Limits, _config: &str) -> Result<Arc<Translator>, Error> {
        Err(missing())
    }

    /// The number of CPU threads.
    pub fn threads(&self) -> usize {
        0
    }

    /// Runs tasks on the CPU threads; results are in the order of the tasks. A task that panics makes this panic, not the thread.
    pub async fn run<T, F>(&self, tasks: Vec<F>) -> Vec<T>
    where
        F: FnOnce(&mut Instances) -> T + Send + 'static,
        T: Send + 'static,
    {
        tasks.into_iter().map(|task| task(&mut Instances {})).collect()
    }

    /// Instances of the calling thread, for synchronous callers.
    pub fn here(&self) -> Instances {
        Instances {}
    }
}

impl Translator {
    /// The identity of the component.
    pub fn digest(&self) -> Digest {
        Digest([0; 32])
    }

    /// The capability sheet.
    pub fn description(&self) -> &Description {
        unreachable!("no translator is loaded yet")
    }

    /// The limits it runs under.
    pub fn limits(&self) -> &Limits {
        unreachable!("no translator is loaded yet")
    }

    /// Its imports; empty, or interfaces of the inert WASI.
    pub fn imports(&self) -> &[String] {
        &[]
    }

    /// Translates one message.
    pub fn translate(&self, _instances: &mut Instances, _message: &Message, _feed: &str, _context: &Context) -> Result<Verdict, Trouble> {
        Err(Trouble { code: "engine", text: missing().to_string() })
    }
}

fn missing() -> Error {
    Error::Engine("the engine is not built in yet".to_owned())
}
