//! Tolk, a WebAssembly-plugin transformation host: persists every message and translates it in sandboxed components.

pub mod delivery;
pub mod faults;
pub mod feed;
pub mod message;
pub mod plugin;
pub mod trouble;

pub mod ingest;
pub mod publish;
pub mod sink;
pub mod source;
pub mod translate;
pub mod upkeep;

pub mod endpoint;
pub mod registry;
pub mod runtime;
pub mod store;

pub mod check;
pub mod explain;
pub mod replay;

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod telemetry;
