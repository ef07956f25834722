//! Components, compiled artefacts, and which plugin is active since when.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Sqlite, damaged};
use crate::plugin::Digest;
use crate::store::{Activation, Component, Host, Plugins, Result};

/// The columns of an activation, from an activation `a`.
macro_rules! activation_columns {
    () => {
        "a.id, a.feed, a.source_table, a.digest, a.config, a.at_ms, a.by_whom, a.why"
    };
}
pub(super) use activation_columns;

const REVISION: &str = "SELECT coalesce(max(id), 0) FROM activation";

#[async_trait]
impl Plugins for Sqlite {
    async fn put_component(&self, component: &Component, bytes: &[u8]) -> Result<()> {
        const VERB: &str = "store a component";
        self.fault(VERB, "begin").await?;
        let text = |value: serde_json::Result<String>| value.map_err(|error| self.failed(VERB)(damaged(error.to_string())));
        sqlx::query(
            "INSERT INTO component (digest, size, description, imports, pushed_ms, pushed_by, bytes) VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT DO NOTHING",
        )
        .bind(&component.digest.0[..])
        .bind(component.size)
        .bind(text(serde_json::to_string(&component.description))?)
        .bind(text(serde_json::to_string(&component.imports))?)
        .bind(component.pushed_ms)
        .bind(&component.pushed_by)
        .bind(bytes)
        .execute(&self.writer)
        .await
        .map_err(self.failed(VERB))?;
        Ok(())
    }

    async fn components(&self) -> Result<Vec<Component>> {
        const VERB: &str = "read components";
        self.fault(VERB, "begin").await?;
        let rows = sqlx::query(
            "SELECT digest, size, description, imports, pushed_ms, pushed_by FROM component ORDER BY pushed_ms DESC, rowid DESC",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(self.failed(VERB))?;
        rows.iter().map(component).collect::<sqlx::Result<_>>().map_err(self.failed(VERB))
    }

    async fn component_bytes(&self, digest: Digest) -> Result<Option<Bytes>> {
        self.fault("read a component", "begin").await?;
        let query = sqlx::query_scalar("SELECT bytes FROM component WHERE digest = ?").bind(digest.0.to_vec());
        let bytes: Option<Vec<u8>> = query.fetch_optional(&self.readers).await.map_err(self.failed("read a component"))?;
        Ok(bytes.map(Bytes::from))
    }

    async fn put_artefact(&self, digest: Digest, engine: &str, bytes: &[u8]) -> Result<()> {
        self.fault("store an artefact", "begin").await?;
        sqlx::query("INSERT OR REPLACE INTO artefact (digest, engine, bytes) VALUES (?, ?, ?)")
            .bind(&digest.0[..])
            .bind(engine)
            .bind(bytes)
            .execute(&self.writer)
            .await
            .map_err(self.failed("store an artefact"))?;
        Ok(())
    }

    async fn artefact(&self, digest: Digest, engine: &str) -> Result<Option<Bytes>> {
        self.fault("read an artefact", "begin").await?;
        let query = sqlx::query_scalar("SELECT bytes FROM artefact WHERE digest = ? AND engine = ?").bind(digest.0.to_vec()).bind(engine);
        let bytes: Option<Vec<u8>> = query.fetch_optional(&self.readers).await.map_err(self.failed("read an artefact"))?;
        Ok(bytes.map(Bytes::from))
    }

    async fn activate(&self, activation: &Activation) -> Result<i64> {
        const VERB: &str = "activate a plugin";
        let mut transaction = self.write(VERB).await?;
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO activation (feed, source_table, digest, config, at_ms, by_whom, why) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        )
        .bind(&activation.feed)
        .bind(&activation.table)
        .bind(&activation.digest.0[..])
        .bind(&activation.config)
        .bind(activation.at_ms)
        .bind(&activation.by)
        .bind(&activation.why)
        .fetch_one(&mut *transaction)
        .await
        .map_err(self.failed(VERB))?;
        sqlx::query("INSERT OR REPLACE INTO active (feed, source_table, activation) VALUES (?, ?, ?)")
            .bind(&activation.feed)
            .bind(&activation.table)
            .bind(id)
            .execute(&mut *transaction)
            .await
            .map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(id)
    }

    async fn active(&self) -> Result<(i64, Vec<Activation>)> {
        const VERB: &str = "read active plugins";
        const ACTIVE: &str = concat!(
            "SELECT ",
            activation_columns!(),
            " FROM active c JOIN activation a ON a.id = c.activation ORDER BY c.feed, c.source_table"
        );
        let mut reader = self.read_one_state(VERB).await?;
        let revision = sqlx::query_scalar(REVISION).fetch_one(&mut *reader).await.map_err(self.failed(VERB))?;
        let rows = sqlx::query(ACTIVE).fetch_all(&mut *reader).await.map_err(self.failed(VERB))?;
        let active = rows.iter().map(activation).collect::<sqlx::Result<_>>().map_err(self.failed(VERB))?;
        Ok((revision, active))
    }

    async fn revision(&self) -> Result<i64> {
        self.fault("read the revision", "begin").await?;
        sqlx::query_scalar(REVISION).fetch_one(&self.readers).await.map_err(self.failed("read the revision"))
    }

    async fn activations(&self, feed: Option<&str>, table: Option<&str>) -> Result<Vec<Activation>> {
        const VERB: &str = "read activations";
        self.fault(VERB, "begin").await?;
        const ALL: &str = concat!(
            "SELECT ",
            activation_columns!(),
            " FROM activation a WHERE (?1 IS NULL OR a.feed = ?1) AND (?2 IS NULL OR a.source_table = ?2) ORDER BY a.id DESC"
        );
        let rows = sqlx::query(ALL).bind(feed).bind(table).fetch_all(&self.readers).await.map_err(self.failed(VERB))?;
        rows.iter().map(activation).collect::<sqlx::Result<_>>().map_err(self.failed(VERB))
    }

    async fn report_revision(&self, host: &Host, revision: i64) -> Result<()> {
        self.fault("report the revision", "begin").await?;
        sqlx::query("UPDATE host SET revision = ? WHERE id = ?")
            .bind(revision)
            .bind(host.id)
            .execute(&self.writer)
            .await
            .map_err(self.failed("report the revision"))?;
        Ok(())
    }

    async fn oldest_revision(&self) -> Result<Option<i64>> {
        self.fault("read the oldest revision", "begin").await?;
        sqlx::query_scalar("SELECT min(coalesce(revision, 0)) FROM host WHERE lease_until_ms >= ?")
            .bind(self.now())
            .fetch_one(&self.readers)
            .await
            .map_err(self.failed("read the oldest revision"))
    }
}

fn component(row: &SqliteRow) -> sqlx::Result<Component> {
    let unreadable = |error: serde_json::Error| damaged(format!("a component's sheet: {error}"));
    Ok(Component {
        digest: digest(row.try_get(0)?)?,
        size: row.try_get(1)?,
        description: serde_json::from_str(row.try_get(2)?).map_err(unreadable)?,
        imports: serde_json::from_str(row.try_get(3)?).map_err(unreadable)?,
        pushed_ms: row.try_get(4)?,
        pushed_by: row.try_get(5)?,
    })
}

/// The activation of a row of `activation_columns`.
pub(super) fn activation(row: &SqliteRow) -> sqlx::Result<Activation> {
    Ok(Activation {
        id: row.try_get(0)?,
        feed: row.try_get(1)?,
        table: row.try_get(2)?,
        digest: digest(row.try_get(3)?)?,
        config: row.try_get(4)?,
        at_ms: row.try_get(5)?,
        by: row.try_get(6)?,
        why: row.try_get(7)?,
    })
}

fn digest(bytes: &[u8]) -> sqlx::Result<Digest> {
    bytes.try_into().map(Digest).map_err(|_| damaged("a digest has not 32 bytes"))
}
