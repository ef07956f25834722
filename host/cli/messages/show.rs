//! `tolk messages show`: one message from input to output.

use std::fmt::Write as _;

use bytes::Bytes;
use uuid::Uuid;

use super::readable::readable;
use crate::check;
use crate::cli::Exit;
use crate::cli::listing::{self, Format, Output};
use crate::cli::shell::{Shell, Stop};
use crate::config::Config;
use crate::explain::{self, Known, form};
use crate::message::Headers;
use crate::store::{Filter, MessageDetail, Store};

/// Arguments of `tolk messages show`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The message's id, or where it stands: FEED/PARTITION/OFFSET
    message: String,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(args: &Args, shell: &Shell) -> anyhow::Result<Exit> {
    // A name that is none is told before anything is opened.
    place(&args.message)?;
    let config = shell.config()?;
    let store = shell.store(&config).await?;
    let detail = find(&config, &*store, &args.message).await?;
    let known = Known::read(&config, &*store, None).await?;
    let explanation = explain::explain(&known, &*store, &detail).await?;
    match args.format.output {
        Output::Json => {
            let mut message = form::message(&detail);
            message["explanation"] = serde_json::to_value(&explanation)?;
            listing::json(shell, &message)?;
        }
        Output::Table => {
            let mut text = as_text(&detail);
            headline(&mut text, "Why it stands so, and what brings it on");
            text.push_str(&listing::indented(&explain::text::lines(&explanation)));
            shell.say(text.trim_end())?;
        }
    }
    Ok(Exit::Ok)
}

/// The message that a person names: by its id, or by FEED/PARTITION/OFFSET.
pub(in crate::cli) async fn find(config: &Config, store: &dyn Store, text: &str) -> anyhow::Result<MessageDetail> {
    let place = place(text)?;
    if let Place::At(feed, ..) = &place {
        super::known_feed(config, feed)?;
    }
    let detail = match id(store, &place).await? {
        Some(id) => store.message(id).await?,
        None => None,
    };
    if let Some(detail) = detail {
        return Ok(detail);
    }
    let next = explain::dropped(store).await?.map_or_else(String::new, |dropped| format!("{dropped}; "));
    let text = format!("find the message {text}");
    Err(Stop { exit: Exit::Findings, text, next: Some(format!("{next}list messages with `tolk messages`")) }.into())
}

/// Prints one message as people read it.
pub(in crate::cli) async fn show(shell: &Shell, store: &dyn Store, id: Uuid) -> anyhow::Result<()> {
    match store.message(id).await? {
        Some(detail) => shell.say(as_text(&detail).trim_end())?,
        None => shell.note("the message is gone"),
    }
    Ok(())
}

enum Place {
    Id(Uuid),
    At(String, i32, i64),
}

fn place(text: &str) -> Result<Place, Stop> {
    if let Ok(id) = text.parse() {
        return Ok(Place::Id(id));
    }
    let mut parts = text.rsplitn(3, '/');
    let numbers = (parts.next().and_then(|offset| offset.parse().ok()), parts.next().and_then(|partition| partition.parse().ok()));
    match (parts.next(), numbers) {
        (Some(feed), (Some(offset), Some(partition))) => Ok(Place::At(feed.to_owned(), partition, offset)),
        _ => Err(Stop::usage(format!("read \"{text}\" as a message; give its id, or FEED/PARTITION/OFFSET"))),
    }
}

async fn id(store: &dyn Store, place: &Place) -> anyhow::Result<Option<Uuid>> {
    let (feed, partition, offset) = match place {
        Place::Id(id) => return Ok(Some(*id)),
        Place::At(feed, partition, offset) => (feed.clone(), *partition, *offset),
    };
    let filter = Filter { feed: Some(feed), at: Some((partition, offset)), limit: 1, ..Filter::default() };
    Ok(store.messages(&filter).await?.first().map(|row| row.id))
}

fn as_text(detail: &MessageDetail) -> String {
    let mut text = String::new();
    let row = &detail.status;
    line(&mut text, "message", &format!("{}/{}/{}", row.feed, row.partition, row.offset));
    line(&mut text, "id", &row.id.to_string());
    line(&mut text, "table", if row.table.is_empty() { "(none found)" } else { &row.table });
    line(&mut text, "key", row.key.as_deref().unwrap_or("(none)"));
    line(&mut text, "status", &row.status);
    optional(&mut text, "code", row.code.as_deref());
    optional(&mut text, "reason", row.reason.as_deref());
    for (i, wait) in detail.waits.iter().enumerate() {
        line(&mut text, if i == 0 { "waits for" } else { "" }, &form::request(wait));
    }
    line(&mut text, "tries", &format!("{} ended in retry or in a time-out", row.attempts));
    line(&mut text, "received", &listing::time(row.received_ms));
    optional(&mut text, "settled", row.settled_ms.map(listing::time).as_deref());
    optional(&mut text, "settlement", detail.settlement.map(|number| number.to_string()).as_deref());
    optional(&mut text, "due", row.due_ms.map(listing::time).as_deref());
    optional(&mut text, "now was", detail.now_ms.map(listing::time).as_deref());
    optional(&mut text, "plugin", row.digest.as_deref());
    if let Some(activation) = &detail.activation {
        let why = if activation.why.is_empty() { String::new() } else { format!(": {}", activation.why) };
        line(&mut text, "activation", &format!("{} at {} by {}{why}", activation.id, listing::time(activation.at_ms), activation.by));
        if !activation.config.is_empty() {
            line(&mut text, "config", &listing::cut(&activation.config, 200));
        }
    }
    let captured = &detail.message.captured;
    headline(&mut text, "Input");
    optional(&mut text, "timestamp", captured.timestamp_ms.map(listing::time).as_deref());
    body(&mut text, captured.key.as_ref(), &captured.headers, captured.payload.as_ref());
    for answer in form::kept_answers(detail) {
        headline(&mut text, &format!("Answer to {}", form::request(&answer.request)));
        let reply = check::form::reply(&answer.reply);
        text.push_str(&listing::indented(&serde_json::to_string_pretty(&reply).unwrap_or_else(|_| reply.to_string())));
    }
    for (i, (target, output, published, parked)) in detail.outputs.iter().enumerate() {
        headline(&mut text, &format!("Output {} of {}", i + 1, detail.outputs.len()));
        line(&mut text, "target", target);
        line(&mut text, "action", action(output.action));
        line(
            &mut text,
            "published",
            &parked.as_ref().map_or(if *published { "yes" } else { "not yet" }.to_owned(), |why| format!("refused: {why}")),
        );
        line(&mut text, "event id", &output.event_id.to_string());
        optional(&mut text, "version", output.version.map(|version| version.to_string()).as_deref());
        optional(&mut text, "plugin", output.digest.map(|digest| digest.to_string()).as_deref());
        body(&mut text, output.key.as_ref(), &output.headers, output.payload.as_ref());
    }
    if detail.outputs.is_empty() {
        headline(&mut text, "No outputs");
    }
    text
}

fn headline(text: &mut String, title: &str) {
    let bold = anstyle::Style::new().bold();
    // Writing to a string does not fail.
    let _ = writeln!(text, "\n{bold}{title}{bold:#}");
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{name:<11} {value}");
}

fn optional(text: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        line(text, name, value);
    }
}

fn body(text: &mut String, key: Option<&Bytes>, headers: &Headers, payload: Option<&Bytes>) {
    line(text, "key", &key.map_or("(null)".to_owned(), |key| readable(key).1));
    for (name, value) in headers {
        line(text, "header", &format!("{name}: {}", value.as_ref().map_or("(null)".to_owned(), |value| readable(value).1)));
    }
    match payload {
        None => line(text, "payload", "(null: a tombstone)"),
        Some(bytes) => {
            let (kind, shown) = readable(bytes);
            line(text, "payload", &format!("{kind}, {} bytes", bytes.len()));
            text.push_str(&listing::indented(&shown));
        }
    }
}

fn action(action: crate::plugin::Action) -> &'static str {
    match action {
        crate::plugin::Action::Put => "put",
        crate::plugin::Action::Merge => "merge",
        crate::plugin::Action::Delete => "delete",
    }
}
