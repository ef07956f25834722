//! The ledger's equations as statements, each of which gives one row: left side, right side, a place where they differ.
//! `$1` is the time of a fixed clock.

use async_trait::async_trait;
use sqlx::Connection;

use super::messages::plan_freely;
use super::{Postgres, Try, retried};
use crate::store::Result;
use crate::store::ledger::{Equation, Ledger, Reading};

/// The equations, in the order in which they are told.
const READINGS: &[Reading] = &[
    Reading {
        name: "lane-rows",
        says: "each lane's tail is the number of its rows and of those dropped, and none is missing above the floor",
        sql: "WITH counted AS (SELECT i.feed, i.lane, count(*) AS rows, max(i.n) AS last,
                  sum(CASE WHEN i.n > coalesce(f.floor, 0) THEN 1 ELSE 0 END) AS above
                FROM inbox i LEFT JOIN lane_floor f ON f.feed = i.feed AND f.lane = i.lane GROUP BY i.feed, i.lane),
              lanes AS (SELECT feed, lane FROM lane_tail UNION SELECT feed, lane FROM counted UNION SELECT feed, lane FROM lane_floor),
              sides AS (SELECT x.feed, x.lane, coalesce(t.tail, 0) AS tail, coalesce(r.rows, 0) + coalesce(f.dropped, 0) AS rows,
                  greatest(coalesce(r.last, 0), coalesce(f.floor, 0)) AS last, coalesce(f.floor, 0) + coalesce(r.above, 0) AS upto
                FROM lanes x LEFT JOIN lane_tail t ON t.feed = x.feed AND t.lane = x.lane
                LEFT JOIN counted r ON r.feed = x.feed AND r.lane = x.lane LEFT JOIN lane_floor f ON f.feed = x.feed AND f.lane = x.lane)
              SELECT coalesce(sum(tail), 0)::bigint,
                coalesce(sum(tail - greatest(abs(tail - rows), abs(tail - last), abs(tail - upto))), 0)::bigint,
                (SELECT format('feed %s, lane %s: tail %s, rows and dropped %s, last row %s, floor and rows above %s', feed, lane, tail, rows, last, upto)
                 FROM sides WHERE tail <> rows OR tail <> last OR tail <> upto ORDER BY feed, lane LIMIT 1)
              FROM sides",
    },
    Reading {
        name: "positions",
        says: "no row stands at or beyond its partition's next offset",
        sql: "WITH last AS (SELECT feed, source_partition, max(source_offset) AS last FROM inbox GROUP BY feed, source_partition),
              wrong AS (SELECT l.feed, l.source_partition, l.last, p.next_offset FROM last l
                LEFT JOIN source_position p ON p.feed = l.feed AND p.source_partition = l.source_partition
                WHERE p.next_offset IS NULL OR l.last >= p.next_offset)
              SELECT 0::bigint, count(*), min(format('feed %s, partition %s: offset %s, next offset %s', feed, source_partition, last, next_offset))
              FROM wrong",
    },
    Reading {
        name: "read-once",
        says: "no offset of a partition is in the inbox twice",
        sql: "WITH twice AS (SELECT feed, source_partition, source_offset FROM inbox
                GROUP BY feed, source_partition, source_offset HAVING count(*) > 1)
              SELECT 0::bigint, count(*), min(format('feed %s, partition %s, offset %s', feed, source_partition, source_offset)) FROM twice",
    },
    Reading {
        name: "passed",
        says: "each row up to its lane's cursor is in a settled range, has an outcome, is in work, or was dropped",
        sql: "WITH base AS (SELECT l.feed, l.lane, l.cursor, least(coalesce(f.floor, 0), l.cursor) AS floor, coalesce(f.dropped, 0) AS dropped
                FROM lane l LEFT JOIN lane_floor f ON f.feed = l.feed AND f.lane = l.lane),
              parts AS (
                SELECT feed, lane, from_n, to_n FROM settled_range
                UNION ALL SELECT feed, lane, n, n FROM outcome WHERE run = 0
                UNION ALL SELECT feed, lane, n, n FROM work WHERE run = 0),
              clipped AS (SELECT p.feed, p.lane, greatest(p.from_n, coalesce(b.floor, 0) + 1) AS from_n, p.to_n, coalesce(b.floor, 0) AS floor
                FROM parts p LEFT JOIN base b ON b.feed = p.feed AND b.lane = p.lane WHERE b.floor IS NULL OR b.floor = 0 OR p.to_n > b.floor),
              seen AS (SELECT feed, lane, from_n, to_n,
                  coalesce(max(to_n) OVER (PARTITION BY feed, lane ORDER BY from_n, to_n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), floor) AS upto
                FROM clipped),
              covered AS (SELECT feed, lane, sum(greatest(to_n - greatest(upto, from_n - 1), 0)) AS rows, max(to_n) AS last FROM seen GROUP BY feed, lane),
              kept AS (SELECT i.feed, i.lane, count(*) AS rows FROM base b JOIN inbox i ON i.feed = b.feed AND i.lane = b.lane AND i.n <= b.floor
                WHERE EXISTS (SELECT 1 FROM work w WHERE w.feed = i.feed AND w.lane = i.lane AND w.n = i.n AND w.run = 0)
                  OR EXISTS (SELECT 1 FROM outcome o WHERE o.feed = i.feed AND o.lane = i.lane AND o.n = i.n AND o.run = 0)
                  OR EXISTS (SELECT 1 FROM settled_range r WHERE r.feed = i.feed AND r.lane = i.lane AND r.to_n >= i.n AND r.from_n <= i.n)
                GROUP BY i.feed, i.lane),
              gaps AS (SELECT feed, lane, upto + 1 AS first FROM seen WHERE from_n > upto + 1),
              lanes AS (SELECT feed, lane FROM base UNION SELECT feed, lane FROM covered),
              sides AS (SELECT x.feed, x.lane, coalesce(b.cursor, 0) AS cursor, greatest(coalesce(c.last, 0), coalesce(b.floor, 0)) AS last,
                  coalesce(c.rows, 0) + coalesce(k.rows, 0) + coalesce(b.dropped, 0) AS rows
                FROM lanes x LEFT JOIN base b ON b.feed = x.feed AND b.lane = x.lane
                LEFT JOIN covered c ON c.feed = x.feed AND c.lane = x.lane LEFT JOIN kept k ON k.feed = x.feed AND k.lane = x.lane)
              SELECT coalesce(sum(cursor), 0)::bigint, coalesce(sum(cursor - abs(cursor - rows)), 0)::bigint,
                coalesce((SELECT format('feed %s, lane %s, row %s', feed, lane, first) FROM gaps ORDER BY feed, lane, first LIMIT 1),
                  min(CASE WHEN cursor <> last OR cursor <> rows
                    THEN format('feed %s, lane %s: cursor %s, settled up to %s, settled and dropped %s', feed, lane, cursor, last, rows) END))
              FROM sides",
    },
    Reading {
        name: "ranges",
        says: "no two settled ranges of a lane overlap",
        sql: "WITH seen AS (SELECT feed, lane, from_n, to_n,
                  max(to_n) OVER (PARTITION BY feed, lane ORDER BY from_n, to_n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS upto
                FROM settled_range)
              SELECT 0::bigint, count(*), min(format('feed %s, lane %s, rows %s to %s', feed, lane, from_n, to_n)) FROM seen WHERE from_n <= upto",
    },
    Reading {
        name: "one-end",
        says: "no run of a message is both at its end and in work",
        sql: "SELECT 0::bigint, count(*), min(format('feed %s, lane %s, row %s, run %s', w.feed, w.lane, w.n, w.run))
              FROM work w JOIN outcome o ON o.feed = w.feed AND o.lane = w.lane AND o.n = w.n AND o.run = w.run",
    },
    Reading {
        name: "cursors",
        says: "no cursor is beyond its lane's tail, and no row of work is beyond its cursor",
        sql: "WITH wrong AS (
                SELECT l.feed, l.lane, l.cursor AS n FROM lane l LEFT JOIN lane_tail t ON t.feed = l.feed AND t.lane = l.lane
                  WHERE l.cursor > coalesce(t.tail, 0)
                UNION ALL SELECT w.feed, w.lane, w.n FROM work w LEFT JOIN lane l ON l.feed = w.feed AND l.lane = w.lane
                  WHERE w.n > coalesce(l.cursor, 0))
              SELECT 0::bigint, count(*), min(format('feed %s, lane %s, row %s', feed, lane, n)) FROM wrong",
    },
    Reading {
        name: "work-messages",
        says: "each row of work has its message",
        sql: "SELECT 0::bigint, count(*), min(format('feed %s, lane %s, row %s', w.feed, w.lane, w.n)) FROM work w
              WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.feed = w.feed AND i.lane = w.lane AND i.n = w.n)",
    },
    Reading {
        name: "outputs-once",
        says: "no output of a message's run is there twice",
        sql: "WITH twice AS (SELECT message, run, ordinal FROM output GROUP BY message, run, ordinal HAVING count(*) > 1)
              SELECT 0::bigint, count(*), min(format('message %s, run %s, output %s', message, run, ordinal)) FROM twice",
    },
    Reading {
        name: "outputs-settled",
        says: "each output is of a settlement",
        sql: "WITH loose AS (SELECT DISTINCT o.batch FROM output o WHERE NOT EXISTS (SELECT 1 FROM settlement s WHERE s.batch = o.batch))
              SELECT 0::bigint, count(*), min(format('batch %s', batch)) FROM loose",
    },
    Reading {
        name: "settlements",
        says: "the guard's number is that of the newest settlement",
        sql: "SELECT g.number, coalesce((SELECT max(number) FROM settlement), g.number), format('guard %s', g.number) FROM settlement_guard g",
    },
    Reading {
        name: "reasons",
        says: "each message that stays back has a code: retry, waiting, failed, held, stopped, parked",
        sql: "WITH silent AS (
                SELECT feed, lane, n FROM work WHERE status IN (3, 4, 6, 7, 9) AND code = ''
                UNION ALL SELECT feed, lane, n FROM parked_output WHERE reason = '')
              SELECT 0::bigint, count(*), min(format('feed %s, lane %s, row %s', feed, lane, n)) FROM silent",
    },
    Reading {
        name: "behind",
        says: "each message that is behind has an earlier one of its key that holds it back",
        sql: "SELECT 0::bigint, count(*), min(format('feed %s, lane %s, row %s', b.feed, b.lane, b.n)) FROM work b
              LEFT JOIN (SELECT feed, lane, key_hash, min(n) AS n FROM work WHERE blocks GROUP BY feed, lane, key_hash) h
                ON h.feed = b.feed AND h.lane = b.lane AND h.key_hash = b.key_hash AND h.n < b.n
              WHERE b.status = 8 AND h.n IS NULL",
    },
    Reading {
        name: "waits",
        says: "each wait is of a message that waits or is to be tried again, and each message that waits has a time at which it ends",
        sql: "WITH wrong AS (
                SELECT x.feed, x.lane, x.n FROM wait x
                  LEFT JOIN work w ON w.feed = x.feed AND w.lane = x.lane AND w.n = x.n AND w.run = x.run AND w.status IN (3, 4)
                  WHERE w.n IS NULL
                UNION ALL SELECT feed, lane, n FROM work WHERE status = 3 AND due_ms IS NULL)
              SELECT 0::bigint, count(*), min(format('feed %s, lane %s, row %s', feed, lane, n)) FROM wrong",
    },
    Reading {
        name: "retries",
        says: "each message that is to be tried again has a time for it",
        sql: "SELECT 0::bigint, count(*), min(format('feed %s, lane %s, row %s', feed, lane, n)) FROM work WHERE status = 4 AND due_ms IS NULL",
    },
    Reading {
        name: "leases",
        says: "nothing is owned by a host that is gone, or whose lease is over for a minute while another host lives that wants it",
        sql: "WITH clock AS (SELECT coalesce($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS now_ms),
              owned AS (
                SELECT 'feed ' || name AS thing, owner, id AS feed, NULL::int AS target FROM feed WHERE owner IS NOT NULL
                UNION ALL SELECT format('feed %s, lane %s', feed, lane), owner, feed, NULL FROM lane WHERE owner IS NOT NULL
                UNION ALL SELECT format('target %s', target), owner, NULL, target FROM target_cursor WHERE owner IS NOT NULL),
              living AS (SELECT h.* FROM host h, clock c WHERE h.lease_until_ms >= c.now_ms)
              SELECT 0::bigint, count(*), min(o.thing) FROM owned o CROSS JOIN clock c LEFT JOIN host h ON h.id = o.owner
              WHERE h.id IS NULL OR (h.lease_until_ms < c.now_ms - 60000 AND EXISTS (SELECT 1 FROM living l
                WHERE o.feed = ANY(l.wanted_feeds) OR o.target = ANY(l.wanted_targets)))",
    },
    Reading {
        name: "publish-cursors",
        says: "no target is published beyond the newest settlement",
        sql: "SELECT 0::bigint, count(*), min(format('target %s: settlement %s', c.target, c.settlement)) FROM target_cursor c, settlement_guard g
              WHERE c.settlement > g.number",
    },
];

impl Postgres {
    async fn ledger_once(&self) -> Try<Vec<Equation>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // Before the moment that is read is fixed: a part that is dropped after it would be gone from the inbox, and not yet counted as dropped.
        sqlx::raw_sql("LOCK TABLE ONLY inbox IN ACCESS SHARE MODE").execute(&mut *transaction).await?;
        plan_freely(&mut transaction).await?;
        // Whole tables are walked; the loops' limit is for statements that find their rows.
        sqlx::raw_sql("SET LOCAL statement_timeout = '15min'; SET LOCAL work_mem = '128MB'").execute(&mut *transaction).await?;
        let mut equations = Vec::new();
        for reading in READINGS {
            let mut query = sqlx::query_as(reading.sql).persistent(false);
            if reading.sql.contains("$1") {
                query = query.bind(self.clock.fixed_ms());
            }
            equations.push(reading.equation(query.fetch_one(&mut *transaction).await?));
        }
        transaction.commit().await?;
        Ok(equations)
    }
}

#[async_trait]
impl Ledger for Postgres {
    async fn ledger(&self) -> Result<Vec<Equation>> {
        retried!(self, "read the ledger", self.ledger_once())
    }
}
