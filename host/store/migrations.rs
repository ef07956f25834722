//! Migrations as both stores know them: numbered, forward only, noted in the table `schema_version (version, name, applied_ms)`.
//! Knows no SQL beyond the files' text.

use super::{Error, Result};

/// One step of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number, from 1 without gaps.
    pub version: i64,
    /// The file's name without its ending.
    pub name: &'static str,
    /// What it runs.
    pub sql: &'static str,
}

/// Refuses tables that are newer than this binary.
pub fn refuse_newer(found: i64, known: i64) -> Result<()> {
    if found > known {
        return Err(Error::Schema { found, known, advice: "run the newer release that made them" });
    }
    Ok(())
}

/// Refuses tables that are newer than this binary, or older.
pub fn refuse_other(found: i64, known: i64) -> Result<()> {
    refuse_newer(found, known)?;
    if found < known {
        return Err(Error::Schema { found, known, advice: "run `tolk migrate`" });
    }
    Ok(())
}

/// The version of the newest migration.
pub fn newest(migrations: &[Migration]) -> i64 {
    migrations.last().map_or(0, |migration| migration.version)
}
