//! Reads the fields of a JSON object one by one, names the path of what is wrong, and refuses fields that nobody reads.

use serde_json::{Map, Value};

/// An object of which fields are taken.
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    at: String,
    taken: Vec<String>,
}

impl<'a> Fields<'a> {
    /// The fields of a value that must be an object; `at` is its path, for errors.
    pub fn of(value: &'a Value, at: &str) -> Result<Self, String> {
        let map = value.as_object().ok_or_else(|| format!("{at}: must be an object, is {}", kind(value)))?;
        Ok(Self { map, at: at.to_owned(), taken: Vec::new() })
    }

    /// The path of the object.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// The names of all fields.
    pub fn names(&self) -> Vec<&'a str> {
        self.map.keys().map(String::as_str).collect()
    }

    /// A field as it is.
    pub fn value(&mut self, name: &str) -> Option<&'a Value> {
        self.taken.push(name.to_owned());
        self.map.get(name)
    }

    /// A text; null counts as absent.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        self.typed(name, "a text", |value| value.as_str().map(str::to_owned))
    }

    /// A text that must be there.
    pub fn need_text(&mut self, name: &str) -> Result<String, String> {
        self.text(name)?.ok_or_else(|| format!("{}: \"{name}\" is missing", self.at))
    }

    /// A whole number that is not negative; null counts as absent.
    pub fn number(&mut self, name: &str) -> Result<Option<u64>, String> {
        self.typed(name, "a whole number from 0", Value::as_u64)
    }

    /// A whole number; null counts as absent.
    pub fn integer(&mut self, name: &str) -> Result<Option<i64>, String> {
        self.typed(name, "a whole number", Value::as_i64)
    }

    /// True or false; absent is false.
    pub fn flag(&mut self, name: &str) -> Result<bool, String> {
        Ok(self.typed(name, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// A list, empty where absent.
    pub fn list(&mut self, name: &str) -> Result<&'a [Value], String> {
        match self.value(name) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(format!("{}.{name}: must be a list, is {}", self.at, kind(other))),
        }
    }

    /// Names and texts: an object, or a list of pairs; empty where absent.
    pub fn pairs(&mut self, name: &str) -> Result<Vec<(String, String)>, String> {
        let wrong = || format!("{}.{name}: must be an object of texts, or a list of pairs of texts", self.at);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let pairs = match self.map.get(name) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Object(map)) => map.iter().map(|(name, value)| Some((name.clone(), text(value)?))).collect(),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| match item.as_array().map(Vec::as_slice) {
                    Some([name, value]) => Some((text(name)?, text(value)?)),
                    _ => None,
                })
                .collect(),
            Some(_) => None,
        };
        let pairs = pairs.ok_or_else(wrong)?;
        self.taken.push(name.to_owned());
        Ok(pairs)
    }

    /// Refuses what was not taken, with the nearest field that is known.
    pub fn finish(self) -> Result<(), String> {
        let Some(unknown) = self.map.keys().find(|name| !self.taken.contains(name)) else { return Ok(()) };
        let near = |name: &String| strsim::jaro_winkler(name, unknown);
        let nearest = self.taken.iter().max_by(|a, b| near(a).total_cmp(&near(b)));
        let advice = nearest.map_or_else(String::new, |name| format!("; the nearest known is \"{name}\""));
        Err(format!("{}: \"{unknown}\" is no field{advice}", self.at))
    }

    fn typed<T>(&mut self, name: &str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, String> {
        match self.value(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(format!("{}.{name}: must be {what}, is {}", self.at, kind(value))),
            },
        }
    }
}

/// What a value is, for people.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
