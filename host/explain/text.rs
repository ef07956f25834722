//! An explanation as lines that people read.

use super::{Explanation, Why};

/// A time in UTC, to the millisecond.
pub fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| format!("{time:.3}"))
}

/// The lines, each ended; what lies below something is set in.
pub fn lines(explanation: &Explanation) -> String {
    let mut text = String::new();
    of(&explanation.why, 0, &mut text);
    for ring in &explanation.cycles {
        text.push_str(&format!("a ring: {}\n", told(ring)));
    }
    text
}

/// A ring of messages in words.
pub fn told(ring: &[String]) -> String {
    let mut names = ring.to_vec();
    names.extend(ring.first().cloned());
    names.join(" waits for ")
}

fn of(why: &Why, depth: usize, text: &mut String) {
    let mut line = |depth: usize, words: &str| {
        text.push_str(&"  ".repeat(depth));
        text.push_str(words);
        text.push('\n');
    };
    let key = why.key.as_deref().map(|key| format!(", key {key}")).unwrap_or_default();
    let table = if why.table.is_empty() { "no table".to_owned() } else { format!("table {}", why.table) };
    line(depth, &format!("{} ({table}{key}): {}", why.message, why.why));
    if why.wakes.is_empty() && !why.next.is_empty() {
        line(depth + 1, "woken by: nothing but a person");
    }
    for wakes in &why.wakes {
        line(depth + 1, &format!("woken by: {wakes}"));
    }
    for next in &why.next {
        line(depth + 1, &format!("next: {next}"));
    }
    for awaits in &why.awaits {
        let there = if awaits.exists { "is there; a change of it wakes" } else { "is not there" };
        let words = format!("waits for {}, which {there}: {}", awaits.what, awaits.from);
        text.push_str(&format!("{}{words}\n", "  ".repeat(depth + 1)));
        for writer in &awaits.writers {
            of(writer, depth + 2, text);
        }
    }
    if let Some(head) = &why.head {
        text.push_str(&format!("{}behind this one of its key:\n", "  ".repeat(depth + 1)));
        of(head, depth + 2, text);
    }
}
