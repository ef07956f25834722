//! Hosts and what they own. The lock file is the truth about who runs: who holds it may take everything.

use async_trait::async_trait;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::{Sqlite, schema};
use crate::message::FeedId;
use crate::store::{Host, LaneLease, Leases, OutputCursor, Owned, Result, TargetLease, Wanted};

#[async_trait]
impl Leases for Sqlite {
    async fn register(&self, feeds: &[(String, u16)], targets: &[String]) -> Result<Vec<(FeedId, u16)>> {
        const VERB: &str = "register feeds and targets";
        let mut transaction = self.write(VERB).await?;
        let known = register(&mut transaction, feeds, targets).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(known)
    }

    async fn join(&self, name: &str, lease_ms: u64) -> Result<Host> {
        const VERB: &str = "join";
        let id = Uuid::new_v4();
        let mut transaction = self.write(VERB).await?;
        schema::check(&mut transaction).await.map_err(self.failed(VERB))?;
        self.lock.take(name)?;
        let number = join(&mut transaction, id, name, self.now().saturating_add_unsigned(lease_ms)).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(Host { id, number })
    }

    async fn renew(&self, host: &Host, lease_ms: u64) -> Result<bool> {
        const VERB: &str = "renew the lease";
        self.fault(VERB, "begin").await?;
        let now = self.now();
        let renewed = sqlx::query("UPDATE host SET lease_until_ms = ? WHERE id = ? AND lease_until_ms >= ?")
            .bind(now.saturating_add_unsigned(lease_ms))
            .bind(host.id)
            .bind(now)
            .execute(&self.writer)
            .await
            .map_err(self.failed(VERB))?;
        Ok(renewed.rows_affected() > 0)
    }

    async fn claim(&self, host: &Host, wanted: &Wanted) -> Result<Owned> {
        const VERB: &str = "claim lanes and targets";
        let mut transaction = self.write(VERB).await?;
        let living: bool = sqlx::query_scalar("SELECT count(*) > 0 FROM host WHERE id = ? AND lease_until_ms >= ?")
            .bind(host.id)
            .bind(self.now())
            .fetch_one(&mut *transaction)
            .await
            .map_err(self.failed(VERB))?;
        if !living {
            return Ok(Owned::default());
        }
        claim(&mut transaction, host.id, wanted).await.map_err(self.failed(VERB))?;
        let owned = owned(&mut transaction, host.id).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(owned)
    }

    async fn leave(&self, host: &Host) -> Result<()> {
        self.give_back(host, "UPDATE target_cursor SET owner = NULL, taken_over = 0 WHERE owner = ?").await?;
        self.lock.release();
        Ok(())
    }

    async fn abandon(&self, host: &Host) -> Result<()> {
        self.give_back(host, "UPDATE target_cursor SET owner = NULL, taken_over = 1 WHERE owner = ?").await
    }

    async fn ownership(&self) -> Result<i64> {
        // There is no other host.
        Ok(0)
    }

    async fn calm(&self, host: &Host, lanes: &[(FeedId, i32)]) -> Result<()> {
        const VERB: &str = "calm lanes";
        let mut transaction = self.write(VERB).await?;
        for (feed, lane) in lanes {
            sqlx::query("UPDATE lane SET crashes = 0 WHERE feed = ? AND lane = ? AND owner = ?")
                .bind(feed.0)
                .bind(lane)
                .bind(host.id)
                .execute(&mut *transaction)
                .await
                .map_err(self.failed(VERB))?;
        }
        self.commit(transaction, VERB).await
    }

    async fn release_lanes(&self, host: &Host, feed: FeedId) -> Result<()> {
        self.fault("release lanes", "begin").await?;
        sqlx::query("UPDATE lane SET owner = NULL WHERE owner = ? AND feed = ?")
            .bind(host.id)
            .bind(feed.0)
            .execute(&self.writer)
            .await
            .map_err(self.failed("release lanes"))?;
        Ok(())
    }
}

impl Sqlite {
    async fn give_back(&self, host: &Host, targets: &'static str) -> Result<()> {
        const VERB: &str = "leave";
        let mut transaction = self.write(VERB).await?;
        for statement in [
            "UPDATE feed SET owner = NULL WHERE owner = ?",
            "UPDATE lane SET owner = NULL WHERE owner = ?",
            targets,
            "DELETE FROM host WHERE id = ?",
        ] {
            sqlx::query(statement).bind(host.id).execute(&mut *transaction).await.map_err(self.failed(VERB))?;
        }
        self.commit(transaction, VERB).await
    }
}

async fn register(connection: &mut SqliteConnection, feeds: &[(String, u16)], targets: &[String]) -> sqlx::Result<Vec<(FeedId, u16)>> {
    const NUMBERS: &str = "WITH RECURSIVE numbers (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < ?2)";
    let mut known = Vec::with_capacity(feeds.len());
    for (name, lanes) in feeds {
        sqlx::query("INSERT INTO feed (name, lanes) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(i64::from((*lanes).max(1)))
            .execute(&mut *connection)
            .await?;
        let (id, lanes): (i32, u16) =
            sqlx::query_as("SELECT id, lanes FROM feed WHERE name = ?").bind(name).fetch_one(&mut *connection).await?;
        for table in ["lane", "lane_tail"] {
            let text = format!("{NUMBERS} INSERT INTO {table} (feed, lane) SELECT ?1, i FROM numbers WHERE true ON CONFLICT DO NOTHING");
            sqlx::query(sqlx::AssertSqlSafe(text)).bind(id).bind(i64::from(lanes)).execute(&mut *connection).await?;
        }
        known.push((FeedId(id), lanes));
    }
    for name in targets {
        sqlx::query("INSERT INTO target (name) VALUES (?) ON CONFLICT DO NOTHING").bind(name).execute(&mut *connection).await?;
        sqlx::query("INSERT INTO target_cursor (target) SELECT id FROM target WHERE name = ? ON CONFLICT DO NOTHING")
            .bind(name)
            .execute(&mut *connection)
            .await?;
    }
    Ok(known)
}

async fn join(connection: &mut SqliteConnection, id: Uuid, name: &str, until: i64) -> sqlx::Result<i32> {
    // Nobody else can hold the lock file, so every other host is gone whatever its lease says.
    sqlx::query("DELETE FROM host").execute(&mut *connection).await?;
    sqlx::query_scalar("INSERT INTO host (id, name, lease_until_ms) VALUES (?, ?, ?) RETURNING number")
        .bind(id)
        .bind(name)
        .bind(until)
        .fetch_one(connection)
        .await
}

async fn claim(connection: &mut SqliteConnection, host: Uuid, wanted: &Wanted) -> sqlx::Result<()> {
    for feed in &wanted.feeds {
        for statement in [
            "UPDATE feed SET owner = ?1, epoch = epoch + 1 WHERE id = ?2 AND owner IS NOT ?1",
            // What still has an owner was a dead host's.
            "UPDATE lane SET crashes = crashes + (owner IS NOT NULL), owner = ?1, epoch = epoch + 1 WHERE feed = ?2 AND owner IS NOT ?1",
        ] {
            sqlx::query(statement).bind(host).bind(feed.0).execute(&mut *connection).await?;
        }
    }
    for target in &wanted.targets {
        sqlx::query(
            "UPDATE target_cursor SET taken_over = taken_over OR owner IS NOT NULL, owner = ?1, epoch = epoch + 1
             WHERE target = (SELECT id FROM target WHERE name = ?2) AND owner IS NOT ?1",
        )
        .bind(host)
        .bind(target)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn owned(connection: &mut SqliteConnection, host: Uuid) -> sqlx::Result<Owned> {
    let feeds: Vec<(i32, i64)> =
        sqlx::query_as("SELECT id, epoch FROM feed WHERE owner = ? ORDER BY id").bind(host).fetch_all(&mut *connection).await?;
    let lanes = sqlx::query(
        "SELECT l.feed, l.lane, l.epoch, l.cursor, coalesce(t.tail, 0), l.crashes
         FROM lane l LEFT JOIN lane_tail t ON t.feed = l.feed AND t.lane = l.lane WHERE l.owner = ? ORDER BY l.feed, l.lane",
    )
    .bind(host)
    .try_map(|row: sqlx::sqlite::SqliteRow| {
        let (feed, lane, epoch, cursor) = (FeedId(row.try_get(0)?), row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        Ok(LaneLease { feed, lane, epoch, cursor, tail: row.try_get(4)?, crashes: row.try_get(5)? })
    })
    .fetch_all(&mut *connection)
    .await?;
    let targets = sqlx::query(
        "SELECT t.name, c.epoch, c.settlement, c.position, c.taken_over FROM target_cursor c JOIN target t ON t.id = c.target
         WHERE c.owner = ? ORDER BY t.name",
    )
    .bind(host)
    .try_map(|row: sqlx::sqlite::SqliteRow| {
        Ok(TargetLease {
            target: row.try_get(0)?,
            epoch: row.try_get(1)?,
            cursor: OutputCursor { settlement: row.try_get(2)?, index: row.try_get(3)? },
            taken_over: row.try_get(4)?,
        })
    })
    .fetch_all(connection)
    .await?;
    Ok(Owned { feeds: feeds.into_iter().map(|(id, epoch)| (FeedId(id), epoch)).collect(), lanes, targets })
}
