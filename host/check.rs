//! The plugin harness: runs one component against captured messages and stored answers, offline, and compares.

pub mod diff;
pub mod fields;
pub mod form;
