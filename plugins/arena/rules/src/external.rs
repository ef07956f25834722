//! The guard against participants that another system owns: their ids are remembered, nothing of them is published.

use tolk_sdk::{Binding, Context, Dismissal, KeyOf, KnownId, Outcome, Stop, Write};

use crate::names::namespace;
use crate::participant::{Kind, Participant};

/// Stops for a participant of another system. `write` is what was learned of its activity on the way.
pub fn guard(ctx: &Context, row: &Participant, write: Option<&Write>) -> Result<(), Stop> {
    let arena_id = row.arena_id;
    let ignored = |code: &str, reason: String| Dismissal { writes: write.cloned().into_iter().collect(), ..Outcome::ignored(code, reason) };
    let Some(external_id) = &row.external_id else {
        return match (row.is_external_type, row.kind) {
            (false, _) => Ok(()),
            (true, kind) => {
                Err(ignored("external-type", format!("{} har deltakertypekode ekstern, arenaid {arena_id}", noun(kind))).into())
            }
        };
    };
    let Some(id) = uuid(external_id) else {
        return Err(Outcome::failed("bad-external-id", format!("EKSTERN_ID {external_id} er ikke en uuid")).field("EKSTERN_ID").into());
    };
    let names = match row.kind {
        Kind::Live => namespace::PARTICIPANT,
        Kind::Hist => namespace::HIST,
    };
    let (owner, known) = ctx.all((KeyOf::new(names, &id), KnownId::new(names, arena_id)))?;
    let dismissal = ignored("external-id", format!("{} har eksternid {external_id}", noun(row.kind)));
    match owner {
        Some(owner) if owner == arena_id.to_string() => Err(dismissal.into()),
        Some(owner) => {
            let row_noun = match row.kind {
                Kind::Live => "arenadeltaker",
                Kind::Hist => "arena hist-deltaker",
            };
            let text = format!("Fikk {row_noun} med id {arena_id} og EKSTERN_ID {external_id} men arenaId er allerede mappet til {owner}");
            Err(Outcome::rejected("external-id-conflict", text).field("EKSTERN_ID").into())
        }
        // An id that the row has already stays, in silence.
        None if known.is_some() => Err(dismissal.into()),
        None => Err(dismissal.bind(Binding::new(names, arena_id, id)).into()),
    }
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Live => "Deltaker",
        Kind::Hist => "hist-deltaker",
    }
}

/// A uuid in its one form, lower case, or `None` where the text is not one.
pub fn uuid(text: &str) -> Option<String> {
    let dashes = [8, 13, 18, 23];
    let fits = |(at, byte): (usize, u8)| if dashes.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() };
    (text.len() == 36 && text.bytes().enumerate().all(fits)).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_one_form() {
        assert_eq!(uuid("0AA0F5A8-3e3f-4d51-a1a0-8b7f0c9d1e2f").as_deref(), Some("0aa0f5a8-3e3f-4d51-a1a0-8b7f0c9d1e2f"));
        for wrong in ["", "0aa0f5a83e3f4d51a1a08b7f0c9d1e2f", "0aa0f5a8-3e3f-4d51-a1a0-8b7f0c9d1e2g", "0aa0f5a8-3e3f-4d51-a1a0-8b7f0c9d1e2"]
        {
            assert_eq!(uuid(wrong), None, "{wrong}");
        }
    }
}
