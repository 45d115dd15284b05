//! The tables of a simulated backend: those of both components, and what tells afterwards what had to happen.

use aldis_delivery::Component;
use aldis_storage::{Db, Migration, StoreError};
use aldis_types::Domain;

macro_rules! component {
    ($name:literal) => {
        &[
            Migration { name: "outbox", sql: aldis_delivery::schema!($name) },
            Migration { name: "keys of outbox", sql: aldis_delivery::schema_keys!($name) },
            Migration { name: "ages", sql: aldis_delivery::schema_ages!($name) },
            Migration { name: "stores heard of last", sql: aldis_delivery::schema_incarnations!($name) },
            Migration { name: "bounds", sql: aldis_delivery::schema_bounds!($name) },
            Migration { name: "refusals", sql: aldis_delivery::schema_refusals!($name) },
        ]
    };
}

const USERS: &[Migration] = component!("users");
const CONVERSATIONS: &[Migration] = component!("conversations");

/// | table | holds |
/// |---|---|
/// | `changes` | what this backend told another one, or its own notifications, in order |
/// | `effects` | what it was told by another one, in order |
/// | `pushed` | what its notifications got |
const SIMULATION: &[Migration] = &[Migration {
    name: "simulation",
    sql: "CREATE TABLE changes (number INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER NOT NULL, component TEXT NOT NULL, \
              peer TEXT NOT NULL, lane BLOB NOT NULL, sequence INTEGER NOT NULL, nature INTEGER NOT NULL); \
          CREATE TABLE effects (number INTEGER PRIMARY KEY AUTOINCREMENT, origin TEXT NOT NULL, component TEXT NOT NULL, \
              lane BLOB NOT NULL, what INTEGER NOT NULL, id INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL); \
          CREATE INDEX effects_by_id ON effects (id); \
          CREATE TABLE pushed (number INTEGER PRIMARY KEY AUTOINCREMENT, event BLOB NOT NULL UNIQUE, id INTEGER NOT NULL);",
}];

/// What a row of `effects` is.
pub(crate) const EVENT: i64 = 0;
pub(crate) const MISSED: i64 = 1;
pub(crate) const RENEWED: i64 = 2;

pub(crate) const COMPONENTS: [Component; 2] = [Component::Users, Component::Conversations];

/// Brings a store up to date.
pub(crate) async fn prepare(db: &Db, domain: &Domain) -> Result<(), StoreError> {
    db.belongs_to(domain).await?;
    db.migrate("users", USERS).await?;
    db.migrate("conversations", CONVERSATIONS).await?;
    db.migrate("simulation", SIMULATION).await
}
