//! What differs between two JSON values, path by path, and paths to leave out: `outputs[0].payload.status`, `outputs[*].payload.id`.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// Characters of a value that a difference shows.
const SHOWN: usize = 200;

/// One place where two values differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Where, in the syntax of `Pattern`.
    pub path: String,
    /// What was expected there; `None`: nothing.
    pub expected: Option<Value>,
    /// What is there; `None`: nothing.
    pub actual: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "$" } else { &self.path };
        write!(f, "{path}: {} -> {}", shown(self.expected.as_ref()), shown(self.actual.as_ref()))
    }
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "(nothing)".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

/// A path in which `[*]` and `.*` stand for any step; it covers what lies below it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
    Any,
}

impl Pattern {
    /// Reads `$.outputs[0].payload.id`; `$.` may be left out, names with other characters are written `["a.b"]`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("\"{text}\" is no path ({what}): write it like $.outputs[0].payload.id or outputs[*].payload");
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                if inner.starts_with('"') {
                    let mut names = serde_json::Deserializer::from_str(inner).into_iter::<String>();
                    let name = names.next().and_then(Result::ok).ok_or_else(|| wrong("a name in quotes does not end"))?;
                    rest = inner[names.byte_offset()..].strip_prefix(']').ok_or_else(|| wrong("a \"]\" is missing"))?;
                    steps.push(Step::Name(name));
                    continue;
                }
                let (index, after) = inner.split_once(']').ok_or_else(|| wrong("a \"]\" is missing"))?;
                steps.push(match index {
                    "*" => Step::Any,
                    _ => Step::Index(index.parse().map_err(|_| wrong("an index is no number"))?),
                });
                rest = after;
                continue;
            }
            let named = rest.strip_prefix('.').unwrap_or(rest);
            let end = named.find(['.', '[']).unwrap_or(named.len());
            match &named[..end] {
                "" => return Err(wrong("a name is empty")),
                "*" => steps.push(Step::Any),
                name => steps.push(Step::Name(name.to_owned())),
            }
            rest = &named[end..];
        }
        Ok(Self(steps))
    }

    fn covers(&self, path: &[Step]) -> bool {
        self.0.len() <= path.len() && self.0.iter().zip(path).all(|(mine, step)| *mine == Step::Any || mine == step)
    }
}

/// Where `actual` differs from `expected`, but for what `ignored` covers.
pub fn differences(expected: &Value, actual: &Value, ignored: &[Pattern]) -> Vec<Difference> {
    let mut walk = Walk { ignored, path: Vec::new(), found: Vec::new() };
    walk.compare(Some(expected), Some(actual));
    walk.found
}

struct Walk<'a> {
    ignored: &'a [Pattern],
    path: Vec<Step>,
    found: Vec<Difference>,
}

impl Walk<'_> {
    fn compare(&mut self, expected: Option<&Value>, actual: Option<&Value>) {
        if expected == actual || self.ignored.iter().any(|pattern| pattern.covers(&self.path)) {
            return;
        }
        match (expected, actual) {
            (Some(Value::Object(expected)), Some(Value::Object(actual))) => {
                let added = actual.keys().filter(|name| !expected.contains_key(*name));
                for name in expected.keys().chain(added) {
                    self.step(Step::Name(name.clone()), expected.get(name), actual.get(name));
                }
            }
            (Some(Value::Array(expected)), Some(Value::Array(actual))) => {
                for i in 0..expected.len().max(actual.len()) {
                    self.step(Step::Index(i), expected.get(i), actual.get(i));
                }
            }
            _ => self.found.push(Difference { path: written(&self.path), expected: expected.cloned(), actual: actual.cloned() }),
        }
    }

    fn step(&mut self, step: Step, expected: Option<&Value>, actual: Option<&Value>) {
        self.path.push(step);
        self.compare(expected, actual);
        self.path.pop();
    }
}

fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(i) => text.push_str(&format!("[{i}]")),
            Step::Any => text.push_str("[*]"),
            Step::Name(name) if name.is_empty() || name == "*" || name.contains(['.', '[', ']', '"', '$']) => {
                text.push_str(&format!("[{}]", Value::from(name.as_str())));
            }
            Step::Name(name) if text.is_empty() => text.push_str(name),
            Step::Name(name) => text.push_str(&format!(".{name}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(expected: &Value, actual: &Value, ignored: &[&str]) -> Vec<String> {
        let ignored: Vec<_> = ignored.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        differences(expected, actual, &ignored).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn differences_are_told_by_path() {
        let expected = json!({"outcome": "translated", "outputs": [{"payload": {"status": "DELTAR", "gone": 1, "a.b": 2}}, {"key": "x"}]});
        let actual = json!({"outputs": [{"payload": {"a.b": 3, "status": "HAR_SLUTTET", "new": null}}], "outcome": "translated"});
        assert_eq!(
            told(&expected, &actual, &[]),
            [
                "outputs[0].payload.status: \"DELTAR\" -> \"HAR_SLUTTET\"",
                "outputs[0].payload.gone: 1 -> (nothing)",
                "outputs[0].payload[\"a.b\"]: 2 -> 3",
                "outputs[0].payload.new: (nothing) -> null",
                "outputs[1]: {\"key\":\"x\"} -> (nothing)",
            ]
        );
        assert_eq!(
            told(&expected, &actual, &["$.outputs[*].payload.status", "outputs[0].*[\"a.b\"]", "$.outputs[1]", "outputs[0].payload.gone"]),
            ["outputs[0].payload.new: (nothing) -> null"]
        );
        assert!(told(&expected, &actual, &["$.outputs"]).is_empty());
        assert!(told(&expected, &actual, &["$"]).is_empty());
        assert_eq!(told(&json!(1), &json!("1"), &[]), ["$: 1 -> \"1\""]);
        assert!(told(&json!("x"), &json!("y".repeat(500)), &[])[0].ends_with("… (502 bytes)"));
    }

    #[test]
    fn a_path_that_is_told_can_be_ignored() {
        let (expected, actual) = (json!({"": 1, "a]b": {"x\"y": [[1]]}, "*": 1}), json!({"": 2, "a]b": {"x\"y": [[2]]}, "*": 2}));
        let paths: Vec<_> = differences(&expected, &actual, &[]).into_iter().map(|difference| difference.path).collect();
        assert_eq!(paths.len(), 3);
        assert!(told(&expected, &actual, &paths.iter().map(String::as_str).collect::<Vec<_>>()).is_empty());
    }

    #[test]
    fn broken_paths_are_refused() {
        for text in ["a..b", "a[", "a[x]", "a[\"b]", "a.", "."] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
