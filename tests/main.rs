//! The one integration-test binary: each module is a story, `support` holds what they share.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

mod admin;
mod barnetrygd;
mod check;
mod cli;
mod endpoint;
mod explain;
mod flow;
mod kafka;
mod path;
mod rehearsal;
mod sandbox;
mod store;
mod tidy;
