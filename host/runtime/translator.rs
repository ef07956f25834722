//! A loaded plugin with its config: calls it on warm instances, and turns whatever goes wrong into a trouble that says what and how much.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store, Trap, WasmBacktrace};

use super::bindings::PluginPre;
use super::instance::{self, Exceeded, Failure, Instances, State, Warm};
use super::log::{Log, plain};
use super::{Error, Trouble, contract, convert};
use crate::message::Message;
use crate::plugin::{Context, Description, Digest, Limits, Verdict};

/// Bytes of a guest's own words in an error.
const WORDS_BYTES_MAX: usize = 1 << 10;
/// Frames of a trap that are named.
const FRAMES_MAX: usize = 4;

/// A loaded plugin with its config: what translates messages.
pub struct Translator {
    id: u64,
    alive: Arc<()>,
    digest: Digest,
    description: Description,
    limits: Limits,
    imports: Vec<String>,
    config: String,
    pre: PluginPre<State>,
    retire_after: u64,
    recheck_one_in: u64,
    calls: AtomicU64,
}

/// What a translator is made of beside the component.
pub(super) struct Terms<'a> {
    pub(super) digest: Digest,
    pub(super) limits: Limits,
    pub(super) config: &'a str,
    pub(super) retire_after: u64,
    pub(super) recheck_one_in: u64,
}

/// What a component says of itself, and what it imports.
pub(super) fn describe(
    component: &Component,
    linker: &Linker<State>,
    digest: Digest,
    limits: &Limits,
) -> Result<(PluginPre<State>, Description), Error> {
    let wrong = |error: &wasmtime::Error| {
        let reason = plain(&format!("{error:#}"), WORDS_BYTES_MAX);
        Error::Refused(format!("it does not fit the contract tolk:translator ({reason}); rebuild it with a matching SDK"))
    };
    let pre = linker.instantiate_pre(component).and_then(PluginPre::new).map_err(|error| wrong(&error))?;
    let mut store = instance::store(pre.engine(), limits, has_wasi(&imports(component)));
    instance::begin(&mut store);
    let plugin = pre.instantiate(&mut store).map_err(|error| start(digest, "its start", trouble(digest, &error, &mut store)))?;
    instance::begin(&mut store);
    let described = plugin.tolk_translator_translator().call_describe(&mut store);
    let description = described.map_err(|error| start(digest, "describe", trouble(digest, &error, &mut store)))?;
    let description = Description::from(description);
    check_description(&description, digest)?;
    Ok((pre, description))
}

fn start(digest: Digest, what: &str, trouble: Trouble) -> Error {
    Error::Start { digest, reason: format!("{what}: {}: {}", trouble.code, trouble.text) }
}

fn check_description(description: &Description, digest: Digest) -> Result<(), Error> {
    let wrong = |reason: &str| Err(Error::Start { digest, reason: format!("describe: {reason}") });
    if description.name.is_empty() || description.version.is_empty() {
        return wrong("its name or version is empty");
    }
    if description.tables.is_empty() {
        return wrong("it lists no tables; \"*\" stands for every one");
    }
    let lists = [&description.tables, &description.reads, &description.writes, &description.namespaces, &description.endpoints];
    let names = lists.into_iter().chain([&description.targets]).flatten().chain([&description.name, &description.version]);
    for name in names {
        if name.is_empty() || name.len() > 256 || name.chars().any(char::is_control) {
            return wrong(&format!("the name \"{}\" is empty, longer than 256 bytes or holds control characters", plain(name, 64)));
        }
    }
    Ok(())
}

/// The interfaces that a component imports.
pub(super) fn imports(component: &Component) -> Vec<String> {
    component.component_type().imports(component.engine()).map(|(name, _)| name.to_owned()).collect()
}

/// Whether a component imports anything, which can only be the inert WASI.
pub(super) fn has_wasi(imports: &[String]) -> bool {
    !imports.is_empty()
}

/// Runs something that may enter WASI. WASI blocks on a runtime of its own, which must not happen on a thread of another one.
pub(super) fn off_runtime<R: Send>(wasi: bool, work: impl FnOnce() -> R + Send) -> R {
    if !wasi || tokio::runtime::Handle::try_current().is_err() {
        return work();
    }
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

impl Translator {
    /// Asks a component what it is, and starts it once with its config.
    pub(super) fn new(component: &Component, linker: &Linker<State>, terms: Terms<'_>) -> Result<Arc<Self>, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Terms { digest, limits, config, retire_after, recheck_one_in } = terms;
        let imports = imports(component);
        let wasi = has_wasi(&imports);
        let (pre, description) = off_runtime(wasi, || {
            let (pre, description) = describe(component, linker, digest, &limits)?;
            match instance::instantiate(&pre, &limits, wasi, config) {
                Ok(_) => Ok((pre, description)),
                Err(failure) => Err(start(digest, "configure", failed(digest, failure))),
            }
        })?;
        Ok(Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            alive: Arc::new(()),
            digest,
            description,
            limits,
            imports,
            config: config.to_owned(),
            pre,
            retire_after: retire_after.max(1),
            recheck_one_in,
            calls: AtomicU64::new(0),
        }))
    }

    /// Its number in this process.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The config that it was given.
    pub(super) fn config(&self) -> &str {
        &self.config
    }

    /// Its machine code.
    pub(super) fn artefact(&self) -> Result<Vec<u8>, String> {
        self.pre.instance_pre().component().serialize().map_err(|error| format!("{error:#}"))
    }

    /// The identity of the component.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The capability sheet.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The limits it runs under.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Its imports; empty, or interfaces of the inert WASI.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Translates one message. A warm instance that fails is dropped, and the message tried once more on a fresh one before the trouble
    /// is the message's: what an earlier message left behind must not be blamed on it.
    pub fn translate(&self, instances: &mut Instances, message: &Message, feed: &str, context: &Context) -> Result<Verdict, Trouble> {
        off_runtime(has_wasi(&self.imports), || {
            let verdict = match instances.take(self.id) {
                Some(warm) => match self.call(instances, warm, message, feed, context) {
                    Ok(verdict) => Ok(verdict),
                    Err(_) => self.call_fresh(instances, message, feed, context),
                },
                None => return self.call_fresh(instances, message, feed, context),
            }?;
            if self.recheck_one_in > 0 && self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.recheck_one_in) {
                return self.recheck(instances, message, feed, context, verdict);
            }
            Ok(verdict)
        })
    }

    /// Compares with a fresh instance; its verdict holds, for a replay starts with a fresh one too.
    fn recheck(
        &self,
        instances: &mut Instances,
        message: &Message,
        feed: &str,
        context: &Context,
        warm: Verdict,
    ) -> Result<Verdict, Trouble> {
        let fresh = self.call_fresh(instances, message, feed, context)?;
        if fresh.outcome != warm.outcome {
            tracing::warn!(
                digest = self.digest.short(),
                plugin = self.description.name,
                feed,
                message = %message.id,
                "the plugin's answer depends on earlier messages: a warm and a fresh instance differ; the fresh one's is taken"
            );
        }
        Ok(fresh)
    }

    fn call_fresh(&self, instances: &mut Instances, message: &Message, feed: &str, context: &Context) -> Result<Verdict, Trouble> {
        let warm = self.fresh(instances)?;
        self.call(instances, warm, message, feed, context)
    }

    fn fresh(&self, instances: &mut Instances) -> Result<Warm, Trouble> {
        let wasi = has_wasi(&self.imports);
        instances.make_room(false);
        let mut made = instance::instantiate(&self.pre, &self.limits, wasi, &self.config);
        while matches!(&made, Err(Failure::Start(error, _)) if error.is::<wasmtime::PoolConcurrencyLimitError>())
            && instances.make_room(true)
        {
            made = instance::instantiate(&self.pre, &self.limits, wasi, &self.config);
        }
        let (store, plugin) = made.map_err(|failure| failed(self.digest, failure))?;
        Ok(Warm { owner: self.id, alive: Arc::downgrade(&self.alive), served: 0, store, plugin })
    }

    fn call(
        &self,
        instances: &mut Instances,
        mut warm: Warm,
        message: &Message,
        feed: &str,
        context: &Context,
    ) -> Result<Verdict, Trouble> {
        let Warm { store, plugin, .. } = &mut warm;
        instance::begin(store);
        if let Some(inert) = &store.data().inert {
            inert.begin(context.now_ms, &[message.id.as_bytes(), &context.attempt.to_le_bytes()]);
        }
        let guest = plugin.tolk_translator_translator();
        let called = convert::lend(message, feed, context, |message, context| guest.call_translate(&mut *store, message, context));
        let verdict = called.map_err(|error| self.exceeded_or(&error, store))?;
        let mut log = Log::new(self.limits.log_bytes_max);
        if let Some(inert) = &store.data().inert {
            let (written, cut) = inert.take_log();
            log.written(&written, cut);
        }
        verdict.log.iter().for_each(|line| log.line(line));
        let mut outcome = verdict.outcome.into();
        contract::check(&mut outcome, &self.description, &self.limits)
            .map_err(|breach| Trouble { code: breach.code, text: format!("plugin {}: {}", self.digest.short(), breach.text) })?;
        warm.served += 1;
        if warm.served < self.retire_after {
            instances.keep(warm);
        }
        Ok(Verdict { outcome, log: log.finish() })
    }

    fn exceeded_or(&self, error: &wasmtime::Error, store: &mut Store<State>) -> Trouble {
        if is_hostcall_limit(error) {
            let fuel = instance::hostcall_fuel(&self.limits);
            let text = format!(
                "plugin {}: output_bytes_max is {} bytes and outputs_max {}, used more than {fuel} bytes together with log and records",
                self.digest.short(),
                self.limits.output_bytes_max,
                self.limits.outputs_max
            );
            return Trouble { code: "output-limit", text };
        }
        trouble(self.digest, error, store)
    }
}

/// wasmtime has no public type for it.
fn is_hostcall_limit(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("fuel allocated for hostcalls")
}

fn failed(digest: Digest, failure: Failure) -> Trouble {
    match failure {
        Failure::Call(error, mut store) => trouble(digest, &error, &mut store),
        Failure::Start(error, mut store) => {
            let own = error.is::<Trap>() || error.is::<Exceeded>() || error.is::<wasmtime_wasi::I32Exit>();
            let trouble = trouble(digest, &error, &mut store);
            // What is not the guest's doing is the machine's: no memory, no place.
            if own { trouble } else { Trouble { code: "engine", ..trouble } }
        }
        Failure::Config(reason) => {
            Trouble { code: "config", text: format!("plugin {} refuses its config: {}", digest.short(), plain(&reason, WORDS_BYTES_MAX)) }
        }
    }
}

/// What an error of a call means to a person.
fn trouble(digest: Digest, error: &wasmtime::Error, store: &mut Store<State>) -> Trouble {
    let name = digest.short();
    let (code, what) = if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        let code = match exceeded {
            Exceeded::Cpu { .. } => "cpu-limit",
            Exceeded::Memory { .. } => "memory-limit",
            Exceeded::Table { .. } => "table-limit",
        };
        (code, exceeded.to_string())
    } else if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        ("trap", format!("it left with exit code {}; a translator must return", exit.0))
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        match trap {
            Trap::StackOverflow => ("stack-overflow", format!("the stack's limit is {} bytes, used more", super::engine::STACK_BYTES_MAX)),
            trap => ("trap", trap.to_string()),
        }
    } else if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        ("engine", format!("no place for another instance ({error}); raise runtime.instances_max"))
    } else {
        // The canonical ABI's own refusals: bytes that are no UTF-8, pointers out of bounds.
        ("trap", plain(&format!("{:#}", error.root_cause()), WORDS_BYTES_MAX))
    };
    let memory = store.data().memory_bytes;
    let frames = frames(error);
    let said = store.data().inert.as_ref().map(|inert| inert.take_log().0).filter(|said| !said.is_empty());
    let said = said.map(|said| format!("; it said: {}", tail(&said))).unwrap_or_default();
    Trouble { code, text: format!("plugin {name}: {what}{frames}; memory used {memory} bytes{said}") }
}

fn tail(said: &[u8]) -> String {
    let from = said.len().saturating_sub(WORDS_BYTES_MAX);
    plain(String::from_utf8_lossy(&said[from..]).trim_end(), WORDS_BYTES_MAX)
}

fn frames(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => plain(name, 96),
        None => format!("function {}", frame.func_index()),
    };
    let names: Vec<String> = backtrace.frames().iter().take(FRAMES_MAX).map(name).collect();
    if names.is_empty() { String::new() } else { format!(" in {}", names.join(" < ")) }
}

/// Compiles in this process.
pub(super) fn compile_here(engine: &Engine, component: &[u8]) -> Result<Component, Error> {
    Component::new(engine, component)
        .map_err(|error| Error::Refused(format!("it does not compile: {}", plain(&format!("{error:#}"), WORDS_BYTES_MAX))))
}
