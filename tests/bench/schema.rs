//! A schema of its own for each turn on PostgreSQL, and the question whether its server keeps what it confirms. Knows nothing of what is measured.

use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use tolk::store::Config;

/// A schema of its own with our tables, dropped again after the turn.
pub struct Schema {
    pub config: Config,
    pub connection: PgConnection,
}

impl Schema {
    fn new_config(url: &str) -> Config {
        let schema = format!("bench_{}", uuid::Uuid::new_v4().simple());
        Config { url: url.to_owned(), schema, connections_max: 8, statement_timeout_ms: 60_000 }
    }

    /// An empty one, after everything that earlier turns left to be written has been.
    pub async fn make(url: &str) -> Self {
        let config = Self::new_config(url);
        let options = PgConnectOptions::from_str(url).unwrap().options([("search_path", &config.schema)]);
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql("CHECKPOINT").execute(&mut connection).await.unwrap();
        Self { config, connection }
    }

    /// Rows, distinct messages and payload bytes of the inbox and the outputs must be those that were sent.
    pub async fn check(&mut self, count: usize, payload_bytes: usize, outputs: usize) {
        let (rows, bytes): (i64, i64) =
            self.one("SELECT count(DISTINCT id), coalesce(sum(octet_length(payload)), 0)::bigint FROM inbox").await;
        assert_eq!((rows, bytes), (count as i64, payload_bytes as i64), "the inbox holds what was sent");
        let (rows, messages): (i64, i64) = self.one("SELECT count(*), count(DISTINCT message) FROM output").await;
        assert_eq!((rows, messages), (outputs as i64, outputs as i64), "each message has one output");
    }

    /// How many messages have each status.
    pub async fn statuses(&mut self) -> Vec<(String, i64)> {
        let sql = "SELECT status, count(*) FROM message_status GROUP BY 1 ORDER BY 1";
        sqlx::query_as(sql).fetch_all(&mut self.connection).await.unwrap()
    }

    /// The one row of a question.
    pub async fn one<T>(&mut self, sql: &'static str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
    {
        sqlx::query_as(sql).fetch_one(&mut self.connection).await.unwrap()
    }

    /// Makes the tables, for those who write into them themselves.
    pub async fn migrate(&self) {
        let store = tolk::store::open(&self.config, tolk::store::Clock::Database).await.unwrap();
        store.migrate().await.unwrap();
    }

    /// Runs a statement.
    pub async fn run(&mut self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&mut self.connection).await.unwrap();
    }

    /// Removes everything.
    pub async fn drop(mut self) {
        let sql = format!("SET client_min_messages = warning; DROP SCHEMA {} CASCADE", self.config.schema);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await.unwrap();
        self.connection.close().await.unwrap();
    }
}

/// Stops where the server does not write to its disk: such figures are worth nothing.
pub async fn must_be_durable(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    for setting in ["fsync", "synchronous_commit"] {
        let (value,): (String,) = sqlx::query_as(AssertSqlSafe(format!("SHOW {setting}"))).fetch_one(&mut connection).await.unwrap();
        assert_eq!(value, "on", "figures without {setting} are worth nothing");
    }
}
