//! Hosts, and who owns feeds, lanes and targets. Every change of owner is made under the settlement guard, so that it never crosses a
//! settlement, and raises the epoch.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::shares::{self, Living, Moves};
use super::{Postgres, Try, columns, retried};
use crate::message::FeedId;
use crate::store::{Error, Host, LaneLease, Leases, OutputCursor, Owned, Result, TargetLease, Wanted};

/// A living host and what it wants.
struct Alive {
    id: Uuid,
    feeds: HashSet<i32>,
    targets: HashSet<i32>,
}

impl Postgres {
    async fn register_once(&self, feeds: &[(String, u16)], targets: &[String]) -> Try<Vec<(FeedId, u16)>> {
        self.target_ids(&targets.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let names: Vec<&str> = feeds.iter().map(|(name, _)| name.as_str()).collect();
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        // The guard keeps two first hosts from making the same lanes.
        guard(&mut transaction).await?;
        sqlx::query(
            "WITH made AS (INSERT INTO feed (name, lanes, part)
               SELECT f.name, f.lanes, (SELECT part FROM inbox_part WHERE closed_ms IS NULL) FROM unnest($1::text[], $2::int[]) f(name, lanes)
               WHERE NOT EXISTS (SELECT 1 FROM feed x WHERE x.name = f.name) ON CONFLICT (name) DO NOTHING RETURNING id, lanes),
             lanes AS (INSERT INTO lane (feed, lane) SELECT id, generate_series(0, lanes - 1) FROM made)
             INSERT INTO lane_tail (feed, lane) SELECT id, generate_series(0, lanes - 1) FROM made",
        )
        .bind(&names)
        .bind(feeds.iter().map(|(_, lanes)| i32::from(*lanes)).collect::<Vec<_>>())
        .execute(&mut *transaction)
        .await?;
        let rows: Vec<(String, i32, i32)> =
            sqlx::query_as("SELECT name, id, lanes FROM feed WHERE name = ANY($1)").bind(&names).fetch_all(&mut *transaction).await?;
        super::commit(transaction, "register feeds and targets").await?;
        let known: HashMap<String, (FeedId, u16)> =
            rows.into_iter().map(|(name, id, lanes)| (name, (FeedId(id), u16::try_from(lanes).unwrap_or(u16::MAX)))).collect();
        let missing = |name: &str| Error::Corrupt(format!("feed {name} is not there after it was registered"));
        names.iter().map(|name| known.get(*name).copied().ok_or_else(|| missing(name).into())).collect()
    }

    async fn join_once(&self, name: &str, lease_ms: u64) -> Try<Host> {
        let mut connection = self.pool().await?.acquire().await?;
        let again = *self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        let id = if again { Uuid::new_v4() } else { self.id };
        let mut transaction = connection.begin().await?;
        let (number,) = sqlx::query_as(
            "INSERT INTO host (id, name, lease_until_ms)
             VALUES ($1, $2, coalesce($4, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) + $3)
             ON CONFLICT (id) DO UPDATE SET lease_until_ms = excluded.lease_until_ms RETURNING number",
        )
        .bind(id)
        .bind(name)
        .bind(i64::try_from(lease_ms).unwrap_or(i64::MAX))
        .bind(self.clock.fixed_ms())
        .fetch_one(&mut *transaction)
        .await?;
        // A migration locks the hosts: whoever came first is put out by it, whoever waited for it sees its version now.
        self.refuse_other_schema(&mut transaction).await?;
        super::commit(transaction, "register the host").await?;
        if again {
            self.rename(id);
        }
        *self.joined.lock().unwrap_or_else(PoisonError::into_inner) = true;
        Ok(Host { id, number })
    }

    async fn renew_once(&self, host: &Host, lease_ms: u64) -> Try<bool> {
        let renewed = sqlx::query(
            "WITH clock AS (SELECT coalesce($3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now_ms)
             UPDATE host SET lease_until_ms = clock.now_ms + $2 FROM clock WHERE id = $1 AND lease_until_ms > clock.now_ms",
        )
        .bind(host.id)
        .bind(i64::try_from(lease_ms).unwrap_or(i64::MAX))
        .bind(self.clock.fixed_ms())
        .execute(self.pool().await?)
        .await?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Ends the connections of hosts whose lease is over: a stopped process can hold locks for ever.
    async fn end_expired(&self, me: Uuid) -> Try<()> {
        let pool = self.pool().await?;
        let expired: Vec<(String,)> = sqlx::query_as(
            "SELECT 'tolk/' || id FROM host
             WHERE lease_until_ms <= coalesce($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) AND id <> $2",
        )
        .bind(self.clock.fixed_ms())
        .bind(me)
        .fetch_all(pool)
        .await?;
        if expired.is_empty() {
            return Ok(());
        }
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ANY($1) AND pid <> pg_backend_pid()")
            .bind(expired.into_iter().map(|(name,)| name).collect::<Vec<_>>())
            .execute(pool)
            .await?;
        Ok(())
    }

    async fn claim_once(&self, host: &Host, wanted: &Wanted) -> Try<Owned> {
        let targets = self.target_ids(&wanted.targets.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let feeds: Vec<i32> = wanted.feeds.iter().map(|feed| feed.0).collect();
        self.end_expired(host.id).await?;
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        sqlx::query("SET LOCAL lock_timeout = '3s'").execute(&mut *transaction).await?;
        guard(&mut transaction).await?;
        let target_ids: Vec<i32> = targets.values().copied().collect();
        let living = self.living(&mut transaction, host.id, &feeds, &target_ids).await?;
        if living.iter().all(|alive| alive.id != host.id) {
            transaction.rollback().await?;
            return Ok(Owned::default());
        }
        move_feeds(&mut transaction, host.id, &living).await?;
        move_lanes(&mut transaction, host.id, &living).await?;
        move_targets(&mut transaction, host.id, &living).await?;
        // By its lease: who joined since the living were read is not among them.
        sqlx::query(
            "DELETE FROM host h WHERE h.lease_until_ms <= coalesce($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
               AND NOT EXISTS (SELECT 1 FROM feed WHERE owner = h.id) AND NOT EXISTS (SELECT 1 FROM lane WHERE owner = h.id)
               AND NOT EXISTS (SELECT 1 FROM target_cursor WHERE owner = h.id) AND h.id <> $2",
        )
        .bind(self.clock.fixed_ms())
        .bind(host.id)
        .execute(&mut *transaction)
        .await?;
        let owned = owned(&mut transaction, host.id).await?;
        super::commit(transaction, "claim lanes").await?;
        Ok(owned)
    }

    /// Living hosts and what they want, after this host has said what it wants itself.
    async fn living(&self, connection: &mut PgConnection, me: Uuid, feeds: &[i32], targets: &[i32]) -> Try<Vec<Alive>> {
        sqlx::query("UPDATE host SET wanted_feeds = $2, wanted_targets = $3 WHERE id = $1")
            .bind(me)
            .bind(feeds)
            .bind(targets)
            .execute(&mut *connection)
            .await?;
        let rows: Vec<(Uuid, Vec<i32>, Vec<i32>)> = sqlx::query_as(
            "SELECT id, wanted_feeds, wanted_targets FROM host
             WHERE lease_until_ms > coalesce($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)",
        )
        .bind(self.clock.fixed_ms())
        .fetch_all(connection)
        .await?;
        let alive = |(id, feeds, targets): (Uuid, Vec<i32>, Vec<i32>)| Alive {
            id,
            feeds: feeds.into_iter().collect(),
            targets: targets.into_iter().collect(),
        };
        Ok(rows.into_iter().map(alive).collect())
    }

    async fn leave_once(&self, host: &Host, verb: &'static str, sends_under_way: bool) -> Try<()> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        guard(&mut transaction).await?;
        for sql in [
            "UPDATE feed SET owner = NULL, epoch = epoch + 1 WHERE owner = $1",
            "UPDATE lane SET owner = NULL, epoch = epoch + 1 WHERE owner = $1",
            "DELETE FROM host WHERE id = $1",
        ] {
            sqlx::query(sql).bind(host.id).execute(&mut *transaction).await?;
        }
        sqlx::query("UPDATE target_cursor SET owner = NULL, epoch = epoch + 1, taken_over = $2 WHERE owner = $1")
            .bind(host.id)
            .bind(sends_under_way)
            .execute(&mut *transaction)
            .await?;
        super::commit(transaction, verb).await?;
        Ok(())
    }

    async fn ownership_once(&self) -> Try<i64> {
        let (number,) = sqlx::query_as(
            "WITH clock AS (SELECT coalesce($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now_ms)
             SELECT hashtextextended(concat_ws('/', (SELECT sum(epoch) FROM feed), (SELECT sum(epoch) FROM lane),
               (SELECT sum(epoch) FROM target_cursor), (SELECT max(number) FROM host), (SELECT count(*) FROM host),
               (SELECT sum(cardinality(wanted_feeds) + cardinality(wanted_targets)) FROM host),
               (SELECT count(*) FROM host, clock WHERE lease_until_ms <= now_ms)), 0)",
        )
        .bind(self.clock.fixed_ms())
        .fetch_one(self.pool().await?)
        .await?;
        Ok(number)
    }

    async fn calm_once(&self, host: &Host, lanes: &[(FeedId, i32)]) -> Try<()> {
        let (feeds, lanes) = columns(lanes);
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        // Settlements touch the same rows; under the guard the two cannot lock each other out.
        guard(&mut transaction).await?;
        sqlx::query(
            "UPDATE lane l SET crashes = 0 FROM unnest($2::int[], $3::int[]) m(feed, lane)
             WHERE l.feed = m.feed AND l.lane = m.lane AND l.owner = $1",
        )
        .bind(host.id)
        .bind(feeds)
        .bind(lanes)
        .execute(&mut *transaction)
        .await?;
        super::commit(transaction, "calm lanes").await?;
        Ok(())
    }

    async fn release_lanes_once(&self, host: &Host, feed: FeedId) -> Try<()> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        guard(&mut transaction).await?;
        sqlx::query("UPDATE lane SET owner = NULL, epoch = epoch + 1 WHERE owner = $1 AND feed = $2")
            .bind(host.id)
            .bind(feed.0)
            .execute(&mut *transaction)
            .await?;
        // It does not want them either, until its next claim says so again.
        sqlx::query("UPDATE host SET wanted_feeds = array_remove(wanted_feeds, $2) WHERE id = $1")
            .bind(host.id)
            .bind(feed.0)
            .execute(&mut *transaction)
            .await?;
        super::commit(transaction, "release lanes").await?;
        Ok(())
    }
}

/// Waits for the settlement under way, and holds back the next.
pub(super) async fn guard(connection: &mut PgConnection) -> Try<()> {
    sqlx::query("SELECT number FROM settlement_guard FOR UPDATE").execute(connection).await?;
    Ok(())
}

fn wanting(living: &[Alive], wants: impl Fn(&Alive) -> bool) -> Living {
    living.iter().map(|alive| (alive.id, wants(alive))).collect()
}

async fn move_feeds(connection: &mut PgConnection, me: Uuid, living: &[Alive]) -> Try<()> {
    let rows: Vec<(i32, Option<Uuid>)> = sqlx::query_as("SELECT id, owner FROM feed ORDER BY id").fetch_all(&mut *connection).await?;
    let things: Vec<_> = rows.into_iter().map(|(id, owner)| (id, owner, wanting(living, |alive| alive.feeds.contains(&id)))).collect();
    let Moves { take, give } = shares::singles(me, &things);
    if take.is_empty() && give.is_empty() {
        return Ok(());
    }
    sqlx::query("UPDATE feed SET owner = CASE WHEN id = ANY($2) THEN $1 END, epoch = epoch + 1 WHERE id = ANY($2) OR id = ANY($3)")
        .bind(me)
        .bind(take)
        .bind(give)
        .execute(connection)
        .await?;
    Ok(())
}

async fn move_lanes(connection: &mut PgConnection, me: Uuid, living: &[Alive]) -> Try<()> {
    let rows: Vec<(i32, i32, Option<Uuid>)> =
        sqlx::query_as("SELECT feed, lane, owner FROM lane ORDER BY feed, lane").fetch_all(&mut *connection).await?;
    let mine = living.iter().find(|alive| alive.id == me).expect("a host that claims is alive");
    let mut take: Vec<(i32, i32)> = Vec::new();
    let mut give: Vec<(i32, i32)> = Vec::new();
    for lanes in rows.chunk_by(|a, b| a.0 == b.0) {
        let feed = lanes[0].0;
        if !mine.feeds.contains(&feed) {
            give.extend(lanes.iter().filter(|(.., owner)| *owner == Some(me)).map(|(feed, lane, _)| (*feed, *lane)));
            continue;
        }
        let lanes: Vec<_> = lanes.iter().map(|(_, lane, owner)| (*lane, *owner)).collect();
        let moves = shares::lanes(me, feed, &wanting(living, |alive| alive.feeds.contains(&feed)), &lanes);
        take.extend(moves.take.into_iter().map(|lane| (feed, lane)));
        give.extend(moves.give.into_iter().map(|lane| (feed, lane)));
    }
    for (owner, lanes) in [(Some(me), take), (None, give)] {
        if lanes.is_empty() {
            continue;
        }
        let (feeds, lanes): (Vec<i32>, Vec<i32>) = lanes.into_iter().unzip();
        sqlx::query(
            // What is taken and still has an owner was a dead host's.
            "UPDATE lane l SET owner = $1, epoch = l.epoch + 1, crashes = l.crashes + ($1 IS NOT NULL AND l.owner IS NOT NULL)::int
             FROM unnest($2::int[], $3::int[]) m(feed, lane) WHERE l.feed = m.feed AND l.lane = m.lane",
        )
        .bind(owner)
        .bind(feeds)
        .bind(lanes)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn move_targets(connection: &mut PgConnection, me: Uuid, living: &[Alive]) -> Try<()> {
    let rows: Vec<(i32, Option<Uuid>)> =
        sqlx::query_as("SELECT target, owner FROM target_cursor ORDER BY target").fetch_all(&mut *connection).await?;
    let things: Vec<_> = rows.into_iter().map(|(id, owner)| (id, owner, wanting(living, |alive| alive.targets.contains(&id)))).collect();
    let Moves { take, give } = shares::singles(me, &things);
    if take.is_empty() && give.is_empty() {
        return Ok(());
    }
    // One given back has sends under way as one taken from a dead host has; one that a host left has none.
    sqlx::query(
        "UPDATE target_cursor SET owner = CASE WHEN target = ANY($2) THEN $1 END, epoch = epoch + 1,
           taken_over = taken_over OR owner IS NOT NULL
         WHERE target = ANY($2) OR target = ANY($3)",
    )
    .bind(me)
    .bind(take)
    .bind(give)
    .execute(connection)
    .await?;
    Ok(())
}

async fn owned(connection: &mut PgConnection, me: Uuid) -> Try<Owned> {
    let feeds: Vec<(i32, i64)> =
        sqlx::query_as("SELECT id, epoch FROM feed WHERE owner = $1 ORDER BY id").bind(me).fetch_all(&mut *connection).await?;
    let lanes = sqlx::query(
        "SELECT l.feed, l.lane, l.epoch, l.cursor, coalesce(t.tail, 0), l.crashes
         FROM lane l LEFT JOIN lane_tail t ON t.feed = l.feed AND t.lane = l.lane WHERE l.owner = $1 ORDER BY l.feed, l.lane",
    )
    .bind(me)
    .fetch_all(&mut *connection)
    .await?;
    let targets = sqlx::query(
        "SELECT t.name, c.epoch, c.settlement, c.position, c.taken_over FROM target_cursor c JOIN target t ON t.id = c.target
         WHERE c.owner = $1 ORDER BY t.name",
    )
    .bind(me)
    .fetch_all(connection)
    .await?;
    let mut owned = Owned { feeds: feeds.into_iter().map(|(id, epoch)| (FeedId(id), epoch)).collect(), ..Owned::default() };
    for row in lanes {
        let (feed, lane, epoch, cursor) = (FeedId(row.try_get(0)?), row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        owned.lanes.push(LaneLease { feed, lane, epoch, cursor, tail: row.try_get(4)?, crashes: row.try_get(5)? });
    }
    for row in targets {
        let cursor = OutputCursor { settlement: row.try_get(2)?, index: row.try_get(3)? };
        owned.targets.push(TargetLease { target: row.try_get(0)?, epoch: row.try_get(1)?, cursor, taken_over: row.try_get(4)? });
    }
    Ok(owned)
}

#[async_trait]
impl Leases for Postgres {
    async fn register(&self, feeds: &[(String, u16)], targets: &[String]) -> Result<Vec<(FeedId, u16)>> {
        retried!(self, "register feeds and targets", self.register_once(feeds, targets))
    }

    async fn join(&self, name: &str, lease_ms: u64) -> Result<Host> {
        retried!(self, "register the host", self.join_once(name, lease_ms))
    }

    async fn renew(&self, host: &Host, lease_ms: u64) -> Result<bool> {
        retried!(self, "renew the lease", self.renew_once(host, lease_ms))
    }

    async fn claim(&self, host: &Host, wanted: &Wanted) -> Result<Owned> {
        retried!(self, "claim lanes", self.claim_once(host, wanted))
    }

    async fn leave(&self, host: &Host) -> Result<()> {
        retried!(self, "leave", self.leave_once(host, "leave", false))
    }

    async fn abandon(&self, host: &Host) -> Result<()> {
        retried!(self, "give everything back", self.leave_once(host, "give everything back", true))
    }

    async fn ownership(&self) -> Result<i64> {
        retried!(self, "ask who owns what", self.ownership_once())
    }

    async fn calm(&self, host: &Host, lanes: &[(FeedId, i32)]) -> Result<()> {
        retried!(self, "calm lanes", self.calm_once(host, lanes))
    }

    async fn release_lanes(&self, host: &Host, feed: FeedId) -> Result<()> {
        retried!(self, "release lanes", self.release_lanes_once(host, feed))
    }
}
