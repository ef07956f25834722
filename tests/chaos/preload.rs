//! Libraries that are preloaded into hosts, compiled here from the C beside this file: what a machine's administrator or its network can do to
//! a process from outside. Each does one thing, so that what it leaves alone is known.

use std::path::Path;
use std::process::Command;

use crate::world::World;

/// Compiles `tests/chaos/preload/NAME.c` into the world's folder; what `LD_PRELOAD` takes.
pub fn library(world: &World, name: &str) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/chaos/preload/{name}.c"));
    let library = world.rig.tolk.path(&format!("{name}.so"));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let said = Command::new(compiler).args(["-Wall", "-O1", "-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").output();
    let said = said.expect("a C compiler is there: it has compiled librdkafka");
    assert!(said.status.success(), "{name}.c does not compile: {}", String::from_utf8_lossy(&said.stderr));
    library.display().to_string()
}
