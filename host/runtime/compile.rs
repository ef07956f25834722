//! Compiles components in a child process with limits, because a compiler can be made to take hours and gigabytes; and seals what comes out
//! of it, because an artefact is machine code that is run without further looks.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::log::plain;
use super::{Config, Error, engine};
use crate::plugin::Digest;

/// The hidden subcommand of the child.
pub const SUBCOMMAND: &str = "__compile";

const SEAL_BYTES: usize = 32;
const ERROR_BYTES_MAX: usize = 4 << 10;
/// What a seal is made for: the installation's secret also makes ids.
const PURPOSE: &[u8] = b"tolk compiled artefact 1";

/// If this process is a compiling child, does its work; to be called before anything else in `main`.
pub fn child() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != SUBCOMMAND {
        return None;
    }
    let settings = args.next().unwrap_or_default();
    Some(ended(work(&settings)))
}

/// How a child ends; why it could not do its work is for its parent to read.
pub(super) fn ended(done: Result<(), String>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            let _ = std::io::stderr().write_all(reason.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn work(settings: &str) -> Result<(), String> {
    let settings: Config = serde_json::from_str(settings).map_err(|error| format!("read the settings: {error}"))?;
    limit(libc::RLIMIT_CPU, settings.compile_s_max.max(1))?;
    limit(libc::RLIMIT_AS, settings.compile_bytes_max)?;
    limit(libc::RLIMIT_CORE, 0)?;
    let mut component = Vec::new();
    std::io::stdin().read_to_end(&mut component).map_err(|error| format!("read the component: {error}"))?;
    let engine = engine::single(&settings).map_err(|error| error.to_string())?;
    let artefact = engine.precompile_component(&component).map_err(|error| format!("{error:#}"))?;
    std::io::stdout().write_all(&artefact).map_err(|error| format!("hand over the artefact: {error}"))
}

/// The type of `setrlimit`'s first argument differs between C libraries.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

#[expect(unsafe_code, reason = "the standard library has no limits of resources")]
fn limit(resource: Resource, max: u64) -> Result<(), String> {
    let max = libc::rlim_t::from(max);
    let limit = libc::rlimit { rlim_cur: max, rlim_max: max };
    // SAFETY: the pointer is to a limit of ours, and lowering limits of the own process has no other effect.
    match unsafe { libc::setrlimit(resource, &raw const limit) } {
        0 => Ok(()),
        _ => Err(format!("limit the compiler: {}", std::io::Error::last_os_error())),
    }
}

/// Compiles in a child process. It gets no environment and no files of ours but the three pipes.
pub(super) async fn in_child(settings: &Config, component: &[u8]) -> Result<Vec<u8>, Error> {
    let text = serde_json::to_string(settings).map_err(|error| Error::Engine(format!("hand over the settings: {error}")))?;
    let mut child = Command::new(program(settings)?)
        .args([SUBCOMMAND, &text])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Error::Engine(format!("start the compiling child: {error}")))?;
    let limit = Duration::from_secs(settings.compile_s_max);
    // Twice the CPU limit by the wall: a loaded machine is no reason to refuse a component.
    match tokio::time::timeout(limit * 2, converse(&mut child, component)).await {
        Ok(result) => result?.judge(settings),
        Err(_) => {
            let _ = child.kill().await;
            let text = format!(
                "compiling took too long: runtime.compile_s_max is {} s, used more than {} s",
                limit.as_secs(),
                2 * limit.as_secs()
            );
            Err(Error::Refused(text))
        }
    }
}

pub(super) fn program(settings: &Config) -> Result<PathBuf, Error> {
    if let Some(program) = &settings.compiler {
        return Ok(program.clone());
    }
    // The file of a running program may have been replaced by a newer one; this link leads to the one that runs.
    let own = PathBuf::from("/proc/self/exe");
    if own.exists() {
        return Ok(own);
    }
    std::env::current_exe().map_err(|error| Error::Engine(format!("find the own program: {error}")))
}

struct Reply {
    status: std::process::ExitStatus,
    artefact: Vec<u8>,
    errors: Vec<u8>,
}

async fn converse(child: &mut Child, component: &[u8]) -> Result<Reply, Error> {
    let broken = |error: std::io::Error| Error::Engine(format!("talk to the compiling child: {error}"));
    let mut input = child.stdin.take().expect("the child's input is a pipe");
    let mut output = child.stdout.take().expect("the child's output is a pipe");
    let errors = child.stderr.take().expect("the child's errors are a pipe");
    let (mut artefact, mut said) = (Vec::new(), Vec::new());
    let mut errors = errors.take(ERROR_BYTES_MAX as u64);
    let feed = async move {
        // A child that died tells by its status.
        let _ = input.write_all(component).await;
        drop(input);
    };
    let ((), read, listened) = tokio::join!(feed, output.read_to_end(&mut artefact), errors.read_to_end(&mut said));
    read.map_err(broken)?;
    listened.map_err(broken)?;
    let status = child.wait().await.map_err(broken)?;
    Ok(Reply { status, artefact, errors: said })
}

impl Reply {
    fn judge(self, settings: &Config) -> Result<Vec<u8>, Error> {
        use std::os::unix::process::ExitStatusExt;

        if self.status.success() {
            return Ok(self.artefact);
        }
        let said = plain(String::from_utf8_lossy(&self.errors).trim(), ERROR_BYTES_MAX);
        let text = match self.status.signal() {
            Some(libc::SIGXCPU | libc::SIGKILL) => {
                let max = settings.compile_s_max;
                format!("compiling was ended: runtime.compile_s_max is {max} s of CPU time, used all of it")
            }
            // How an allocation that fails ends a program.
            Some(signal) => {
                let max = settings.compile_bytes_max;
                format!(
                    "compiling was ended by signal {signal}: runtime.compile_bytes_max is {max} bytes, used all of it or crashed ({said})"
                )
            }
            None => format!("it does not compile: {said}"),
        };
        Err(Error::Refused(text))
    }
}

/// An artefact with its seal before it.
pub(super) fn seal(secret: &[u8; 32], digest: Digest, engine_key: &str, artefact: &[u8]) -> Vec<u8> {
    let seal: [u8; SEAL_BYTES] = mac(secret, digest, engine_key, artefact).finalize().into_bytes().into();
    let mut sealed = Vec::with_capacity(SEAL_BYTES + artefact.len());
    sealed.extend_from_slice(&seal);
    sealed.extend_from_slice(artefact);
    sealed
}

/// The artefact, if this installation sealed it for this component and engine.
pub(super) fn unseal<'a>(secret: &[u8; 32], digest: Digest, engine_key: &str, sealed: &'a [u8]) -> Result<&'a [u8], Error> {
    let refused = || {
        let name = digest.short();
        Error::Refused(format!(
            "the seal of the artefact of {name} does not fit the component, the engine {engine_key} or this installation; push it again"
        ))
    };
    let (seal, artefact) = sealed.split_at_checked(SEAL_BYTES).ok_or_else(refused)?;
    mac(secret, digest, engine_key, artefact).verify_slice(seal).map_err(|_| refused())?;
    Ok(artefact)
}

fn mac(secret: &[u8; 32], digest: Digest, engine_key: &str, artefact: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length will do");
    mac.update(PURPOSE);
    mac.update(&digest.0);
    mac.update(&(engine_key.len() as u64).to_be_bytes());
    mac.update(engine_key.as_bytes());
    mac.update(artefact);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_for_its_component_engine_and_installation_only() {
        let digest = Digest([1; 32]);
        let sealed = seal(&[7; 32], digest, "engine", b"code");
        assert_eq!(unseal(&[7; 32], digest, "engine", &sealed).unwrap(), b"code");
        assert!(unseal(&[8; 32], digest, "engine", &sealed).is_err());
        assert!(unseal(&[7; 32], Digest([2; 32]), "engine", &sealed).is_err());
        assert!(unseal(&[7; 32], digest, "enginec", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut tampered = sealed.clone();
            tampered[at] ^= 1;
            assert!(unseal(&[7; 32], digest, "engine", &tampered).is_err(), "byte {at}");
        }
        assert!(unseal(&[7; 32], digest, "engine", &sealed[..20]).is_err());
    }
}
