//! The rules of Arena's three tables, as pure functions where they can be, for translators that are thin. Knows no host.

pub mod activity;
pub mod event;
pub mod external;
pub mod names;
pub mod parent;
pub mod participant;
pub mod payload;
pub mod reason;
pub mod remote;
pub mod state;
pub mod status;
pub mod time;
