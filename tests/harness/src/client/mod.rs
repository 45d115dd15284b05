//! A user of one backend on one device, as an app behaves towards the client API.
//!
//! Nothing is encrypted: the backend never reads ciphertext, so a marked plaintext tests as much and shows more.

mod account;
mod assets;
mod conformance;
mod consumer;
pub mod http;
mod mail;
mod message;
mod people;
pub mod prekeys;
mod socket;
pub mod wire;

pub use account::{Body, PASSWORD, Person, Session, User};
pub use assets::{StoredAsset, asset_form};
pub use conformance::conforming;
pub use consumer::{Consumed, Consumer, Step};
pub use http::{Answer, Api, Call, encode};
pub use mail::{Mail, MailFolder};
pub use message::{Draft, MESSAGE, PROTOBUF, Received, Recipients, Status, path_of, users};
pub use people::{connect, members_of};
pub use socket::{Event, Notification, Socket};
