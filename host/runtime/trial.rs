//! Tries a guest's call in a child process, where hosts have died over the messages at hand: what ends its process ends the child, and is
//! known by it. The child lives on from one call to the next; what a call answers is of no interest here. The child's side is `trial/child.rs`.

mod child;
mod frame;

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

pub use self::child::child;
use self::frame::{CAME_BACK, Case, Frame};
use super::{Config, Error, Translator, compile};
use crate::message::Message;
use crate::plugin::Context;

/// The hidden subcommand of the child.
pub const SUBCOMMAND: &str = "__try";

/// Children that a call must end, one after the other, before it is held to be the call: one alone may have died by chance.
const DEATHS: u32 = 2;
/// What the child may take beside the guest's own time: its start on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// The child at hand, if there is one. One call at a time.
#[derive(Default)]
pub(super) struct Trials(Mutex<Option<Process>>);

struct Process {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    /// Translators that it has.
    loaded: HashSet<u64>,
}

enum Tried {
    CameBack,
    /// By this signal.
    Died(i32),
    /// It says nothing of the call: no child could be started, or somebody stopped it.
    Unknown(String),
}

impl Trials {
    /// Tries a call; an error says how it ended the processes that ran it. What cannot be tried has not ended any.
    pub(super) async fn try_out(
        &self,
        settings: &Config,
        translator: &Translator,
        message: &Message,
        feed: &str,
        context: &Context,
    ) -> Result<(), String> {
        let mut place = self.0.lock().await;
        let mut signals = Vec::new();
        while signals.len() < DEATHS as usize {
            let limit = PATIENCE + Duration::from_millis(2 * translator.limits().cpu_ms_max);
            let tried = match tokio::time::timeout(limit, attempt(&mut place, settings, translator, message, feed, context)).await {
                Ok(tried) => tried,
                Err(_) => Tried::Unknown(format!("no answer within {} s", limit.as_secs())),
            };
            match tried {
                Tried::CameBack => return Ok(()),
                Tried::Died(signal) => {
                    *place = None;
                    tracing::warn!(message = %message.id, feed, signal, "a process that tried a message alone has died over it");
                    signals.push(signal.to_string());
                }
                Tried::Unknown(reason) => {
                    *place = None;
                    tracing::warn!(message = %message.id, feed, reason, "a message could not be tried in a process of its own");
                    return Ok(());
                }
            }
        }
        Err(format!("{DEATHS} processes that ran it alone died of it (signal {})", signals.join(", ")))
    }
}

async fn attempt(
    place: &mut Option<Process>,
    settings: &Config,
    translator: &Translator,
    message: &Message,
    feed: &str,
    context: &Context,
) -> Tried {
    let process = match place {
        Some(process) => process,
        None => match Process::start(settings) {
            Ok(process) => place.insert(process),
            Err(error) => return Tried::Unknown(error.to_string()),
        },
    };
    if !process.loaded.contains(&translator.id()) {
        match process.load(translator).await {
            Ok(()) => process.loaded.insert(translator.id()),
            // A plugin that does not even start there says nothing of the message.
            Err(error) => return Tried::Unknown(format!("load the plugin: {error}")),
        };
    }
    let case = Case::of(message, feed, context);
    match process.ask(&Frame::Try { translator: translator.id(), case }, &[]).await {
        Ok(()) => Tried::CameBack,
        Err(error) => match process.child.wait().await.map(|status| status.signal()) {
            Ok(Some(signal)) if !matches!(signal, libc::SIGINT | libc::SIGTERM | libc::SIGHUP) => Tried::Died(signal),
            ended => Tried::Unknown(format!("{error}; it ended with {ended:?}")),
        },
    }
}

impl Process {
    fn start(settings: &Config) -> Result<Self, Error> {
        let failed = |error: String| Error::Engine(format!("start a process that tries messages: {error}"));
        let text = serde_json::to_string(settings).map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(compile::program(settings)?);
        command.args([SUBCOMMAND, &text]).env_clear();
        // What a test makes fail in a host fails there too.
        if let Some(rules) = std::env::var_os("TOLK_FAULTS").filter(|_| crate::faults::ON) {
            command.env("TOLK_FAULTS", rules);
        }
        // A group of its own: a signal from a terminal is meant for the host.
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let input = child.stdin.take().expect("the child's input is a pipe");
        let output = child.stdout.take().expect("the child's output is a pipe");
        Ok(Self { child, input, output, loaded: HashSet::new() })
    }

    async fn load(&mut self, translator: &Translator) -> std::io::Result<()> {
        let artefact = translator.artefact().map_err(std::io::Error::other)?;
        let frame = Frame::Load {
            translator: translator.id(),
            digest: translator.digest().to_string(),
            limits: translator.limits().clone(),
            config: translator.config().to_owned(),
        };
        self.ask(&frame, &artefact).await
    }

    /// Sends a frame and waits until the child says that it has done what it says.
    async fn ask(&mut self, frame: &Frame, attached: &[u8]) -> std::io::Result<()> {
        self.input.write_all(&frame.head(attached)?).await?;
        self.input.write_all(attached).await?;
        self.input.flush().await?;
        let mut said = [0];
        self.output.read_exact(&mut said).await?;
        if said == [CAME_BACK] { Ok(()) } else { Err(std::io::Error::other("the child refuses")) }
    }
}
