//! What operators ask for: commands become rows of `action` in one statement, settlements say what became of them, people read the trail.
//! Knows nothing of how actions are applied.

mod asked;
mod open;
mod pauses;
mod stretch;

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow, Postgres as Database};
use sqlx::{Connection, QueryBuilder, Row};
use uuid::Uuid;

pub(super) use self::stretch::{apply, write_actions};
use super::messages::{plan_freely, push_places};
use super::text::{plain, stored};
use super::{Postgres, Try, retried};
use crate::message::{FeedId, Status};
use crate::store::{
    ActionKind, ActionResult, ActionState, Actions, Audited, Command, Error, NewRevisit, OpenAction, Pausable, Paused, Pick, Result,
    Selection,
};

/// A command may be about every message there is; it is one statement, and sorts them.
const COMMAND_TIMEOUT: &str = "SET LOCAL statement_timeout = '30min'; SET LOCAL work_mem = '64MB'";

/// Each chosen message. `picked`: feed, lane, n, key_hash, size.
const EACH: &str = "SELECT feed, lane, n, size, NULL::bigint AS after_n FROM picked";
/// The newest chosen message of each key. Where the key has no later row at all, only what comes from now on can supersede it, and nobody
/// need look at what is there. No join by key: planners take few keys for granted and would walk a lane once for each.
const NEWEST_OF_KEY: &str = "SELECT k.feed, k.lane, k.last AS n, k.size, CASE WHEN k.newest = k.last THEN t.tail END AS after_n
   FROM (SELECT feed, lane, max(n) AS newest, max(CASE WHEN chosen THEN n END) AS last, max(size) AS size FROM (
       SELECT feed, lane, key_hash, n, size, true AS chosen FROM picked
       UNION ALL SELECT x.feed, x.lane, x.key_hash, x.n, NULL, false
       FROM (SELECT feed, lane, min(n) AS first FROM picked GROUP BY feed, lane) l
       JOIN inbox x ON x.feed = l.feed AND x.lane = l.lane AND x.n >= l.first
     ) u GROUP BY feed, lane, key_hash) k
   JOIN lane_tail t ON t.feed = k.feed AND t.lane = k.lane WHERE k.last IS NOT NULL";
/// Every row of a chosen key from the first chosen one on; they run in order, so that none of them supersedes another. Where all rows of the
/// lanes are chosen there is nothing to look for. No join of what is chosen: planners take it for few, and would walk it once for each row.
const ALL_OF_KEY: &str = "SELECT k.feed, k.lane, k.n, k.size, t.tail AS after_n FROM (
     SELECT feed, lane, n, size FROM picked WHERE (SELECT whole FROM seen)
     UNION ALL SELECT feed, lane, n, size FROM (
       SELECT feed, lane, n, size, chosen, min(CASE WHEN chosen THEN n END) OVER (PARTITION BY key_hash, feed, lane) AS first FROM (
         SELECT feed, lane, key_hash, n, size, true AS chosen FROM picked WHERE NOT (SELECT whole FROM seen)
         UNION ALL SELECT x.feed, x.lane, x.key_hash, x.n, x.size, false
         FROM (SELECT feed, lane, min(n) AS first FROM picked GROUP BY feed, lane) l
         JOIN inbox x ON x.feed = l.feed AND x.lane = l.lane AND x.n >= l.first
         WHERE NOT (SELECT whole FROM seen)
       ) u) y WHERE NOT y.chosen AND y.n >= y.first) k
   JOIN lane_tail t ON t.feed = k.feed AND t.lane = k.lane";
/// Whether the chosen messages are certainly all rows of their lanes from the first chosen one on: as many as there are numbers.
const SEEN: &str = "), seen AS MATERIALIZED (SELECT sum(l.chosen) = sum(t.tail - l.first + 1) AS whole
     FROM (SELECT feed, lane, min(n) AS first, count(*) AS chosen FROM picked GROUP BY feed, lane) l
     JOIN lane_tail t ON t.feed = l.feed AND t.lane = l.lane";
/// Leaves out what an operator has closed as `Finished`.
const NOT_FINISHED: &str =
    " WHERE NOT EXISTS (SELECT 1 FROM outcome o WHERE o.feed = t.feed AND o.lane = t.lane AND o.n = t.n AND o.status = 10
       AND NOT EXISTS (SELECT 1 FROM outcome h WHERE h.feed = o.feed AND h.lane = o.lane AND h.n = o.n AND h.run > o.run)
       AND NOT EXISTS (SELECT 1 FROM work w WHERE w.feed = o.feed AND w.lane = o.lane AND w.n = o.n))";

/// Rows that are about a message, whose id comes next.
const OF_MESSAGE: &str = "SELECT a.id AS action, i.n FROM inbox i JOIN action a ON a.feed = i.feed AND a.lane = i.lane
     AND a.n BETWEEN i.n - i.n % 200 AND i.n AND (a.n = i.n OR get_bit(a.which, (i.n % 200)::int) = 1) WHERE i.id = ";

/// The codes that statements name by their numbers.
const _: () = assert!(Status::Finished as i16 == 10 && Status::Handled as i16 == 1);

impl Postgres {
    async fn command_once(&self, command: &Command, selection: &Selection) -> Try<i64> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        let written: Option<(i64,)> = sqlx::query_as(
            "INSERT INTO command (id, kind, object, by_whom, why, at_ms, messages)
             VALUES ($1, $2, $3, $4, $5, coalesce($6, (extract(epoch FROM clock_timestamp()) * 1000)::bigint), 0)
             ON CONFLICT (id) DO NOTHING RETURNING at_ms",
        )
        .bind(command.id)
        .bind(command.kind.as_str())
        .bind(stored(&command.object))
        .bind(stored(&command.by))
        .bind(stored(&command.why))
        .bind(self.clock.fixed_ms())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some((now_ms,)) = written else {
            // Given again after a commit of unknown fate.
            let (messages,) =
                sqlx::query_as("SELECT messages FROM command WHERE id = $1").bind(command.id).fetch_one(&mut *transaction).await?;
            return Ok(messages);
        };
        plan_freely(&mut transaction).await?;
        sqlx::raw_sql(COMMAND_TIMEOUT).execute(&mut *transaction).await?;
        let messages: i64 = chosen(command, selection, now_ms).build_query_scalar().persistent(false).fetch_one(&mut *transaction).await?;
        sqlx::query("UPDATE command SET messages = $2 WHERE id = $1").bind(command.id).bind(messages).execute(&mut *transaction).await?;
        super::commit(transaction, "ask for actions").await?;
        Ok(messages)
    }

    async fn actions_once(&self, command: Option<Uuid>, message: Option<Uuid>, rows_max: i64) -> Try<Vec<ActionState>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        plan_freely(&mut transaction).await?;
        // Message by message along the key: a command that was written just now is no statistics yet, and a join of its choice goes through
        // the inbox for each of them.
        let mut query = QueryBuilder::<Database>::new(
            "SELECT a.id, i.id, f.name, a.kind, a.not_before_ms, a.result, a.became, a.applied_ms FROM (SELECT a.* FROM action_each a",
        );
        match message {
            Some(message) => {
                query.push(" JOIN (").push(OF_MESSAGE).push_bind(message).push(") m ON m.action = a.action AND m.n = a.n");
            }
            // Each row is about a message at least: no more of them are unfolded.
            None => {
                query.push(" JOIN (SELECT id FROM action");
                if let Some(command) = command {
                    query.push(" WHERE command = ").push_bind(command);
                }
                query.push(" ORDER BY id DESC LIMIT ").push_bind(rows_max).push(") r ON r.id = a.action");
            }
        }
        if let Some(command) = command {
            query.push(" WHERE a.command = ").push_bind(command);
        }
        query.push(" ORDER BY a.id DESC LIMIT ").push_bind(rows_max);
        query.push(
            ") a JOIN feed f ON f.id = a.feed CROSS JOIN LATERAL (
               SELECT x.id FROM inbox x WHERE x.feed = a.feed AND x.lane = a.lane AND x.n = a.n LIMIT 1) i ORDER BY a.id DESC",
        );
        let rows = query.build().persistent(false).fetch_all(&mut *transaction).await?;
        super::commit(transaction, "list actions").await?;
        rows.iter().map(action_state).collect()
    }

    async fn audit_once(&self, command: Option<Uuid>, message: Option<Uuid>, rows_max: i64) -> Try<Vec<Audited>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        plan_freely(&mut transaction).await?;
        let mut query = QueryBuilder::<Database>::new(
            "SELECT c.id, c.kind, c.object, c.by_whom, c.why, c.at_ms, c.messages,
               (SELECT coalesce(sum(a.open), 0) FROM action a WHERE a.command = c.id) FROM command c WHERE true",
        );
        if let Some(command) = command {
            query.push(" AND c.id = ").push_bind(command);
        }
        if let Some(message) = message {
            query.push(" AND c.id IN (SELECT a.command FROM (").push(OF_MESSAGE).push_bind(message);
            query.push(") m JOIN action a ON a.id = m.action)");
        }
        query.push(" ORDER BY c.at_ms DESC, c.id DESC LIMIT ").push_bind(rows_max);
        let rows = query.build().persistent(false).fetch_all(&mut *transaction).await?;
        super::commit(transaction, "read the audit trail").await?;
        rows.iter().map(audited).collect()
    }
}

/// The statement that writes the actions of a command.
fn chosen(command: &Command, selection: &Selection, now_ms: i64) -> QueryBuilder<Database> {
    let mut query = QueryBuilder::new("WITH picked AS MATERIALIZED (");
    match selection {
        Selection::Ids(ids) => {
            query.push("SELECT i.feed, i.lane, i.n, i.key_hash, i.size FROM inbox i WHERE i.id = ANY(").push_bind(ids).push(")");
        }
        Selection::Filter(filter) => push_places(&mut query, filter),
    }
    if command.pick == Pick::AllOfKey {
        query.push(SEEN);
    }
    query.push("), taken AS MATERIALIZED (SELECT * FROM (");
    query.push(match command.pick {
        Pick::Each => EACH,
        Pick::NewestOfKey => NEWEST_OF_KEY,
        Pick::AllOfKey => ALL_OF_KEY,
    });
    query.push(") t");
    if matches!(command.kind, ActionKind::Replay | ActionKind::Revisit) {
        query.push(NOT_FINISHED);
    }
    query.push("), asked AS (SELECT feed, lane, n, size, after_n, ").push_bind(now_ms);
    if let Some(per_second) = command.per_second {
        query.push(" + (row_number() OVER (ORDER BY feed, lane, n) - 1) * 1000 / ").push_bind(i64::from(per_second.max(1)));
    }
    query.push(" AS not_before_ms FROM taken), told AS (SELECT ").push_bind(command.id).push(" AS command, ").push_bind(command.pinned);
    query.push(" AS pinned, ").push_bind(command.kind.code()).push("::smallint AS kind, ").push_bind(command.force);
    query.push(" AS force), written AS (").push(write_actions!()).push(") SELECT coalesce(sum(open), 0) FROM written");
    query
}

/// Writes the revisits that handled messages ask for.
pub(super) async fn store_revisits(connection: &mut PgConnection, revisits: &[NewRevisit]) -> Try<()> {
    if revisits.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO action (feed, lane, n, not_before_ms, kind, force, detail)
         SELECT feed, lane, n, due_ms, $1, false, detail
         FROM unnest($2::int[], $3::int[], $4::bigint[], $5::bigint[], $6::text[]) r(feed, lane, n, due_ms, detail)",
    )
    .bind(ActionKind::Revisit.code())
    .bind(revisits.iter().map(|revisit| revisit.place.feed.0).collect::<Vec<_>>())
    .bind(revisits.iter().map(|revisit| revisit.place.lane).collect::<Vec<_>>())
    .bind(revisits.iter().map(|revisit| revisit.place.n).collect::<Vec<_>>())
    .bind(revisits.iter().map(|revisit| revisit.due_ms).collect::<Vec<_>>())
    .bind(revisits.iter().map(|revisit| stored(&revisit.detail)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

fn kind_of(code: i16) -> Try<ActionKind> {
    Ok(ActionKind::from_code(code).ok_or_else(|| Error::Corrupt(format!("an action has the kind {code}")))?)
}

fn action_state(row: &PgRow) -> Try<ActionState> {
    let result = |code| ActionResult::from_code(code).ok_or_else(|| Error::Corrupt(format!("an action has the result {code}")));
    let became = |code| Status::from_code(code).ok_or_else(|| Error::Corrupt(format!("an action led to the status {code}")));
    Ok(ActionState {
        id: row.try_get(0)?,
        message: row.try_get(1)?,
        feed: row.try_get(2)?,
        kind: kind_of(row.try_get(3)?)?,
        not_before_ms: row.try_get(4)?,
        result: row.try_get::<Option<i16>, _>(5)?.map(result).transpose()?,
        became: row.try_get::<Option<i16>, _>(6)?.map(became).transpose()?.map(|status| status.as_str().to_owned()),
        applied_ms: row.try_get(7)?,
    })
}

/// A line of the audit trail, of the columns id, kind, object, by_whom, why, at_ms, messages and how many are open.
pub(super) fn audited(row: &PgRow) -> Try<Audited> {
    Ok(Audited {
        id: row.try_get(0)?,
        kind: plain(row.try_get(1)?),
        object: plain(row.try_get(2)?),
        by: plain(row.try_get(3)?),
        why: plain(row.try_get(4)?),
        at_ms: row.try_get(5)?,
        messages: row.try_get(6)?,
        open: row.try_get(7)?,
    })
}

#[async_trait]
impl Actions for Postgres {
    async fn command(&self, command: &Command, selection: &Selection) -> Result<i64> {
        retried!(self, "ask for actions", self.command_once(command, selection))
    }

    async fn open_actions(&self, lanes: &[(FeedId, i32)], known: &[i64], rows_max: i64, bytes_max: i64) -> Result<Vec<OpenAction>> {
        retried!(self, "read open actions", self.open_once(lanes, known, rows_max, bytes_max))
    }

    async fn actions(&self, command: Option<Uuid>, message: Option<Uuid>, rows_max: i64) -> Result<Vec<ActionState>> {
        retried!(self, "list actions", self.actions_once(command, message, rows_max))
    }

    async fn audit(&self, command: Option<Uuid>, message: Option<Uuid>, rows_max: i64) -> Result<Vec<Audited>> {
        retried!(self, "read the audit trail", self.audit_once(command, message, rows_max))
    }

    async fn pause(&self, of: &Pausable, by: &str, why: &str) -> Result<bool> {
        retried!(self, "pause", self.pause_once(of, by, why))
    }

    async fn resume_paused(&self, of: &Pausable, by: &str, why: &str) -> Result<bool> {
        retried!(self, "resume what is paused", self.resume_paused_once(of, by, why))
    }

    async fn pauses(&self) -> Result<Vec<Paused>> {
        retried!(self, "list pauses", self.pauses_once())
    }
}
