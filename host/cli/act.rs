//! `tolk retry`, `ignore`, `stop`, `finish`, `restart`: what a person orders of messages. The owner of a message's lane does it inside its
//! settlements; here it is written down, with who and why, and looked after.

use std::time::{Duration, Instant};

use serde::Serialize;
use uuid::Uuid;

use crate::cli::Exit;
use crate::cli::listing::{self, Format, Output};
use crate::cli::messages::{Which, show};
use crate::cli::shell::{self, Shell, Stop};
use crate::config::Config;
use crate::explain::{self, form};
use crate::store::{ActionKind, ActionResult, ActionState, Command, Filter, Pick, Selection, Store};

/// How often the store is asked what became of the actions.
const POLL: Duration = Duration::from_millis(100);
/// Actions told one by one.
const TOLD_MAX: i64 = 10_000;

/// Arguments of each of these commands.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    order: Order,
}

/// Which messages: some by name, or those of a filter.
#[derive(clap::Args)]
pub(super) struct Chosen {
    /// Messages by id, or by FEED/PARTITION/OFFSET
    #[arg(value_name = "MESSAGE", conflicts_with_all = ["feed", "table", "key", "status", "code", "delivery", "contains", "since", "until", "all"])]
    messages: Vec<String>,
    #[command(flatten)]
    pub(super) which: Which,
    /// Only those whose reason holds this text, upper and lower case alike
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// Only those received at or after this time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,
    /// Only those received before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
    /// Every message: no filter is meant
    #[arg(long)]
    all: bool,
}

/// Who orders it, why, and how long to look after it.
#[derive(clap::Args)]
pub(super) struct Order {
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
    /// Who orders it; default: the user of this process
    #[arg(long)]
    pub(super) by: Option<String>,
    /// Wait until the owners of the messages have done it, and say what became of each
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, default_value_t = 60)]
    timeout_s: u64,
    #[command(flatten)]
    pub(super) format: Format,
}

/// A time as people write it.
fn time(text: &str) -> Result<i64, String> {
    text.parse::<jiff::Timestamp>().map(|time| time.as_millisecond()).map_err(|_| "not a time such as 2026-01-31T12:00:00Z".to_owned())
}

impl Chosen {
    /// As the store takes it; what is asked of nobody in particular is refused.
    pub(super) async fn selection(&self, config: &Config, store: &dyn Store, keys: Vec<String>) -> anyhow::Result<(Selection, String)> {
        if !self.messages.is_empty() {
            let mut ids = Vec::new();
            for name in &self.messages {
                ids.push(match name.parse() {
                    Ok(id) => id,
                    Err(_) => show::find(config, store, name).await?.status.id,
                });
            }
            let object = listing::cut(&self.messages.join(", "), 200);
            return Ok((Selection::Ids(ids), object));
        }
        self.which.check(config)?;
        let filter =
            Filter { reason: self.contains.clone(), since_ms: self.since, until_ms: self.until, keys, ..self.which.filter(0, true) };
        let object = form::filter(&filter);
        match (object.is_empty(), self.all) {
            (true, false) => Err(Stop::usage("choose messages: none are named, and nothing is asked of a filter")
                .next("name messages, or give --feed, --table, --key, --status, --code or --delivery; --all means every message")
                .into()),
            (true, true) => Ok((Selection::Filter(Box::new(filter)), "every message".to_owned())),
            (false, _) => Ok((Selection::Filter(Box::new(filter)), object)),
        }
    }
}

pub(super) async fn run(kind: ActionKind, args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let store = shell.store(&config).await?;
    let (selection, object) = args.chosen.selection(&config, &*store, Vec::new()).await?;
    let command = Command {
        id: Uuid::new_v4(),
        kind,
        by: shell::who(args.order.by.clone()),
        why: args.order.reason.clone(),
        object,
        force: false,
        pinned: None,
        per_second: None,
        pick: Pick::Each,
    };
    give(shell, &*store, &command, &selection, &args.order).await
}

/// What became of a command.
#[derive(Serialize)]
struct Ordered {
    command: Uuid,
    messages: i64,
    actions: Vec<ActionState>,
    missing: Vec<Uuid>,
}

/// Gives a command, waits for it if that is wanted, and tells what became of it.
pub(super) async fn give(
    shell: &Shell,
    store: &dyn Store,
    command: &Command,
    selection: &Selection,
    order: &Order,
) -> anyhow::Result<Exit> {
    if command.why.trim().is_empty() {
        return Err(Stop::usage("order it without a reason").next("say why with --reason TEXT: it stands in the audit trail").into());
    }
    let messages = store.command(command, selection).await?;
    let mut actions = store.actions(Some(command.id), None, TOLD_MAX).await?;
    let began = Instant::now();
    let mut late = false;
    while order.wait && actions.iter().any(|action| action.result.is_none()) {
        if began.elapsed() >= Duration::from_secs(order.timeout_s) {
            late = true;
            break;
        }
        tokio::time::sleep(POLL).await;
        actions = store.actions(Some(command.id), None, TOLD_MAX).await?;
    }
    actions.reverse();
    let missing: Vec<Uuid> = match selection {
        Selection::Ids(ids) => ids.iter().filter(|id| actions.iter().all(|action| action.message != **id)).copied().collect(),
        Selection::Filter(_) => Vec::new(),
    };
    let ordered = Ordered { command: command.id, messages, actions, missing };
    tell(shell, command, &ordered, order)?;
    if (ordered.messages == 0 || !ordered.missing.is_empty())
        && let Some(dropped) = explain::dropped(store).await?
    {
        shell.note(dropped);
    }
    if late {
        shell.note(overdue(store, &ordered, order.timeout_s).await?);
    }
    let unwanted = |action: &ActionState| matches!(action.result, Some(ActionResult::Refused | ActionResult::Superseded));
    let found = late || !ordered.missing.is_empty() || ordered.actions.iter().any(unwanted);
    Ok(if found { Exit::Findings } else { Exit::Ok })
}

fn tell(shell: &Shell, command: &Command, ordered: &Ordered, order: &Order) -> anyhow::Result<()> {
    if order.format.output == Output::Json {
        return listing::json(shell, ordered);
    }
    if ordered.messages == 0 && ordered.missing.is_empty() {
        shell.note("no such messages: nothing is ordered");
        return Ok(());
    }
    let rows = ordered.actions.iter().map(|action| {
        let result = action.result.map_or("ordered", ActionResult::as_str);
        vec![action.message.to_string(), action.feed.clone(), result.to_owned(), action.became.clone().unwrap_or_default()]
    });
    let missing = ordered.missing.iter().map(|id| vec![id.to_string(), String::new(), "not-found".to_owned(), String::new()]);
    shell.say(listing::table(&["message", "feed", "result", "status"], rows.chain(missing)))?;
    let more = if ordered.messages > TOLD_MAX { format!(", of which {TOLD_MAX} are listed") } else { String::new() };
    let verb = command.kind.as_str();
    shell.note(format_args!("{verb} is ordered of {} messages{more}; look at it with `tolk audit {}`", ordered.messages, command.id));
    Ok(())
}

/// Why nobody has done it yet, as far as that can be told.
async fn overdue(store: &dyn Store, ordered: &Ordered, timeout_s: u64) -> anyhow::Result<String> {
    let open: Vec<&ActionState> = ordered.actions.iter().filter(|action| action.result.is_none()).collect();
    let overview = store.overview().await?;
    let owned = |feed: &str| {
        overview
            .lanes
            .iter()
            .filter(|lane| lane.feed == feed)
            .all(|lane| lane.owner.is_some_and(|owner| overview.hosts.iter().any(|host| host.id == owner && host.lives)))
    };
    let mut feeds: Vec<&str> = open.iter().map(|action| action.feed.as_str()).collect();
    feeds.sort_unstable();
    feeds.dedup();
    let (idle, busy): (Vec<&str>, Vec<&str>) = feeds.into_iter().partition(|feed| !owned(feed));
    let mut text =
        format!("after {timeout_s} s {} messages still wait for the owner of their lane; the order stands and will be done", open.len());
    if !idle.is_empty() {
        text += &format!("; no living host owns all lanes of {}: start one with `tolk run`", idle.join(", "));
    }
    if !busy.is_empty() {
        text += &format!("; hosts work on {}: it comes with one of their next settlements", busy.join(", "));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(time("1970-01-01T00:00:01Z"), Ok(1_000));
        assert!(time("yesterday").is_err());
    }
}
