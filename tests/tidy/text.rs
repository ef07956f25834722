//! Reads the project as text: its files, Rust without comments and strings, identifiers and their words.

use std::fs;
use std::path::Path;

/// A text file of the project.
pub struct File {
    /// Its path below the project's folder, with slashes.
    pub path: String,
    /// What it holds.
    pub text: String,
}

/// Every text file below these folders of the project, sorted; what is built or hidden from git is left out.
pub fn files(folders: &[&str]) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in folders {
        walk(root, &root.join(folder), &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap_or_default().to_owned();
        if path.is_dir() {
            if !["target", ".git", "node_modules"].contains(&name.as_str()) {
                walk(root, &path, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root).unwrap().components();
            let path: Vec<&str> = path.filter_map(|part| part.as_os_str().to_str()).filter(|part| *part != ".").collect();
            found.push(File { path: path.join("/"), text });
        }
    }
}

/// Rust code with comments and the insides of strings blanked out; line numbers stay.
pub fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = token_end(rest, first);
        let (token, after) = rest.split_at(end);
        if end == first.len_utf8() {
            out.push(first);
        } else {
            out.extend(token.chars().map(|c| if c == '\n' { c } else { ' ' }));
        }
        rest = after;
    }
    out
}

/// The length of the comment, string or character that stands at the start; of one character where none does.
fn token_end(text: &str, first: char) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |at| at + 2);
    }
    if let Some(hashes) = text.strip_prefix('r').map(|rest| rest.len() - rest.trim_start_matches('#').len())
        && text[1 + hashes..].starts_with('"')
    {
        let close = format!("\"{}", "#".repeat(hashes));
        let body = 2 + hashes;
        return text[body..].find(&close).map_or(text.len(), |at| body + at + close.len());
    }
    if first == '"' {
        return quoted_end(text, '"');
    }
    // A lifetime has no closing quote right behind its one character.
    if first == '\'' && (text.starts_with("'\\") || text.chars().nth(2) == Some('\'')) {
        return quoted_end(text, '\'');
    }
    first.len_utf8()
}

fn quoted_end(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Whether a line of code names the crate: `name::` as a path's start.
pub fn names_path(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let starts = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            || line[..at].ends_with("(::")
            || line[..at].ends_with(" ::");
        let after = &line[at + name.len()..];
        let used = line.trim_start().starts_with("use ") && (after.starts_with(';') || after.starts_with(" as "));
        starts && (after.starts_with("::") || used)
    })
}

/// Modules named by `crate::NAME` and in `crate::{A, B::c}`, with the line numbers.
pub fn crate_uses(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let number = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(heads(group).into_iter().map(|name| (number, name))),
            None => found.extend(identifiers(rest).next().map(|name| (number, name.to_owned()))),
        }
    }
    found
}

/// The first identifier of each item of a use group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut item = String::new();
    let mut names = Vec::new();
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(std::mem::take(&mut item)),
            _ => {}
        }
        if depth == 0 && c != ',' {
            item.push(c);
        }
    }
    names.push(item);
    names.iter().filter_map(|item| identifiers(item).next().map(str::to_owned)).collect()
}

/// The identifiers of a line of code.
pub fn identifiers(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| name.starts_with(|c: char| c.is_alphabetic() || c == '_'))
}

/// The words of an identifier, in lower case: `MessageQueue` and `message_queue` both hold `queue`.
pub fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if c != '_' {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Whether a path begins with this folder in a line: no letter, digit or dot of a longer path or URL stands before it.
pub fn starts_a_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| !line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "._-/}~".contains(c)))
}

mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_comments_and_strings() {
        let code = code_only("let a = \"sqlx::b\"; // clap::c\nlet d = r#\"\"x\" toml::\"#; let e: &'a str = '\\''; /* f */ g\n");
        assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), "let a = ; let d = ; let e: &'a str = ; g");
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn crates_and_modules_are_found() {
        for (line, found) in [
            ("use clap::Args;", true),
            ("    x: clap::Error,", true),
            ("use clap;", true),
            ("use my_clap::x;", false),
            ("use crate::clap::x;", false),
            ("clap_complete::x", false),
        ] {
            assert_eq!(names_path(line, "clap"), found, "{line}");
        }
        let uses = crate_uses("use crate::{a, b::{c, d}, e::f};\nx: crate::g::H, $crate::i");
        assert_eq!(uses, [(1, "a"), (1, "b"), (1, "e"), (2, "g")].map(|(number, name)| (number, name.to_owned())));
    }

    #[test]
    fn words_and_paths() {
        assert_eq!(words("HTTPQueue_name2"), ["httpqueue", "name2"]);
        assert_eq!(words("MessageQueue"), ["message", "queue"]);
        assert_eq!(words("message_queue"), ["message", "queue"]);
        assert!(starts_a_path("x = \"/abc/y\"", "/abc/") && !starts_a_path("https://h/abc/y", "/abc/"));
    }
}
