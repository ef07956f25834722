//! Many rows in one statement: each statement costs a trip to the connection's thread, so rows go by the hundred.
//! Texts come in few sizes, so that each stays prepared.

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type};

/// Rows in a statement, largest first. Two hundred rows of eighteen columns stay far below SQLite's 32,766 parameters.
pub(super) const SIZES: [usize; 4] = [200, 40, 8, 1];

/// A statement around `VALUES (..), (..)`.
#[derive(Clone, Copy)]
pub(super) struct Bulk {
    /// What stands before `VALUES`.
    pub(super) before: &'static str,
    /// The columns of a row.
    pub(super) columns: usize,
    /// What stands after the rows.
    pub(super) after: &'static str,
}

/// The values of rows, in order.
#[derive(Default)]
pub(super) struct Values(SqliteArguments);

impl Values {
    /// Adds a value.
    pub(super) fn add<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        self.0.add(value).expect("plain values have a stored form");
        self
    }

    /// The values as a statement takes them.
    pub(super) fn into_inner(self) -> SqliteArguments {
        self.0
    }
}

impl Bulk {
    /// Runs the statement over all rows; the number of rows affected.
    pub(super) async fn run<T: Sync>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(&mut Values, &T) + Send + Sync,
    ) -> sqlx::Result<u64> {
        let mut affected = 0;
        for part in parts(rows) {
            affected += self.statement(part, &bind).execute(&mut *connection).await?.rows_affected();
        }
        Ok(affected)
    }

    /// Runs the statement over all rows; what it returns.
    pub(super) async fn fetch<T: Sync>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(&mut Values, &T) + Send + Sync,
    ) -> sqlx::Result<Vec<SqliteRow>> {
        let mut found = Vec::new();
        for part in parts(rows) {
            found.append(&mut self.statement(part, &bind).fetch_all(&mut *connection).await?);
        }
        Ok(found)
    }

    /// The statement for one part of the rows.
    pub(super) fn statement<T>(&self, part: &[T], bind: impl Fn(&mut Values, &T)) -> Query<'static, Sqlite, SqliteArguments> {
        let mut values = Values::default();
        values.0.reserve(part.len() * self.columns, 0);
        part.iter().for_each(|row| bind(&mut values, row));
        sqlx::query_with(AssertSqlSafe(self.text(part.len())), values.0)
    }

    /// The statement's text for some number of rows.
    pub(super) fn text(&self, rows: usize) -> String {
        let row = 2 * self.columns + 2;
        let mut text = String::with_capacity(self.before.len() + self.after.len() + 8 + rows * row);
        text.push_str(self.before);
        text.push_str(" VALUES ");
        for i in 0..rows {
            text.push_str(if i == 0 { "(?" } else { ",(?" });
            (1..self.columns).for_each(|_| text.push_str(",?"));
            text.push(')');
        }
        text.push_str(self.after);
        text
    }
}

/// Rows cut into parts of the sizes, greedily.
pub(super) fn parts<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
        let (part, rest) = rows.split_at(size);
        rows = rest;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_rows_in_order() {
        for count in [0_usize, 1, 7, 8, 249, 1_000] {
            let rows: Vec<usize> = (0..count).collect();
            let cut: Vec<_> = parts(&rows).collect();
            assert_eq!(cut.concat(), rows);
            assert!(cut.iter().all(|part| SIZES.contains(&part.len())));
        }
    }

    #[test]
    fn the_text_has_one_mark_for_each_value() {
        let bulk = Bulk { before: "INSERT INTO t", columns: 3, after: " RETURNING a" };
        assert_eq!(bulk.text(2), "INSERT INTO t VALUES (?,?,?),(?,?,?) RETURNING a");
    }
}
