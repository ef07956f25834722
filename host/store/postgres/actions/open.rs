//! Open actions with all that decides over them: the message, its row, its last outcome, and whether a later one of its key was handled.

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::super::rows::{MESSAGE_COLUMNS, Tables, WORK_COLUMNS, message_columns, status_of, work_columns};
use super::super::text::plain;
use super::super::{Postgres, Try, columns};
use super::kind_of;
use crate::message::FeedId;
use crate::store::OpenAction;
use crate::store::actions::{is_whole, share};

/// Where the action's own columns begin: after those of the message and of its row.
const AFTER: usize = MESSAGE_COLUMNS + WORK_COLUMNS;

impl Postgres {
    pub(super) async fn open_once(&self, lanes: &[(FeedId, i32)], known: &[i64], rows_max: i64, bytes_max: i64) -> Try<Vec<OpenAction>> {
        let share = share(lanes.len(), rows_max);
        let found = self.open_of_lanes(lanes, known, share, (rows_max, bytes_max)).await?;
        let bytes: usize = found.iter().map(|action| action.message.size()).sum();
        if is_whole(found.len(), share, rows_max) || i64::try_from(bytes).unwrap_or(i64::MAX) >= bytes_max {
            return Ok(found);
        }
        self.open_of_lanes(lanes, known, rows_max, (rows_max, bytes_max)).await
    }

    /// Of each lane at most `lane_max`.
    async fn open_of_lanes(
        &self,
        lanes: &[(FeedId, i32)],
        known: &[i64],
        lane_max: i64,
        (rows_max, bytes_max): (i64, i64),
    ) -> Try<Vec<OpenAction>> {
        let (feeds, lanes) = columns(lanes);
        // What superseded an action is looked for only where it would run a message again that is done: the scan goes along the inbox.
        let rows = sqlx::query(concat!(
            "WITH open AS (SELECT o.* FROM unnest($1::int[], $2::int[]) l(feed, lane) CROSS JOIN LATERAL (
                 SELECT a.id, a.feed, a.lane, a.n, a.not_before_ms, a.command, a.after_n, a.kind, a.force, a.pinned, a.detail FROM action a
                 WHERE a.feed = l.feed AND a.lane = l.lane AND a.result IS NULL
                   AND a.not_before_ms <= (SELECT coalesce($3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint))
                   AND a.id NOT IN (SELECT unnest($4::bigint[]))
                 ORDER BY a.not_before_ms, a.n, a.id LIMIT $7) o ORDER BY o.not_before_ms, o.feed, o.lane, o.n, o.id LIMIT $5),
               sized AS (SELECT a.id AS action, a.not_before_ms, a.command, a.after_n, a.kind, a.force, a.pinned AS ordered, a.detail, i.*,
                   sum(i.size) OVER (ORDER BY a.not_before_ms, a.feed, a.lane, a.n, a.id ROWS UNBOUNDED PRECEDING) AS so_far
                 FROM open a JOIN inbox i ON i.feed = a.feed AND i.lane = a.lane AND i.n = a.n)
             SELECT ",
            message_columns!(),
            ", ",
            work_columns!(),
            ", i.action, i.kind, i.force, i.ordered, i.detail, c.why, o.run, o.status, i.n <= l.cursor,
               CASE WHEN w.n IS NULL AND i.n <= l.cursor AND NOT i.force AND i.kind IN (0, 1, 5, 6) AND i.newer > coalesce(i.after_n, i.n)
                 THEN i.newer ELSE s2.n END
             FROM sized i JOIN lane l ON l.feed = i.feed AND l.lane = i.lane
             LEFT JOIN command c ON c.id = i.command
             LEFT JOIN LATERAL (
               SELECT * FROM work x WHERE x.feed = i.feed AND x.lane = i.lane AND x.n = i.n ORDER BY x.run DESC LIMIT 1) w ON true
             LEFT JOIN LATERAL (
               SELECT x.run, x.status FROM outcome x WHERE x.feed = i.feed AND x.lane = i.lane AND x.n = i.n ORDER BY x.run DESC LIMIT 1
             ) o ON true
             LEFT JOIN LATERAL (
               SELECT x.n FROM inbox x
               WHERE w.n IS NULL AND coalesce(i.after_n, i.n) < l.cursor AND i.n <= l.cursor AND NOT i.force AND i.kind IN (0, 1, 5, 6)
                 AND x.feed = i.feed AND x.lane = i.lane AND x.n > coalesce(i.after_n, i.n) AND x.n <= l.cursor AND x.key_hash = i.key_hash
                 AND (SELECT max(y.run) FROM work y WHERE y.feed = x.feed AND y.lane = x.lane AND y.n = x.n) IS NULL
                 AND coalesce((SELECT y.status FROM outcome y WHERE y.feed = x.feed AND y.lane = x.lane AND y.n = x.n
                   ORDER BY y.run DESC LIMIT 1), 1) = 1
               ORDER BY x.n LIMIT 1
             ) s2 ON true
             WHERE i.so_far - i.size < $6 ORDER BY i.not_before_ms, i.feed, i.lane, i.n, i.action"
        ))
        .bind(feeds)
        .bind(lanes)
        .bind(self.clock.fixed_ms())
        .bind(known)
        .bind(rows_max)
        .bind(bytes_max.max(1))
        .bind(lane_max)
        .fetch_all(self.pool().await?)
        .await?;
        let mut tables = Tables::default();
        rows.iter().map(|row| open_action(&mut tables, row)).collect()
    }
}

fn open_action(tables: &mut Tables, row: &PgRow) -> Try<OpenAction> {
    let (message, work) = match row.try_get::<Option<i32>, _>(MESSAGE_COLUMNS)? {
        None => (tables.message(row)?, None),
        Some(_) => {
            let found = tables.work_message(row)?;
            (found.message, Some(found.row))
        }
    };
    let last = match row.try_get::<Option<i32>, _>(AFTER + 6)? {
        None => None,
        Some(run) => Some((run, status_of(row.try_get(AFTER + 7)?)?)),
    };
    Ok(OpenAction {
        id: row.try_get(AFTER)?,
        kind: kind_of(row.try_get(AFTER + 1)?)?,
        force: row.try_get(AFTER + 2)?,
        pinned: row.try_get(AFTER + 3)?,
        detail: row.try_get::<Option<String>, _>(AFTER + 4)?.map(plain),
        why: row.try_get::<Option<String>, _>(AFTER + 5)?.map(plain).unwrap_or_default(),
        message,
        row: work,
        last,
        passed: row.try_get(AFTER + 8)?,
        superseded_by: row.try_get(AFTER + 9)?,
    })
}

/// The codes that the statement names by their numbers.
const _: () = {
    use crate::store::ActionKind::{Replay, Restart, Retry, Revisit};
    assert!(Retry as i16 == 0 && Restart as i16 == 1 && Replay as i16 == 5 && Revisit as i16 == 6);
};
