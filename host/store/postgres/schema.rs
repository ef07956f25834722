//! The tables and their versions: migrations applied forward only, by one host at a time.

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};

use super::leases::guard;
use super::{Postgres, Trouble, Try, retried};
use crate::store::migrations::{Migration, newest, refuse_newer, refuse_other};
use crate::store::{Error, Result, Schema};

/// Every migration: its number, its name, its statements. Numbers and names are those of SQLite.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "0001_tables", sql: include_str!("../../../migrations/postgres/0001_tables.sql") },
    Migration { version: 2, name: "0002_actions", sql: include_str!("../../../migrations/postgres/0002_actions.sql") },
    Migration { version: 3, name: "0003_deliveries", sql: include_str!("../../../migrations/postgres/0003_deliveries.sql") },
    Migration { version: 4, name: "0004_suspects", sql: include_str!("../../../migrations/postgres/0004_suspects.sql") },
    Migration { version: 5, name: "0005_upkeep", sql: include_str!("../../../migrations/postgres/0005_upkeep.sql") },
];

impl Postgres {
    /// The version of the tables; 0: none. A connection of its own, so that an error says why there is none.
    async fn found_version(&self) -> Try<i64> {
        let mut connection = self.connect().await?;
        let version = version(&mut connection, &self.schema).await;
        let _closed = connection.close().await;
        version
    }

    /// An error unless the tables are this binary's.
    pub(super) async fn check_schema(&self) -> Try<()> {
        Ok(refuse_other(self.found_version().await?, newest(MIGRATIONS))?)
    }

    /// The same, as a transaction sees it.
    pub(super) async fn refuse_other_schema(&self, connection: &mut PgConnection) -> Try<()> {
        Ok(refuse_other(version(connection, &self.schema).await?, newest(MIGRATIONS))?)
    }

    async fn migrate_once(&self) -> Try<Vec<String>> {
        let mut connection = self.connect().await?;
        let mut transaction = connection.begin().await?;
        // One host at a time; the lock ends with the transaction, so a pooler may stand between.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('tolk migrate ' || $1, 0))")
            .bind(&self.schema)
            .execute(&mut *transaction)
            .await?;
        let found = version(&mut transaction, &self.schema).await?;
        refuse_newer(found, newest(MIGRATIONS))?;
        if found == 0 {
            let schema = &self.schema;
            let made = format!(
                "CREATE SCHEMA IF NOT EXISTS {schema};
                 CREATE TABLE IF NOT EXISTS schema_version (version bigint PRIMARY KEY, name text NOT NULL, applied_ms bigint NOT NULL)"
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(made)).execute(&mut *transaction).await?;
        }
        if (1..newest(MIGRATIONS)).contains(&found) {
            put_out_hosts(&mut transaction).await?;
        }
        let mut applied = Vec::new();
        for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
            sqlx::raw_sql(migration.sql).execute(&mut *transaction).await?;
            sqlx::query(
                "INSERT INTO schema_version (version, name, applied_ms)
                 VALUES ($1, $2, coalesce($3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint))",
            )
            .bind(migration.version)
            .bind(migration.name)
            .bind(self.clock.fixed_ms())
            .execute(&mut *transaction)
            .await?;
            applied.push(migration.name.to_owned());
        }
        super::commit(transaction, "migrate").await?;
        let _closed = connection.close().await;
        Ok(applied)
    }

    async fn about_once(&self) -> Try<String> {
        let mut connection = self.connect().await?;
        let (version, user, encoding): (String, String, String) =
            sqlx::query_as("SELECT current_setting('server_version'), current_user::text, current_setting('server_encoding')")
                .fetch_one(&mut connection)
                .await?;
        let _closed = connection.close().await;
        if encoding != "UTF8" {
            return Err(Error::Config(format!("the database's encoding is {encoding}; make one with ENCODING 'UTF8'")).into());
        }
        let transport = if self.socket { "a Unix socket" } else { "TCP" };
        Ok(format!("PostgreSQL {version} over {transport}, schema {}, user {user}", self.schema))
    }

    async fn secret_once(&self) -> Try<[u8; 32]> {
        let pool = self.pool().await?;
        let fresh: [u8; 32] = rand::random();
        sqlx::query(
            "INSERT INTO installation (secret, made_ms) SELECT $1, coalesce($2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
             WHERE NOT EXISTS (SELECT 1 FROM installation) ON CONFLICT DO NOTHING",
        )
        .bind(&fresh[..])
        .bind(self.clock.fixed_ms())
        .execute(pool)
        .await?;
        let (secret,): (Vec<u8>,) = sqlx::query_as("SELECT secret FROM installation").fetch_one(pool).await?;
        secret.try_into().map_err(|_| Trouble::Own(Error::Corrupt("the installation's secret is not 32 bytes".to_owned())))
    }

    async fn now_once(&self) -> Try<i64> {
        if let Some(now_ms) = self.clock.fixed_ms() {
            return Ok(now_ms);
        }
        let (now_ms,) = sqlx::query_as("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetch_one(&self.pool).await?;
        Ok(now_ms)
    }
}

/// Hosts of the release before must not go on beside the new tables: they lose everything at once, and are refused when they join again.
async fn put_out_hosts(connection: &mut PgConnection) -> Try<()> {
    // A migration may copy what is large.
    sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *connection).await?;
    sqlx::query("LOCK TABLE host IN EXCLUSIVE MODE").execute(&mut *connection).await?;
    guard(connection).await?;
    for sql in [
        "UPDATE feed SET owner = NULL, epoch = epoch + 1",
        "UPDATE lane SET owner = NULL, epoch = epoch + 1",
        "UPDATE target_cursor SET taken_over = taken_over OR owner IS NOT NULL, owner = NULL, epoch = epoch + 1",
        "DELETE FROM host",
    ] {
        sqlx::query(sql).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn version(connection: &mut PgConnection, schema: &str) -> Try<i64> {
    let (there,): (bool,) =
        sqlx::query_as("SELECT to_regclass(format('%I.schema_version', $1)) IS NOT NULL").bind(schema).fetch_one(&mut *connection).await?;
    if !there {
        return Ok(0);
    }
    let (version,) = sqlx::query_as("SELECT coalesce(max(version), 0) FROM schema_version").fetch_one(connection).await?;
    Ok(version)
}

#[async_trait]
impl Schema for Postgres {
    async fn migrate(&self) -> Result<Vec<String>> {
        retried!(self, "migrate", self.migrate_once())
    }

    async fn schema_version(&self) -> Result<(i64, i64)> {
        let found = retried!(self, "read the version of the tables", self.found_version())?;
        Ok((found, newest(MIGRATIONS)))
    }

    async fn about(&self) -> Result<String> {
        retried!(self, "ask for the version", self.about_once())
    }

    async fn now_ms(&self) -> Result<i64> {
        retried!(self, "ask for the time", self.now_once())
    }

    async fn secret(&self) -> Result<[u8; 32]> {
        retried!(self, "read the secret", self.secret_once())
    }
}
