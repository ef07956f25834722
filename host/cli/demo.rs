//! `tolk demo`: the main job on this machine alone. A Kafka and the remote systems live in this process; the store is an SQLite file that
//! every other command can look into while it runs.

mod remote;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Progress, Until};
use crate::cli::messages::show;
use crate::cli::shell::Shell;
use crate::cli::{Exit, listing};
use crate::config::{self, Config};
use crate::message::{Captured, Status};
use crate::registry;
use crate::source::kafka::mock::Mock;
use crate::store::{Activation, Count, Filter, Store};

const TOPIC: &str = "arena-changes";
const FEED: &str = "arena";
const OUT: [&str; 2] = ["amt.amt-tiltak-v1", "amt.arena-enkeltplass-deltaker-v1"];

/// Arguments of `tolk demo`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The folder that gets the config and the database; emptied of an earlier demonstration
    #[arg(long, default_value = "target/demo", value_name = "FOLDER")]
    folder: PathBuf,
    /// Go on with a steady flow of updates until Ctrl-C, so that plugins can be swapped meanwhile
    #[arg(long)]
    follow: bool,
    /// Updates a second of the steady flow
    #[arg(long, default_value_t = 50, requires = "follow", value_name = "N")]
    rate: u32,
    /// The Arena components: gjennomforing, deltaker, hist-deltaker
    #[arg(required = true, num_args = 1.., value_name = "PLUGIN")]
    plugins: Vec<PathBuf>,
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let mock = Mock::start(&[(TOPIC, world::PARTITIONS as i32), (OUT[0], 3), (OUT[1], 3)]).map_err(anyhow::Error::msg)?;
    let remote = remote::start().await.context("start the remote systems on a loopback port")?;
    let (path, config) = write_config(&args.folder, mock.brokers(), &remote)?;
    shell.note(format!("config    {}", path.display()));
    shell.note(format!("database  {}", args.folder.join("tolk.db").display()));

    let stop = CancellationToken::new();
    let progress = Progress::default();
    let app = App::open(config, progress.clone(), &stop).await?.context("open the demonstration's store")?;
    let app = Arc::new(app);
    for plugin in &args.plugins {
        activate(&app, plugin, shell).await?;
    }

    let messages = world::messages();
    let total = messages.len() as u64;
    let mock = Arc::new(mock);
    let producing = produce(mock.clone(), messages);
    let started = Instant::now();
    let running = {
        let (app, stop) = (app.clone(), stop.clone());
        tokio::spawn(async move { app.run(Until::Stopped, stop).await })
    };
    producing.await??;
    let store = app.store.clone();
    wait(&*store, &progress, total).await?;
    let took = started.elapsed();
    report(shell, &*store, &progress, took, &path).await?;
    if args.follow {
        follow(shell, mock, &progress, args.rate, &path).await?;
    }
    stop.cancel();
    running.await??;
    Ok(Exit::Ok)
}

fn write_config(folder: &Path, brokers: &str, remote: &str) -> anyhow::Result<(PathBuf, Config)> {
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let folder = folder.canonicalize().with_context(|| format!("find {}", folder.display()))?;
    for file in ["tolk.db", "tolk.db-wal", "tolk.db-shm", "tolk.db.lock", "out.jsonl"] {
        match std::fs::remove_file(folder.join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                bail!("remove what an earlier demonstration left, {}: {error}", folder.join(file).display());
            }
            _ => {}
        }
    }
    let text = include_str!("demo/demo.toml")
        .replace("{folder}", &folder.display().to_string())
        .replace("{brokers}", brokers)
        .replace("{remote}", remote);
    let path = folder.join("tolk.toml");
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    let config = config::load::load(&path)?;
    Ok((path, config))
}

async fn activate(app: &App, plugin: &Path, shell: &Shell) -> anyhow::Result<()> {
    let component = std::fs::read(plugin)
        .with_context(|| format!("read the component {}; `make demo` builds it with `tolk build`", plugin.display()))?;
    let pushed = registry::push(&*app.store, &app.runtime, &component, "demo").await?;
    for table in &pushed.description.tables {
        let activation = Activation {
            id: 0,
            feed: FEED.to_owned(),
            table: table.clone(),
            digest: pushed.digest.parse().map_err(anyhow::Error::msg)?,
            config: String::new(),
            at_ms: app.store.now_ms().await?,
            by: "demo".to_owned(),
            why: "the demonstration".to_owned(),
        };
        registry::activate(&*app.store, &activation).await?;
        shell.note(format!("plugin    {} {}  {}", pushed.description.name, listing::short(&pushed.digest), table));
    }
    Ok(())
}

fn produce(mock: Arc<Mock>, messages: Vec<Captured>) -> tokio::task::JoinHandle<anyhow::Result<()>> {
    tokio::task::spawn_blocking(move || mock.produce(TOPIC, &messages).map_err(anyhow::Error::msg))
}

/// Shows progress until everything that can go on has gone on and is published.
async fn wait(store: &dyn Store, progress: &Progress, total: u64) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{bar:40.cyan/blue} {pos}/{len} settled, {msg}").context("the progress bar's template")?;
    let bar = ProgressBar::new(total).with_style(style);
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let ingested = progress.ingested.load(Ordering::Relaxed);
        let published = progress.published.load(Ordering::Relaxed);
        bar.set_position(progress.translated.messages.load(Ordering::Relaxed).min(total));
        bar.set_message(format!("{ingested} in the inbox, {published} published"));
        if ingested >= total && settled(store).await? {
            bar.finish();
            return Ok(());
        }
        if Instant::now() > deadline {
            bar.abandon();
            bail!("finish within two minutes; look at `tolk messages --counts` and run with TOLK_LOG=info");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn settled(store: &dyn Store) -> anyhow::Result<bool> {
    let moving = |count: &Count| count.status == Status::Pending.as_str();
    Ok(!store.counts().await?.iter().any(moving) && store.unpublished().await?.iter().all(|(_, count)| *count == 0))
}

async fn report(shell: &Shell, store: &dyn Store, progress: &Progress, took: Duration, config: &Path) -> anyhow::Result<()> {
    let counts = store.counts().await?;
    let rows = counts.iter().map(|count| {
        let table = if count.table.is_empty() { "(none)" } else { &count.table };
        vec![table.to_owned(), count.status.clone(), count.count.to_string()]
    });
    shell.say(format!("\nWhat became of the messages\n{}", listing::table(&["TABLE", "STATUS", "MESSAGES"], rows)))?;

    let filter = Filter { table: Some("SIAMO.TILTAKDELTAKER".to_owned()), status: Some(Status::Handled), limit: 1, ..Filter::default() };
    if let Some(one) = store.messages(&filter).await?.first() {
        shell.say("\nOne message, from input to output")?;
        show::show(shell, store, one.id).await?;
    }

    let messages: i64 = counts.iter().map(|count| count.count).sum();
    let seconds = took.as_secs_f64();
    let published = progress.published.load(Ordering::Relaxed);
    shell.say(format!(
        "\n{messages} messages in, {published} outputs published in {seconds:.1} s: {:.0} messages a second, each with its remote calls",
        messages as f64 / seconds
    ))?;
    let config = config.display();
    shell.say(format!(
        "\nTry next:\n  tolk --config {config} messages --status waiting\n  tolk --config {config} plugins --history\n  tolk --config {config} capture --feed {FEED} --table SIAMO.TILTAKDELTAKER --count 5 -o captures.jsonl"
    ))?;
    Ok(())
}

/// A steady flow of updates until Ctrl-C.
async fn follow(shell: &Shell, mock: Arc<Mock>, progress: &Progress, rate: u32, config: &Path) -> anyhow::Result<()> {
    shell.note(format!("\n{rate} updates a second until Ctrl-C; swap a plugin meanwhile with tolk --config {}", config.display()));
    let mut seconds = 0;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            _ = &mut interrupted => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        produce(mock.clone(), world::second(seconds, u64::from(rate))).await??;
        seconds += 1;
        let settled = progress.translated.messages.load(Ordering::Relaxed);
        shell.note(format!("{settled} settled, {} published", progress.published.load(Ordering::Relaxed)));
    }
}
