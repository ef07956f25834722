//! The rules of child benefit, pure: what is read of the remote answers, how decisions become periods, when periods merge or overlap, and
//! the message that goes out. Knows no host; which question follows which is the translator's.

pub mod benefit;
pub mod call;
pub mod entry;
pub mod message;
pub mod month;
pub mod names;
pub mod period;
pub mod person;
pub mod raw;
pub mod support;
pub mod trouble;
