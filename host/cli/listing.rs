//! Listings: the same rows as a table for people or as JSON for programs.

use std::io;

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::shell::Shell;

/// The option that every listing has.
#[derive(clap::Args)]
pub(super) struct Format {
    /// A table for people, or JSON for programs
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Output::Table)]
    pub(super) output: Output,
}

/// For whom a listing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    // What the values mean stands at the option itself.
    Table,
    Json,
}

/// Prints rows: as JSON each by itself, as a table under these column names. `empty` is said on stderr where there are none.
pub(super) fn print<R: Serialize>(
    shell: &Shell,
    format: &Format,
    rows: &[R],
    columns: &[&str],
    cells: impl Fn(&R) -> Vec<String>,
    empty: &str,
) -> anyhow::Result<()> {
    if format.output == Output::Json {
        return json(shell, rows);
    }
    if rows.is_empty() {
        shell.note(empty);
        return Ok(());
    }
    shell.say(table(columns, rows.iter().map(cells)))?;
    Ok(())
}

/// Prints one value as JSON.
pub(super) fn json<V: Serialize + ?Sized>(shell: &Shell, value: &V) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    shell.say(text)?;
    Ok(())
}

/// Columns without lines, as listings of other tools look.
pub(super) fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(columns.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A time as people read it; in UTC, to the millisecond.
pub(super) fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| format!("{time:.3}"))
}

/// A text cut to a width, with its line breaks as spaces.
pub(super) fn cut(text: &str, width: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= width {
        return line;
    }
    let short: String = line.chars().take(width.saturating_sub(1)).collect();
    format!("{short}…")
}

/// A text of several lines, each set in and ended.
pub(super) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// The first twelve digits of a digest.
pub(super) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_have_no_trailing_blanks() {
        let text = table(&["name", "n"], [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "22".to_owned()]].into_iter());
        assert_eq!(text, "NAME    N\na       1\nlonger  22");
    }

    #[test]
    fn times_and_cuts() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(cut("a\nbcdef", 4), "a b…");
        assert_eq!(cut("abcd", 4), "abcd");
    }
}
