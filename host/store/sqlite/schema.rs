//! Migrations, the installation's secret, the clock.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Executor as _, SqliteConnection};

use super::{Sqlite, damaged};
use crate::store::migrations::{Migration, newest, refuse_newer, refuse_other};
use crate::store::{Result, Schema};

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "0001_tables", sql: include_str!("../../../migrations/sqlite/0001_tables.sql") },
    Migration { version: 2, name: "0002_actions", sql: include_str!("../../../migrations/sqlite/0002_actions.sql") },
    Migration { version: 3, name: "0003_deliveries", sql: include_str!("../../../migrations/sqlite/0003_deliveries.sql") },
    Migration { version: 4, name: "0004_suspects", sql: include_str!("../../../migrations/sqlite/0004_suspects.sql") },
    Migration { version: 5, name: "0005_upkeep", sql: include_str!("../../../migrations/sqlite/0005_upkeep.sql") },
];

#[async_trait]
impl Schema for Sqlite {
    async fn migrate(&self) -> Result<Vec<String>> {
        const VERB: &str = "migrate";
        // The write lock is taken first, so hosts that start together go one after the other.
        let mut transaction = self.write(VERB).await?;
        let found = version(&mut transaction).await.map_err(self.failed(VERB))?;
        refuse_newer(found, newest(MIGRATIONS))?;
        // A host of the release before must not go on beside the new tables.
        let (held, old) = (self.lock.is_held(), (1..newest(MIGRATIONS)).contains(&found));
        if old {
            self.lock.take("a migration")?;
        }
        let mut applied = Vec::new();
        for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
            apply(&mut transaction, migration, self.now()).await.map_err(self.failed(VERB))?;
            applied.push(migration.name.to_owned());
        }
        self.commit(transaction, VERB).await?;
        self.make_compact().await?;
        if old && !held {
            self.lock.release();
        }
        Ok(applied)
    }

    async fn schema_version(&self) -> Result<(i64, i64)> {
        const VERB: &str = "read the schema's version";
        self.fault(VERB, "begin").await?;
        let mut reader = self.readers.acquire().await.map_err(self.failed(VERB))?;
        let found = version(&mut reader).await.map_err(self.failed(VERB))?;
        Ok((found, newest(MIGRATIONS)))
    }

    async fn about(&self) -> Result<String> {
        self.fault("ask for the version", "begin").await?;
        let version: String =
            sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&self.readers).await.map_err(self.failed("ask for the version"))?;
        Ok(format!("SQLite {version}, {}", self.path.display()))
    }

    async fn now_ms(&self) -> Result<i64> {
        Ok(self.now())
    }

    async fn secret(&self) -> Result<[u8; 32]> {
        const VERB: &str = "read the secret";
        const KNOWN: &str = "SELECT secret FROM installation";
        let known: Option<Vec<u8>> = sqlx::query_scalar(KNOWN).fetch_optional(&self.readers).await.map_err(self.failed(VERB))?;
        let secret = match known {
            Some(secret) => secret,
            None => {
                let fresh: [u8; 32] = rand::random();
                let mut transaction = self.write(VERB).await?;
                sqlx::query("INSERT INTO installation (one, secret, made_ms) VALUES (1, ?, ?) ON CONFLICT DO NOTHING")
                    .bind(&fresh[..])
                    .bind(self.now())
                    .execute(&mut *transaction)
                    .await
                    .map_err(self.failed(VERB))?;
                let stored = sqlx::query_scalar(KNOWN).fetch_one(&mut *transaction).await.map_err(self.failed(VERB))?;
                self.commit(transaction, VERB).await?;
                stored
            }
        };
        secret.try_into().map_err(|_| self.failed(VERB)(damaged("the secret has not 32 bytes")))
    }
}

impl Sqlite {
    /// Files of the first releases cannot give back space until they are written anew, which happens once.
    async fn make_compact(&self) -> Result<()> {
        const VERB: &str = "make the file able to give back space";
        const INCREMENTAL: i64 = 2;
        let mut writer = self.writer.acquire().await.map_err(self.failed(VERB))?;
        let mode: i64 = sqlx::query_scalar("PRAGMA auto_vacuum").fetch_one(&mut *writer).await.map_err(self.failed(VERB))?;
        if mode != INCREMENTAL {
            sqlx::raw_sql("PRAGMA auto_vacuum = INCREMENTAL; VACUUM").execute(&mut *writer).await.map_err(self.failed(VERB))?;
        }
        Ok(())
    }
}

/// Refuses tables of another version.
pub(super) async fn check(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    let found = version(connection).await?;
    refuse_other(found, newest(MIGRATIONS)).map_err(super::carried)
}

async fn version(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    let there: bool = sqlx::query_scalar("SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_version'")
        .fetch_one(&mut *connection)
        .await?;
    if !there {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM schema_version").fetch_one(connection).await
}

async fn apply(connection: &mut SqliteConnection, migration: &Migration, now: i64) -> sqlx::Result<()> {
    connection
        .execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_ms INTEGER NOT NULL) STRICT")
        .await?;
    connection.execute(sqlx::raw_sql(AssertSqlSafe(migration.sql))).await?;
    sqlx::query("INSERT INTO schema_version (version, name, applied_ms) VALUES (?, ?, ?)")
        .bind(migration.version)
        .bind(migration.name)
        .bind(now)
        .execute(connection)
        .await?;
    Ok(())
}
