//! What the cursor has passed unfinished: blocked keys, due rows, rows behind a head.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::{Row as _, SqliteConnection};

use super::Sqlite;
use super::bulk::Bulk;
use super::rows::{Messages, key_hash, message_columns, work_columns};
use crate::message::{FeedId, Place, Status};
use crate::store::{BlockedKey, Result, Work, WorkMessage};

const BLOCKED: Bulk = Bulk {
    before: "WITH r (feed, lane) AS (",
    columns: 2,
    after: ") SELECT DISTINCT w.feed, w.lane, w.key_hash FROM r CROSS JOIN work w ON w.feed = r.feed AND w.lane = r.lane WHERE w.blocks",
};
const DUE: Bulk = Bulk {
    before: "WITH r (feed, lane, now) AS (",
    columns: 3,
    after:
        ") SELECT w.feed, w.lane, w.n, w.run, w.due_ms FROM r CROSS JOIN work w ON w.feed = r.feed AND w.lane = r.lane AND w.due_ms <= r.now
     ORDER BY w.due_ms, w.feed, w.lane, w.n",
};
const NEXT_DUE: Bulk = Bulk {
    before: "WITH r (feed, lane) AS (",
    columns: 2,
    after: ") SELECT min((SELECT min(w.due_ms) FROM work w WHERE w.feed = r.feed AND w.lane = r.lane AND w.due_ms IS NOT NULL)) FROM r",
};
const RESUME: Bulk = Bulk {
    before: "UPDATE work SET due_ms = r.column3 FROM (",
    columns: 3,
    after: ") AS r WHERE work.feed = r.column1 AND work.lane = r.column2 AND work.status = 0 AND work.due_ms IS NULL",
};
const ROWS: Bulk = Bulk {
    before: "WITH r (feed, lane, n) AS (",
    columns: 3,
    after: concat!(
        ") SELECT ",
        message_columns!(),
        ", ",
        work_columns!(),
        " FROM r CROSS JOIN work w ON w.feed = r.feed AND w.lane = r.lane AND w.n = r.n
         CROSS JOIN inbox i ON i.feed = w.feed AND i.lane = w.lane AND i.n = w.n"
    ),
};
const BEHIND: &str = concat!(
    "SELECT ",
    message_columns!(),
    ", ",
    work_columns!(),
    " FROM work w INDEXED BY work_key CROSS JOIN inbox i ON i.feed = w.feed AND i.lane = w.lane AND i.n = w.n
     WHERE w.feed = ? AND w.lane = ? AND w.key_hash = ? AND w.n > ? ORDER BY w.n, w.run LIMIT ?"
);

/// What must find its rows by an index.
#[cfg(test)]
pub(super) const INDEXED: &[Bulk] = &[BLOCKED, DUE, NEXT_DUE, RESUME, ROWS];

#[async_trait]
impl Work for Sqlite {
    async fn blocked(&self, lanes: &[(FeedId, i32)]) -> Result<Vec<BlockedKey>> {
        const VERB: &str = "read blocked keys";
        self.fault(VERB, "begin").await?;
        let mut reader = self.readers.acquire().await.map_err(self.failed(VERB))?;
        blocked(&mut reader, lanes).await.map_err(self.failed(VERB))
    }

    async fn due(&self, lanes: &[(FeedId, i32)], in_hand: &[Place], rows_max: i64, bytes_max: i64) -> Result<Vec<WorkMessage>> {
        const VERB: &str = "read due work";
        let mut reader = self.read_one_state(VERB).await?;
        let places = due(&mut reader, lanes, in_hand, rows_max, self.now()).await.map_err(self.failed(VERB))?;
        let mut found = Vec::new();
        let mut room = bytes_max;
        // Places are read by the hundred, so that bytes beyond the limit are not.
        'parts: for part in places.chunks(200) {
            let mut rows = with_messages(&mut reader, part).await.map_err(self.failed(VERB))?;
            let order: HashMap<Place, usize> = part.iter().copied().zip(0..).collect();
            rows.sort_by_key(|row| order.get(&row.row.place).copied());
            for row in rows {
                room -= row.message.size() as i64;
                if room < 0 && !found.is_empty() {
                    break 'parts;
                }
                found.push(row);
            }
        }
        Ok(found)
    }

    async fn resume(&self, lanes: &[(FeedId, i32)]) -> Result<u64> {
        const VERB: &str = "resume running work";
        let mut transaction = self.write(VERB).await?;
        let now = self.now();
        let resumed = RESUME
            .run(&mut transaction, lanes, |values, (feed, lane)| {
                values.add(feed.0).add(lane).add(now);
            })
            .await
            .map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(resumed)
    }

    async fn rows(&self, places: &[Place]) -> Result<Vec<WorkMessage>> {
        const VERB: &str = "read work";
        self.fault(VERB, "begin").await?;
        let mut reader = self.readers.acquire().await.map_err(self.failed(VERB))?;
        let mut rows = with_messages(&mut reader, places).await.map_err(self.failed(VERB))?;
        rows.sort_by_key(|row| (row.row.place, row.row.run));
        Ok(rows)
    }

    async fn next_due_ms(&self, lanes: &[(FeedId, i32)]) -> Result<Option<i64>> {
        const VERB: &str = "read the next due time";
        self.fault(VERB, "begin").await?;
        let mut reader = self.readers.acquire().await.map_err(self.failed(VERB))?;
        let bind = |values: &mut super::bulk::Values, (feed, lane): &(FeedId, i32)| {
            values.add(feed.0).add(lane);
        };
        let parts = NEXT_DUE.fetch(&mut reader, lanes, bind).await.map_err(self.failed(VERB))?;
        let times: sqlx::Result<Vec<Option<i64>>> = parts.iter().map(|row| row.try_get(0)).collect();
        Ok(times.map_err(self.failed(VERB))?.into_iter().flatten().min())
    }

    async fn behind(&self, key: BlockedKey, after: i64, rows_max: i64) -> Result<Vec<WorkMessage>> {
        const VERB: &str = "read what is behind";
        self.fault(VERB, "begin").await?;
        let query = sqlx::query(BEHIND).bind(key.feed.0).bind(key.lane).bind(&key.key_hash.0[..]).bind(after).bind(rows_max);
        let rows = query.fetch_all(&self.readers).await.map_err(self.failed(VERB))?;
        let mut messages = Messages::default();
        let found: sqlx::Result<Vec<_>> = rows.iter().map(|row| messages.with_work(row)).collect();
        found.map_err(self.failed(VERB))
    }
}

async fn blocked(connection: &mut SqliteConnection, lanes: &[(FeedId, i32)]) -> sqlx::Result<Vec<BlockedKey>> {
    let rows = BLOCKED
        .fetch(connection, lanes, |values, (feed, lane)| {
            values.add(feed.0).add(lane);
        })
        .await?;
    rows.iter().map(|row| Ok(BlockedKey { feed: FeedId(row.try_get(0)?), lane: row.try_get(1)?, key_hash: key_hash(row, 2)? })).collect()
}

/// The places that are due and not in hand, oldest due first.
async fn due(
    connection: &mut SqliteConnection,
    lanes: &[(FeedId, i32)],
    in_hand: &[Place],
    rows_max: i64,
    now: i64,
) -> sqlx::Result<Vec<Place>> {
    let in_hand: HashSet<&Place> = in_hand.iter().collect();
    let rows_max = usize::try_from(rows_max).unwrap_or_default();
    let mut found = Vec::new();
    for part in super::bulk::parts(lanes) {
        let statement = DUE.statement(part, |values, (feed, lane)| {
            values.add(feed.0).add(lane).add(now);
        });
        let mut rows = statement.fetch(&mut *connection);
        let mut taken = 0;
        while let Some(row) = rows.try_next().await? {
            let place = super::rows::place(&row, 0)?;
            if taken == rows_max {
                break;
            }
            if !in_hand.contains(&place) {
                taken += 1;
                found.push((row.try_get::<i64, _>(4)?, place));
            }
        }
    }
    found.sort_unstable();
    found.truncate(rows_max);
    Ok(found.into_iter().map(|(_, place)| place).collect())
}

async fn with_messages(connection: &mut SqliteConnection, places: &[Place]) -> sqlx::Result<Vec<WorkMessage>> {
    let rows = ROWS
        .fetch(connection, places, |values, place| {
            values.add(place.feed.0).add(place.lane).add(place.n);
        })
        .await?;
    let mut messages = Messages::default();
    rows.iter().map(|row| messages.with_work(row)).collect()
}

/// The code of `Pending`, which statements name by its number.
const _: () = assert!(Status::Pending as i16 == 0 && Status::Behind as i16 == 8 && Status::Waiting as i16 == 3);
