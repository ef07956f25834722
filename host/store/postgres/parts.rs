//! The parts of the inbox: one is filled, closed ones are weighed, what is still needed of the oldest is put aside, then it is dropped whole.
//! What takes long is done while everybody works on; only the last look and the drop itself lock the inbox, for as long as readers let them.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::leases::guard;
use super::messages::plan_freely;
use super::{Postgres, Try, code};
use crate::faults;
use crate::store::upkeep::{Retention, Step, Turn, open_deliveries};

/// Counting a part walks it whole.
const LONG: &str = "SET LOCAL statement_timeout = '30min'";
/// How long upkeep makes others wait before it gives up for this time.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '300ms'";
/// How long the last look at a part may take while the inbox is locked.
const LOOK_TIMEOUT: &str = "SET LOCAL statement_timeout = '5s'";

/// A closed part.
struct Part {
    number: i32,
    closed_ms: i64,
    weighed: bool,
}

impl Part {
    /// The statement's text with the part's table in place of `PART`.
    fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(text.replace("PART", &format!("inbox_{}", self.number)))
    }
}

/// Places in a part that are needed whatever their end was. `$1`: the states in which a delivery needs its parts.
const NEEDED: &str = "
    SELECT i.feed, i.lane, i.n FROM (
      SELECT feed, lane, n FROM work
      UNION SELECT e.feed, e.lane, e.n FROM action a JOIN action_each e ON e.action = a.id WHERE a.open > 0 AND e.result IS NULL
      UNION SELECT feed, lane, n FROM parked_output
      UNION SELECT o.feed, o.lane, o.n FROM delivery d JOIN outcome o ON o.delivery = d.number WHERE d.state = ANY($1) OR d.release
    ) k JOIN PART i ON i.feed = k.feed AND i.lane = k.lane AND i.n = k.n
    UNION SELECT i.feed, i.lane, i.n FROM lane l JOIN PART i ON i.feed = l.feed AND i.lane = l.lane AND i.n > l.cursor";

/// Places in a part whose end is kept longer than messages are. `$3`, `$4`: statuses and times; `$5`: now.
const LASTING: &str = "
    UNION SELECT i.feed, i.lane, i.n FROM unnest($3::smallint[], $4::bigint[]) s(status, ms) JOIN outcome o ON o.status = s.status
    JOIN PART i ON i.feed = o.feed AND i.lane = o.lane AND i.n = o.n
    WHERE i.received_ms >= $5 - s.ms
      AND NOT EXISTS (SELECT 1 FROM outcome x WHERE x.feed = o.feed AND x.lane = o.lane AND x.n = o.n AND x.run > o.run)";

/// Moves places of a part, at most `$2`, to those that are kept; the books say that the part holds fewer.
fn moving(lasting: bool) -> String {
    format!(
        "WITH needed AS MATERIALIZED ({NEEDED}{} LIMIT $2),
           moved AS (DELETE FROM PART i USING needed k WHERE i.feed = k.feed AND i.lane = k.lane AND i.n = k.n RETURNING i.*),
           kept AS (INSERT INTO inbox_kept (feed, lane, n, source_offset, received_ms, timestamp_ms, source_partition, size, id, key_hash,
               status, source_table, ordering_key, key, headers, payload, code, reason, delivery)
             SELECT feed, lane, n, source_offset, received_ms, timestamp_ms, source_partition, size, id, key_hash, status, source_table,
               ordering_key, key, headers, payload, code, reason, delivery FROM moved),
           less AS (UPDATE inbox_part_rows r SET rows = r.rows - m.rows
             FROM (SELECT part, feed, lane, source_partition, count(*) AS rows FROM moved GROUP BY part, feed, lane, source_partition) m
             WHERE r.part = m.part AND r.feed = m.feed AND r.lane = m.lane AND r.source_partition = m.source_partition)
         SELECT count(*) FROM moved",
        if lasting { LASTING } else { "" }
    )
}

/// A kept message whose key has a later handled one in this part would not know of it any more.
const SUPERSEDED: &str = "
    UPDATE inbox_kept k SET newer = m.n FROM (
      SELECT i.feed, i.lane, i.key_hash, max(i.n) AS n FROM PART i
      WHERE EXISTS (SELECT 1 FROM inbox_kept q WHERE q.feed = i.feed AND q.lane = i.lane AND q.key_hash = i.key_hash AND q.n < i.n)
        AND coalesce((SELECT o.status FROM outcome o WHERE o.feed = i.feed AND o.lane = i.lane AND o.n = i.n ORDER BY o.run DESC LIMIT 1), 1) = 1
      GROUP BY i.feed, i.lane, i.key_hash) m
    WHERE k.feed = m.feed AND k.lane = m.lane AND k.key_hash = m.key_hash AND k.n < m.n AND coalesce(k.newer, 0) < m.n";

/// Kept messages that nobody needs any more. `$3`: received before; `$6`: the states in which a delivery needs its parts.
const RELEASED: &str = "
    SELECT k.feed, k.lane, k.n FROM inbox_kept k JOIN lane l ON l.feed = k.feed AND l.lane = k.lane
    WHERE k.received_ms < $3 AND k.n <= l.cursor
      AND NOT EXISTS (SELECT 1 FROM work w WHERE w.feed = k.feed AND w.lane = k.lane AND w.n = k.n)
      AND NOT EXISTS (SELECT 1 FROM action a WHERE a.feed = k.feed AND a.lane = k.lane AND a.open > 0
        AND a.n BETWEEN k.n - k.n % 200 AND k.n AND (a.n = k.n OR get_bit(a.which, (k.n % 200)::int) = 1))
      AND NOT EXISTS (SELECT 1 FROM parked_output p WHERE p.feed = k.feed AND p.lane = k.lane AND p.n = k.n)
      AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.number = k.delivery AND (d.state = ANY($6) OR d.release))
      AND NOT EXISTS (
        SELECT 1 FROM (SELECT o.status FROM outcome o WHERE o.feed = k.feed AND o.lane = k.lane AND o.n = k.n ORDER BY o.run DESC LIMIT 1) o
        JOIN unnest($1::smallint[], $2::bigint[]) s(status, ms) ON s.status = o.status WHERE k.received_ms >= $4 - s.ms)
    LIMIT $5";

impl Postgres {
    pub(super) async fn begin_part_once(&self, turn: &Turn, part_ms: i64) -> Try<Option<Step>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        let Some(now_ms) = self.hold_turn(&mut transaction, turn).await? else { return Ok(None) };
        let (part, begun_ms): (i32, i64) =
            sqlx::query_as("SELECT part, begun_ms FROM inbox_part WHERE closed_ms IS NULL").fetch_one(&mut *transaction).await?;
        let there = AssertSqlSafe(format!("SELECT EXISTS (SELECT 1 FROM inbox_{part})"));
        if now_ms - begun_ms < part_ms || !sqlx::query_scalar::<_, bool>(there).persistent(false).fetch_one(&mut *transaction).await? {
            let nothing = Step::default();
            super::commit(transaction, nothing.called("begin a part")).await?;
            return Ok(Some(nothing));
        }
        let next = part + 1;
        // Appends hold the rows of their feeds, and are waited for.
        sqlx::raw_sql("SET LOCAL lock_timeout = '1s'").execute(&mut *transaction).await?;
        guard(&mut transaction).await?;
        let made = format!(
            "CREATE TABLE inbox_{next} (LIKE inbox INCLUDING STORAGE, PRIMARY KEY (feed, lane, n));
             ALTER TABLE inbox_{next} ALTER COLUMN part SET DEFAULT {next};
             ALTER TABLE inbox ATTACH PARTITION inbox_{next} FOR VALUES IN ({next});
             UPDATE inbox_part SET closed_ms = {now_ms} WHERE part = {part};
             INSERT INTO inbox_part (part, begun_ms) VALUES ({next}, {now_ms});
             UPDATE feed SET part = {next}"
        );
        sqlx::raw_sql(AssertSqlSafe(made)).execute(&mut *transaction).await?;
        faults::point("begin a part", "made").await.map_err(sqlx::Error::from)?;
        super::commit(transaction, "begin a part").await?;
        Ok(Some(Step::default()))
    }

    pub(super) async fn drop_messages_once(&self, turn: &Turn, retention: &Retention) -> Try<Option<Step>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin().await?;
        let Some(now_ms) = self.hold_turn(&mut transaction, turn).await? else { return Ok(None) };
        plan_freely(&mut transaction).await?;
        sqlx::raw_sql(LONG).execute(&mut *transaction).await?;
        let step = match oldest(&mut transaction, now_ms - retention.payload_ms).await? {
            None => release(&mut transaction, now_ms, retention).await?,
            Some(part) if !part.weighed => weigh(&mut transaction, &part).await?,
            Some(part) => {
                let kept = keep(&mut transaction, &part, now_ms, retention).await?;
                if kept > 0 {
                    Some(Step { kept, more: true, ..Step::default() })
                } else {
                    sqlx::query(part.sql(SUPERSEDED)).persistent(false).execute(&mut *transaction).await?;
                    drop_part(&mut transaction, &part, retention).await?
                }
            }
        };
        let Some(step) = step else {
            // Somebody reads for long; what was done so far is done again.
            transaction.rollback().await?;
            return Ok(Some(Step::default()));
        };
        super::commit(transaction, step.called("drop messages")).await?;
        Ok(Some(step))
    }
}

/// The oldest part that was closed early enough.
async fn oldest(connection: &mut PgConnection, closed_before_ms: i64) -> Try<Option<Part>> {
    let found: Option<(i32, i64, bool)> =
        sqlx::query_as("SELECT part, closed_ms, weighed FROM inbox_part WHERE closed_ms <= $1 ORDER BY part LIMIT 1")
            .bind(closed_before_ms)
            .fetch_optional(connection)
            .await?;
    Ok(found.map(|(number, closed_ms, weighed)| Part { number, closed_ms, weighed }))
}

/// Counts what a part holds. Nothing comes to it any more, so this holds until its rows are moved or dropped.
async fn weigh(connection: &mut PgConnection, part: &Part) -> Try<Option<Step>> {
    let sql = "INSERT INTO inbox_part_rows (part, feed, lane, source_partition, rows, last)
               SELECT part, feed, lane, source_partition, count(*), max(n) FROM PART GROUP BY part, feed, lane, source_partition";
    sqlx::query(part.sql(sql)).persistent(false).execute(&mut *connection).await?;
    sqlx::query("UPDATE inbox_part SET weighed = true WHERE part = $1").bind(part.number).execute(connection).await?;
    Ok(Some(Step { more: true, ..Step::default() }))
}

/// Puts aside what is needed, one piece of it.
async fn keep(connection: &mut PgConnection, part: &Part, now_ms: i64, retention: &Retention) -> Try<i64> {
    let (statuses, times) = retention.statuses();
    let kept = sqlx::query_scalar(part.sql(&moving(true)))
        .persistent(false)
        .bind(open_deliveries())
        .bind(retention.rows_max)
        .bind(statuses)
        .bind(times)
        .bind(now_ms)
        .fetch_one(connection)
        .await?;
    faults::point("drop messages", "kept").await.map_err(sqlx::Error::from)?;
    Ok(kept)
}

/// Locks a table against everybody for the rest of the transaction; false: others would wait too long.
async fn lock(connection: &mut PgConnection, tables: &str) -> Try<bool> {
    sqlx::raw_sql(LOCK_TIMEOUT).execute(&mut *connection).await?;
    match sqlx::raw_sql(AssertSqlSafe(format!("LOCK TABLE ONLY {tables} IN ACCESS EXCLUSIVE MODE"))).execute(&mut *connection).await {
        Ok(_) => {}
        Err(error) if code(&error).as_deref() == Some("55P03") => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    sqlx::raw_sql(LOOK_TIMEOUT).execute(connection).await?;
    Ok(true)
}

/// Drops a part of which nothing is needed. What became needed since it was looked at is put aside first, and the part has to wait.
async fn drop_part(connection: &mut PgConnection, part: &Part, retention: &Retention) -> Try<Option<Step>> {
    if !lock(connection, &format!("inbox, ONLY inbox_{}", part.number)).await? {
        return Ok(None);
    }
    faults::point("drop messages", "locked").await.map_err(sqlx::Error::from)?;
    let late: i64 = sqlx::query_scalar(part.sql(&moving(false)))
        .persistent(false)
        .bind(open_deliveries())
        .bind(retention.rows_max)
        .fetch_one(&mut *connection)
        .await?;
    if late > 0 {
        return Ok(Some(Step { kept: late, more: true, ..Step::default() }));
    }
    sqlx::query(
        "INSERT INTO lane_floor (feed, lane, floor, dropped) SELECT feed, lane, max(last), sum(rows) FROM inbox_part_rows WHERE part = $1
         GROUP BY feed, lane ON CONFLICT (feed, lane) DO UPDATE
         SET floor = greatest(lane_floor.floor, excluded.floor), dropped = lane_floor.dropped + excluded.dropped",
    )
    .bind(part.number)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO partition_floor (feed, source_partition, dropped) SELECT feed, source_partition, sum(rows) FROM inbox_part_rows
         WHERE part = $1 GROUP BY feed, source_partition ON CONFLICT (feed, source_partition) DO UPDATE
         SET dropped = partition_floor.dropped + excluded.dropped",
    )
    .bind(part.number)
    .execute(&mut *connection)
    .await?;
    let dropped: i64 = sqlx::query_scalar(
        "WITH gone AS (DELETE FROM inbox_part_rows WHERE part = $1 RETURNING rows),
           total AS (SELECT coalesce(sum(rows), 0)::bigint AS rows FROM gone),
           listed AS (DELETE FROM inbox_part WHERE part = $1)
         UPDATE dropped d SET rows = d.rows + t.rows, until_ms = greatest(d.until_ms, $2) FROM total t WHERE d.what = 'message' RETURNING t.rows",
    )
    .bind(part.number)
    .bind(part.closed_ms)
    .fetch_one(&mut *connection)
    .await?;
    sqlx::raw_sql(part.sql("DROP TABLE PART")).execute(connection).await?;
    faults::point("drop messages", "dropped").await.map_err(sqlx::Error::from)?;
    Ok(Some(Step { dropped, more: true, ..Step::default() }))
}

/// Drops what was put aside and is not needed any more.
async fn release(connection: &mut PgConnection, now_ms: i64, retention: &Retention) -> Try<Option<Step>> {
    let before_ms = now_ms - retention.payload_ms;
    let (statuses, times) = retention.statuses();
    let states = open_deliveries();
    let ask = |text: String, limit: i64| {
        let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(text)).persistent(false).bind(statuses.clone()).bind(times.clone());
        query.bind(before_ms).bind(now_ms).bind(limit).bind(states.clone())
    };
    if ask(format!("SELECT count(*) FROM ({RELEASED}) r"), 1).fetch_one(&mut *connection).await? == 0 {
        return Ok(Some(Step::default()));
    }
    // An action on one of them may be on its way: whoever chooses messages reads the inbox, and is waited for.
    if !lock(connection, "inbox_kept").await? {
        return Ok(None);
    }
    let released = format!(
        "WITH gone AS (DELETE FROM inbox_kept i USING ({RELEASED}) r WHERE i.feed = r.feed AND i.lane = r.lane AND i.n = r.n
             RETURNING i.feed, i.lane, i.n, i.source_partition),
           lanes AS (INSERT INTO lane_floor (feed, lane, floor, dropped) SELECT feed, lane, max(n), count(*) FROM gone GROUP BY feed, lane
             ON CONFLICT (feed, lane) DO UPDATE
             SET floor = greatest(lane_floor.floor, excluded.floor), dropped = lane_floor.dropped + excluded.dropped),
           partitions AS (INSERT INTO partition_floor (feed, source_partition, dropped)
             SELECT feed, source_partition, count(*) FROM gone GROUP BY feed, source_partition
             ON CONFLICT (feed, source_partition) DO UPDATE SET dropped = partition_floor.dropped + excluded.dropped),
           counted AS (UPDATE dropped d SET rows = d.rows + (SELECT count(*) FROM gone) WHERE d.what = 'message')
         SELECT count(*) FROM gone"
    );
    let dropped = ask(released, retention.rows_max).fetch_one(connection).await?;
    faults::point("drop messages", "released").await.map_err(sqlx::Error::from)?;
    Ok(Some(Step { dropped, more: dropped >= retention.rows_max, ..Step::default() }))
}
