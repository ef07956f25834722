//! Open actions with all that decides over them: the message, its row, its last outcome, and whether a later one of its key was handled.

use std::collections::{HashMap, HashSet};

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use super::super::bulk::{Bulk, Values, parts};
use super::super::rows::{MESSAGE_COLUMNS, Messages, WORK_COLUMNS, message_columns, status_of, work_columns, work_row};
use super::kind_of;
use crate::message::{FeedId, Map};
use crate::store::OpenAction;
use crate::store::actions::{fair, full_lanes, share};

/// The first open actions of each lane; the last value is how many.
const OPEN: Bulk = Bulk {
    before: "WITH r (feed, lane, now) AS (",
    columns: 3,
    after: ") SELECT a.id, a.not_before_ms, a.feed, a.lane, a.n FROM r CROSS JOIN action a ON a.id IN (
       SELECT x.id FROM action x INDEXED BY action_open
       WHERE x.feed = r.feed AND x.lane = r.lane AND x.result IS NULL AND x.not_before_ms <= r.now ORDER BY x.not_before_ms, x.n LIMIT ?)",
};
/// What superseded an action is looked for only where it would run a message again that is done: the scan goes along the inbox.
const WHOLE: Bulk = Bulk {
    before: "WITH r (id) AS (",
    columns: 1,
    after: concat!(
        ") SELECT ",
        message_columns!(),
        ", ",
        work_columns!(),
        ", a.id, a.kind, a.force, a.pinned, a.detail, c.why,
           (SELECT o.run FROM outcome o WHERE o.feed = a.feed AND o.lane = a.lane AND o.n = a.n ORDER BY o.run DESC LIMIT 1),
           (SELECT o.status FROM outcome o WHERE o.feed = a.feed AND o.lane = a.lane AND o.n = a.n ORDER BY o.run DESC LIMIT 1),
           a.n <= l.cursor,
           coalesce(CASE WHEN w.n IS NULL AND a.n <= l.cursor AND NOT a.force AND a.kind IN (0, 1, 5, 6) AND i.newer > coalesce(a.after_n, a.n)
             THEN i.newer END, (SELECT x.n FROM inbox x
             WHERE w.n IS NULL AND a.n <= l.cursor AND NOT a.force AND a.kind IN (0, 1, 5, 6)
               AND x.feed = a.feed AND x.lane = a.lane AND x.n > coalesce(a.after_n, a.n) AND x.n <= l.cursor AND x.key_hash = i.key_hash
               AND NOT EXISTS (SELECT 1 FROM work y WHERE y.feed = x.feed AND y.lane = x.lane AND y.n = x.n)
               AND coalesce((SELECT y.status FROM outcome y WHERE y.feed = x.feed AND y.lane = x.lane AND y.n = x.n
                 ORDER BY y.run DESC LIMIT 1), 1) = 1
             ORDER BY x.n LIMIT 1))
         FROM r CROSS JOIN action a ON a.id = r.id CROSS JOIN lane l ON l.feed = a.feed AND l.lane = a.lane
         CROSS JOIN inbox i ON i.feed = a.feed AND i.lane = a.lane AND i.n = a.n
         LEFT JOIN command c ON c.id = a.command
         LEFT JOIN work w ON w.feed = a.feed AND w.lane = a.lane AND w.n = a.n
           AND w.run = (SELECT max(y.run) FROM work y WHERE y.feed = a.feed AND y.lane = a.lane AND y.n = a.n)"
    ),
};

/// What must find its rows by an index.
#[cfg(test)]
pub(in super::super) const INDEXED: &[Bulk] = &[OPEN, WHOLE];

/// Where the action's own columns begin.
const AFTER: usize = MESSAGE_COLUMNS + WORK_COLUMNS;

/// Open actions of lanes, by time, then in the order of their messages.
pub(super) async fn open(
    connection: &mut SqliteConnection,
    lanes: &[(FeedId, i32)],
    known: &[i64],
    rows_max: i64,
    bytes_max: i64,
    now: i64,
) -> sqlx::Result<Vec<OpenAction>> {
    let each = share(lanes.len(), rows_max);
    let mut ids = first(connection, lanes, known, each, now).await?;
    let fulls = full_lanes(&ids, lane_of, each);
    if fulls > 0 && (ids.len() as i64) < rows_max {
        // Those that have more share what the others leave.
        ids = first(connection, lanes, known, share(fulls, rows_max), now).await?;
    }
    let ids: Vec<i64> = fair(ids, lane_of, each, rows_max).into_iter().map(|(.., id)| id).collect();
    let mut messages = Messages::default();
    let mut found = Vec::new();
    let mut room = bytes_max;
    // They are read by the hundred, so that bytes beyond the limit are not.
    for part in ids.chunks(200) {
        let rows = WHOLE
            .fetch(connection, part, |values, id| {
                values.add(id);
            })
            .await?;
        let mut actions = rows.iter().map(|row| open_action(&mut messages, row)).collect::<sqlx::Result<Vec<_>>>()?;
        let order: HashMap<i64, usize> = part.iter().copied().zip(0..).collect();
        actions.sort_by_key(|action| order.get(&action.id).copied());
        for action in actions {
            room -= action.message.size() as i64;
            if room < 0 && !found.is_empty() {
                return Ok(found);
            }
            found.push(action);
        }
    }
    Ok(found)
}

/// The first open actions that are not known, of each lane at most so many.
async fn first(
    connection: &mut SqliteConnection,
    lanes: &[(FeedId, i32)],
    known: &[i64],
    lane_max: i64,
    now: i64,
) -> sqlx::Result<Vec<First>> {
    let known: HashSet<i64> = known.iter().copied().collect();
    let mut found = Vec::new();
    for part in parts(lanes) {
        let mut values = Values::default();
        for (feed, lane) in part {
            values.add(feed.0).add(lane).add(now);
        }
        values.add(lane_max.saturating_add(known.len() as i64));
        let rows = sqlx::query_with(AssertSqlSafe(OPEN.text(part.len())), values.into_inner()).fetch_all(&mut *connection).await?;
        for row in rows {
            let id: i64 = row.try_get(0)?;
            if !known.contains(&id) {
                found.push((
                    row.try_get::<i64, _>(1)?,
                    row.try_get::<i32, _>(2)?,
                    row.try_get::<i32, _>(3)?,
                    row.try_get::<i64, _>(4)?,
                    id,
                ));
            }
        }
    }
    found.sort_unstable();
    let mut counts: Map<(i32, i32), i64> = Map::default();
    found.retain(|one| {
        let count = counts.entry(lane_of(one)).or_default();
        *count += 1;
        *count <= lane_max
    });
    Ok(found)
}

/// Time, feed, lane, number and id of an open action.
type First = (i64, i32, i32, i64, i64);

fn lane_of((_, feed, lane, ..): &First) -> (i32, i32) {
    (*feed, *lane)
}

fn open_action(messages: &mut Messages, row: &SqliteRow) -> sqlx::Result<OpenAction> {
    let work: Option<i32> = row.try_get(MESSAGE_COLUMNS)?;
    let run: Option<i32> = row.try_get(AFTER + 6)?;
    let last = match run {
        None => None,
        Some(run) => Some((run, status_of(row.try_get(AFTER + 7)?)?)),
    };
    Ok(OpenAction {
        id: row.try_get(AFTER)?,
        kind: kind_of(row.try_get(AFTER + 1)?)?,
        force: row.try_get(AFTER + 2)?,
        pinned: row.try_get(AFTER + 3)?,
        detail: row.try_get(AFTER + 4)?,
        why: row.try_get::<Option<String>, _>(AFTER + 5)?.unwrap_or_default().into(),
        message: messages.of(row)?,
        row: work.map(|_| work_row(row, MESSAGE_COLUMNS)).transpose()?.map(Box::new),
        last,
        plain: false,
        passed: row.try_get(AFTER + 8)?,
        superseded_by: row.try_get(AFTER + 9)?,
    })
}

/// The codes that the statement names by their numbers.
const _: () = {
    use crate::store::ActionKind::{Replay, Restart, Retry, Revisit};
    assert!(Retry as i16 == 0 && Restart as i16 == 1 && Replay as i16 == 5 && Revisit as i16 == 6);
};
