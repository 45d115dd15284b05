//! What apps ask when they start: which API we speak, what this backend offers, and whether features exist that it does
//! not have.

pub(crate) mod http;
