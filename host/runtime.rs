//! The room of wasmtime: one engine, compiled components, warm instances, limits that fire. The only module that knows wasmtime.

pub mod bindings;
pub mod compile;
pub mod engine;
pub mod instance;
pub mod threads;
pub mod validate;
pub mod wasi;

use serde::{Deserialize, Serialize};

use crate::plugin::{Description, Digest};

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
