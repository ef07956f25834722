//! The books of a store that has come to rest, balanced in SQL: what came in is somewhere, once; what goes out is there once; nothing is held
//! by somebody who is gone. Knows the tables and nothing of how they are filled.

use sqlx::{Connection, PgConnection, SqliteConnection};

/// What must be zero, each with the statement that counts it. Both stores take them as they are.
const MUST_BE_ZERO: &[(&str, &str)] = &[
    (
        "positions that differ from the rows taken in",
        "SELECT count(*) FROM source_position p WHERE p.next_offset <>
       (SELECT count(*) FROM inbox i WHERE i.feed = p.feed AND i.source_partition = p.source_partition)
       + coalesce((SELECT f.dropped FROM partition_floor f WHERE f.feed = p.feed AND f.source_partition = p.source_partition), 0)",
    ),
    (
        "offsets taken in twice",
        "SELECT count(*) FROM (SELECT 1 AS one FROM inbox GROUP BY feed, source_partition, source_offset HAVING count(*) > 1) x",
    ),
    (
        "lanes whose numbers have gaps",
        "SELECT count(*) FROM (SELECT t.feed, t.lane, t.tail, coalesce(f.floor, 0) AS floor, coalesce(f.dropped, 0) AS dropped FROM lane_tail t
         LEFT JOIN lane_floor f ON f.feed = t.feed AND f.lane = t.lane) t
       WHERE t.tail <> t.dropped + (SELECT count(*) FROM inbox i WHERE i.feed = t.feed AND i.lane = t.lane)
       OR t.tail <> t.floor + (SELECT count(*) FROM inbox i WHERE i.feed = t.feed AND i.lane = t.lane AND i.n > t.floor)
       OR (t.tail > t.floor AND t.tail <> (SELECT max(n) FROM inbox i WHERE i.feed = t.feed AND i.lane = t.lane))",
    ),
    (
        "cursors beyond their lane's end",
        "SELECT count(*) FROM lane l JOIN lane_tail t ON t.feed = l.feed AND t.lane = l.lane WHERE l.cursor > t.tail",
    ),
    (
        "messages that the cursor passed and nothing accounts for",
        "SELECT count(*) FROM inbox i JOIN lane l ON l.feed = i.feed AND l.lane = i.lane
       WHERE i.n <= l.cursor
         AND NOT EXISTS (SELECT 1 FROM work w WHERE w.feed = i.feed AND w.lane = i.lane AND w.n = i.n)
         AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.feed = i.feed AND o.lane = i.lane AND o.n = i.n)
         AND NOT EXISTS (SELECT 1 FROM settled_range r WHERE r.feed = i.feed AND r.lane = i.lane AND r.to_n >= i.n AND r.from_n <= i.n)",
    ),
    (
        "lanes of which more is dropped than the cursor passed",
        "SELECT count(*) FROM lane l JOIN lane_floor f ON f.feed = l.feed AND f.lane = l.lane WHERE f.dropped > l.cursor OR f.dropped > f.floor",
    ),
    (
        "messages that are done and not done",
        "SELECT count(*) FROM work w JOIN outcome o ON o.feed = w.feed AND o.lane = w.lane AND o.n = w.n AND o.run = w.run",
    ),
    (
        "stretches settled twice",
        "SELECT count(*) FROM settled_range a JOIN settled_range b ON b.feed = a.feed AND b.lane = a.lane AND b.to_n >= a.from_n
       AND b.from_n <= a.to_n AND (b.to_n, b.settlement, b.from_n, b.now_ms) > (a.to_n, a.settlement, a.from_n, a.now_ms)",
    ),
    ("work above the cursor", "SELECT count(*) FROM work w JOIN lane l ON l.feed = w.feed AND l.lane = w.lane WHERE w.n > l.cursor"),
    (
        "work without a message",
        "SELECT count(*) FROM work w WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.feed = w.feed AND i.lane = w.lane AND i.n = w.n)",
    ),
    (
        "messages behind nobody",
        "SELECT count(*) FROM work w WHERE w.status = 8 AND NOT EXISTS (SELECT 1 FROM work b WHERE b.feed = w.feed AND b.lane = w.lane
       AND b.key_hash = w.key_hash AND b.n < w.n AND b.blocks)",
    ),
    (
        "waits of nobody",
        "SELECT count(*) FROM wait x WHERE NOT EXISTS (SELECT 1 FROM work w WHERE w.feed = x.feed AND w.lane = x.lane AND w.n = x.n AND w.run = x.run)",
    ),
    (
        "outputs that are stored twice",
        "SELECT count(*) FROM (SELECT 1 AS one FROM output GROUP BY target, feed, lane, n, run, ordinal HAVING count(*) > 1) x",
    ),
    (
        "outputs that were settled before those of an earlier message of their key",
        "SELECT count(*) FROM (SELECT o.n, lag(o.n) OVER (PARTITION BY o.feed, o.lane, o.key ORDER BY s.number, o.position) AS earlier
       FROM output o JOIN settlement s ON s.batch = o.batch WHERE o.run = 0) x WHERE x.earlier > x.n",
    ),
    ("outputs without a settlement", "SELECT count(*) FROM output o WHERE NOT EXISTS (SELECT 1 FROM settlement s WHERE s.batch = o.batch)"),
    (
        "settlements whose numbers have gaps",
        "SELECT count(*) FROM settlement_guard g
       WHERE g.number <> (SELECT count(*) FROM settlement) + (SELECT rows FROM dropped WHERE what = 'settlement')
       OR g.number <> (SELECT max(number) FROM settlement)",
    ),
    (
        "things owned by a host that nobody knows",
        "SELECT (SELECT count(*) FROM feed WHERE owner IS NOT NULL AND owner NOT IN (SELECT id FROM host))
       + (SELECT count(*) FROM lane WHERE owner IS NOT NULL AND owner NOT IN (SELECT id FROM host))
       + (SELECT count(*) FROM target_cursor WHERE owner IS NOT NULL AND owner NOT IN (SELECT id FROM host))",
    ),
];

/// Where the books are.
pub enum Books {
    /// A schema of a PostgreSQL.
    Postgres { url: String, schema: String },
    /// A file.
    Sqlite { path: std::path::PathBuf },
}

impl Books {
    /// Panics with everything that does not balance. For a world that has come to rest and whose hosts have left.
    pub async fn balance(&self) {
        let findings = self.findings().await;
        assert!(findings.is_empty(), "the ledger does not balance: {}", findings.join("; "));
    }

    /// Everything that does not balance.
    pub async fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (what, sql) in MUST_BE_ZERO {
            let count = self.count(sql).await;
            if count != 0 {
                findings.push(format!("{what}: {count}"));
            }
        }
        findings
    }

    /// Waits until no host is connected: what a killed one had begun is done or undone by then.
    pub async fn until_nobody_writes(&self) {
        let sql = "SELECT count(*) FROM pg_stat_activity a JOIN host h ON a.application_name = 'tolk/' || h.id";
        while matches!(self, Self::Postgres { .. }) && self.count(sql).await > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// A number from the tables.
    pub async fn count(&self, sql: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match self {
            Self::Postgres { .. } => sqlx::query_scalar(sql).fetch_one(&mut self.connect().await).await.unwrap(),
            Self::Sqlite { path } => {
                let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
            }
        }
    }

    /// A connection of our own to the PostgreSQL, in the schema.
    pub async fn connect(&self) -> PgConnection {
        let Self::Postgres { url, schema } = self else { panic!("these books are in a file") };
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!("SET search_path = {schema}"))).execute(&mut connection).await.unwrap();
        connection
    }
}
