//! `tolk capture`: messages into a file, one a line, from the inbox or straight from a topic. Consumes nothing and commits nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::check::form;
use crate::cli::Exit;
use crate::cli::messages::{Which, known_feed};
use crate::cli::shell::{Shell, Stop};
use crate::config::{Config, nearest};
use crate::feed::SourceConfig;
use crate::message::Message;
use crate::source::captured::{Line, to_line};
use crate::source::{self, Source};
use crate::store::{MessageStatus, Store};
use crate::translate::answers;

/// Rows and bytes asked of a topic at one time.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 16 << 20;

/// Arguments of `tolk capture`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// Straight from this topic, from its beginning, in place of the inbox
    #[arg(long, conflicts_with_all = ["feed", "table", "key", "status", "code"])]
    topic: Option<String>,
    /// The cluster of the topic, a name under [kafka]; not needed where there is only one
    #[arg(long, requires = "topic")]
    cluster: Option<String>,
    /// With --topic: stop after this many seconds without a message
    #[arg(long, default_value_t = 5, requires = "topic")]
    idle_s: u64,
    /// Messages at most
    #[arg(short = 'n', long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// The file to write; default: stdout
    #[arg(short = 'o', long = "to", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Overwrite the file
    #[arg(long, requires = "file")]
    force: bool,
}

pub(super) async fn run(args: Args, shell: &Shell) -> anyhow::Result<Exit> {
    let config = shell.config()?;
    let written = match &args.topic {
        Some(topic) => {
            let mut source = topic_source(&args, topic, &config)?;
            let mut out = Out::open(&args)?;
            from_topic(&args, &mut *source, &mut out).await?;
            out.finish()?
        }
        None => from_inbox(&args, shell, &config).await?,
    };
    let place = args.file.as_ref().map_or("stdout".into(), |file| file.display().to_string());
    shell.note(match written {
        0 => "no such messages".to_owned(),
        1 => format!("1 message written to {place}"),
        n => format!("{n} messages written to {place}"),
    });
    Ok(Exit::Ok)
}

async fn from_inbox(args: &Args, shell: &Shell, config: &Config) -> anyhow::Result<usize> {
    if let Some(feed) = &args.which.feed {
        known_feed(config, feed)?;
    }
    let store = shell.store(config).await?;
    let messages = store.captured(&args.which.filter(args.count.into(), true)).await?;
    let mut out = Out::open(args)?;
    for (message, status) in messages {
        let rest = seen(&*store, config, &message, &status).await?;
        out.line(&line(message, status, rest))?;
    }
    out.finish()
}

/// What the translator saw beside the message, so that `tolk test` shows it the same: id, times, and the answers that were kept.
async fn seen(store: &dyn Store, config: &Config, message: &Message, status: &MessageStatus) -> anyhow::Result<Map<String, Value>> {
    let mut rest = Map::new();
    rest.insert("id".to_owned(), Value::String(message.id.to_string()));
    rest.insert("received".to_owned(), message.received_ms.into());
    let Some(detail) = store.message_at(message.place).await? else { return Ok(rest) };
    if let Some(now_ms) = detail.now_ms {
        let zone = config.feeds.get(&status.feed).map_or("UTC", |feed| &feed.time_zone);
        rest.insert("context".to_owned(), json!({ "now": now_ms, "time_zone": zone }));
    }
    if let Some(kept) = &detail.answers {
        let answers =
            answers::unpack(kept).map_err(|reason| Stop::environment(format!("read the answers of message {}: {reason}", message.id)))?;
        rest.insert("answers".to_owned(), answers.iter().map(form::answer).collect());
    }
    Ok(rest)
}

fn line(message: Message, status: MessageStatus, rest: Map<String, Value>) -> Line {
    let table = (!status.table.is_empty()).then_some(status.table);
    Line { captured: message.captured, feed: Some(status.feed), table, rest }
}

fn topic_source(args: &Args, topic: &str, config: &Config) -> anyhow::Result<Box<dyn Source>> {
    let names: Vec<&str> = config.kafka.keys().map(String::as_str).collect();
    let cluster = match (&args.cluster, names.as_slice()) {
        (Some(cluster), names) if names.contains(&cluster.as_str()) => cluster.clone(),
        (Some(cluster), names) => {
            return Err(Stop::usage(format!("find the cluster \"{cluster}\" under [kafka]{}", nearest::advice(cluster, names))).into());
        }
        (None, [only]) => (*only).to_owned(),
        (None, []) => return Err(Stop::usage("find a cluster: the config has none").next("add [kafka.NAME] with its brokers").into()),
        (None, names) => return Err(Stop::usage(format!("choose a cluster: give --cluster, one of {}", names.join(", "))).into()),
    };
    Ok(source::open("capture", &SourceConfig::Kafka { cluster, topic: topic.to_owned() }, &config.kafka)?)
}

async fn from_topic(args: &Args, source: &mut dyn Source, out: &mut Out) -> anyhow::Result<()> {
    source.open(&[]).await?;
    let idle = Duration::from_secs(args.idle_s.max(1));
    let wanted = args.count as usize;
    while out.written < wanted {
        let Ok(batch) = tokio::time::timeout(idle, source.next(BATCH_ROWS.min(wanted - out.written), BATCH_BYTES)).await else { break };
        let batch = batch?;
        for captured in batch.messages {
            out.line(&Line { captured, ..Line::default() })?;
        }
        if batch.ended {
            break;
        }
    }
    Ok(())
}

/// Where lines go.
struct Out {
    to: Box<dyn Write>,
    written: usize,
}

impl Out {
    fn open(args: &Args) -> anyhow::Result<Self> {
        let to: Box<dyn Write> = match &args.file {
            Some(path) => Box::new(BufWriter::new(create(path, args.force)?)),
            None => Box::new(BufWriter::new(io::stdout())),
        };
        Ok(Self { to, written: 0 })
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        self.written += 1;
        writeln!(self.to, "{}", to_line(line))
    }

    fn finish(mut self) -> anyhow::Result<usize> {
        self.to.flush()?;
        Ok(self.written)
    }
}

/// A file of captures may hold expectations that a person blessed, so it is not overwritten unasked.
fn create(path: &Path, force: bool) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow::Error::new(
            Stop::usage(format!("write {}: the file exists already", path.display())).next("choose another, or add --force"),
        ),
        _ => anyhow::Error::new(error).context(format!("write {}", path.display())),
    })
}
