//! Push by the vendors of phones: not offered. Apps keep a socket instead.

pub(crate) mod http;
