//! The one table between the system's admin calls and the host's actions, and how a list of ids is read.

use anyhow::bail;
use tolk::store::{ActionKind, ActionResult};
use uuid::Uuid;

/// What a call asks of messages.
pub fn kind(path: &str) -> Option<ActionKind> {
    Some(match path {
        "/start/stopp" => ActionKind::Stop,
        "/start/avslutt" => ActionKind::Finish,
        "/start/restart" => ActionKind::Restart,
        _ => return None,
    })
}

/// The system's word for what became of an action; `state` is the recipient's state before it, `None`: there is no such recipient.
pub fn result(kind: ActionKind, state: Option<&str>, result: Option<ActionResult>) -> anyhow::Result<&'static str> {
    let (Some(state), Some(result)) = (state, result) else { return Ok("IKKE_FUNNET") };
    Ok(match (kind, result, state) {
        (ActionKind::Stop, ActionResult::Applied, _) => "STOPPET",
        (ActionKind::Stop, ActionResult::Already, "Stoppet") => "ALLEREDE_STOPPET",
        (ActionKind::Finish, ActionResult::Applied, _) => "AVSLUTTET",
        (ActionKind::Stop | ActionKind::Finish, ActionResult::Already, "Ferdig") => "ALLEREDE_FERDIG",
        (ActionKind::Stop | ActionKind::Finish, ActionResult::Already, "Avsluttet") => "ALLEREDE_AVSLUTTET",
        (ActionKind::Restart, ActionResult::Applied, _) => "RESTARTET",
        (ActionKind::Restart, ActionResult::NotNeeded, _) => "IKKE_NODVENDIG",
        (ActionKind::Restart, ActionResult::Refused, "Avsluttet") => "IllegalArgumentException",
        other => bail!("the host answers an action with {other:?}: the table has no word for it"),
    })
}

/// The ids of a form: one a line, what no uuid can hold is left out, empty lines are none. `None`: a line is no uuid, or there is none.
pub fn ids(list: &str) -> Option<Vec<Uuid>> {
    let lines = list.lines().map(|line| line.chars().filter(|c| matches!(c, '0'..='9' | 'a'..='f' | '-')).collect::<String>());
    let ids: Vec<Uuid> = lines.filter(|line| !line.is_empty()).map(|line| Uuid::try_parse(&line)).collect::<Result<_, _>>().ok()?;
    (!ids.is_empty()).then_some(ids)
}
