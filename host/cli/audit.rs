//! `tolk audit`: who ordered what, when and why; one order with what became of each message.

use uuid::Uuid;

use crate::cli::Exit;
use crate::cli::listing::{self, Format, Output};
use crate::cli::messages::show;
use crate::cli::shell::{Shell, Stop};
use crate::store::{ActionResult, Store};

/// Arguments of `tolk audit`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// One order, with what became of each of its messages
    command: Option<Uuid>,
    /// Only what was ordered of this message: its id, or FEED/PARTITION/OFFSET
    #[arg(long, value_name = "MESSAGE", conflicts_with = "command")]
    message: Option<String>,
    /// Rows at most, newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let store = shell.store(&config).await?;
    let message = match &args.message {
        Some(name) => Some(show::find(&config, &*store, name).await?.status.id),
        None => None,
    };
    let commands = store.audit(args.command, message, args.limit).await?;
    if let Some(command) = args.command {
        if commands.is_empty() {
            return Err(Stop {
                exit: Exit::Findings,
                text: format!("find the order {command}"),
                next: Some("list orders with `tolk audit`".to_owned()),
            }
            .into());
        }
        return one(shell, &*store, command, &commands, &args).await;
    }
    listing::print(
        shell,
        &args.format,
        &commands,
        &["order", "at", "by", "what", "of", "messages", "open", "why"],
        |line| {
            vec![
                line.id.to_string(),
                listing::time(line.at_ms),
                line.by.clone(),
                line.kind.clone(),
                listing::cut(&line.object, 60),
                line.messages.to_string(),
                line.open.to_string(),
                listing::cut(&line.why, 80),
            ]
        },
        "nothing was ordered",
    )?;
    Ok(Exit::Ok)
}

async fn one(shell: &Shell, store: &dyn Store, command: Uuid, lines: &[crate::store::Audited], args: &Args) -> anyhow::Result<Exit> {
    let actions = store.actions(Some(command), None, args.limit).await?;
    if args.format.output == Output::Json {
        listing::json(shell, &serde_json::json!({ "command": lines.first(), "actions": actions }))?;
        return Ok(Exit::Ok);
    }
    for line in lines {
        shell.say(format_args!("{} of {} by {} at {}: {}", line.kind, line.object, line.by, listing::time(line.at_ms), line.why))?;
    }
    let rows = actions.iter().map(|action| {
        let result = action.result.map_or("open", ActionResult::as_str);
        let at = action.applied_ms.map(listing::time).unwrap_or_default();
        vec![action.message.to_string(), action.feed.clone(), result.to_owned(), action.became.clone().unwrap_or_default(), at]
    });
    shell.say(listing::table(&["message", "feed", "result", "status", "at"], rows))?;
    Ok(Exit::Ok)
}
