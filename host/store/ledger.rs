//! The ledger: equations that hold in every committed state, however hosts were killed, and what was found for each. Knows no SQL.

use async_trait::async_trait;
use serde::Serialize;

use super::Result;

/// One equation, and its two sides as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Equation {
    /// A stable name.
    pub name: &'static str,
    /// What must be equal, as a sentence.
    pub says: &'static str,
    /// The left side.
    pub left: i64,
    /// The right side.
    pub right: i64,
    /// Where it does not hold: one place of them.
    pub sample: Option<String>,
}

impl Equation {
    /// How far the sides are apart; 0 where the equation holds.
    pub fn difference(&self) -> i64 {
        self.left.abs_diff(self.right).try_into().unwrap_or(i64::MAX)
    }

    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.left == self.right
    }
}

/// How one equation is read: a statement that gives one row of (left, right, sample).
pub(super) struct Reading {
    pub(super) name: &'static str,
    pub(super) says: &'static str,
    pub(super) sql: &'static str,
}

impl Reading {
    pub(super) fn equation(&self, (left, right, sample): (i64, i64, Option<String>)) -> Equation {
        let sample = sample.filter(|_| left != right);
        Equation { name: self.name, says: self.says, left, right, sample }
    }
}

/// Reads the ledger.
#[async_trait]
pub trait Ledger {
    /// Every equation, as of one moment. Walks the tables whole: seconds for a million rows.
    async fn ledger(&self) -> Result<Vec<Equation>>;
}
