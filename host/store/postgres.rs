//! The store on PostgreSQL: the pool, the clock, which errors are worth another try. Its verbs are in the parts, one trait a file.
//! Keeps no session state, so that a transaction pooler may stand between.

mod actions;
mod copy;
mod deliveries;
mod duties;
mod effects;
mod inbox;
mod leases;
mod ledger;
mod messages;
mod outputs;
mod overview;
mod parts;
mod plugins;
mod reads;
mod release;
mod rows;
mod schema;
mod settle;
mod shares;
mod text;
mod upkeep;
mod validate;
mod work;

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::{Clock, Config, Error, Result};

/// How often a verb is tried whose transaction the server has rolled back by itself.
const TRIES_MAX: u32 = 4;
/// How long a verb waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// From this size on COPY costs less over TCP too, the wait for the acknowledgement of its end included: it takes half the server's work.
const TCP_COPY_BYTES_MIN: usize = 4 << 20;

/// A store in a schema of a PostgreSQL database.
pub struct Postgres {
    pool: PgPool,
    clock: Clock,
    schema: String,
    /// The URL without its password, for errors.
    place: String,
    /// Whether the server is reached over a Unix socket: there COPY is the fastest; over TCP its end waits for a delayed acknowledgement.
    socket: bool,
    /// The id of the first host that joins; connections carry it from the start.
    id: Uuid,
    joined: Mutex<bool>,
    checked: OnceCell<()>,
    targets: Mutex<HashMap<String, i32>>,
}

/// Opens a store without touching the database.
pub async fn open(config: &Config, clock: Clock) -> Result<Postgres> {
    let wrong = |why: String| Error::Config(format!("store.url {}: {why}", super::masked(&config.url)));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if config.schema.is_empty() || config.schema.len() > 63 || !config.schema.chars().all(plain) {
        return Err(Error::Config(format!("store.schema \"{}\": use lower-case letters, digits and _ only", config.schema)));
    }
    let id = Uuid::new_v4();
    let timeout = config.statement_timeout_ms.to_string();
    let options = PgConnectOptions::from_str(&config.url)
        .map_err(|error| wrong(error.to_string()))?
        .application_name(&application_name(id))
        .statement_cache_capacity(200)
        .log_slow_statements(tracing::log::LevelFilter::Debug, Duration::from_secs(5))
        .log_statements(tracing::log::LevelFilter::Trace)
        .options([
            ("search_path", config.schema.as_str()),
            ("statement_timeout", timeout.as_str()),
            ("idle_in_transaction_session_timeout", "10000"),
            // Compiling a query takes longer than any of ours runs; fresh tables have no statistics, so the planner would often do it.
            ("jit", "off"),
            // Bulk inserts by arrays unfold in memory.
            ("work_mem", "32MB"),
            // Verbs look rows up by their keys. A plan made while a table is empty would walk it whole, and stay while the table grows.
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            // What is looked up is hardly ever looked up twice, and messages are large to keep.
            ("enable_memoize", "off"),
        ]);
    let socket = options.get_socket().is_some() || options.get_host().starts_with('/');
    let pool =
        PgPoolOptions::new().max_connections(config.connections_max.max(2)).acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options);
    Ok(Postgres {
        pool,
        clock,
        schema: config.schema.clone(),
        place: super::masked(&config.url),
        socket,
        id,
        joined: Mutex::new(false),
        checked: OnceCell::new(),
        targets: Mutex::new(HashMap::new()),
    })
}

/// What the connections of a host are called, so that whoever takes over from it can end them.
fn application_name(id: Uuid) -> String {
    format!("tolk/{id}")
}

/// A try that did not work.
enum Trouble {
    Sql(sqlx::Error),
    Own(Error),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

/// The result of one try.
type Try<T> = std::result::Result<T, Trouble>;

/// Runs a verb again while the server says that it rolled it back and that another try can help.
macro_rules! retried {
    ($store:expr, $verb:literal, $once:expr) => {{
        let mut tries = 0;
        $store.fault($verb, "begin").await?;
        loop {
            match $once.await {
                Ok(done) => break $store.fault($verb, "done").await.map(|()| done),
                Err(trouble) => $store.again($verb, trouble, &mut tries).await?,
            }
        }
    }};
}
use retried;

impl Postgres {
    /// The pool, once the schema is known to be this binary's.
    async fn pool(&self) -> Try<&PgPool> {
        self.checked.get_or_try_init(|| self.check_schema()).await?;
        Ok(&self.pool)
    }

    /// Whether COPY is the fastest way for rows of so many bytes.
    fn copies(&self, bytes: usize) -> bool {
        self.socket || bytes >= TCP_COPY_BYTES_MIN
    }

    /// Returns when the verb may be tried again.
    async fn again(&self, verb: &'static str, trouble: Trouble, tries: &mut u32) -> Result<()> {
        let error = match trouble {
            Trouble::Own(error) => return Err(error),
            Trouble::Sql(error) => error,
        };
        *tries += 1;
        // The server answered that it rolled back: serialisation failure, deadlock, lock not available.
        let rolled_back = code(&error).is_some_and(|code| matches!(&*code, "40001" | "40P01" | "55P03"));
        if rolled_back && *tries < TRIES_MAX {
            let jitter_ms = rand::random_range(5..50_u64) << *tries;
            tokio::time::sleep(Duration::from_millis(jitter_ms)).await;
            return Ok(());
        }
        Err(self.error(verb, error).await)
    }

    /// Where a test lets a verb fail.
    async fn fault(&self, verb: &'static str, when: &'static str) -> Result<()> {
        crate::faults::point(verb, when).await.map_err(|error| Error::Away { place: self.place.clone(), source: error.into() })
    }

    /// The error of a verb as the rest of the house knows it.
    async fn error(&self, verb: &'static str, error: sqlx::Error) -> Error {
        if !is_away(&error) {
            return Error::Sql { verb, source: error };
        }
        // The pool hides why it got no connection; a connection of our own says it.
        let source = match error {
            sqlx::Error::PoolTimedOut => match self.connect().await {
                Ok(connection) => {
                    let _closed = connection.close().await;
                    sqlx::Error::PoolTimedOut
                }
                Err(reason) => reason,
            },
            error => error,
        };
        Error::Away { place: self.place.clone(), source }
    }

    /// A connection outside the pool.
    async fn connect(&self) -> sqlx::Result<PgConnection> {
        let options = self.pool.connect_options();
        match tokio::time::timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(&options)).await {
            Ok(connected) => connected,
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Calls the connections that are opened from now on after another host.
    fn rename(&self, id: Uuid) {
        let options = (*self.pool.connect_options()).clone();
        self.pool.set_connect_options(options.application_name(&application_name(id)));
    }

    /// The numbers of targets, made where they are missing, so that no output is without a place.
    async fn target_ids(&self, names: &[&str]) -> Try<HashMap<String, i32>> {
        let mut missing: Vec<String> = Vec::new();
        {
            let known = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
            missing.extend(names.iter().filter(|name| !known.contains_key(**name)).map(|name| (*name).to_owned()));
        }
        if !missing.is_empty() {
            missing.sort();
            missing.dedup();
            let pool = self.pool().await?;
            // Only what is missing takes a number of the sequence.
            sqlx::query(
                "WITH made AS (INSERT INTO target (name) SELECT t.name FROM unnest($1::text[]) t(name)
                   WHERE NOT EXISTS (SELECT 1 FROM target x WHERE x.name = t.name) ON CONFLICT (name) DO NOTHING RETURNING id)
                 INSERT INTO target_cursor (target) SELECT id FROM made ON CONFLICT DO NOTHING",
            )
            .bind(&missing)
            .execute(pool)
            .await?;
            let rows: Vec<(String, i32)> =
                sqlx::query_as("SELECT name, id FROM target WHERE name = ANY($1)").bind(&missing).fetch_all(pool).await?;
            self.targets.lock().unwrap_or_else(PoisonError::into_inner).extend(rows);
        }
        let known = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(names.iter().filter_map(|name| Some(((*name).to_owned(), *known.get(*name)?))).collect())
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
}

/// Whether waiting can help: the connection broke, or the server is starting, stopping, full, or took too long to lock.
fn is_away(error: &sqlx::Error) -> bool {
    match error {
        // A connection whose last user was given up half way: the pool closes it, another one is in order.
        sqlx::Error::Protocol(_) | sqlx::Error::BeginFailed => true,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08")
                || code.starts_with("57P0")
                || code.starts_with("53")
                || matches!(&*code, "25P03" | "40001" | "40P01" | "55P03" | "57014" | "25006")
        }),
        _ => false,
    }
}

/// Commits.
async fn commit(transaction: sqlx::PgTransaction<'_>, verb: &'static str) -> sqlx::Result<()> {
    crate::faults::point(verb, "commit").await?;
    transaction.commit().await
}

/// Lanes as the two arrays that SQL takes.
fn columns(lanes: &[(crate::message::FeedId, i32)]) -> (Vec<i32>, Vec<i32>) {
    lanes.iter().map(|(feed, lane)| (feed.0, *lane)).unzip()
}

/// A hash of a key as the column that holds it.
fn uuid_of(hash: crate::message::KeyHash) -> Uuid {
    Uuid::from_bytes(hash.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(url: &str, schema: &str) -> std::result::Result<bool, String> {
        let config = Config { url: url.to_owned(), schema: schema.to_owned(), connections_max: 2, statement_timeout_ms: 1_000 };
        open(&config, Clock::Database).await.map(|store| store.socket).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn urls_name_a_transport_and_schemas_are_plain_words() {
        assert_eq!(check("postgres://u:secret@db:5432/d", "tolk").await, Ok(false));
        assert_eq!(check("postgres://u@localhost/d?host=/run/postgresql", "tolk").await, Ok(true));
        assert!(check("postgres://u@h/d", "x; drop").await.unwrap_err().contains("store.schema"));
        let error = check("postgres://u:secret@h:port/d", "tolk").await.unwrap_err();
        assert!(error.contains("store.url") && !error.contains("secret"), "{error}");
    }
}
