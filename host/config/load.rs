//! Reads a config file and says what is wrong with it: the key, the file, the nearest valid key.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::{Config, checks, environment, nearest};

/// Problems listed at most; after that many a person mends and looks again.
const PROBLEMS_MAX: usize = 20;

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("read the config {}: no such file; write one with `tolk init`, or name another with --config", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("read the config {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML.
    #[error("read the config {} as TOML\n{text}", path.display())]
    Syntax { path: PathBuf, text: String },
    /// Keys or values are wrong.
    #[error("use the config {}:{}", path.display(), lines(.problems))]
    Wrong { path: PathBuf, problems: Vec<Problem> },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key path, dotted.
    pub key: String,
    /// Its line in the file, from 1.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{} (line {line}): {}", self.key, self.text),
            None => write!(f, "{}: {}", self.key, self.text),
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    match problems {
        [one] => format!(" {one}"),
        many => many.iter().map(|problem| format!("\n  {problem}")).collect(),
    }
}

/// Reads, fills in the environment, parses and checks a config file.
pub fn load(path: &Path) -> Result<Config, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => Error::Missing(path.to_owned()),
        _ => Error::Read { path: path.to_owned(), source },
    })?;
    parse(&text, path, &|name| std::env::var(name).ok())
}

/// As `load`, from text and an environment of the caller's; `path` only names the text in errors.
pub fn parse(text: &str, path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Config, Error> {
    let mut root =
        DeTable::parse(text).map_err(|error| Error::Syntax { path: path.to_owned(), text: error.to_string().trim_end().to_owned() })?;
    let mut problems = Vec::new();
    fill_table(root.get_mut(), &mut Vec::new(), environment, &mut problems);
    let config = if problems.is_empty() { deserialize(root.clone(), &mut problems) } else { None };
    if let Some(config) = &config {
        problems = checks::check(config);
    }
    for problem in &mut problems {
        problem.line = problem.line.or_else(|| line_of(text, root.get_ref(), &problem.key));
    }
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Error::Wrong { path: path.to_owned(), problems }),
    }
}

/// Replaces `${NAME}` in every string below a table.
fn fill_table(table: &mut DeTable<'_>, path: &mut Vec<String>, environment: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) {
    for (key, value) in table.iter_mut() {
        path.push(key.get_ref().to_string());
        fill_value(value.get_mut(), path, environment, problems);
        path.pop();
    }
}

fn fill_value(value: &mut DeValue<'_>, path: &mut Vec<String>, environment: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) {
    match value {
        DeValue::String(text) => match environment::fill(text, environment) {
            Ok(Some(filled)) => *text = filled.into(),
            Ok(None) => {}
            Err(reason) => problems.push(Problem { key: path.join("."), line: None, text: reason }),
        },
        DeValue::Array(items) => items.iter_mut().for_each(|item| fill_value(item.get_mut(), path, environment, problems)),
        DeValue::Table(table) => fill_table(table, path, environment, problems),
        _ => {}
    }
}

/// Parses; where a key is wrong it is noted, taken out, and the rest is looked at too.
fn deserialize(mut root: Spanned<DeTable<'_>>, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut first = true;
    loop {
        let error = match attempt(&root) {
            Ok(config) => return first.then_some(config),
            Err(error) => error,
        };
        first = false;
        let path = culprit(&root, &error);
        let (text, unknown) = explain(&error.message, path.last().map_or("", String::as_str));
        problems.push(Problem { key: if path.is_empty() { "(the file)".to_owned() } else { path.join(".") }, line: None, text });
        if !unknown || problems.len() >= PROBLEMS_MAX {
            return None;
        }
        remove(root.get_mut(), &path);
    }
}

/// What serde said of a table; two errors are the same if text and place are.
#[derive(PartialEq, Eq)]
struct Said {
    message: String,
    span: Option<std::ops::Range<usize>>,
}

fn attempt(root: &Spanned<DeTable<'_>>) -> Result<Config, Said> {
    serde::Deserialize::deserialize(toml::Deserializer::from(root.clone()))
        .map_err(|error: toml::de::Error| Said { message: error.message().to_owned(), span: error.span() })
}

/// The key that an error is about: the one without which serde says something else. Serde itself loses the path inside tagged enums.
fn culprit(root: &Spanned<DeTable<'_>>, error: &Said) -> Vec<String> {
    let mut path = Vec::new();
    while let Some(key) = step(root, &path, error) {
        path.push(key);
    }
    path
}

fn step(root: &Spanned<DeTable<'_>>, path: &[String], error: &Said) -> Option<String> {
    let mut keys: Vec<String> = table_at(root.get_ref(), path)?.keys().map(|key| key.get_ref().to_string()).collect();
    // Without its tag a table means something else altogether, so the tag is suspected last.
    keys.sort_by_key(|key| key == "kind");
    keys.into_iter().find(|key| {
        let mut without = root.clone();
        let whole: Vec<String> = path.iter().chain([key]).cloned().collect();
        remove(without.get_mut(), &whole);
        attempt(&without).err().is_none_or(|other| other != *error)
    })
}

fn table_at<'t, 'i>(root: &'t DeTable<'i>, path: &[String]) -> Option<&'t DeTable<'i>> {
    path.iter().try_fold(root, |table, key| table.get(key.as_str()).and_then(|value| value.get_ref().as_table()))
}

fn remove(root: &mut DeTable<'_>, path: &[String]) {
    let Some((last, parents)) = path.split_last() else { return };
    let table = parents.iter().try_fold(root, |table, key| match table.get_mut(key.as_str()).map(Spanned::get_mut) {
        Some(DeValue::Table(table)) => Some(table),
        _ => None,
    });
    if let Some(table) = table {
        table.remove(last.as_str());
    }
}

/// Serde's sentence in ours, and whether it is about a key that nobody knows.
fn explain(message: &str, key: &str) -> (String, bool) {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field") {
        return (format!("unknown key{}", nearest::advice(key, names.get(1..).unwrap_or_default())), true);
    }
    if message.starts_with("unknown variant")
        && let Some((word, valid)) = names.split_first()
    {
        return (format!("\"{word}\" is not one of its values{}", nearest::advice(word, valid)), false);
    }
    if message.starts_with("missing field")
        && let Some(name) = names.first()
    {
        return (format!("the key `{name}` is missing"), false);
    }
    (message.trim_end().replace('\n', "; "), false)
}

/// The line of a dotted key, or of the nearest table above it that the file has.
fn line_of(text: &str, root: &DeTable<'_>, key: &str) -> Option<usize> {
    let mut table = root;
    let mut at = None;
    let mut rest = key;
    while !rest.is_empty() {
        let name = table
            .keys()
            .map(|name| name.get_ref().as_ref())
            .find(|name| rest.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('[')));
        let Some((name, value)) = name.and_then(|name| table.get_key_value(name)) else { break };
        at = Some(name.span().start);
        rest = rest[name.get_ref().len()..].trim_start_matches('.');
        match value.get_ref().as_table() {
            Some(below) => table = below,
            None => break,
        }
    }
    at.map(|at| text[..at].matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [store]
        url = "sqlite://tolk.db"
        [kafka.main]
        brokers = "localhost:9092"
        [feeds.arena]
        source = { kind = "kafka", cluster = "main", topic = "arena" }
        table = ["/table"]
        [targets.out]
        kind = "file"
        path = "out.jsonl"
    "#;

    fn problems(text: &str) -> Vec<Problem> {
        match parse(text, Path::new("tolk.toml"), &|name| (name == "SET").then(|| "value".to_owned())) {
            Ok(_) => Vec::new(),
            Err(Error::Wrong { problems, .. }) => problems,
            Err(other) => panic!("another error: {other}"),
        }
    }

    /// Replaces one line of the good config and expects one problem with this key, whose text holds these words.
    fn check(from: &str, to: &str, key: &str, words: &[&str]) {
        assert!(GOOD.contains(from), "the good config has {from}");
        let found = problems(&GOOD.replacen(from, to, 1));
        assert_eq!(found.len(), 1, "{from} -> {to}: {found:?}");
        assert_eq!(found[0].key, key, "{found:?}");
        assert!(found[0].line.is_some(), "{found:?}");
        for word in words {
            assert!(found[0].text.contains(word), "{word} in {found:?}");
        }
    }

    #[test]
    fn a_good_config_loads() {
        assert_eq!(problems(GOOD), []);
    }

    #[test]
    fn an_unknown_key_names_itself_and_the_nearest_valid_one() {
        check("table = [\"/table\"]", "table = [\"/t\"]\nretrry = { attempts_max = 3 }", "feeds.arena.retrry", &["did you mean `retry`?"]);
        check("url =", "schma = \"x\"\nurl =", "store.schma", &["`schema`"]);
        check("topic = \"arena\"", "topic = \"arena\", topik = 1", "feeds.arena.source.topik", &["`topic`"]);
        check("[store]", "[hots]\nlease_ms = 1\n[store]", "hots", &["`host`"]);
        check("kind = \"file\"", "kind = \"file\"\nflush = true", "targets.out.flush", &["unknown key", "`path`"]);
    }

    #[test]
    fn a_wrong_type_names_its_key() {
        check("topic = \"arena\"", "topic = 7", "feeds.arena.source.topic", &["integer"]);
        check("table = [\"/table\"]", "table = [\"/t\"]\nlanes = \"many\"", "feeds.arena.lanes", &["u16"]);
        check("table = [\"/table\"]", "table = [\"/t\"]\nlanes = 70000", "feeds.arena.lanes", &["70000"]);
        check("kind = \"kafka\"", "kind = \"kafak\"", "feeds.arena.source.kind", &["\"kafak\"", "`kafka`"]);
        check("url = \"sqlite://tolk.db\"", "", "store", &["`url` is missing"]);
    }

    #[test]
    fn all_unknown_keys_are_reported_together() {
        let found = problems(&GOOD.replace("url =", "urll = 1\nurl =").replace("brokers =", "broker = 1\nbrokers ="));
        let keys: Vec<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["kafka.main.broker", "store.urll"]);
    }

    #[test]
    fn equal_mistakes_in_two_feeds_are_two_problems() {
        let text = format!(
            "{GOOD}\n[feeds.a]\nretrry = 1\ntable_name = \"t\"\nsource = {{ kind = \"file\", path = \"x\" }}\n[feeds.b]\nretrry = 1\ntable_name = \"t\"\nsource = {{ kind = \"file\", path = \"y\" }}\n"
        );
        let keys: Vec<String> = problems(&text).into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["feeds.a.retrry", "feeds.b.retrry"]);
    }

    #[test]
    fn the_environment_fills_strings_and_a_missing_name_says_where() {
        check("localhost:9092", "${BROKERS}", "kafka.main.brokers", &["BROKERS", "is not set"]);
        let config =
            parse(&GOOD.replace("out.jsonl", "${SET}-${NONE:-x}"), Path::new("t"), &|name| (name == "SET").then(|| "v".to_owned()))
                .unwrap();
        assert!(matches!(&config.targets["out"], crate::sink::Config::File { path, .. } if path == Path::new("v-x")));
    }

    #[test]
    fn broken_toml_shows_the_line() {
        let error = parse("[store\nurl = 1", Path::new("tolk.toml"), &|_| None).unwrap_err().to_string();
        assert!(error.contains("tolk.toml") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn the_line_is_the_keys_own() {
        let found = problems(&GOOD.replace("url =", "urll = 1\nurl ="));
        assert_eq!(found[0].line, Some(3));
    }
}
