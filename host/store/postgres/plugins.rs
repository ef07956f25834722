//! Components, what they were compiled to, and which of them is active: the newest activation's number is the revision.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};

use super::text::{plain, stored};
use super::{Postgres, Try, retried};
use crate::plugin::Digest;
use crate::store::{Activation, Component, Error, Host, Plugins, Result};

impl Postgres {
    async fn put_component_once(&self, component: &Component, bytes: &[u8]) -> Try<()> {
        sqlx::query(
            "INSERT INTO component (digest, size, description, imports, pushed_ms, pushed_by, bytes) VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (digest) DO NOTHING",
        )
        .bind(&component.digest.0[..])
        .bind(component.size)
        .bind(serde_json::to_string(&component.description).expect("a description is JSON"))
        .bind(serde_json::to_string(&component.imports).expect("names are JSON"))
        .bind(component.pushed_ms)
        .bind(stored(&component.pushed_by))
        .bind(bytes)
        .execute(self.pool().await?)
        .await?;
        Ok(())
    }

    async fn components_once(&self) -> Try<Vec<Component>> {
        let rows =
            sqlx::query("SELECT digest, size, description, imports, pushed_ms, pushed_by FROM component ORDER BY pushed_ms DESC, digest")
                .fetch_all(self.pool().await?)
                .await?;
        let component = |row: &PgRow| {
            let (description, imports): (String, String) = (row.try_get(2)?, row.try_get(3)?);
            let damaged = |error: serde_json::Error| Error::Corrupt(format!("the description of a component: {error}"));
            Ok(Component {
                digest: digest(row, 0)?,
                size: row.try_get(1)?,
                description: serde_json::from_str(&description).map_err(damaged)?,
                imports: serde_json::from_str(&imports).map_err(damaged)?,
                pushed_ms: row.try_get(4)?,
                pushed_by: plain(row.try_get(5)?),
            })
        };
        rows.iter().map(component).collect()
    }

    async fn component_bytes_once(&self, digest: Digest) -> Try<Option<Bytes>> {
        let row: Option<(Vec<u8>,)> =
            sqlx::query_as("SELECT bytes FROM component WHERE digest = $1").bind(&digest.0[..]).fetch_optional(self.pool().await?).await?;
        Ok(row.map(|(bytes,)| bytes.into()))
    }

    async fn put_artefact_once(&self, digest: Digest, engine: &str, bytes: &[u8]) -> Try<()> {
        sqlx::query(
            "INSERT INTO artefact (digest, engine, bytes) VALUES ($1, $2, $3)
             ON CONFLICT (digest, engine) DO UPDATE SET bytes = excluded.bytes",
        )
        .bind(&digest.0[..])
        .bind(engine)
        .bind(bytes)
        .execute(self.pool().await?)
        .await?;
        Ok(())
    }

    async fn artefact_once(&self, digest: Digest, engine: &str) -> Try<Option<Bytes>> {
        let row: Option<(Vec<u8>,)> = sqlx::query_as("SELECT bytes FROM artefact WHERE digest = $1 AND engine = $2")
            .bind(&digest.0[..])
            .bind(engine)
            .fetch_optional(self.pool().await?)
            .await?;
        Ok(row.map(|(bytes,)| bytes.into()))
    }

    async fn activate_once(&self, activation: &Activation) -> Try<i64> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        // One at a time, so that numbers commit in order and the newest one is the revision.
        sqlx::query("LOCK TABLE activation IN SHARE ROW EXCLUSIVE MODE").execute(&mut *transaction).await?;
        let (id,) = sqlx::query_as(
            "INSERT INTO activation (feed, source_table, digest, config, at_ms, by_whom, why) VALUES ($1, $2, $3, $4, $5, $6, $7)
             RETURNING id",
        )
        .bind(&activation.feed)
        .bind(stored(&activation.table))
        .bind(&activation.digest.0[..])
        .bind(stored(&activation.config))
        .bind(activation.at_ms)
        .bind(stored(&activation.by))
        .bind(stored(&activation.why))
        .fetch_one(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO active (feed, source_table, activation) VALUES ($1, $2, $3)
             ON CONFLICT (feed, source_table) DO UPDATE SET activation = excluded.activation",
        )
        .bind(&activation.feed)
        .bind(stored(&activation.table))
        .bind(id)
        .execute(&mut *transaction)
        .await?;
        super::commit(transaction, "activate").await?;
        Ok(id)
    }

    async fn active_once(&self) -> Try<(i64, Vec<Activation>)> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let revision = revision(&mut transaction).await?;
        let rows = sqlx::query(
            "SELECT a.id, a.feed, a.source_table, a.digest, a.config, a.at_ms, a.by_whom, a.why
             FROM active JOIN activation a ON a.id = active.activation ORDER BY a.feed, a.source_table",
        )
        .fetch_all(&mut *transaction)
        .await?;
        super::commit(transaction, "read what is active").await?;
        Ok((revision, rows.iter().map(activation).collect::<Try<Vec<_>>>()?))
    }

    async fn revision_once(&self) -> Try<i64> {
        let mut connection = self.pool().await?.acquire().await?;
        revision(&mut connection).await
    }

    async fn activations_once(&self, feed: Option<&str>, table: Option<&str>) -> Try<Vec<Activation>> {
        let rows = sqlx::query(
            "SELECT id, feed, source_table, digest, config, at_ms, by_whom, why FROM activation
             WHERE ($1::text IS NULL OR feed = $1) AND ($2::text IS NULL OR source_table = $2) ORDER BY id DESC",
        )
        .bind(feed)
        .bind(table.map(stored))
        .fetch_all(self.pool().await?)
        .await?;
        rows.iter().map(activation).collect()
    }

    async fn report_revision_once(&self, host: &Host, revision: i64) -> Try<()> {
        sqlx::query("UPDATE host SET revision = $2 WHERE id = $1").bind(host.id).bind(revision).execute(self.pool().await?).await?;
        Ok(())
    }

    async fn oldest_revision_once(&self) -> Try<Option<i64>> {
        let (oldest,) = sqlx::query_as(
            "SELECT min(revision) FROM host WHERE lease_until_ms > coalesce($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)",
        )
        .bind(self.clock.fixed_ms())
        .fetch_one(self.pool().await?)
        .await?;
        Ok(oldest)
    }
}

async fn revision(connection: &mut PgConnection) -> Try<i64> {
    let (revision,) = sqlx::query_as("SELECT coalesce(max(id), 0) FROM activation").fetch_one(connection).await?;
    Ok(revision)
}

/// An activation of the columns in the order of its fields.
pub(super) fn activation(row: &PgRow) -> Try<Activation> {
    Ok(Activation {
        id: row.try_get(0)?,
        feed: row.try_get(1)?,
        table: plain(row.try_get(2)?),
        digest: digest(row, 3)?,
        config: plain(row.try_get(4)?),
        at_ms: row.try_get(5)?,
        by: plain(row.try_get(6)?),
        why: plain(row.try_get(7)?),
    })
}

fn digest(row: &PgRow, column: usize) -> Try<Digest> {
    let bytes: Vec<u8> = row.try_get(column)?;
    Ok(Digest(bytes.try_into().map_err(|_| Error::Corrupt("a digest is not 32 bytes".to_owned()))?))
}

#[async_trait]
impl Plugins for Postgres {
    async fn put_component(&self, component: &Component, bytes: &[u8]) -> Result<()> {
        retried!(self, "store a component", self.put_component_once(component, bytes))
    }

    async fn components(&self) -> Result<Vec<Component>> {
        retried!(self, "list components", self.components_once())
    }

    async fn component_bytes(&self, digest: Digest) -> Result<Option<Bytes>> {
        retried!(self, "read a component", self.component_bytes_once(digest))
    }

    async fn put_artefact(&self, digest: Digest, engine: &str, bytes: &[u8]) -> Result<()> {
        retried!(self, "store an artefact", self.put_artefact_once(digest, engine, bytes))
    }

    async fn artefact(&self, digest: Digest, engine: &str) -> Result<Option<Bytes>> {
        retried!(self, "read an artefact", self.artefact_once(digest, engine))
    }

    async fn activate(&self, activation: &Activation) -> Result<i64> {
        retried!(self, "activate", self.activate_once(activation))
    }

    async fn active(&self) -> Result<(i64, Vec<Activation>)> {
        retried!(self, "read what is active", self.active_once())
    }

    async fn revision(&self) -> Result<i64> {
        retried!(self, "read the revision", self.revision_once())
    }

    async fn activations(&self, feed: Option<&str>, table: Option<&str>) -> Result<Vec<Activation>> {
        retried!(self, "list activations", self.activations_once(feed, table))
    }

    async fn report_revision(&self, host: &Host, revision: i64) -> Result<()> {
        retried!(self, "report the revision", self.report_revision_once(host, revision))
    }

    async fn oldest_revision(&self) -> Result<Option<i64>> {
        retried!(self, "read the oldest revision", self.oldest_revision_once())
    }
}
