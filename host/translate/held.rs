//! Parts of deliveries: the host reads their delivery's entry before their first round. Until that says the delivery is complete they are
//! held; the read is validated when they are settled, so none is held, translated or ignored by what was true a moment before.

use super::engine::Engine;
use super::judge::Said;
use super::run::{Run, Seq};
use crate::delivery::{DELIVERIES, State, Told, entry_key};
use crate::plugin::{Delivery, Reply, Request};

/// What must be done with a part before a guest may see it.
pub(super) enum Hold {
    /// Ask for its delivery's entry.
    Ask(Request),
    /// It ends here for now.
    Ends(Said),
}

impl Engine {
    /// What holds back a message on its way to a guest; nothing: it is no part of a delivery, or of one that is complete.
    pub(super) fn held(&mut self, seq: Seq) -> Option<Hold> {
        let run = self.runs.get_mut(&seq)?;
        let number = run.message.delivery.filter(|_| run.context.delivery.is_none())?;
        let request = Request::Entry { collection: DELIVERIES.to_owned(), key: entry_key(run.message.place.feed.0, number) };
        let Some(answer) = run.hidden.iter().find(|answer| answer.request == request) else { return Some(Hold::Ask(request)) };
        let told: Option<Told> = match &answer.reply {
            Reply::Entry(Some(value)) => serde_json::from_slice(value).ok(),
            _ => None,
        };
        told_to(run, number, told).map(Hold::Ends)
    }

    /// Does it, for the head of a key.
    pub(super) fn hold(&mut self, seq: Seq, hold: Hold) {
        match hold {
            Hold::Ask(request) => {
                self.runs.get_mut(&seq).expect("it was there").open += 1;
                self.wanted.push((seq, request, false));
            }
            Hold::Ends(said) => self.finish(seq, said),
        }
    }
}

fn told_to(run: &mut Run, number: i64, told: Option<Told>) -> Option<Said> {
    let Some(told) = told else {
        return Some(Said::Held { reason: format!("delivery {number} is not complete") });
    };
    if told.state == State::Complete.as_str() {
        let expected = told.expected.and_then(|expected| u64::try_from(expected).ok());
        run.context.delivery = Some(Delivery { id: told.id, params: told.params, expected });
        return None;
    }
    let reason = format!("delivery {number} is invalid: {}", told.reason);
    Some(Said::Prejudged { status: crate::message::Status::Ignored, code: told.code, reason })
}
