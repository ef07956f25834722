//! How actions are kept: a row of `action` is about one message or a stretch of a lane, at most 200 messages, so that asking something of
//! very many costs little more than choosing them. Each of them has an action's number of its own; what became of it is a bit of `action_done`.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;

use super::super::Try;
use crate::store::Applied;

/// An action's number is its row's, times so many, plus the message's place in the stretch.
const NUMBERS: i64 = 4_096;

/// The number of the action of one message of a stretch.
pub(super) fn number(row: i64, ordinal: usize) -> i64 {
    row * NUMBERS + i64::try_from(ordinal).expect("a stretch is short")
}

/// The row of an action.
pub(super) fn row_of(number: i64) -> i64 {
    number / NUMBERS
}

/// Writes what is asked of messages: `asked` has their places (feed, lane, n, after_n, not_before_ms), `told` what (command, pinned, kind,
/// force), in one row. Each row that it returns says of how many messages it is.
macro_rules! write_actions {
    () => {
        "INSERT INTO action (feed, lane, n, last_n, ns, open, after_n, not_before_ms, command, pinned, kind, force)
         SELECT x.feed, x.lane, x.n, CASE WHEN x.messages > 1 THEN x.last_n END, CASE WHEN x.messages > 1 THEN x.ns END, x.messages, x.after_n,
           x.not_before_ms, t.command, t.pinned, t.kind, t.force
         FROM (
           SELECT feed, lane, after_n, not_before_ms, min(n) AS n, max(n) AS last_n, count(*)::int AS messages, array_agg(n ORDER BY n) AS ns
           FROM (SELECT *, (row_number() OVER (PARTITION BY feed, lane, after_n, not_before_ms ORDER BY n) - 1) / 200 AS stretch FROM asked) y
           GROUP BY feed, lane, after_n, not_before_ms, stretch) x
         CROSS JOIN told t ORDER BY x.not_before_ms, x.feed, x.lane, x.n
         RETURNING open"
    };
}
pub(in crate::store::postgres) use write_actions;

/// What became of messages, each once: of a stretch as bits, of a single one in its row. `$1`: now; `$2`: the settlement; `$3` to `$6`: rows,
/// bits, results and statuses.
const APPLY: &str = "
    WITH r AS MATERIALIZED (
        SELECT r.action, r.result, r.became, a.last_n IS NULL AS one, r.which::bit(200) & ~coalesce(
          (SELECT bit_or(d.which) FROM action_done d WHERE d.action = r.action), B'0'::bit(200)) AS which
        FROM unnest($3::bigint[], $4::text[], $5::smallint[], $6::smallint[]) r(action, which, result, became)
        JOIN action a ON a.id = r.action AND a.open > 0),
      done AS (
        INSERT INTO action_done (action, settlement, applied_ms, result, became, which)
        SELECT action, $2, $1, result, became, which FROM r WHERE NOT one AND bit_count(which) > 0),
      single AS (
        UPDATE action a SET open = 0, result = r.result, became = r.became, applied_ms = $1, settlement = $2 FROM r
        WHERE a.id = r.action AND r.one)
    UPDATE action a SET open = a.open - r.messages
    FROM (SELECT action, sum(bit_count(which))::int AS messages FROM r WHERE NOT one GROUP BY action) r WHERE a.id = r.action";

/// Messages of a row at most: the bits of `action_done.which`.
const STRETCH_MAX: usize = 200;

/// Rows of actions, and which of their messages these are about, as digits.
pub(super) fn bits_of(numbers: &[i64]) -> BTreeMap<i64, String> {
    let mut rows = BTreeMap::new();
    for number in numbers {
        set(rows.entry(row_of(*number)).or_default(), *number);
    }
    rows.into_iter().map(|(row, bits)| (row, digits(bits))).collect()
}

fn set(bits: &mut Vec<u8>, number: i64) {
    bits.resize(STRETCH_MAX, b'0');
    bits[usize::try_from(number % NUMBERS).expect("numbers are positive")] = b'1';
}

fn digits(bits: Vec<u8>) -> String {
    String::from_utf8(bits).expect("they are digits")
}

/// Notes what became of actions; each once.
pub(in crate::store::postgres) async fn apply(connection: &mut PgConnection, number: i64, now_ms: i64, applied: &[Applied]) -> Try<()> {
    if applied.is_empty() {
        return Ok(());
    }
    let mut rows: BTreeMap<(i64, i16, i16), Vec<u8>> = BTreeMap::new();
    for action in applied {
        let of = (row_of(action.id), action.result.code(), action.became.code());
        set(rows.entry(of).or_default(), action.id);
    }
    sqlx::query(APPLY)
        .bind(now_ms)
        .bind(number)
        .bind(rows.keys().map(|(action, ..)| *action).collect::<Vec<_>>())
        .bind(rows.values().map(|bits| digits(bits.clone())).collect::<Vec<_>>())
        .bind(rows.keys().map(|(_, result, _)| *result).collect::<Vec<_>>())
        .bind(rows.keys().map(|(.., became)| *became).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}
