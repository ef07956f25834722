//! The whole path, end to end: the real binary between real topics (or files) and a real database, killed, swapped, cut off and restarted;
//! what comes out is compared with what was put in.

mod away;
mod check;
mod deliveries;
mod flow;
mod hostile;
mod killer;
mod leave;
#[expect(dead_code, reason = "the fault suite uses the rest")]
mod rig;
mod script;
mod swap;
mod upkeep;
