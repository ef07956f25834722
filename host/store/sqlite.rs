//! The store on SQLite: one file, one host, one connection that writes and a few that read.
//! Whoever writes holds the database's only write lock, so settlements are serial by nature and guards cost nothing.

mod actions;
mod bulk;
mod deliveries;
mod duties;
mod inbox;
mod leases;
mod ledger;
mod lock;
mod memory;
mod messages;
mod outputs;
mod overview;
mod plugins;
mod reads;
mod rows;
mod scan;
mod schema;
mod settle;
mod upkeep;
mod validate;
mod wake;
mod work;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite as Database, Transaction};

use super::{Clock, Config, Error, Result};
use lock::Lock;

/// How large a page is, in bytes: messages of 1 kB fill four to a page in smaller ones.
const PAGE_BYTES: u32 = 8_192;
/// Pages in the write-ahead log before a commit copies them into the database.
const CHECKPOINT_PAGES: &str = "4000";

/// A store in one SQLite file.
pub struct Sqlite {
    path: PathBuf,
    clock: Clock,
    writer: SqlitePool,
    readers: SqlitePool,
    lock: Lock,
}

impl Sqlite {
    /// Opens the file of a `sqlite:` URL, or makes an empty one. Does not migrate.
    pub async fn open(config: &Config, clock: Clock) -> Result<Self> {
        let options = SqliteConnectOptions::from_str(&config.url).map_err(|error| Error::Config(format!("store.url: {error}")))?;
        if config.url.contains(":memory:") || config.url.contains("mode=memory") {
            return Err(Error::Config("store.url names no file: SQLite in memory loses every message, write sqlite://PATH".to_owned()));
        }
        let path = options.get_filename().to_owned();
        let timeout = Duration::from_millis(config.statement_timeout_ms);
        let options = options
            .create_if_missing(true)
            .page_size(PAGE_BYTES)
            // What upkeep frees can be given back.
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(timeout)
            .statement_cache_capacity(200)
            .row_buffer_size(500)
            .pragma("cache_size", "-32000")
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .idle_timeout(None)
                .max_lifetime(None)
                .acquire_timeout(timeout)
                .test_before_acquire(false)
        };
        let away = |source| failed(&path, "open")(source);
        let writer = pool(1).connect_with(options.clone()).await.map_err(away)?;
        let readers = pool(config.connections_max.clamp(2, 8) - 1).connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self { lock: Lock::beside(&path), path, clock, writer, readers })
    }

    /// The time that leases and due times are judged by, in milliseconds since 1970.
    fn now(&self) -> i64 {
        self.clock.fixed_ms().unwrap_or_else(|| jiff::Timestamp::now().as_millisecond())
    }

    /// Begins a transaction that holds the write lock.
    async fn write(&self, verb: &'static str) -> Result<Transaction<'static, Database>> {
        self.fault(verb, "begin").await?;
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(self.failed(verb))
    }

    /// Begins a transaction that sees one state.
    async fn read_one_state(&self, verb: &'static str) -> Result<Transaction<'static, Database>> {
        self.fault(verb, "begin").await?;
        self.readers.begin().await.map_err(self.failed(verb))
    }

    /// Commits.
    async fn commit(&self, transaction: Transaction<'static, Database>, verb: &'static str) -> Result<()> {
        self.fault(verb, "commit").await?;
        transaction.commit().await.map_err(self.failed(verb))?;
        self.fault(verb, "done").await
    }

    /// Where a test lets a verb fail.
    async fn fault(&self, verb: &'static str, when: &'static str) -> Result<()> {
        crate::faults::point(verb, when).await.map_err(|error| self.failed(verb)(error.into()))
    }

    fn failed(&self, verb: &'static str) -> impl Fn(sqlx::Error) -> Error {
        failed(&self.path, verb)
    }
}

/// What a failure of SQLite means: busy, full and I/O errors may pass; damaged rows were told as decoding errors.
fn failed(path: &std::path::Path, verb: &'static str) -> impl Fn(sqlx::Error) -> Error + use<> {
    let place = path.display().to_string();
    move |source| match source {
        sqlx::Error::Decode(inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(inner) => Error::Corrupt(format!("{verb}: {inner}")),
        },
        source if is_away(&source) => Error::Away { place: place.clone(), source },
        source => Error::Sql { verb, source },
    }
}

fn is_away(error: &sqlx::Error) -> bool {
    match error {
        // The low byte is the primary code: busy, locked, I/O, full, cannot open.
        sqlx::Error::Database(error) => {
            error.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13 | 14))
        }
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// A stored value that makes no sense.
fn damaged(what: impl Into<String>) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(Error::Corrupt(what.into())))
}

/// An error of the store on its way through functions that speak sqlx.
fn carried(error: Error) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row as _};

    use super::*;
    use crate::store::Schema as _;

    #[tokio::test]
    async fn statements_find_their_rows_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("tolk.db").display());
        let config = Config { url, schema: String::new(), connections_max: 2, statement_timeout_ms: 60_000 };
        let store = Sqlite::open(&config, Clock::Database).await.unwrap();
        store.migrate().await.unwrap();
        let all = [inbox::INDEXED, work::INDEXED, reads::INDEXED, settle::INDEXED, validate::INDEXED, memory::INDEXED, wake::INDEXED];
        let all = [&all[..], &[actions::INDEXED, actions::open::INDEXED]].concat();
        for (statement, rows) in all.concat().iter().flat_map(|statement| bulk::SIZES.map(|rows| (statement, rows))) {
            let text = statement.text(rows);
            let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"))).fetch_all(&store.readers).await.unwrap();
            let steps: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
            // What is scanned may only be the rows that were given.
            for scanned in steps.iter().filter_map(|step| step.strip_prefix("SCAN ")) {
                let given =
                    ["r", "t"].contains(&scanned) || ["CONSTANT ROW", "VALUES CLAUSE", "(subquery"].iter().any(|it| scanned.contains(it));
                assert!(given, "scans {scanned}: {text}\n{steps:#?}");
            }
        }
    }
}
