//! The lock file beside a database: SQLite serves one host. The kernel lets go of it when the process ends, however it ends.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::store::{Error, Result};

/// The lock of one database file.
pub(super) struct Lock {
    path: PathBuf,
    held: Mutex<Option<File>>,
}

impl Lock {
    /// The lock beside a database, not yet held.
    pub(super) fn beside(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        Self { path: path.into(), held: Mutex::new(None) }
    }

    /// Takes the lock, or keeps it, under the name of a host.
    pub(super) fn take(&self, name: &str) -> Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() {
            return Ok(());
        }
        let broken = |source: std::io::Error| Error::Away { place: self.path.display().to_string(), source: source.into() };
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&self.path).map_err(broken)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut other = String::new();
                // The name is for people; without it the refusal stands all the same.
                let _ = file.read_to_string(&mut other);
                return Err(Error::InUse { path: self.path.with_extension("").display().to_string(), other });
            }
            Err(TryLockError::Error(source)) => return Err(broken(source)),
        }
        file.set_len(0).and_then(|()| write!(file, "{name} (process {})", std::process::id())).map_err(broken)?;
        *held = Some(file);
        Ok(())
    }

    /// Whether it is held here.
    pub(super) fn is_held(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Lets go.
    pub(super) fn release(&self) {
        if let Some(file) = self.held.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Said outright: a child process that is just being started holds a copy of the handle for a moment, and closing ours would
            // leave the lock with it.
            let _ = file.unlock();
        }
    }
}
