//! `tolk run`: a host, from its start to a graceful stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::Door;
use crate::app::{App, Progress, Until};
use crate::cli::Exit;
use crate::cli::shell::Shell;

/// Arguments of `tolk run`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// End once every source has ended and all that can go on is done and published; else it runs until SIGTERM or SIGINT
    #[arg(long)]
    until_done: bool,
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let until = if args.until_done { Until::Done } else { Until::Stopped };
    let closing = CancellationToken::new();
    // The door opens first: a host that waits for its store lives, and says that it is not ready.
    let (inner, served) = Door::bind(&config).await?.map(|door| door.serve(closing.clone())).unzip();
    let served = served.map(tokio::spawn);
    if let Some(app) = App::open(config, Progress::default(), &stop).await? {
        if let Some(inner) = inner {
            inner.opened(&app);
        }
        app.run(until, stop).await?;
    }
    closing.cancel();
    if let Some(served) = served {
        served.await?;
    }
    tracing::info!("stopped");
    Ok(Exit::Ok)
}

/// The first signal asks for a graceful stop; the second ends the process at once, which is as safe as `kill -9`.
fn stop_on_signal(stop: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for again in [false, true] {
            let (name, code) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 143),
                _ = interrupt.recv() => ("SIGINT", 130),
            };
            if again {
                std::process::exit(code);
            }
            tracing::info!(signal = name, "stopping; a second signal stops at once");
            stop.cancel();
        }
    });
    Ok(())
}
