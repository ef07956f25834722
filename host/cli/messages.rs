//! `tolk messages`: which messages there are and how they stand; one of them whole is `messages/show.rs`.

mod readable;
pub(super) mod show;

use crate::cli::Exit;
use crate::cli::listing::{self, Format};
use crate::cli::shell::{Shell, Stop};
use crate::message::Status;
use crate::store::Filter;

/// Arguments of `tolk messages`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    one: Option<One>,
    #[command(flatten)]
    which: Which,
    /// Rows at most, newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    limit: i64,
    /// Count messages per feed, table and status in place of listing them
    #[arg(long, conflicts_with_all = ["key", "code", "delivery"])]
    counts: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(clap::Subcommand)]
enum One {
    /// Show one message: status and reason, input, outputs, and the plugin that made them
    Show(show::Args),
}

/// Which messages: everything given must hold.
#[derive(clap::Args)]
pub(super) struct Which {
    /// Only of this feed
    #[arg(long)]
    pub(super) feed: Option<String>,
    /// Only of this table
    #[arg(long)]
    pub(super) table: Option<String>,
    /// Only with this ordering key
    #[arg(long)]
    pub(super) key: Option<String>,
    /// Only with this status
    #[arg(long, value_parser = status)]
    pub(super) status: Option<Status>,
    /// Only with this code
    #[arg(long)]
    pub(super) code: Option<String>,
    /// Only parts of this delivery
    #[arg(long, value_name = "FEED/ID", value_parser = delivery)]
    pub(super) delivery: Option<(String, String)>,
}

impl Which {
    /// As the store takes it.
    pub(super) fn filter(&self, limit: i64, oldest_first: bool) -> Filter {
        Filter {
            feed: self.feed.clone(),
            table: self.table.clone(),
            key: self.key.clone(),
            status: self.status,
            code: self.code.clone(),
            delivery: self.delivery.clone(),
            limit,
            oldest_first,
            ..Filter::default()
        }
    }
}

fn status(word: &str) -> Result<Status, String> {
    Status::from_word(word).ok_or_else(|| {
        let words: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
        format!("no such status{}", crate::config::nearest::advice(word, &words))
    })
}

fn delivery(text: &str) -> Result<(String, String), String> {
    let (feed, id) = text.split_once('/').filter(|(feed, id)| !feed.is_empty() && !id.is_empty()).ok_or("write FEED/ID")?;
    Ok((feed.to_owned(), id.to_owned()))
}

impl Which {
    /// Feeds that the config does not have are told from those without such messages.
    pub(super) fn check(&self, config: &crate::config::Config) -> Result<(), Stop> {
        let feeds = self.feed.iter().chain(self.delivery.iter().map(|(feed, _)| feed));
        feeds.into_iter().try_for_each(|feed| known_feed(config, feed))
    }
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    match args.one {
        Some(One::Show(one)) => show::run(&one, shell).await,
        None if args.counts => counts(&args, shell).await,
        None => list(&args, shell).await,
    }
}

async fn list(args: &Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    args.which.check(&config)?;
    let store = shell.store(&config).await?;
    let rows = store.messages(&args.which.filter(args.limit, false)).await?;
    listing::print(
        shell,
        &args.format,
        &rows,
        &["message", "table", "key", "status", "code", "tries", "plugin", "received", "reason"],
        |row| {
            vec![
                format!("{}/{}/{}", row.feed, row.partition, row.offset),
                table(&row.table),
                listing::cut(row.key.as_deref().unwrap_or("-"), 40),
                row.status.clone(),
                row.code.clone().unwrap_or_default(),
                row.attempts.to_string(),
                row.digest.as_deref().map(listing::short).unwrap_or_default().to_owned(),
                listing::time(row.received_ms),
                listing::cut(row.reason.as_deref().unwrap_or_default(), 80),
            ]
        },
        "no such messages",
    )?;
    if rows.len() as i64 == args.limit {
        shell.note(format_args!("the newest {} are listed; more with --limit", args.limit));
    }
    Ok(Exit::Ok)
}

async fn counts(args: &Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let store = shell.store(&config).await?;
    let which = &args.which;
    let mut rows = store.counts().await?;
    rows.retain(|row| {
        which.feed.as_ref().is_none_or(|feed| *feed == row.feed)
            && which.table.as_ref().is_none_or(|table| *table == row.table)
            && which.status.is_none_or(|status| status.as_str() == row.status)
    });
    listing::print(
        shell,
        &args.format,
        &rows,
        &["feed", "table", "status", "count"],
        |row| vec![row.feed.clone(), table(&row.table), row.status.clone(), row.count.to_string()],
        "no such messages",
    )?;
    Ok(Exit::Ok)
}

/// A table's name; messages for which none was found have a dash.
fn table(name: &str) -> String {
    if name.is_empty() { "-".to_owned() } else { name.to_owned() }
}

/// A feed that the config does not have is a typo more often than a feed of the past.
pub(super) fn known_feed(config: &crate::config::Config, feed: &str) -> Result<(), Stop> {
    if config.feeds.contains_key(feed) {
        return Ok(());
    }
    let names: Vec<&str> = config.feeds.keys().map(String::as_str).collect();
    Err(Stop::usage(format!("find the feed \"{feed}\" in the config{}", crate::config::nearest::advice(feed, &names))))
}
