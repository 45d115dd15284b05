//! Whole federators on loopback: real sockets, real TLS, a real DNS server; and the rules below them one by one.

mod balancer;
mod calls;
mod discovery;
mod outages;
mod rules;
mod support;
mod trust;
mod world;
