//! Compiles components in a child process with limits, and seals what comes out of it.

use std::process::ExitCode;

/// The hidden subcommand of the child.
pub const SUBCOMMAND: &str = "__compile";

/// If this process is a compiling child, does its work; to be called before anything else in `main`.
pub fn child() -> Option<ExitCode> {
    (std::env::args().nth(1)? == SUBCOMMAND).then_some(ExitCode::FAILURE)
}
