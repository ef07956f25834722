//! The room of wasmtime: one engine, compiled components, warm instances, limits that fire. The only module that knows wasmtime.

mod bindings;
pub mod compile;
mod contract;
mod convert;
mod engine;
mod instance;
mod log;
mod threads;
mod translator;
pub mod trial;
mod validate;
mod wasi;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

pub use self::engine::thread_cpu;
pub use self::instance::Instances;
use self::instance::State;
use self::threads::Threads;
use self::translator::Terms;
pub use self::translator::Translator;
use self::trial::Trials;
use crate::message::Message;
use crate::plugin::{Context, Description, Digest, Limits};

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
    /// A stable code: `trap`, `cpu-limit`, `memory-limit`, `table-limit`, `stack-overflow`, `output-limit`, `needs-limit`, `invalid-outcome`,
    /// `not-described`, `config`, `engine`.
    pub code: &'static str,
    /// Names the digest, the limit and the used value where there is one.
    pub text: String,
}

/// The engine and its CPU threads.
pub struct Runtime {
    settings: Config,
    engine: Engine,
    engine_key: String,
    pure: Linker<State>,
    inert: Linker<State>,
    instances_max: usize,
    threads: Threads,
    trials: Trials,
}

impl Runtime {
    /// Makes the engine and starts its threads.
    pub fn new(config: &Config) -> Result<Arc<Self>, Error> {
        let engine = engine::build(config)?;
        engine::start_ticker(&engine, Duration::from_millis(config.tick_ms))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if config.threads == 0 { cores } else { config.threads };
        // Two shares more than threads: for callers outside them, and for a plugin that is asked what it is.
        let instances_max = (config.instances_max as usize / (count + 2)).max(1);
        Ok(Arc::new(Self {
            settings: config.clone(),
            engine_key: engine::key(&engine),
            pure: Linker::new(&engine),
            inert: wasi::linker(&engine)?,
            engine,
            instances_max,
            threads: Threads::start(count, instances_max)?,
            trials: Trials::default(),
        }))
    }

    /// What a compiled artefact fits: wasmtime's version, the machine and the engine's settings.
    pub fn engine_key(&self) -> String {
        self.engine_key.clone()
    }

    /// Validates a component and asks it what it is. Compiles in this process.
    pub fn inspect(&self, component: &[u8]) -> Result<Inspection, Error> {
        validate::check(component, &self.settings)?;
        let compiled = translator::compile_here(&self.engine, component)?;
        self.describe(component, &compiled)
    }

    /// Validates and compiles a component in a child process, and asks it what it is: the artefact is sealed with the secret.
    pub async fn admit(&self, component: &[u8], secret: &[u8; 32]) -> Result<(Inspection, Vec<u8>), Error> {
        let sealed = self.compile(component, secret).await?;
        let compiled = self.deserialize(Digest::of(component), &sealed, secret)?;
        Ok((self.describe(component, &compiled)?, sealed))
    }

    /// Validates and compiles a component in a child process; the artefact is sealed with the secret.
    pub async fn compile(&self, component: &[u8], secret: &[u8; 32]) -> Result<Vec<u8>, Error> {
        // A large component takes a while to look through, which no async worker has.
        let (bytes, settings) = (component.to_vec(), self.settings.clone());
        let checked = tokio::task::spawn_blocking(move || validate::check(&bytes, &settings)).await;
        checked.map_err(|error| Error::Engine(format!("validate: {error}")))??;
        let artefact = compile::in_child(&self.settings, component).await?;
        Ok(compile::seal(secret, Digest::of(component), &self.engine_key, &artefact))
    }

    /// Loads a sealed artefact and configures it once, to see that it starts.
    pub fn load(&self, digest: Digest, artefact: &[u8], secret: &[u8; 32], limits: Limits, config: &str) -> Result<Arc<Translator>, Error> {
        let component = self.deserialize(digest, artefact, secret)?;
        self.start(&component, digest, limits, config)
    }

    /// Validates and compiles in this process, and loads: for the plugin harness and tests.
    pub fn load_component(&self, component: &[u8], limits: Limits, config: &str) -> Result<Arc<Translator>, Error> {
        validate::check(component, &self.settings)?;
        let compiled = translator::compile_here(&self.engine, component)?;
        self.start(&compiled, Digest::of(component), limits, config)
    }

    /// Tries a call in a child process, before this one makes it; an error says how it ended the processes that ran it.
    pub async fn try_out(&self, translator: &Translator, message: &Message, feed: &str, context: &Context) -> Result<(), String> {
        self.trials.try_out(&self.settings, translator, message, feed, context).await
    }

    /// Loads what another process of this host has compiled and loaded before.
    #[expect(unsafe_code, reason = "loading machine code can be no safe function; the process that started this one vouches for it")]
    fn adopt(&self, digest: Digest, artefact: &[u8], limits: Limits, config: &str) -> Result<Arc<Translator>, Error> {
        // SAFETY: the bytes come through a pipe from the host that started this process, which runs them itself.
        let component = unsafe { Component::deserialize(&self.engine, artefact) };
        let component = component.map_err(|error| Error::Refused(format!("{} does not load ({error:#})", digest.short())))?;
        self.start(&component, digest, limits, config)
    }

    /// The number of CPU threads.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// Runs tasks on the CPU threads; results are in the order of the tasks. A task that panics makes this panic, not the thread.
    pub async fn run<T, F>(&self, tasks: Vec<F>) -> Vec<T>
    where
        F: FnOnce(&mut Instances) -> T + Send + 'static,
        T: Send + 'static,
    {
        self.threads.run(tasks).await
    }

    /// Instances of the calling thread, for synchronous callers.
    pub fn here(&self) -> Instances {
        Instances::new(self.instances_max)
    }

    #[expect(unsafe_code, reason = "loading machine code can be no safe function; the seal is what vouches for it")]
    fn deserialize(&self, digest: Digest, sealed: &[u8], secret: &[u8; 32]) -> Result<Component, Error> {
        let artefact = compile::unseal(secret, digest, &self.engine_key, sealed)?;
        // SAFETY: the seal says that this installation's own compiler made these bytes, for this engine, from this component.
        let component = unsafe { Component::deserialize(&self.engine, artefact) };
        component.map_err(|error| Error::Refused(format!("the artefact of {} does not load ({error:#}); push it again", digest.short())))
    }

    fn describe(&self, component: &[u8], compiled: &Component) -> Result<Inspection, Error> {
        let digest = Digest::of(component);
        let imports = translator::imports(compiled);
        let limits = Limits { memory_bytes_max: self.settings.memory_bytes_max, cpu_ms_max: 1_000, ..Limits::default() };
        let linker = self.linker(&imports);
        let wasi = translator::has_wasi(&imports);
        let (_, description) = translator::off_runtime(wasi, || translator::describe(compiled, linker, digest, &limits))?;
        Ok(Inspection { digest: digest.to_string(), size: component.len(), imports, description })
    }

    fn start(&self, component: &Component, digest: Digest, limits: Limits, config: &str) -> Result<Arc<Translator>, Error> {
        let (asked, max) = (limits.memory_bytes_max, self.settings.memory_bytes_max);
        if asked > max {
            return Err(Error::Engine(format!(
                "memory_bytes_max of the plugin's limits is {asked}, runtime.memory_bytes_max is {max}: raise the latter"
            )));
        }
        let linker = self.linker(&translator::imports(component));
        let Config { instance_messages_max: retire_after, recheck_one_in, .. } = self.settings;
        Translator::new(component, linker, Terms { digest, limits, config, retire_after, recheck_one_in })
    }

    fn linker(&self, imports: &[String]) -> &Linker<State> {
        if translator::has_wasi(imports) { &self.inert } else { &self.pure }
    }
}
