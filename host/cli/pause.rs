//! `tolk pause` and `tolk resume`: holds a feed, a table or an endpoint, and lets it go on. Messages go on being persisted meanwhile.

use crate::cli::Exit;
use crate::cli::messages;
use crate::cli::shell::{self, Shell, Stop};
use crate::config::Config;
use crate::explain;
use crate::store::Pausable;

/// Arguments of both.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The feed
    #[arg(long, required_unless_present = "endpoint")]
    feed: Option<String>,
    /// Only this table of the feed
    #[arg(long, requires = "feed")]
    table: Option<String>,
    /// An endpoint: messages that need it park
    #[arg(long, conflicts_with_all = ["feed", "table"])]
    endpoint: Option<String>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who does it; default: the user of this process
    #[arg(long)]
    by: Option<String>,
}

impl Args {
    fn of(&self, config: &Config) -> Result<Pausable, Stop> {
        if let Some(endpoint) = &self.endpoint {
            let names: Vec<&str> = config.endpoints.keys().map(String::as_str).collect();
            if !names.contains(&endpoint.as_str()) {
                let advice = crate::config::nearest::advice(endpoint, &names);
                return Err(Stop::usage(format!("find the endpoint \"{endpoint}\" in the config{advice}")));
            }
            return Ok(Pausable::Endpoint { endpoint: endpoint.clone() });
        }
        let feed = self.feed.clone().unwrap_or_default();
        messages::known_feed(config, &feed)?;
        Ok(match &self.table {
            Some(table) => Pausable::Table { feed, table: table.clone() },
            None => Pausable::Feed { feed },
        })
    }
}

/// Pauses.
pub(super) async fn pause(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let of = args.of(&config)?;
    let Some(reason) = args.reason.as_deref().filter(|reason| !reason.trim().is_empty()) else {
        return Err(Stop::usage("pause without a reason").next("say why with --reason TEXT: whoever finds it paused will ask").into());
    };
    let store = shell.store(&config).await?;
    let name = explain::named(&of);
    if store.pause(&of, &shell::who(args.by), reason).await? {
        shell.note(format_args!("{name} is paused; go on with `{}`", explain::resume(&of)));
    } else {
        shell.note(format_args!("{name} was paused already"));
    }
    Ok(Exit::Ok)
}

/// Resumes.
pub(super) async fn resume(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let of = args.of(&config)?;
    let store = shell.store(&config).await?;
    let name = explain::named(&of);
    if store.resume_paused(&of, &shell::who(args.by), args.reason.as_deref().unwrap_or_default()).await? {
        shell.note(format_args!("{name} goes on"));
    } else {
        shell.note(format_args!("{name} was not paused"));
    }
    Ok(Exit::Ok)
}
