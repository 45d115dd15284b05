//! What this backend can do, and the keys with which it signs for conversations.

pub(crate) mod http;
mod keys;
#[cfg(test)]
mod tests;

pub(crate) use keys::{KeyError, RemovalKeys};
