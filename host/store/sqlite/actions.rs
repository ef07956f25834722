//! What operators ask for: commands become rows of `action` in one statement, settlements say what became of them, people read the trail.
//! Knows nothing of how actions are applied.

pub(super) mod open;
mod pauses;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};
use uuid::Uuid;

use super::bulk::{Bulk, Values};
use super::messages::conditions;
use super::rows::status_of;
use super::{Sqlite, damaged};
use crate::message::{FeedId, Status};
use crate::store::{
    ActionKind, ActionResult, ActionState, Actions, Applied, Audited, Command, NewRevisit, OpenAction, Pausable, Paused, Pick, Result,
    Selection,
};

const APPLY: Bulk = Bulk {
    before: "UPDATE action SET result = r.column2, became = r.column3, applied_ms = r.column4, settlement = r.column5 FROM (",
    columns: 5,
    after: ") AS r WHERE action.id = r.column1 AND action.result IS NULL",
};
const REVISIT: Bulk = Bulk { before: "INSERT INTO action (feed, lane, n, not_before_ms, kind, force, detail)", columns: 7, after: "" };

/// What must find its rows by an index.
#[cfg(test)]
pub(super) const INDEXED: &[Bulk] = &[APPLY];

/// Each chosen message. `picked`: feed, lane, n, key_hash.
const EACH: &str = "SELECT feed, lane, n, NULL AS after_n FROM picked";
/// The newest chosen message of each key. Where the key has no later row at all, only what comes from now on can supersede it, and nobody
/// need look at what is there. No join by key: planners take few keys for granted and would walk a lane once for each.
const NEWEST_OF_KEY: &str = "SELECT k.feed, k.lane, k.last AS n, CASE WHEN k.newest = k.last THEN t.tail END AS after_n
   FROM (SELECT feed, lane, max(n) AS newest, max(CASE WHEN chosen THEN n END) AS last FROM (
       SELECT feed, lane, key_hash, n, true AS chosen FROM picked
       UNION ALL SELECT x.feed, x.lane, x.key_hash, x.n, false
       FROM (SELECT feed, lane, min(n) AS first FROM picked GROUP BY feed, lane) l
       JOIN inbox x ON x.feed = l.feed AND x.lane = l.lane AND x.n >= l.first
     ) u GROUP BY feed, lane, key_hash) k
   JOIN lane_tail t ON t.feed = k.feed AND t.lane = k.lane WHERE k.last IS NOT NULL";
/// Every row of a chosen key from the first chosen one on; they run in order, so that none of them supersedes another.
const ALL_OF_KEY: &str = "SELECT k.feed, k.lane, k.n, t.tail AS after_n
   FROM (SELECT feed, lane, n, chosen, min(CASE WHEN chosen THEN n END) OVER (PARTITION BY feed, lane, key_hash) AS first FROM (
       SELECT feed, lane, key_hash, n, true AS chosen FROM picked
       UNION ALL SELECT x.feed, x.lane, x.key_hash, x.n, false
       FROM (SELECT feed, lane, min(n) AS first FROM picked GROUP BY feed, lane) l
       JOIN inbox x ON x.feed = l.feed AND x.lane = l.lane AND x.n >= l.first
     ) u) k
   JOIN lane_tail t ON t.feed = k.feed AND t.lane = k.lane WHERE NOT k.chosen AND k.n >= k.first";
/// Leaves out what an operator has closed as `Finished`.
const NOT_FINISHED: &str = " WHERE EXISTS (SELECT 1 FROM work w WHERE w.feed = t.feed AND w.lane = t.lane AND w.n = t.n)
     OR coalesce((SELECT o.status FROM outcome o WHERE o.feed = t.feed AND o.lane = t.lane AND o.n = t.n ORDER BY o.run DESC LIMIT 1), 1) <> 10";

/// The codes that statements name by their numbers.
const _: () = assert!(Status::Finished as i16 == 10 && Status::Handled as i16 == 1);

/// The statement that writes the actions of a command, with its values.
fn chosen(command: &Command, selection: &Selection, now: i64) -> (String, Values) {
    let (picked, mut values) = match selection {
        Selection::Ids(ids) => {
            let ids: Vec<String> = ids.iter().map(|id| id.simple().to_string()).collect();
            let mut values = Values::default();
            values.add(serde_json::to_string(&ids).expect("texts are JSON"));
            let ids = "SELECT i.feed, i.lane, i.n, i.key_hash FROM inbox i WHERE i.id IN (SELECT unhex(value) FROM json_each(?))";
            (ids.to_owned(), values)
        }
        Selection::Filter(filter) => {
            let (wanted, mut values) = conditions(filter);
            let order = if filter.oldest_first { "ASC" } else { "DESC" };
            values.add(if filter.limit > 0 { filter.limit } else { -1 });
            let rows = format!(
                "SELECT m.feed_number AS feed, m.lane, m.n, i.key_hash FROM message_state m CROSS JOIN inbox i ON i.rowid = m.seq
                 WHERE {wanted} ORDER BY m.seq {order} LIMIT ?"
            );
            (rows, values)
        }
    };
    let pick = match command.pick {
        Pick::Each => EACH,
        Pick::NewestOfKey => NEWEST_OF_KEY,
        Pick::AllOfKey => ALL_OF_KEY,
    };
    let open = if matches!(command.kind, ActionKind::Replay | ActionKind::Revisit) { NOT_FINISHED } else { "" };
    values.add(command.id).add(now);
    let spread = match command.per_second {
        None => "",
        Some(per_second) => {
            values.add(i64::from(per_second.max(1)));
            " + (row_number() OVER (ORDER BY feed, lane, n) - 1) * 1000 / ?"
        }
    };
    values.add(command.pinned).add(command.kind.code()).add(command.force);
    let text = format!(
        "INSERT INTO action (command, feed, lane, n, after_n, not_before_ms, pinned, kind, force)
         WITH picked AS MATERIALIZED ({picked}), taken AS MATERIALIZED (SELECT * FROM ({pick}) t{open})
         SELECT ?, feed, lane, n, after_n, ?{spread}, ?, ?, ? FROM taken ORDER BY feed, lane, n"
    );
    (text, values)
}

/// Writes a command and its actions, once; how many messages it is about.
async fn write(connection: &mut SqliteConnection, command: &Command, selection: &Selection, now: i64) -> sqlx::Result<i64> {
    let known: Option<i64> =
        sqlx::query_scalar("SELECT messages FROM command WHERE id = ?").bind(command.id).fetch_optional(&mut *connection).await?;
    if let Some(messages) = known {
        return Ok(messages);
    }
    let (text, values) = chosen(command, selection, now);
    let written = sqlx::query_with(AssertSqlSafe(text), values.into_inner()).persistent(false).execute(&mut *connection).await?;
    let messages = i64::try_from(written.rows_affected()).unwrap_or(i64::MAX);
    note(
        connection,
        &Line { id: command.id, kind: command.kind.as_str(), object: &command.object, by: &command.by, why: &command.why, now, messages },
    )
    .await?;
    Ok(messages)
}

/// A new line of the audit trail.
struct Line<'a> {
    id: Uuid,
    kind: &'a str,
    object: &'a str,
    by: &'a str,
    why: &'a str,
    now: i64,
    messages: i64,
}

async fn note(connection: &mut SqliteConnection, line: &Line<'_>) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO command (id, kind, object, by_whom, why, at_ms, messages) VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(line.id)
        .bind(line.kind)
        .bind(line.object)
        .bind(line.by)
        .bind(line.why)
        .bind(line.now)
        .bind(line.messages)
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes what became of actions, each once, and writes the revisits that handled messages ask for.
pub(super) async fn settle(
    connection: &mut SqliteConnection,
    number: i64,
    now: i64,
    applied: &[Applied],
    revisits: &[NewRevisit],
) -> sqlx::Result<()> {
    APPLY
        .run(connection, applied, |values, action| {
            values.add(action.id).add(action.result.code()).add(action.became.code()).add(now).add(number);
        })
        .await?;
    REVISIT
        .run(connection, revisits, |values, revisit| {
            values.add(revisit.place.feed.0).add(revisit.place.lane).add(revisit.place.n).add(revisit.due_ms);
            values.add(ActionKind::Revisit.code()).add(false).add(revisit.detail.as_str());
        })
        .await?;
    Ok(())
}

fn kind_of(code: i16) -> sqlx::Result<ActionKind> {
    ActionKind::from_code(code).ok_or_else(|| damaged(format!("no action has the kind {code}")))
}

fn action_state(row: &SqliteRow) -> sqlx::Result<ActionState> {
    let result = |code| ActionResult::from_code(code).ok_or_else(|| damaged(format!("no action has the result {code}")));
    let became: Option<i16> = row.try_get(6)?;
    Ok(ActionState {
        id: row.try_get(0)?,
        message: row.try_get(1)?,
        feed: row.try_get(2)?,
        kind: kind_of(row.try_get(3)?)?,
        not_before_ms: row.try_get(4)?,
        result: row.try_get::<Option<i16>, _>(5)?.map(result).transpose()?,
        became: became.map(status_of).transpose()?.map(|status| status.as_str().to_owned()),
        applied_ms: row.try_get(7)?,
    })
}

/// A line of the audit trail, of the columns id, kind, object, by_whom, why, at_ms, messages and how many are open.
pub(super) fn audited(row: &SqliteRow) -> sqlx::Result<Audited> {
    Ok(Audited {
        id: row.try_get(0)?,
        kind: row.try_get(1)?,
        object: row.try_get(2)?,
        by: row.try_get(3)?,
        why: row.try_get(4)?,
        at_ms: row.try_get(5)?,
        messages: row.try_get(6)?,
        open: row.try_get(7)?,
    })
}

#[async_trait]
impl Actions for Sqlite {
    async fn command(&self, command: &Command, selection: &Selection) -> Result<i64> {
        const VERB: &str = "ask for actions";
        let mut transaction = self.write(VERB).await?;
        let messages = write(&mut transaction, command, selection, self.now()).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(messages)
    }

    async fn open_actions(&self, lanes: &[(FeedId, i32)], known: &[i64], rows_max: i64, bytes_max: i64) -> Result<Vec<OpenAction>> {
        const VERB: &str = "read open actions";
        let mut reader = self.read_one_state(VERB).await?;
        let open = open::open(&mut reader, lanes, known, rows_max, bytes_max, self.now()).await.map_err(self.failed(VERB))?;
        drop(reader);
        self.fault(VERB, "done").await?;
        Ok(open)
    }

    async fn actions(&self, command: Option<Uuid>, message: Option<Uuid>, rows_max: i64) -> Result<Vec<ActionState>> {
        const VERB: &str = "list actions";
        self.fault(VERB, "begin").await?;
        let mut wanted = "true".to_owned();
        let mut values = Values::default();
        if let Some(command) = command {
            wanted.push_str(" AND a.command = ?");
            values.add(command);
        }
        if let Some(message) = message {
            wanted.push_str(" AND (a.feed, a.lane, a.n) IN (SELECT feed, lane, n FROM inbox WHERE id = ?)");
            values.add(message);
        }
        values.add(rows_max);
        let text = format!(
            "SELECT a.id, i.id, f.name, a.kind, a.not_before_ms, a.result, a.became, a.applied_ms
             FROM action a CROSS JOIN feed f ON f.id = a.feed CROSS JOIN inbox i ON i.feed = a.feed AND i.lane = a.lane AND i.n = a.n
             WHERE {wanted} ORDER BY a.id DESC LIMIT ?"
        );
        let query = sqlx::query_with(AssertSqlSafe(text), values.into_inner());
        let rows = query.fetch_all(&self.readers).await.map_err(self.failed(VERB))?;
        rows.iter().map(action_state).collect::<sqlx::Result<_>>().map_err(self.failed(VERB))
    }

    async fn audit(&self, command: Option<Uuid>, message: Option<Uuid>, rows_max: i64) -> Result<Vec<Audited>> {
        const VERB: &str = "read the audit trail";
        self.fault(VERB, "begin").await?;
        let mut wanted = "true".to_owned();
        let mut values = Values::default();
        if let Some(command) = command {
            wanted.push_str(" AND c.id = ?");
            values.add(command);
        }
        if let Some(message) = message {
            wanted.push_str(
                " AND c.id IN (SELECT a.command FROM inbox i CROSS JOIN action a ON a.feed = i.feed AND a.lane = i.lane AND a.n = i.n
                   WHERE i.id = ?)",
            );
            values.add(message);
        }
        values.add(rows_max);
        let text = format!(
            "SELECT c.id, c.kind, c.object, c.by_whom, c.why, c.at_ms, c.messages,
               (SELECT count(*) FROM action a WHERE a.command = c.id AND a.result IS NULL)
             FROM command c WHERE {wanted} ORDER BY c.at_ms DESC, c.id DESC LIMIT ?"
        );
        let query = sqlx::query_with(AssertSqlSafe(text), values.into_inner());
        let rows = query.fetch_all(&self.readers).await.map_err(self.failed(VERB))?;
        rows.iter().map(audited).collect::<sqlx::Result<_>>().map_err(self.failed(VERB))
    }

    async fn pause(&self, of: &Pausable, by: &str, why: &str) -> Result<bool> {
        const VERB: &str = "pause";
        let mut transaction = self.write(VERB).await?;
        let paused = pauses::pause(&mut transaction, of, by, why, self.now()).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(paused)
    }

    async fn resume_paused(&self, of: &Pausable, by: &str, why: &str) -> Result<bool> {
        const VERB: &str = "resume what is paused";
        let mut transaction = self.write(VERB).await?;
        let resumed = pauses::resume(&mut transaction, of, by, why, self.now()).await.map_err(self.failed(VERB))?;
        self.commit(transaction, VERB).await?;
        Ok(resumed)
    }

    async fn pauses(&self) -> Result<Vec<Paused>> {
        const VERB: &str = "list pauses";
        self.fault(VERB, "begin").await?;
        let mut reader = self.readers.acquire().await.map_err(self.failed(VERB))?;
        pauses::pauses(&mut reader).await.map_err(self.failed(VERB))
    }
}
