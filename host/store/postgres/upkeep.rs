//! Pruning what told of messages that are dropped, and outputs that are published: in pieces, each with its place in the books.

use async_trait::async_trait;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::leases::guard;
use super::messages::plan_freely;
use super::{Postgres, Try, retried};
use crate::store::Result;
use crate::store::upkeep::{Retention, Step, Turn, Upkeep};

/// Settlements of one target whose outputs are looked at in one step.
const SETTLEMENTS: i64 = 200;
/// The longest that a piece may take.
const TIMEOUT: &str = "SET LOCAL statement_timeout = '5min'";

/// Outputs of a target in the next settlements above its floor, up to its cursor, that are old enough and were not refused; the new floor.
const OUTPUTS: &str = "
    WITH upto AS (SELECT c.target, coalesce(f.floor, 0) AS floor, (
          SELECT max(x.number) FROM (SELECT s.number FROM settlement s
            WHERE s.number > coalesce(f.floor, 0) AND s.number < c.settlement AND s.at_ms < $1 ORDER BY s.number LIMIT $2) x) AS upto
        FROM target_cursor c LEFT JOIN target_floor f ON f.target = c.target),
      gone AS (DELETE FROM output o USING upto u, settlement s
        WHERE s.number > u.floor AND s.number <= u.upto AND o.target = u.target AND o.batch = s.batch
          AND NOT EXISTS (SELECT 1 FROM parked_output p WHERE p.target = o.target AND p.settlement = s.number AND p.position = o.position)
        RETURNING 1),
      floors AS (INSERT INTO target_floor (target, floor) SELECT target, upto FROM upto WHERE upto IS NOT NULL
        ON CONFLICT (target) DO UPDATE SET floor = excluded.floor RETURNING 1),
      counted AS (UPDATE dropped SET rows = rows + (SELECT count(*) FROM gone) WHERE what = 'output' RETURNING 1)
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM floors)";

/// Settlements older than the messages that are left, without outputs; the newest stays, and those that kept messages were settled at.
const SETTLED: &str = "
    WITH wanted AS MATERIALIZED (
        SELECT o.settlement FROM inbox_kept k JOIN outcome o ON o.feed = k.feed AND o.lane = k.lane AND o.n = k.n
        UNION SELECT d.settlement FROM inbox_kept k
          JOIN action a ON a.feed = k.feed AND a.lane = k.lane AND a.n BETWEEN k.n - k.n % 200 AND k.n AND a.which IS NOT NULL
          JOIN action_done d ON d.action = a.id AND get_bit(d.which, (k.n % 200)::int) = 1
        UNION SELECT settlement FROM work),
      old AS (SELECT s.number FROM settlement s
        WHERE s.at_ms < (SELECT until_ms FROM dropped WHERE what = 'message') AND s.number < (SELECT max(number) FROM settlement)
          AND NOT EXISTS (SELECT 1 FROM target t JOIN output o ON o.target = t.id AND o.batch = s.batch)
          AND NOT EXISTS (SELECT 1 FROM wanted w WHERE w.settlement = s.number)
        ORDER BY s.number LIMIT $1),
      gone AS (DELETE FROM settlement s USING old WHERE s.number = old.number RETURNING 1),
      counted AS (UPDATE dropped SET rows = rows + (SELECT count(*) FROM gone) WHERE what = 'settlement' RETURNING 1)
    SELECT count(*) FROM gone";

/// Messages that are dropped and still have an end.
const ENDED: &str = "
    SELECT DISTINCT o.feed, o.lane, o.n, o.delivery FROM lane_floor f
    JOIN outcome o ON o.feed = f.feed AND o.lane = f.lane AND o.n <= f.floor
    WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.feed = o.feed AND i.lane = o.lane AND i.n = o.n) LIMIT $1";

/// The rest of what tells of dropped messages.
const TRACES: [&str; 3] = [
    "DELETE FROM answers a USING (SELECT x.feed, x.lane, x.n, x.run FROM lane_floor f
         JOIN answers x ON x.feed = f.feed AND x.lane = f.lane AND x.n <= f.floor
         WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.feed = x.feed AND i.lane = x.lane AND i.n = x.n) LIMIT $1) d
     WHERE a.feed = d.feed AND a.lane = d.lane AND a.n = d.n AND a.run = d.run",
    "DELETE FROM action a USING (SELECT x.id FROM lane_floor f
         JOIN action x ON x.feed = f.feed AND x.lane = f.lane AND x.n <= f.floor AND x.open = 0
         WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.feed = x.feed AND i.lane = x.lane
           AND i.n BETWEEN x.n AND CASE WHEN x.which IS NULL THEN x.n ELSE x.n - x.n % 200 + 199 END)
         LIMIT $1) d WHERE a.id = d.id",
    "DELETE FROM settled_range r USING (SELECT x.feed, x.lane, x.to_n, x.settlement, x.from_n, x.now_ms FROM lane_floor f
         JOIN settled_range x ON x.feed = f.feed AND x.lane = f.lane AND x.to_n <= f.floor
         WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.feed = x.feed AND i.lane = x.lane AND i.n BETWEEN x.from_n AND x.to_n) LIMIT $1) d
     WHERE r.feed = d.feed AND r.lane = d.lane AND r.to_n = d.to_n AND r.settlement = d.settlement AND r.from_n = d.from_n
       AND r.now_ms = d.now_ms",
];

impl Postgres {
    async fn prune_outputs_once(&self, turn: &Turn, retention: &Retention) -> Try<Option<Step>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        let Some(now_ms) = self.hold_turn(&mut transaction, turn).await? else { return Ok(None) };
        sqlx::raw_sql(TIMEOUT).execute(&mut *transaction).await?;
        let (outputs, moved): (i64, i64) =
            sqlx::query_as(OUTPUTS).bind(now_ms - retention.outputs_ms).bind(SETTLEMENTS).fetch_one(&mut *transaction).await?;
        let settlements: i64 = sqlx::query_scalar(SETTLED).bind(retention.rows_max).fetch_one(&mut *transaction).await?;
        let more = moved > 0 || settlements >= retention.rows_max;
        let step = Step { pruned: outputs + settlements, more, ..Step::default() };
        super::commit(transaction, step.called("prune outputs")).await?;
        Ok(Some(step))
    }

    async fn prune_provenance_once(&self, turn: &Turn, rows_max: i64) -> Try<Option<Step>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        if self.hold_turn(&mut transaction, turn).await?.is_none() {
            return Ok(None);
        }
        sqlx::raw_sql(TIMEOUT).execute(&mut *transaction).await?;
        plan_freely(&mut transaction).await?;
        let ends = prune_ends(&mut transaction, rows_max).await?;
        let (mut pruned, mut more) = (ends, ends >= rows_max);
        for sql in TRACES {
            let gone = sqlx::query(sql).persistent(false).bind(rows_max).execute(&mut *transaction).await?.rows_affected();
            let gone = i64::try_from(gone).unwrap_or(i64::MAX);
            (pruned, more) = (pruned + gone, more || gone >= rows_max);
        }
        let step = Step { pruned, more, ..Step::default() };
        super::commit(transaction, step.called("prune provenance")).await?;
        Ok(Some(step))
    }

    async fn dropped_until_once(&self) -> Try<Option<i64>> {
        let until = sqlx::query_scalar("SELECT until_ms FROM dropped WHERE what = 'message' AND until_ms > 0");
        Ok(until.fetch_optional(self.pool().await?).await?)
    }
}

/// Prunes the ends of dropped messages, all runs of a message together; deliveries count their parts. How many messages.
async fn prune_ends(connection: &mut PgConnection, rows_max: i64) -> Try<i64> {
    let sql = format!(
        "WITH d AS MATERIALIZED ({ENDED}),
           gone AS (DELETE FROM outcome o USING d WHERE o.feed = d.feed AND o.lane = d.lane AND o.n = d.n RETURNING 1),
           parts AS (SELECT delivery, count(*) AS parts FROM d WHERE delivery IS NOT NULL GROUP BY delivery),
           counted AS (UPDATE delivery SET dropped = dropped + p.parts FROM parts p WHERE delivery.number = p.delivery RETURNING 1)
         SELECT count(*) FROM d"
    );
    // Rows of deliveries are touched under the guard; where there are none, nobody is held up.
    if sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM delivery)").fetch_one(&mut *connection).await? {
        guard(connection).await?;
    }
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).persistent(false).bind(rows_max).fetch_one(connection).await?)
}

#[async_trait]
impl Upkeep for Postgres {
    async fn begin_part(&self, turn: &Turn, part_ms: i64) -> Result<Option<Step>> {
        retried!(self, "begin a part", self.begin_part_once(turn, part_ms))
    }

    async fn drop_messages(&self, turn: &Turn, retention: &Retention) -> Result<Option<Step>> {
        retried!(self, "drop messages", self.drop_messages_once(turn, retention))
    }

    async fn prune_outputs(&self, turn: &Turn, retention: &Retention) -> Result<Option<Step>> {
        retried!(self, "prune outputs", self.prune_outputs_once(turn, retention))
    }

    async fn prune_provenance(&self, turn: &Turn, rows_max: i64) -> Result<Option<Step>> {
        retried!(self, "prune provenance", self.prune_provenance_once(turn, rows_max))
    }

    async fn compact(&self, _turn: &Turn) -> Result<Option<Step>> {
        Ok(Some(Step::default()))
    }

    async fn dropped_until(&self) -> Result<Option<i64>> {
        retried!(self, "ask what is dropped", self.dropped_until_once())
    }
}
