//! The one place where results become true: one transaction, its guard taken after the bulk of the outputs and before anything that two
//! hosts could both want.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::copy::copy;
use super::release::{self, Places};
use super::text::stored;
use super::{Postgres, Try, actions, effects, retried, validate};
use crate::faults;
use crate::message::FeedId;
use crate::plugin::Output;
use crate::store::changes::{Changes, Written};
use crate::store::{Error, Host, LaneStep, Result, Settled, Settlement, Settlements, Verdict, headers};

const OUTPUT_COLUMNS: &str =
    "target, position, batch, n, feed, lane, run, ordinal, activation, version, message, size, action, key, headers, payload";

/// Takes the guard and the next number.
const NUMBER: &str = "WITH guard AS (UPDATE settlement_guard SET number = number + 1 RETURNING number,
     coalesce($3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS at_ms)
   INSERT INTO settlement (number, batch, host, at_ms) SELECT number, coalesce($1, -number), $2, at_ms FROM guard
   RETURNING number, at_ms";
/// A mutant's: numbers that grow, but not in the order of commits, as those of a sequence do.
const NUMBER_BY_TIME: &str = "WITH guard AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS number,
     coalesce($3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS at_ms)
   INSERT INTO settlement (number, batch, host, at_ms) SELECT number, coalesce($1, -number), $2, at_ms FROM guard
   RETURNING number, at_ms";

/// An output with the message it belongs to and the numbers it gets.
struct Outgoing<'a> {
    target: i32,
    position: i32,
    ordinal: i32,
    message: &'a Settled,
    output: &'a Output,
}

impl Outgoing<'_> {
    fn size(&self) -> i32 {
        let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
        let headers: usize = self.output.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
        i32::try_from(length(&self.output.key) + length(&self.output.payload) + headers).unwrap_or(i32::MAX)
    }

    /// Versions use all 64 bits; the column keeps them as they are.
    fn version(&self) -> Option<i64> {
        self.output.version.map(u64::cast_signed)
    }
}

impl Postgres {
    async fn settle_once(&self, host: &Host, batch: i64, settlement: &Settlement) -> Try<Verdict> {
        let settled = &settlement.settled;
        let targets: Vec<&str> = settled.iter().flat_map(|message| message.outputs.iter().map(|output| output.target.as_str())).collect();
        let targets = if targets.is_empty() { HashMap::new() } else { self.target_ids(&targets).await? };
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        self.store_outputs(&mut transaction, batch, settled, &targets).await?;
        faults::point("settle", "outputs").await.map_err(sqlx::Error::from)?;
        let (number, now_ms) = self.number(&mut transaction, host.id, Some(batch)).await?;
        let fenced = step_lanes(&mut transaction, host.id, &settlement.lanes).await?;
        if !fenced.is_empty() && !faults::mutant("no-fence") {
            transaction.rollback().await?;
            return Ok(Verdict::Fenced(fenced));
        }
        let mut stale = validate::stale_reads(&mut transaction, settled).await?;
        stale.retain(|_| !faults::mutant("reads-not-validated"));
        let (bindings, conflicts) = validate::bindings(&mut transaction, &numbered(settled, |message| &message.bindings)).await?;
        stale.extend(conflicts);
        if !stale.is_empty() {
            transaction.rollback().await?;
            stale.sort_by_key(|stale| (stale.index, stale.read));
            return Ok(Verdict::Stale(stale));
        }
        let writes = Written::of(settled);
        let known = effects::stored_entries(&mut transaction, &writes).await?;
        let mut changes = Changes::of(&writes, &known);
        for binding in &bindings {
            changes.bound(binding.index, binding.namespace, binding.key, binding.id);
        }
        effects::store_entries(&mut transaction, number, &changes).await?;
        effects::store_bindings(&mut transaction, number, &bindings).await?;
        release::remove(&mut transaction, settled).await?;
        let woken = effects::wake(&mut transaction, now_ms, changes.touched.keys()).await?;
        let woken_here = release::store(&mut transaction, number, now_ms, settled, &changes).await?;
        let dropped = release::drop_older(&mut transaction, number, now_ms, settled).await?;
        let still_blocked = release::release(&mut transaction, now_ms, settled, &dropped).await?;
        store_ends(&mut transaction, number, settled).await?;
        store_answers(&mut transaction, settled).await?;
        store_ranges(&mut transaction, number, settlement).await?;
        actions::apply(&mut transaction, number, now_ms, &settlement.actions).await?;
        actions::store_revisits(&mut transaction, &settlement.revisits).await?;
        super::commit(transaction, "settle").await?;
        Ok(Verdict::Committed { settlement: number, still_blocked, woken: woken_here + usize::try_from(woken).unwrap_or(usize::MAX) })
    }

    /// Outputs go in first, in bulk: they lock nothing and nobody sees them before their settlement.
    async fn store_outputs(
        &self,
        connection: &mut PgConnection,
        batch: i64,
        settled: &[Settled],
        targets: &HashMap<String, i32>,
    ) -> Try<()> {
        let mut rows = Vec::new();
        for message in settled {
            for (ordinal, output) in (0_i32..).zip(&message.outputs) {
                let target = targets.get(&output.target).copied();
                let target = target.ok_or_else(|| Error::Corrupt(format!("target {} has no number", output.target)))?;
                let position = i32::try_from(rows.len()).map_err(|_| Error::Config("a settlement has too many outputs".to_owned()))?;
                rows.push(Outgoing { target, position, ordinal, message, output });
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        if !self.copies(rows.iter().map(|row| usize::try_from(row.size()).unwrap_or(0)).sum()) {
            return insert_outputs(connection, batch, &rows).await;
        }
        let sql = format!("COPY output ({OUTPUT_COLUMNS}) FROM STDIN (FORMAT binary)");
        copy(connection, &sql, &rows, |buffer, _, row| {
            let (message, output) = (row.message, row.output);
            buffer.row(16);
            buffer.int4(row.target);
            buffer.int4(row.position);
            buffer.int8(batch);
            buffer.int8(message.place.n);
            buffer.int4(message.place.feed.0);
            buffer.int4(message.place.lane);
            buffer.int4(message.run);
            buffer.int4(row.ordinal);
            buffer.some_int8(message.activation);
            buffer.some_int8(row.version());
            buffer.uuid(message.id);
            buffer.int4(row.size());
            buffer.int2(output.action as i16);
            buffer.some_bytes(output.key.as_deref());
            buffer.headers(&output.headers);
            buffer.some_bytes(output.payload.as_deref());
        })
        .await
    }

    /// Takes the guard: the settlement's number and its time. With a batch, its row too.
    pub(super) async fn number(&self, connection: &mut PgConnection, host: Uuid, batch: Option<i64>) -> Try<(i64, i64)> {
        let guarded = !faults::mutant("cursor-by-id");
        let numbered = sqlx::query_as(if guarded { NUMBER } else { NUMBER_BY_TIME })
            .bind(batch)
            .bind(host)
            .bind(self.clock.fixed_ms())
            .fetch_one(connection)
            .await?;
        Ok(numbered)
    }

    async fn settled_once(&self, batch: i64) -> Try<Option<i64>> {
        let row: Option<(i64,)> =
            sqlx::query_as("SELECT number FROM settlement WHERE batch = $1").bind(batch).fetch_optional(self.pool().await?).await?;
        Ok(row.map(|(number,)| number))
    }
}

/// Something of all messages, each with the index of its message.
fn numbered<T>(settled: &[Settled], of: impl Fn(&Settled) -> &Vec<T>) -> Vec<(usize, &T)> {
    settled.iter().enumerate().flat_map(|(index, message)| of(message).iter().map(move |one| (index, one))).collect()
}

/// The fence and the cursors: lanes that are not the host's under the given epoch stay as they are and are returned.
async fn step_lanes(connection: &mut PgConnection, host: Uuid, lanes: &[LaneStep]) -> Try<Vec<(FeedId, i32)>> {
    if lanes.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i32, i32)> = sqlx::query_as(
        "UPDATE lane l SET cursor = greatest(l.cursor, s.cursor) FROM unnest($2::int[], $3::int[], $4::bigint[], $5::bigint[])
           s(feed, lane, epoch, cursor)
         WHERE l.feed = s.feed AND l.lane = s.lane AND l.owner = $1 AND l.epoch = s.epoch RETURNING l.feed, l.lane",
    )
    .bind(host)
    .bind(lanes.iter().map(|lane| lane.feed.0).collect::<Vec<_>>())
    .bind(lanes.iter().map(|lane| lane.lane).collect::<Vec<_>>())
    .bind(lanes.iter().map(|lane| lane.epoch).collect::<Vec<_>>())
    .bind(lanes.iter().map(|lane| lane.cursor).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let own = |lane: &&LaneStep| !rows.contains(&(lane.feed.0, lane.lane));
    Ok(lanes.iter().filter(own).map(|lane| (lane.feed, lane.lane)).collect())
}

async fn insert_outputs(connection: &mut PgConnection, batch: i64, rows: &[Outgoing<'_>]) -> Try<()> {
    let sql = format!(
        "INSERT INTO output ({OUTPUT_COLUMNS}) SELECT target, position, $1, n, feed, lane, run, ordinal, activation, version, message, size,
           action, key, headers, payload
         FROM unnest($2::int[], $3::int[], $4::bigint[], $5::int[], $6::int[], $7::int[], $8::int[], $9::bigint[], $10::bigint[],
           $11::uuid[], $12::int[], $13::smallint[], $14::bytea[], $15::bytea[], $16::bytea[])
           r(target, position, n, feed, lane, run, ordinal, activation, version, message, size, action, key, headers, payload)"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(batch)
        .bind(rows.iter().map(|row| row.target).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.position).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.message.place.n).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.message.place.feed.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.message.place.lane).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.message.run).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.ordinal).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.message.activation).collect::<Vec<_>>())
        .bind(rows.iter().map(Outgoing::version).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.message.id).collect::<Vec<_>>())
        .bind(rows.iter().map(Outgoing::size).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.output.action as i16).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.output.key.as_deref()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| headers::encode(&row.output.headers)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.output.payload.as_deref()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

async fn store_ends(connection: &mut PgConnection, number: i64, settled: &[Settled]) -> Try<()> {
    let ended: Vec<_> = settled.iter().filter_map(|message| message.end.as_ref().map(|end| (message, end))).collect();
    if ended.is_empty() {
        return Ok(());
    }
    let places = Places::of(ended.iter().map(|(message, _)| *message));
    sqlx::query(
        "INSERT INTO outcome (feed, lane, n, run, attempts, settlement, activation, now_ms, status, code, reason, delivery)
         SELECT feed, lane, n, run, attempts, $1, activation, now_ms, status, code, reason, delivery
         FROM unnest($2::int[], $3::int[], $4::bigint[], $5::int[], $6::int[], $7::bigint[], $8::bigint[], $9::smallint[], $10::text[],
           $11::text[], $12::bigint[]) r(feed, lane, n, run, attempts, activation, now_ms, status, code, reason, delivery)
         ON CONFLICT (feed, lane, n, run) DO UPDATE SET attempts = excluded.attempts, settlement = excluded.settlement,
           activation = excluded.activation, now_ms = excluded.now_ms, status = excluded.status, code = excluded.code,
           reason = excluded.reason",
    )
    .bind(number)
    .bind(places.feeds)
    .bind(places.lanes)
    .bind(places.numbers)
    .bind(places.runs)
    .bind(ended.iter().map(|(_, end)| end.attempts).collect::<Vec<_>>())
    .bind(ended.iter().map(|(_, end)| end.activation).collect::<Vec<_>>())
    .bind(ended.iter().map(|(_, end)| end.now_ms).collect::<Vec<_>>())
    .bind(ended.iter().map(|(_, end)| end.status.code()).collect::<Vec<_>>())
    .bind(ended.iter().map(|(_, end)| stored(&end.code)).collect::<Vec<_>>())
    .bind(ended.iter().map(|(_, end)| stored(&end.reason)).collect::<Vec<_>>())
    .bind(ended.iter().map(|(message, _)| message.delivery).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn store_answers(connection: &mut PgConnection, settled: &[Settled]) -> Try<()> {
    let answered = || settled.iter().filter(|message| message.answers.is_some());
    let places = Places::of(answered());
    if places.feeds.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO answers (feed, lane, n, run, data) SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[], $4::int[], $5::bytea[])
         ON CONFLICT (feed, lane, n, run) DO UPDATE SET data = excluded.data",
    )
    .bind(places.feeds)
    .bind(places.lanes)
    .bind(places.numbers)
    .bind(places.runs)
    .bind(answered().map(|message| message.answers.as_deref()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn store_ranges(connection: &mut PgConnection, number: i64, settlement: &Settlement) -> Try<()> {
    let ranges = &settlement.ranges;
    if ranges.is_empty() {
        return Ok(());
    }
    let activations = ranges.iter().map(|range| {
        let tables: HashMap<_, i64> = range.activations.iter().map(|(table, activation)| (stored(table), *activation)).collect();
        serde_json::to_string(&tables).expect("names and numbers are JSON")
    });
    sqlx::query(
        "INSERT INTO settled_range (feed, lane, to_n, settlement, from_n, now_ms, activations)
         SELECT feed, lane, to_n, $1, from_n, now_ms, activations::jsonb
         FROM unnest($2::int[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[])
           r(feed, lane, to_n, from_n, now_ms, activations) ON CONFLICT DO NOTHING",
    )
    .bind(number)
    .bind(ranges.iter().map(|range| range.feed.0).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| range.lane).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| range.to).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| range.from).collect::<Vec<_>>())
    .bind(ranges.iter().map(|range| range.now_ms).collect::<Vec<_>>())
    .bind(activations.collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

#[async_trait]
impl Settlements for Postgres {
    async fn settle(&self, host: &Host, batch: i64, settlement: &Settlement) -> Result<Verdict> {
        retried!(self, "settle", self.settle_once(host, batch, settlement))
    }

    async fn settled(&self, batch: i64) -> Result<Option<i64>> {
        retried!(self, "look up a batch", self.settled_once(batch))
    }
}
