//! The admin door as programs meet it: real sockets, real tokens, a real host behind it.

mod door;
mod issuer;
mod orders;
mod resources;
mod rig;
