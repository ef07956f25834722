//! `tolk replay`: runs stored messages again, through the same rows that every order is. The owner of a lane runs live messages first, and a
//! newer message of a key wins.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use uuid::Uuid;

use crate::cli::act::{self, Chosen, Order};
use crate::cli::listing::{self, Output};
use crate::cli::shell::{self, Shell, Stop};
use crate::cli::{Exit, reference};
use crate::config::Config;
use crate::endpoint::Endpoints;
use crate::replay::{self, Choice, Rehearsal, Stage};
use crate::runtime::Runtime;
use crate::store::{ActionKind, Command, Filter, Pick, Selection, Store};

/// Arguments of `tolk replay`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Only these ordering keys, with commas between
    #[arg(long, value_name = "KEY,...", value_delimiter = ',', conflicts_with = "key")]
    keys: Vec<String>,
    /// Only the ordering keys in this file, one a line; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    keys_file: Option<PathBuf>,
    /// Which of the chosen messages run, and what comes along
    #[arg(long, value_enum, default_value_t = Mode::Newest)]
    mode: Mode,
    /// At most so many messages a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Run with this plugin, which must have been active for the feed and table before: its digest, or name@version
    #[arg(long, value_name = "REF")]
    plugin: Option<String>,
    /// Run an older message again even where a newer one of its key was handled
    #[arg(long)]
    force: bool,
    /// Run the messages without writing or publishing anything, and say what would come out otherwise than before
    #[arg(long, conflicts_with_all = ["wait", "rate"])]
    dry_run: bool,
    /// Messages that a dry run tries at most, oldest first
    #[arg(long, value_name = "N", default_value_t = 1_000, requires = "dry_run", value_parser = clap::value_parser!(i64).range(1..))]
    sample: i64,
    #[command(flatten)]
    order: Order,
}

/// Which of the chosen messages run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The newest chosen one of each key
    Newest,
    /// All of each chosen key, from the first chosen one to now, in order
    All,
    /// Each chosen one alone; one that a newer handled message of its key follows is ignored as superseded
    Each,
}

impl From<Mode> for Pick {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Newest => Self::NewestOfKey,
            Mode::All => Self::AllOfKey,
            Mode::Each => Self::Each,
        }
    }
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let keys = keys(&args)?;
    let store = shell.store(&config).await?;
    let (selection, object) = args.chosen.selection(&config, &*store, keys).await?;
    let pinned = match &args.plugin {
        Some(reference) => Some(pinned(&*store, &args.chosen, reference).await?),
        None => None,
    };
    let command = Command {
        id: Uuid::new_v4(),
        kind: ActionKind::Replay,
        by: shell::who(args.order.by.clone()),
        why: args.order.reason.clone(),
        object,
        force: args.force,
        pinned,
        per_second: args.rate,
        pick: args.mode.into(),
    };
    if args.dry_run {
        return dry(shell, &*store, &config, &command, &selection, &args).await;
    }
    act::give(shell, &*store, &command, &selection, &args.order).await
}

/// The keys of the option and of the file.
fn keys(args: &Args) -> anyhow::Result<Vec<String>> {
    let mut keys = args.keys.clone();
    if let Some(path) = &args.keys_file {
        let mut text = String::new();
        if path.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text).context("read keys from stdin")?;
        } else {
            text = std::fs::read_to_string(path).with_context(|| format!("read keys from {}", path.display()))?;
        }
        let from = keys.len();
        keys.extend(text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned));
        if keys.len() == from {
            return Err(Stop::usage(format!("find a key in {}: it has none", path.display())).into());
        }
    }
    Ok(keys)
}

/// The newest activation of the plugin for the chosen feed and table.
async fn pinned(store: &dyn Store, chosen: &Chosen, reference: &str) -> anyhow::Result<i64> {
    let (Some(feed), Some(table)) = (&chosen.which.feed, &chosen.which.table) else {
        return Err(Stop::usage("replay with a chosen plugin")
            .next("name --feed and --table: a plugin runs for one of them with its config")
            .into());
    };
    let components = store.components().await?;
    let digest = reference::resolve(reference, &components)?.digest;
    let found = replay::activation_of(store, feed, table, digest).await?;
    let missing = || {
        Stop::refused(format!("replay with plugin {}: it was never active for {feed}/{table}", digest.short()))
            .next("look at `tolk plugins --history`; a plugin that was never active has no config to run with")
    };
    Ok(found.ok_or_else(missing)?)
}

/// Tries the messages and tells what would come of them.
async fn dry(
    shell: &Shell,
    store: &dyn Store,
    config: &Config,
    command: &Command,
    selection: &Selection,
    args: &Args,
) -> anyhow::Result<Exit> {
    let filters: Vec<Filter> = match selection {
        Selection::Filter(filter) => vec![Filter { limit: args.sample, ..(**filter).clone() }],
        Selection::Ids(ids) => ids.iter().map(|id| Filter { id: Some(*id), limit: 1, ..Filter::default() }).collect(),
    };
    let caller = Endpoints::new(&config.endpoints)?;
    let stage = Stage {
        store,
        runtime: Runtime::new(&config.runtime)?,
        caller: &caller,
        is_safe: &|endpoint| caller.is_safe(endpoint),
        limits_of: &|plugin| config.limits_of(plugin),
        utc_offset_s: &|feed, now_ms| utc_offset_s(config, feed, now_ms),
    };
    let choice = Choice { pick: command.pick, force: command.force, pinned: command.pinned };
    let mut whole = Rehearsal::default();
    for filter in &filters {
        let part = replay::rehearse(&stage, filter, choice).await?;
        whole.add(part);
    }
    if args.order.format.output == Output::Json {
        listing::json(shell, &whole)?;
        return Ok(Exit::Ok);
    }
    shell.say(format_args!(
        "{} messages would run: {} come out as before, {} differ; {} more are superseded by newer ones",
        whole.messages, whole.same, whole.changed, whole.superseded
    ))?;
    for (word, count) in whole.unhandled.iter().chain(&whole.untried) {
        shell.say(format_args!("{count} messages: {word}"))?;
    }
    let shown = |value: &Option<serde_json::Value>| listing::cut(&value.as_ref().map_or("(nothing)".to_owned(), ToString::to_string), 60);
    let rows = whole
        .differences
        .iter()
        .map(|it| vec![it.path.clone(), it.count.to_string(), shown(&it.before), shown(&it.after), it.message.clone()]);
    if !whole.differences.is_empty() {
        shell.say(listing::table(&["path", "count", "before", "after", "first in"], rows))?;
    }
    if whole.messages as i64 >= args.sample {
        shell.note(format_args!("only {} messages were tried; more with --sample", args.sample));
    }
    shell.note("nothing was ordered: this was a dry run");
    Ok(Exit::Ok)
}

fn utc_offset_s(config: &Config, feed: &str, now_ms: i64) -> i32 {
    let zone = config.feeds.get(feed).and_then(|feed| jiff::tz::TimeZone::get(&feed.time_zone).ok());
    let at = jiff::Timestamp::from_millisecond(now_ms).ok();
    zone.zip(at).map_or(0, |(zone, at)| zone.to_offset(at).seconds())
}
