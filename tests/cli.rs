//! The command line as a person and a script meet it: the real binary, its exit codes, what it says and where.

mod operator;
mod orders;
mod plugins;
pub mod tolk;
mod words;
