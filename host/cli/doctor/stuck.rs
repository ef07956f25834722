//! The doctor's look at messages that have not come out: the oldest of each reason, rings of waits, pauses.

use super::Report;
use crate::cli::listing;
use crate::config::Config;
use crate::explain::{self, Known, text};
use crate::store::{self, Store};

/// Groups told; more are a flood.
const GROUPS_MAX: usize = 12;

pub(super) async fn check(config: &Config, store: &dyn Store, report: &mut Report) {
    let looked = async {
        let known = Known::read(config, store, None).await?;
        let stuck = explain::stuck(&known, store).await?;
        Ok::<_, store::Error>((known, stuck))
    };
    let (known, stuck) = match looked.await {
        Ok(found) => found,
        Err(error) => return report.away("stuck", error.to_string(), "see the store's line above"),
    };
    for paused in known.pauses() {
        let text = format!("paused by {} since {}: {}", paused.by, listing::time(paused.since_ms), paused.why);
        report.warn(explain::named(&paused.of), text, explain::resume(&paused.of));
    }
    for ring in &stuck.cycles {
        let mend = "let one of them go: tolk ignore, finish or retry it after its entry was put by hand";
        report.warn("waits", format!("a ring: {}", text::told(ring)), mend);
    }
    for group in stuck.groups.iter().take(GROUPS_MAX) {
        let code = if group.code.is_empty() { String::new() } else { format!(" {}", group.code) };
        let text = format!(
            "{} messages, the oldest {} since {}: {}",
            group.messages,
            group.oldest,
            listing::time(group.received_ms),
            listing::cut(&group.reason, 120)
        );
        report.warn(format!("{}{code}", group.status), text, format!("tolk explain {}", group.id));
    }
}
