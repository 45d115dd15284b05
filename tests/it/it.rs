//! Whole backends through their client API: two or three in this process, or as processes that are killed.
//!
//! Every test has a federation of its own, waits for conditions and never for time, and needs nothing installed.

mod accounts;
mod administration;
mod assets;
mod calls;
mod clients;
mod connections;
mod consumers;
mod conversations;
mod crash;
mod doctor;
mod documentation;
mod federation_errors;
mod federation_failures;
mod federation_failures_users;
mod large_files;
mod lost_answers;
mod messages;
mod mistakes;
mod notifications;
mod operations;
mod outbox;
mod reconciliation;
mod remotes;
mod search;
mod security;
mod support;
mod surface;
mod wakes;
