//! The inert WASI of toolchains that insist on one: the clock stands at the context's `now`, random numbers come from the message, output
//! goes to the guest's log; no files, arguments, environment or sockets, and nothing blocks.

use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime::{Engine, StoreContextMut};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use super::Error;
use super::instance::State;

/// Resources (streams, pollables) that a guest may hold.
const RESOURCES_MAX: usize = 256;
/// Random bytes of one call.
const RANDOM_BYTES_MAX: u64 = 1 << 20;
/// The interface of blocking, in the version that wasmtime-wasi links; semver of the linker serves the others.
const POLL: &str = "wasi:io/poll@0.2.12";
/// Bytes that a guest may write at once.
const PERMIT_BYTES: usize = 64 << 10;

/// The interfaces that exist, without versions. Those of the file system are there because toolchains import their types; no descriptor
/// of any file can be had.
pub(super) const INTERFACES: [&str; 20] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// A linker with the inert WASI.
pub(super) fn linker(engine: &Engine) -> Result<Linker<State>, Error> {
    let mut linker = Linker::new(engine);
    link(&mut linker).map_err(|error| Error::Engine(format!("link the inert WASI: {error:#}")))?;
    Ok(linker)
}

fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    // Blocking would hold a CPU thread where no epoch reaches it. Time stands still here, so whatever is waited for is ready.
    linker.allow_shadowing(true);
    let mut poll = linker.instance(POLL)?;
    poll.func_wrap("poll", |_: StoreContextMut<'_, State>, (pollables,): (Vec<Resource<DynPollable>>,)| {
        let all: Vec<u32> = (0..pollables.len()).filter_map(|index| u32::try_from(index).ok()).collect();
        Ok((all,))
    })?;
    poll.func_wrap("[method]pollable.ready", |_: StoreContextMut<'_, State>, (_,): (Resource<DynPollable>,)| Ok((true,)))?;
    poll.func_wrap("[method]pollable.block", |_: StoreContextMut<'_, State>, (_,): (Resource<DynPollable>,)| Ok(()))?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What an instance with WASI holds.
pub(super) struct Inert {
    ctx: WasiCtx,
    table: ResourceTable,
    now_ms: Arc<AtomicI64>,
    random: Random,
    written: Written,
}

impl Inert {
    /// A world in which nothing happens; keeps at most `log_bytes_max` bytes of output of one call.
    pub(super) fn new(log_bytes_max: usize) -> Self {
        let now_ms = Arc::new(AtomicI64::new(0));
        let random = Random::default();
        let written = Written { log: Arc::default(), bytes_max: log_bytes_max };
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        // The insecure seed stays the same: it seeds hash maps, and those of a warm instance must not depend on its first message.
        let ctx = WasiCtx::builder()
            .wall_clock(Standing(now_ms.clone()))
            .monotonic_clock(Standing(now_ms.clone()))
            .secure_random(random.clone())
            .insecure_random(random.clone())
            .insecure_random_seed(0)
            .max_random_size(RANDOM_BYTES_MAX)
            .stdout(written.clone())
            .stderr(written.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        Self { ctx, table, now_ms, random, written }
    }

    /// Sets the scene for one call.
    pub(super) fn begin(&self, now_ms: i64, seed: &[&[u8]]) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
        self.random.reseed(seed);
        *lock(&self.written.log) = Log::default();
    }

    /// Takes what was written since `begin`, and how many bytes were cut.
    pub(super) fn take_log(&self) -> (Vec<u8>, usize) {
        let log = std::mem::take(&mut *lock(&self.written.log));
        (log.bytes, log.cut)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let inert = self.inert.as_mut().expect("WASI is linked only into instances that have one");
        WasiCtxView { ctx: &mut inert.ctx, table: &mut inert.table }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Standing(Arc<AtomicI64>);

impl Standing {
    fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed).max(0).unsigned_abs()
    }
}

impl HostWallClock for Standing {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.ms())
    }
}

impl HostMonotonicClock for Standing {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        self.ms().saturating_mul(1_000_000)
    }
}

/// SHA-256 in counter mode: the same numbers on every machine and in every version.
#[derive(Clone, Default)]
struct Random(Arc<Mutex<Stream>>);

#[derive(Default)]
struct Stream {
    seed: [u8; 32],
    block: [u8; 32],
    next: u64,
    used: usize,
}

impl Random {
    fn reseed(&self, parts: &[&[u8]]) {
        let mut hash = Sha256::new();
        parts.iter().for_each(|part| hash.update(part));
        *lock(&self.0) = Stream { seed: hash.finalize().into(), block: [0; 32], next: 0, used: 32 };
    }
}

impl rand::TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        let mut stream = lock(&self.0);
        for byte in into {
            if stream.used == 32 {
                let mut hash = Sha256::new();
                hash.update(stream.seed);
                hash.update(stream.next.to_le_bytes());
                stream.block = hash.finalize().into();
                stream.next += 1;
                stream.used = 0;
            }
            *byte = stream.block[stream.used];
            stream.used += 1;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Log {
    bytes: Vec<u8>,
    cut: usize,
}

#[derive(Clone)]
struct Written {
    log: Arc<Mutex<Log>>,
    bytes_max: usize,
}

impl Written {
    fn take(&self, bytes: &[u8]) {
        let mut log = lock(&self.log);
        let room = self.bytes_max.saturating_sub(log.bytes.len()).min(bytes.len());
        log.bytes.extend_from_slice(&bytes[..room]);
        log.cut += bytes.len() - room;
    }
}

impl IsTerminal for Written {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Written {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Written {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT_BYTES)
    }
}

#[async_trait::async_trait]
impl Pollable for Written {
    async fn ready(&mut self) {}
}
