//! Trouble that waiting may mend: how it is said, and how it is waited out. Knows nothing of what is in trouble.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// A growing pause between tries, said once a stretch of trouble and again every so often.
#[derive(Default)]
pub struct Pause {
    tries: u32,
}

impl Pause {
    /// Things go well again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// Waits, at most 5 s, or until told to stop.
    pub async fn wait(&mut self, who: &str, error: &(dyn std::error::Error + Sync), stop: &CancellationToken) {
        if self.tries.is_power_of_two() || self.tries == 0 {
            tracing::warn!(who, error = %Chain(error), tries = self.tries, "away; waiting, nothing is lost");
        }
        let pause = Duration::from_millis(100 << self.tries.min(6)).min(Duration::from_secs(5));
        self.tries += 1;
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// An error with its sources, on one line.
pub struct Chain<'e>(pub &'e (dyn std::error::Error + Sync));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut told = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            // Many errors tell their source themselves.
            if !told.contains(&text) {
                write!(f, ": {text}")?;
            }
            told = text;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("reach it: {source}")]
    struct Telling {
        source: std::io::Error,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("open it")]
    struct Silent(#[source] Telling);

    #[test]
    fn a_chain_tells_each_source_once() {
        let error = Silent(Telling { source: std::io::Error::other("refused") });
        assert_eq!(Chain(&error).to_string(), "open it: reach it: refused");
    }
}
