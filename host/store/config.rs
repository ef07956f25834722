//! Where the store is: `[store]` of the config.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Where the data is: `[store]`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `sqlite://PATH` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE` (`?host=/socket/folder` for a Unix socket).
    pub url: String,
    /// PostgreSQL only: the schema that holds the tables.
    #[serde(default = "default_schema")]
    pub schema: String,
    /// Connections at most.
    #[serde(default = "default_connections_max")]
    pub connections_max: u32,
    /// How long a statement may take, in milliseconds.
    #[serde(default = "default_statement_timeout_ms")]
    pub statement_timeout_ms: u64,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("url", &masked(&self.url)).field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Config {
    /// The SQLite file, if the URL names one that is not there: opening would make it.
    pub fn absent_file(&self) -> Option<&Path> {
        let rest = self.url.strip_prefix("sqlite:")?;
        let path = Path::new(rest.strip_prefix("//").unwrap_or(rest).split('?').next().unwrap_or_default());
        (!path.exists()).then_some(path)
    }
}

/// A URL without its password.
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let place = match place.rsplit_once('@').and_then(|(who, place)| who.split_once(':').map(|(user, _)| (user, place))) {
        Some((user, place)) => format!("{user}:***@{place}"),
        None => place.to_owned(),
    };
    let query = query.map(|query| {
        query.split('&').map(|pair| if pair.starts_with("password=") { "password=***" } else { pair }).collect::<Vec<_>>().join("&")
    });
    format!("{scheme}://{place}{}", query.map(|query| format!("?{query}")).unwrap_or_default())
}

fn default_schema() -> String {
    "tolk".to_owned()
}
fn default_connections_max() -> u32 {
    8
}
fn default_statement_timeout_ms() -> u64 {
    60_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked() {
        for (url, expected) in [
            ("sqlite://tolk.db", "sqlite://tolk.db"),
            ("postgres://u:p@ss@h:1/d", "postgres://u:***@h:1/d"),
            ("postgres://u@h/d?password=x&host=/run", "postgres://u@h/d?password=***&host=/run"),
        ] {
            assert_eq!(masked(url), expected);
        }
    }
}
