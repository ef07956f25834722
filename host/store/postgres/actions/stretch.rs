//! How actions are kept: a row of `action` is about one message or several of a stretch of a lane, 200 numbers long, so that asking something
//! of very many costs little more than choosing them. Each of them has an action's number of its own; what became of it is a bit of
//! `action_done`.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::super::Try;
use crate::store::{Applied, HandledRun};

/// Messages of a row at most: the bits of `action.which` and `action_done.which`. Stretches begin at its multiples.
pub(super) const STRETCH: i64 = 200;

/// An action's number is its row's, times so many, plus the message's place in the stretch.
const NUMBERS: i64 = 4_096;

/// The number of a row's action of message `n`.
pub(super) fn number(row: i64, n: i64) -> i64 {
    row * NUMBERS + n % STRETCH
}

/// The row of an action.
pub(super) fn row_of(number: i64) -> i64 {
    number / NUMBERS
}

/// Writes what is asked of messages: `asked` has their places (feed, lane, n, size, after_n, not_before_ms), `told` what (command, pinned, kind,
/// force), in one row. Each row that it returns says of how many messages it is.
macro_rules! write_actions {
    () => {
        "INSERT INTO action (feed, lane, n, bytes, which, open, after_n, not_before_ms, command, pinned, kind, force)
         SELECT x.feed, x.lane, x.n, x.bytes, CASE WHEN bit_count(x.which) > 1 THEN x.which END, bit_count(x.which), x.after_n, x.not_before_ms,
           t.command, t.pinned, t.kind, t.force
         FROM (
           SELECT feed, lane, after_n, not_before_ms, min(n) AS n, sum(size) AS bytes,
             bit_or(B'1'::bit(200) >> (n % 200)::int) AS which
           FROM asked GROUP BY feed, lane, after_n, not_before_ms, n / 200) x
         CROSS JOIN told t ORDER BY x.not_before_ms, x.feed, x.lane, x.n
         RETURNING open"
    };
}
pub(in crate::store::postgres) use write_actions;

/// What became of messages, each once: of a stretch as bits, of a single one in its row. `$1`: now; `$2`: the settlement; `$3` to `$6`: rows,
/// bits, results and statuses; `$7` to `$9`: runs, activations and times of what was simply handled.
const APPLY: &str = "
    WITH r AS MATERIALIZED (
        SELECT r.action, r.result, r.became, r.run, r.activation, r.now_ms, a.which IS NULL AS one, r.which::bit(200) & ~coalesce(
          (SELECT bit_or(d.which) FROM action_done d WHERE d.action = r.action), B'0'::bit(200)) AS which
        FROM unnest($3::bigint[], $4::text[], $5::smallint[], $6::smallint[], $7::int[], $8::bigint[], $9::bigint[])
          r(action, which, result, became, run, activation, now_ms)
        JOIN action a ON a.id = r.action AND a.open > 0),
      done AS (
        INSERT INTO action_done (action, settlement, applied_ms, result, became, run, activation, now_ms, which)
        SELECT action, $2, $1, result, became, coalesce(run, -1), activation, now_ms, which FROM r WHERE NOT one AND bit_count(which) > 0),
      single AS (
        UPDATE action a SET open = 0, result = r.result, became = r.became, applied_ms = $1, settlement = $2 FROM r
        WHERE a.id = r.action AND r.one)
    UPDATE action a SET open = a.open - r.messages
    FROM (SELECT action, sum(bit_count(which))::int AS messages FROM r WHERE NOT one GROUP BY action) r WHERE a.id = r.action";

/// Which messages of a stretch, as the column holds it: after the four bytes that count them.
pub(super) struct Bits(Vec<u8>);

impl Bits {
    /// Those of a column that may be null.
    pub fn read(row: &PgRow, column: usize) -> Try<Option<Self>> {
        Ok(row.try_get_unchecked::<Option<Vec<u8>>, _>(column)?.map(Self))
    }

    pub fn has(&self, n: i64) -> bool {
        let place = usize::try_from(n % STRETCH).expect("numbers are positive");
        self.0[4 + place / 8] & (0x80 >> (place % 8)) != 0
    }

    /// The numbers of the stretch that `n` is of.
    pub fn numbers(&self, n: i64) -> impl Iterator<Item = i64> {
        let begin = n - n % STRETCH;
        (begin..begin + STRETCH).filter(|n| self.has(*n))
    }
}

/// Notes what became of actions; each once.
pub(in crate::store::postgres) async fn apply(connection: &mut PgConnection, number: i64, now_ms: i64, applied: &[Applied]) -> Try<()> {
    if applied.is_empty() {
        return Ok(());
    }
    let mut rows: BTreeMap<(i64, i16, i16, Option<HandledRun>), Vec<u8>> = BTreeMap::new();
    for action in applied {
        let of = (row_of(action.id), action.result.code(), action.became.code(), action.handled);
        let place = usize::try_from(action.id % NUMBERS).expect("numbers are positive");
        rows.entry(of).or_insert_with(|| vec![b'0'; STRETCH as usize])[place] = b'1';
    }
    sqlx::query(APPLY)
        .bind(now_ms)
        .bind(number)
        .bind(rows.keys().map(|(action, ..)| *action).collect::<Vec<_>>())
        .bind(rows.values().map(|bits| String::from_utf8_lossy(bits).into_owned()).collect::<Vec<_>>())
        .bind(rows.keys().map(|(_, result, ..)| *result).collect::<Vec<_>>())
        .bind(rows.keys().map(|(_, _, became, _)| *became).collect::<Vec<_>>())
        .bind(rows.keys().map(|(.., handled)| handled.map(|handled| handled.run)).collect::<Vec<_>>())
        .bind(rows.keys().map(|(.., handled)| handled.map(|handled| handled.activation)).collect::<Vec<_>>())
        .bind(rows.keys().map(|(.., handled)| handled.map(|handled| handled.now_ms)).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}
