//! What tests and measurements of whole backends share: a client, a federation in this process or in processes of its
//! own, a certificate authority, a DNS server, and peers that misbehave.

pub mod backend;
pub mod client;
pub mod collector;
pub mod dns;
pub mod local;
pub mod memory;
pub mod pki;
pub mod push_service;
pub mod rogue;
mod settings;
pub mod wait;

#[cfg(test)]
mod tests;
