//! Moves messages from the inbox through their translators into settlements. Knows nothing of sources and sinks.

pub mod actions;
pub mod answers;
mod away;
pub mod ends;
pub mod engine;
pub mod guests;
pub mod held;
pub mod ids;
pub mod judge;
pub mod lanes;
pub mod needs;
pub mod overlay;
pub mod pace;
pub mod resolve;
pub mod revisit;
pub mod run;
pub mod settle;
pub mod suspects;
