//! The file of static tokens: names, roles and hashes; no token itself is stored. It is read again when it changes, so that taking a
//! token away needs no restart.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use subtle::ConstantTimeEq;

use crate::config::admin::Role;
use crate::plugin::Digest;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The name that stands in the audit trail.
    pub name: String,
    /// What the holder may do.
    pub role: Role,
    digest: Digest,
}

/// The tokens of a file.
pub struct Tokens {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    holders: Vec<Holder>,
    looked: Instant,
    /// When the file was changed last, and its size.
    seen: Option<(SystemTime, u64)>,
}

impl Tokens {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self, String> {
        let (seen, holders) = (stamp(path), read(path)?);
        Ok(Self { path: path.to_owned(), state: Mutex::new(State { holders, looked: Instant::now(), seen }) })
    }

    /// Who holds this token. Every line is compared, each in constant time.
    pub fn holder(&self, token: &str) -> Option<Holder> {
        let digest = Digest::of(token.as_bytes());
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.look_again(&mut state);
        let mut found = None;
        for holder in &state.holders {
            if bool::from(holder.digest.0.ct_eq(&digest.0)) {
                found = Some(holder.clone());
            }
        }
        found
    }

    fn look_again(&self, state: &mut State) {
        if state.looked.elapsed() < LOOK_EVERY {
            return;
        }
        state.looked = Instant::now();
        let seen = stamp(&self.path);
        if seen == state.seen {
            return;
        }
        match read(&self.path) {
            Ok(holders) => {
                tracing::info!(path = %self.path.display(), tokens = holders.len(), "the tokens were read again");
                (state.holders, state.seen) = (holders, seen);
            }
            // Half a file while somebody writes it must not lock everybody out.
            Err(reason) => tracing::warn!(reason, "the tokens could not be read again; the old ones hold"),
        }
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

fn read(path: &Path) -> Result<Vec<Holder>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("read the tokens {}: {error}", path.display()))?;
    parse(&text).map_err(|reason| format!("read the tokens {}: {reason}", path.display()))
}

/// A line each: NAME ROLE SHA256. Empty lines and those that begin with # say nothing.
fn parse(text: &str) -> Result<Vec<Holder>, String> {
    let mut holders: Vec<Holder> = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, role, digest] = words[..] else {
            return Err(format!("line {number} is not NAME ROLE SHA256"));
        };
        let role = Role::from_word(role).ok_or_else(|| format!("line {number}: the role must be reader or operator"))?;
        // What stands there instead may be the token itself, so it is not repeated.
        let digest = digest.parse().map_err(|_| format!("line {number}: the third word is no SHA-256 in hexadecimal"))?;
        if holders.iter().any(|holder| holder.digest == digest) {
            return Err(format!("line {number}: the token of {name} stands in an earlier line already"));
        }
        holders.push(Holder { name: name.to_owned(), role, digest });
    }
    Ok(holders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_wrong_ones_named_without_repeating_them() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let holders = parse(&format!("# people\n\nkari operator {a}\n  bot reader sha256:{b}\n")).unwrap();
        assert_eq!(
            holders.iter().map(|holder| (&*holder.name, holder.role)).collect::<Vec<_>>(),
            [("kari", Role::Operator), ("bot", Role::Reader)]
        );
        for (text, word) in [("kari operator", "line 1"), ("\nkari boss x", "line 2"), ("kari reader hush", "SHA-256")] {
            let reason = parse(text).unwrap_err();
            assert!(reason.contains(word) && !reason.contains("hush"), "{reason}");
        }
        assert!(parse(&format!("a reader {a}\nb operator {a}")).unwrap_err().contains("earlier line"));
    }

    #[test]
    fn a_token_finds_its_holder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("kari operator {}", Digest::of(b"open sesame"))).unwrap();
        let tokens = Tokens::open(file.path()).unwrap();
        assert_eq!(tokens.holder("open sesame").unwrap().name, "kari");
        assert!(tokens.holder("open").is_none() && tokens.holder("").is_none());
        // A change is seen once the file is looked at again.
        std::fs::write(file.path(), "").unwrap();
        tokens.state.lock().unwrap().looked = Instant::now().checked_sub(LOOK_EVERY * 2).unwrap();
        assert!(tokens.holder("open sesame").is_none());
    }
}
