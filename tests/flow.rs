//! The translate loop on a real store with a real component: what becomes of messages, in which order, and what others see meanwhile.

mod ends;
mod order;
mod postgres;
mod reads;
