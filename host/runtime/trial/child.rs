//! The child: loads plugins and makes calls as it is told, until its input ends. It says nothing of what they answer.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use super::SUBCOMMAND;
use super::frame::{CAME_BACK, Frame, REFUSED};
use crate::runtime::{Config, Instances, Runtime, Translator, compile, threads};

/// If this process is such a child, does its work; to be called before anything else in `main`.
pub fn child() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != SUBCOMMAND {
        return None;
    }
    let settings = args.next().unwrap_or_default();
    // A call has the stack here that it has in a host.
    let work = std::thread::Builder::new().stack_size(threads::STACK_BYTES).spawn(move || work(&settings));
    let done = work.map_err(|error| error.to_string()).and_then(|thread| thread.join().unwrap_or_else(|_| Err("it panicked".to_owned())));
    Some(compile::ended(done))
}

fn work(settings: &str) -> Result<(), String> {
    let settings: Config = serde_json::from_str(settings).map_err(|error| format!("read the settings: {error}"))?;
    let settings = Config { threads: 1, instances_max: 4, ..settings };
    let runtime = Runtime::new(&settings).map_err(|error| error.to_string())?;
    let mut instances = runtime.here();
    let mut known = HashMap::new();
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    loop {
        let frame = read(&mut input)?;
        let Some((frame, attached)) = frame else { return Ok(()) };
        let said = if done(&runtime, &mut known, &mut instances, frame, &attached) { CAME_BACK } else { REFUSED };
        output.write_all(&[said]).and_then(|()| output.flush()).map_err(|error| format!("answer: {error}"))?;
    }
}

fn read(input: &mut impl Read) -> Result<Option<(Frame, Vec<u8>)>, String> {
    Frame::read(input).map_err(|error| format!("read a frame: {error}"))
}

fn done(runtime: &Runtime, known: &mut HashMap<u64, Arc<Translator>>, instances: &mut Instances, frame: Frame, attached: &[u8]) -> bool {
    match frame {
        Frame::Load { translator, digest, limits, config } => {
            let loaded = digest.parse().ok().and_then(|digest| runtime.adopt(digest, attached, limits, &config).ok());
            loaded.is_some_and(|loaded| known.insert(translator, loaded).is_none())
        }
        Frame::Try { translator, case } => {
            let Some(translator) = known.get(&translator) else { return false };
            let (message, feed, context) = case.into_parts();
            crate::faults::keyed("guest", message.captured.key.as_deref());
            // Whatever it says, and however it fails: it came back.
            let _said = translator.translate(instances, &message, &feed, &context);
            true
        }
    }
}
