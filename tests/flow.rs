//! The translate loop on a real store with a real component: what becomes of messages, in which order, and what others see meanwhile.

mod actions;
mod away;
mod deliveries;
mod ends;
mod model;
mod order;
mod pacing;
mod postgres;
mod reads;
