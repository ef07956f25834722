//! What the stories of this test binary share. Each part knows one outside thing.

pub mod guests;
pub mod host;
pub mod kafka;
pub mod services;
pub mod stub;

pub use services::{kafka_brokers, postgres_tcp_url, postgres_url};
