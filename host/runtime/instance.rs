//! A warm instance: a store, the plugin in it, and the meters that end a call which takes too much. Knows nothing of messages.

use std::sync::Weak;
use std::time::Duration;

use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use super::bindings::{Plugin, PluginPre};
use super::engine::{self, CORE_INSTANCES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use super::wasi::Inert;
use crate::plugin::Limits;

/// What the host keeps beside an instance.
pub(super) struct State {
    /// The inert WASI, for plugins that import it.
    pub(super) inert: Option<Box<Inert>>,
    /// The largest memory so far, in bytes.
    pub(super) memory_bytes: usize,
    memory_bytes_max: usize,
    cpu_max: Duration,
    /// The thread's CPU time at the first tick of the call: reading it at the start would cost each call a system call, so a call is
    /// charged from its first tick on.
    metered_from: Option<Duration>,
}

/// A limit that ended a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Exceeded {
    #[error("cpu_ms_max is {limit_ms} ms, used {used_ms} ms of CPU time")]
    Cpu { limit_ms: u128, used_ms: u128 },
    #[error("memory_bytes_max is {limit} bytes, used {used} and asked for {asked}")]
    Memory { limit: usize, used: usize, asked: usize },
    #[error("a table holds at most {limit} elements, used {used} and asked for {asked}")]
    Table { limit: usize, used: usize, asked: usize },
}

impl State {
    fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let now = engine::thread_cpu();
        let used = now.saturating_sub(*self.metered_from.get_or_insert(now));
        if used > self.cpu_max {
            return Err(Exceeded::Cpu { limit_ms: self.cpu_max.as_millis(), used_ms: used.as_millis() }.into());
        }
        Ok(UpdateDeadline::Continue(1))
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        // An error, not a refusal that the guest could turn into some other trap: the person gets to read what was asked for.
        if desired > self.memory_bytes_max {
            return Err(Exceeded::Memory { limit: self.memory_bytes_max, used: self.memory_bytes, asked: desired }.into());
        }
        self.memory_bytes = self.memory_bytes.max(desired);
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            return Err(Exceeded::Table { limit: TABLE_ELEMENTS_MAX, used: current, asked: desired }.into());
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        1
    }
}

/// An instance that stays for the next message.
pub(super) struct Warm {
    /// Which translator it belongs to.
    pub(super) owner: u64,
    /// Gone once the translator is.
    pub(super) alive: Weak<()>,
    /// Messages so far.
    pub(super) served: u64,
    pub(super) store: Store<State>,
    pub(super) plugin: Plugin,
}

/// Bytes that a guest may hand over in one call: what a verdict may hold by its limits, and room for the records around it. Beyond it
/// wasmtime itself ends the call, before the host has allocated more.
pub(super) fn hostcall_fuel(limits: &Limits) -> usize {
    let records = limits.outputs_max.saturating_add(limits.needs_max).saturating_mul(1 << 10);
    limits.output_bytes_max.saturating_mul(2).saturating_add(limits.log_bytes_max).saturating_add(records).saturating_add(2 << 20)
}

/// A new store with its meters running.
pub(super) fn store(engine: &wasmtime::Engine, limits: &Limits, wasi: bool) -> Store<State> {
    let state = State {
        inert: wasi.then(|| Box::new(Inert::new(limits.log_bytes_max))),
        memory_bytes: 0,
        memory_bytes_max: limits.memory_bytes_max,
        cpu_max: Duration::from_millis(limits.cpu_ms_max),
        metered_from: None,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| state);
    store.epoch_deadline_callback(|mut ctx| ctx.data_mut().tick());
    store.set_hostcall_fuel(hostcall_fuel(limits));
    store
}

/// Starts the meter of one call.
pub(super) fn begin(store: &mut Store<State>) {
    store.data_mut().metered_from = None;
    store.set_epoch_deadline(1);
}

/// A new instance, configured.
pub(super) fn instantiate(pre: &PluginPre<State>, limits: &Limits, wasi: bool, config: &str) -> Result<(Store<State>, Plugin), Failure> {
    let mut store = store(pre.engine(), limits, wasi);
    begin(&mut store);
    let started = pre.instantiate(&mut store);
    let plugin = match started {
        Ok(plugin) => plugin,
        Err(error) => return Err(Failure::Start(error, Box::new(store))),
    };
    begin(&mut store);
    match plugin.tolk_translator_translator().call_configure(&mut store, config) {
        Ok(Ok(())) => Ok((store, plugin)),
        Ok(Err(reason)) => Err(Failure::Config(reason)),
        Err(error) => Err(Failure::Call(error, Box::new(store))),
    }
}

/// Why there is no instance.
pub(super) enum Failure {
    /// It trapped or met a limit at its start, or the machine has no room for it; the store tells how far it came.
    Start(wasmtime::Error, Box<Store<State>>),
    /// It trapped or met a limit in `configure`.
    Call(wasmtime::Error, Box<Store<State>>),
    /// The plugin refuses its config.
    Config(String),
}

/// The warm instances of one thread: those used last are kept.
pub struct Instances {
    warm: Vec<Warm>,
    max: usize,
}

impl Instances {
    pub(super) fn new(max: usize) -> Self {
        Self { warm: Vec::new(), max: max.max(1) }
    }

    /// Drops all of them.
    pub(super) fn clear(&mut self) {
        self.warm.clear();
    }

    /// The largest memory of the instances that are kept, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.warm.iter().map(|warm| warm.store.data().memory_bytes).max().unwrap_or(0)
    }

    /// The instance of a translator, if there is one.
    pub(super) fn take(&mut self, owner: u64) -> Option<Warm> {
        let at = self.warm.iter().rposition(|warm| warm.owner == owner)?;
        Some(self.warm.swap_remove(at))
    }

    /// Keeps an instance for the next message.
    pub(super) fn keep(&mut self, warm: Warm) {
        if self.warm.len() >= self.max {
            self.warm.remove(0);
        }
        self.warm.push(warm);
    }

    /// Drops what nobody can use any more, and the oldest if a place is wanted; whether that one was there.
    pub(super) fn make_room(&mut self, wanted: bool) -> bool {
        self.warm.retain(|warm| warm.alive.strong_count() > 0);
        let room = wanted && !self.warm.is_empty();
        if room {
            self.warm.remove(0);
        }
        room
    }
}
