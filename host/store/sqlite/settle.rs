//! The one place where results become true: fence, validation, then everything that a settlement writes, in one transaction.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use sqlx::{Row as _, SqliteConnection};
use uuid::Uuid;

use super::bulk::{Bulk, Values};
use super::rows::{key_hash, place};
use super::{Sqlite, actions, damaged, memory, validate, wake};
use crate::message::{Place, Status};
use crate::plugin::{Binding, Cause, Output, Write};
use crate::store::awaited::Awaited;
use crate::store::changes::{Changes, Written};
use crate::store::{BlockedKey, End, Host, Result, Settled, Settlement, Settlements, Stale, Verdict, WorkRow, headers};

const OUTPUT: Bulk = Bulk {
    before: "INSERT INTO output (target, position, batch, n, feed, lane, run, ordinal, activation, version, message, size, action, key,
       headers, payload)",
    columns: 16,
    after: "",
};
const LEAVE: Bulk = Bulk {
    before: "DELETE FROM work WHERE (feed, lane, n, run) IN (SELECT * FROM (",
    columns: 4,
    after: ")) RETURNING feed, lane, n, key_hash, blocks, status",
};
const STAY: Bulk = Bulk {
    before:
        "INSERT OR REPLACE INTO work (feed, lane, n, run, attempts, key_hash, status, cause, blocks, due_ms, waiting_since_ms, activation,
       settlement, pinned, code, reason, delivery)",
    columns: 17,
    after: "",
};
const WAIT: Bulk =
    Bulk { before: "INSERT OR REPLACE INTO wait (feed, lane, n, run, ordinal, hash, prefix, request)", columns: 8, after: "" };
pub(super) const END: Bulk = Bulk {
    before: "INSERT OR REPLACE INTO outcome (feed, lane, n, run, attempts, settlement, activation, now_ms, status, code, reason,
       delivery)",
    columns: 12,
    after: "",
};
const ANSWERS: Bulk = Bulk { before: "INSERT OR REPLACE INTO answers (feed, lane, n, run, data)", columns: 5, after: "" };
const RANGE: Bulk = Bulk {
    before: "INSERT OR REPLACE INTO settled_range (feed, lane, to_n, settlement, from_n, now_ms, activations)",
    columns: 7,
    after: "",
};
const CURSOR: Bulk = Bulk {
    before: "UPDATE lane SET cursor = max(cursor, r.column3) FROM (",
    columns: 3,
    after: ") AS r WHERE lane.feed = r.column1 AND lane.lane = r.column2",
};

/// What must find its rows by an index.
#[cfg(test)]
pub(super) const INDEXED: &[Bulk] = &[LEAVE, CURSOR];

#[async_trait]
impl Settlements for Sqlite {
    async fn settle(&self, host: &Host, batch: i64, settlement: &Settlement) -> Result<Verdict> {
        const VERB: &str = "settle";
        let mut transaction = self.write(VERB).await?;
        let settling = Settling { batch, host: host.id, now: self.now() };
        let verdict = settling.settle(&mut transaction, settlement).await.map_err(self.failed(VERB))?;
        if matches!(verdict, Verdict::Committed { .. }) {
            self.commit(transaction, VERB).await?;
        }
        Ok(verdict)
    }

    async fn settled(&self, batch: i64) -> Result<Option<i64>> {
        self.fault("look up a settlement", "begin").await?;
        // Asked of the writer, so that a commit under way is over.
        sqlx::query_scalar("SELECT number FROM settlement WHERE batch = ?")
            .bind(batch)
            .fetch_optional(&self.writer)
            .await
            .map_err(self.failed("look up a settlement"))
    }
}

impl Sqlite {
    /// Writes entries and bindings under a settlement of their own.
    pub(super) async fn put(&self, writes: &[Write], bindings: &[Binding]) -> Result<()> {
        const VERB: &str = "put entries";
        let mut transaction = self.write(VERB).await?;
        let now = self.now();
        self.put_in(&mut transaction, writes, bindings, now).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await
    }

    /// Writes what deliveries tell their parts, under a settlement of its own.
    pub(super) async fn tell(&self, connection: &mut SqliteConnection, told: &[Write]) -> sqlx::Result<()> {
        if told.is_empty() { Ok(()) } else { self.put_in(connection, told, &[], self.now()).await }
    }

    async fn put_in(&self, connection: &mut SqliteConnection, writes: &[Write], bindings: &[Binding], now: i64) -> sqlx::Result<()> {
        let bound = validate::bindings(connection, bindings.iter().map(|binding| (0, binding)).collect()).await?;
        if !bound.conflicts.is_empty() {
            return Err(damaged("a binding conflicts with a stored one"));
        }
        let number = take_number(connection).await?;
        // Batches of hosts are positive; nobody looks these up.
        Settling { batch: -number, host: Uuid::nil(), now }.note(connection, number).await?;
        let writes = Written::by_hand(writes, now);
        let stored = memory::stored(connection, &writes).await?;
        let changes = Changes::of(&writes, &stored);
        remember(connection, changes, &bound, number, now).await?;
        Ok(())
    }
}

/// Stores what plugins remember and wakes whoever waits for it; the changes with what was bound, and how many woke.
async fn remember<'a>(
    connection: &mut SqliteConnection,
    mut changes: Changes<'a>,
    bound: &validate::Bound<'_>,
    number: i64,
    now: i64,
) -> sqlx::Result<(Changes<'a>, usize)> {
    memory::store_changes(connection, &changes, number).await?;
    memory::store_bindings(connection, &bound.fresh, number).await?;
    for (index, binding, id) in &bound.fresh {
        changes.bound(*index, &binding.namespace, &binding.key, *id);
    }
    let woken = wake::wake(connection, &changes.touched, now).await?;
    Ok((changes, woken))
}

/// Takes the next settlement's number.
async fn take_number(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("UPDATE settlement_guard SET number = number + 1 RETURNING number").fetch_one(connection).await
}

/// Parts of messages, each with the index of its message.
fn indexed<T>(settled: &[Settled], parts: impl Fn(&Settled) -> &Vec<T>) -> Vec<(usize, &T)> {
    settled.iter().enumerate().flat_map(|(i, settled)| parts(settled).iter().map(move |part| (i, part))).collect()
}

struct Settling {
    batch: i64,
    host: Uuid,
    now: i64,
}

impl Settling {
    async fn settle(&self, connection: &mut SqliteConnection, settlement: &Settlement) -> sqlx::Result<Verdict> {
        let settled = &settlement.settled;
        let fenced = validate::fenced(connection, self.host, &settlement.lanes).await?;
        if !fenced.is_empty() {
            return Ok(Verdict::Fenced(fenced));
        }
        let number = take_number(connection).await?;
        let mut stale = validate::stale(connection, settled, number - 1).await?;
        let bindings = indexed(settled, |settled| &settled.bindings);
        let bound = validate::bindings(connection, bindings).await?;
        stale.extend(bound.conflicts.iter().map(|index| Stale { index: *index, read: None }));
        if !stale.is_empty() {
            return Ok(Verdict::Stale(stale));
        }

        self.note(connection, number).await?;
        self.put_outputs(connection, settled).await?;
        let writes = Written::of(settled);
        let stored = memory::stored(connection, &writes).await?;
        let changes = Changes::of(&writes, &stored);

        let mut left = self.leave(connection, settled).await?;
        let (changes, mut woken) = remember(connection, changes, &bound, number, self.now).await?;
        woken += self.stay(connection, settled, &changes, number).await?;
        let dropped = wake::drop_older(connection, settled, number, self.now).await?;
        left.extend(dropped.into_iter().filter(|key| !left.contains(key)).collect::<Vec<_>>());
        wake::release(connection, &may_go_on(settled, &left), self.now).await?;
        let still_blocked = wake::still_blocked(connection, &left).await?;
        ends(connection, settled, number).await?;
        lanes(connection, settlement, number).await?;
        actions::settle(connection, number, self.now, &settlement.actions, &settlement.revisits).await?;
        Ok(Verdict::Committed { settlement: number, still_blocked, woken })
    }

    /// Notes the settlement itself.
    async fn note(&self, connection: &mut SqliteConnection, number: i64) -> sqlx::Result<()> {
        sqlx::query("INSERT INTO settlement (number, batch, host, at_ms) VALUES (?, ?, ?, ?)")
            .bind(number)
            .bind(self.batch)
            .bind(self.host)
            .bind(self.now)
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn put_outputs(&self, connection: &mut SqliteConnection, settled: &[Settled]) -> sqlx::Result<()> {
        if settled.iter().all(|settled| settled.outputs.is_empty()) {
            return Ok(());
        }
        let known: Vec<(String, i32)> = sqlx::query_as("SELECT name, id FROM target").fetch_all(&mut *connection).await?;
        let targets: HashMap<&str, i32> = known.iter().map(|(name, id)| (name.as_str(), *id)).collect();
        let mut rows: Vec<(i32, i64, i64, &Settled, &Output)> = Vec::new();
        for settled in settled {
            for (output, ordinal) in settled.outputs.iter().zip(0..) {
                let target = targets.get(output.target.as_str());
                let target = *target.ok_or_else(|| damaged(format!("no target is called \"{}\"", output.target)))?;
                rows.push((target, rows.len() as i64, ordinal, settled, output));
            }
        }
        OUTPUT
            .run(connection, &rows, |values, (target, position, ordinal, settled, output)| {
                let headers: usize =
                    output.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |value| value.len())).sum();
                let size =
                    headers + output.key.as_ref().map_or(0, |key| key.len()) + output.payload.as_ref().map_or(0, |bytes| bytes.len());
                values.add(target).add(position).add(self.batch);
                values.add(settled.place.n).add(settled.place.feed.0).add(settled.place.lane).add(settled.run);
                values
                    .add(ordinal)
                    .add(settled.activation)
                    .add(output.version.map(u64::cast_signed))
                    .add(settled.id)
                    .add(size as i64)
                    .add(output.action as i32)
                    .add(output.key.as_deref())
                    .add(headers::encode(&output.headers))
                    .add(output.payload.as_deref());
            })
            .await?;
        Ok(())
    }

    /// Takes out the work rows that messages had; the keys whose blocking rows left.
    async fn leave(&self, connection: &mut SqliteConnection, settled: &[Settled]) -> sqlx::Result<Vec<BlockedKey>> {
        let had: Vec<_> = settled.iter().filter(|settled| settled.had_work).collect();
        wake::FORGET.run(connection, &had, |values, settled| bind_place(values, settled.place, settled.run)).await?;
        let rows = LEAVE.fetch(connection, &had, |values, settled| bind_place(values, settled.place, settled.run)).await?;
        let block: HashSet<Place> =
            settled.iter().filter(|settled| settled.work.as_ref().is_some_and(|work| work.blocks)).map(|settled| settled.place).collect();
        let mut left = Vec::with_capacity(rows.len());
        let mut seen = HashSet::new();
        for row in rows {
            let (place, blocked, status): (_, bool, i16) = (place(&row, 0)?, row.try_get(4)?, row.try_get(5)?);
            let key = BlockedKey { feed: place.feed, lane: place.lane, key_hash: key_hash(&row, 3)? };
            if (blocked || status == Status::Behind.code()) && !block.contains(&place) && seen.insert(key) {
                left.push(key);
            }
        }
        Ok(left)
    }

    /// Puts in the work rows that stay; how many of them were woken by a later message of the same settlement.
    async fn stay(
        &self,
        connection: &mut SqliteConnection,
        settled: &[Settled],
        changes: &Changes<'_>,
        number: i64,
    ) -> sqlx::Result<usize> {
        // Where a message stands twice, its last row counts.
        let last: HashMap<(Place, i32), usize> =
            settled.iter().enumerate().filter(|(_, s)| s.had_work || s.work.is_some()).map(|(i, s)| ((s.place, s.run), i)).collect();
        let staying = settled.iter().enumerate().filter(|(i, s)| s.work.is_some() && last.get(&(s.place, s.run)) == Some(i));
        let (mut rows, mut waits) = (Vec::<(&WorkRow, bool, Option<i64>)>::new(), Vec::new());
        for (index, settled) in staying {
            let row = settled.work.as_ref().expect("only rows that stay were kept");
            let woken = changes.wakes(index, settled);
            rows.push((row, woken, settled.delivery));
            if !woken {
                for (request, ordinal) in row.waits.iter().zip(0_i64..) {
                    let Some(awaited) = Awaited::of(request) else { continue };
                    let text = serde_json::to_string(request).map_err(|error| damaged(format!("write a wait: {error}")))?;
                    waits.push((row, ordinal, awaited, text));
                }
            }
        }
        STAY.run(connection, &rows, |values, (row, woken, delivery)| {
            let (status, cause, due) =
                if *woken { (Status::Pending, Cause::Woken, Some(self.now)) } else { (row.status, row.cause, row.due_ms) };
            bind_place(values, row.place, row.run);
            values.add(row.attempts).add(&row.key_hash.0[..]).add(status.code()).add(cause.code()).add(row.blocks).add(due);
            values.add(row.waiting_since_ms).add(row.activation).add(number).add(row.pinned);
            values.add(row.code.as_str()).add(row.reason.as_str()).add(*delivery);
        })
        .await?;
        WAIT.run(connection, &waits, |values, (row, ordinal, awaited, text)| {
            bind_place(values, row.place, row.run);
            values.add(ordinal).add(&awaited.hash.0[..]).add(awaited.prefix.as_deref()).add(text.as_str());
        })
        .await?;
        Ok(rows.iter().filter(|(_, woken, _)| *woken).count())
    }
}

/// The keys whose next row may go on: those that a row has left, and those of rows that came to stand behind one that is gone already.
fn may_go_on(settled: &[Settled], left: &[BlockedKey]) -> Vec<BlockedKey> {
    let behind = settled.iter().filter(|settled| settled.work.as_ref().is_some_and(|work| work.status == Status::Behind));
    let behind = behind.map(|s| BlockedKey { feed: s.place.feed, lane: s.place.lane, key_hash: s.key_hash });
    let keys: HashSet<BlockedKey> = left.iter().copied().chain(behind).collect();
    keys.into_iter().collect()
}

fn bind_place(values: &mut Values, place: Place, run: i32) {
    values.add(place.feed.0).add(place.lane).add(place.n).add(run);
}

/// The columns of [`END`] after the place.
pub(super) fn bind_end(values: &mut Values, end: &End, number: i64, delivery: Option<i64>) {
    values.add(end.attempts).add(number).add(end.activation).add(end.now_ms).add(end.status.code());
    values.add(end.code.as_str()).add(end.reason.as_str()).add(delivery);
}

/// Outcome rows and kept answers.
async fn ends(connection: &mut SqliteConnection, settled: &[Settled], number: i64) -> sqlx::Result<()> {
    let ends: Vec<_> = settled.iter().filter_map(|settled| settled.end.as_ref().map(|end| (settled, end))).collect();
    END.run(connection, &ends, |values, (settled, end)| {
        bind_place(values, settled.place, settled.run);
        bind_end(values, end, number, settled.delivery);
    })
    .await?;
    let answers: Vec<_> = settled.iter().filter_map(|settled| settled.answers.as_deref().map(|data| (settled, data))).collect();
    ANSWERS
        .run(connection, &answers, |values, (settled, data)| {
            bind_place(values, settled.place, settled.run);
            values.add(*data);
        })
        .await?;
    Ok(())
}

/// Cursors and ranges.
async fn lanes(connection: &mut SqliteConnection, settlement: &Settlement, number: i64) -> sqlx::Result<()> {
    CURSOR
        .run(connection, &settlement.lanes, |values, step| {
            values.add(step.feed.0).add(step.lane).add(step.cursor);
        })
        .await?;
    RANGE
        .run(connection, &settlement.ranges, |values, range| {
            let activations: HashMap<&str, i64> = range.activations.iter().map(|(table, id)| (&**table, *id)).collect();
            let text = serde_json::to_string(&activations).expect("texts and numbers are JSON");
            values.add(range.feed.0).add(range.lane).add(range.to).add(number).add(range.from).add(range.now_ms).add(text);
        })
        .await?;
    Ok(())
}
