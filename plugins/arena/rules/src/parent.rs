//! The first steps of every participant: its activity must be known, translated, valid, and known to the remote system.

use tolk_sdk::{Ask, Context, Entry, Outcome, Stop, Write};

use crate::activity::is_supported;
use crate::names::collection;
use crate::remote::{RemoteActivity, activity_call, activity_id_call, read_activity, read_activity_id};
use crate::state::ActivityState;

/// A participant's activity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The activity as the remote system knows it.
    pub remote: RemoteActivity,
    /// The change of the entry, where the remote id was not known before.
    pub write: Option<Write>,
}

/// Finds the activity, or stops. `ahead` are questions that will be asked anyway; they share a round with the last one here.
pub fn parent(ctx: &Context, activity_id: i64, ahead: impl Ask) -> Result<Parent, Stop> {
    let Some(state) = ctx.entry_json::<ActivityState>(collection::ACTIVITY, activity_id)? else {
        let text = format!("Venter på at gjennomføring med id={activity_id} skal bli håndtert");
        return Err(Outcome::waiting("activity-missing", text).on(Entry::new(collection::ACTIVITY, activity_id)).into());
    };
    if !is_supported(&state.tiltak_kode) {
        let text = format!("Deltaker på gjennomføring med arenakode {activity_id} er ikke støttet");
        return Err(Outcome::ignored("unsupported-activity", text).into());
    }
    if !state.is_valid {
        let text = format!("Deltaker på ugyldig gjennomføring <{activity_id}>");
        return Err(Outcome::waiting("activity-invalid", text).on(Entry::new(collection::ACTIVITY, activity_id)).into());
    }
    let (remote_id, write) = match state.id {
        Some(id) => (id, None),
        None => {
            let Some(id) = read_activity_id(ctx.call(activity_id_call(activity_id))?)? else {
                let text = format!("Venter på at gjennomføring med id={activity_id} skal bli håndtert av Mulighetsrommet");
                return Err(Outcome::retry("remote-id-missing", text).into());
            };
            let write = ActivityState { id: Some(id.clone()), ..state }.write(activity_id);
            (id, Some(write))
        }
    };
    ctx.prefetch(ahead);
    let remote = read_activity(ctx.call(activity_call(&remote_id))?)?;
    Ok(Parent { remote, write })
}
