//! The one engine: its settings, the key that says which artefacts fit it, and the thread that ticks its epochs.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::{Config, Error};

/// Elements of one table of a plugin.
pub(super) const TABLE_ELEMENTS_MAX: usize = 1 << 16;
/// Tables of one instance: the plugin's own and those of its adapters.
pub(super) const TABLES_MAX: u32 = 8;
/// Core instances of one plugin: its module, adapters, shims.
pub(super) const CORE_INSTANCES_MAX: u32 = 64;
/// Native stack of a guest; the threads that run guests have several times as much.
pub(super) const STACK_BYTES_MAX: usize = 512 << 10;

/// Makes the engine. Where the address space is too small for a pool of instances, they are made one by one, which is slower but right.
pub(super) fn build(settings: &Config) -> Result<Engine, Error> {
    if settings.memory_bytes_max > u32::MAX as usize {
        return Err(Error::Engine(format!(
            "runtime.memory_bytes_max is {}; a plugin's memory has 32-bit addresses: set at most {}",
            settings.memory_bytes_max,
            u32::MAX
        )));
    }
    match Engine::new(&pooled(settings)) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            let engine = single(settings)?;
            tracing::warn!(
                error = format!("{error:#}"),
                instances_max = settings.instances_max,
                "no address space for a pool of instances: they are made one by one; lower runtime.instances_max or raise the limit of virtual memory"
            );
            Ok(engine)
        }
    }
}

/// An engine without a pool: same code, no reserved address space. For the compiling child, and as the way out.
pub(super) fn single(settings: &Config) -> Result<Engine, Error> {
    Engine::new(&base(settings)).map_err(|error| Error::Engine(format!("make the engine: {error:#}")))
}

fn pooled(settings: &Config) -> wasmtime::Config {
    let count = settings.instances_max.max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(count)
        .total_core_instances(count.saturating_mul(CORE_INSTANCES_MAX / 4))
        .total_memories(count)
        .total_tables(count.saturating_mul(TABLES_MAX / 2))
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(1)
        .max_tables_per_component(TABLES_MAX)
        .max_memory_size(settings.memory_bytes_max)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(8 << 10);
    let mut config = base(settings);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

fn base(_settings: &Config) -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config
        .strategy(wasmtime::Strategy::Cranelift)
        .cranelift_opt_level(wasmtime::OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .epoch_interruption(true)
        .consume_fuel(false)
        .max_wasm_stack(STACK_BYTES_MAX)
        .memory_init_cow(true)
        .concurrency_support(false)
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_wide_arithmetic(false)
        .wasm_custom_page_sizes(false);
    config
}

/// What an artefact fits: the version and hash that wasmtime itself compares, settings and CPU features included.
pub(super) fn key(engine: &Engine) -> String {
    let mut hash = Sha256Hasher(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hash);
    let hash: [u8; 32] = hash.0.finalize().into();
    let short: String = hash[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("wasmtime-48-{}-{}-{short}", std::env::consts::ARCH, std::env::consts::OS)
}

/// Gives `Hash` implementations a hash that is the same in every process.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash: [u8; 32] = self.0.clone().finalize().into();
        u64::from_le_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]])
    }
}

/// Starts the thread that raises the epoch; it ends by itself once nothing uses the engine any more. An operating-system thread: a busy
/// async worker must not stop the clock that stops busy guests.
pub(super) fn start_ticker(engine: &Engine, tick: Duration) -> Result<(), Error> {
    let engine = engine.weak();
    let tick = tick.max(Duration::from_millis(1));
    let work = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(tick);
        }
    };
    let thread = std::thread::Builder::new().name("tolk-ticker".to_owned()).spawn(work);
    thread.map(drop).map_err(|error| Error::Engine(format!("start the ticker's thread: {error}")))
}

/// CPU time that the calling thread has used: being preempted costs a guest nothing.
#[expect(unsafe_code, reason = "the standard library does not read this clock")]
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours; this clock exists on every system that has threads.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    debug_assert_eq!(done, 0);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs().try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_that_of_the_code_not_of_the_pool() {
        let settings = Config { instances_max: 4, ..Config::default() };
        let (pool, one) = (build(&settings).unwrap(), single(&settings).unwrap());
        assert_eq!(key(&pool), key(&one));
        let other = Engine::new(base(&settings).cranelift_nan_canonicalization(false)).unwrap();
        assert_ne!(key(&pool), key(&other));
    }

    #[test]
    fn memories_beyond_32_bits_are_refused_with_advice() {
        let error = build(&Config { memory_bytes_max: 5 << 30, ..Config::default() }).err().unwrap().to_string();
        assert!(error.contains("runtime.memory_bytes_max is 5368709120"), "{error}");
    }
}
