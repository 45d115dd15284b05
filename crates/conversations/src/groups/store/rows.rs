//! Tables of this service and the rows that several stores share.

use aldis_storage::{Migration, StoreError};
use aldis_types::{Access, AccessRole, ConversationType, Protocol, UserId};
use rusqlite::{Connection, Row, ToSql, params};

use crate::groups::{
    model::{Metadata, Settings},
    store::Mark,
};

/// The schema of this service.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { name: "outbox", sql: aldis_delivery::schema!("conversations") },
    Migration {
        name: "conversations",
        sql: "
CREATE TABLE conversations_heads (
    id BLOB PRIMARY KEY, kind INTEGER NOT NULL, creator BLOB, name TEXT, access TEXT NOT NULL,
    access_roles TEXT NOT NULL, message_timer INTEGER, receipt_mode INTEGER, protocol INTEGER NOT NULL,
    version INTEGER NOT NULL, last_sequence INTEGER NOT NULL, last_time INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE conversations_members (
    conversation BLOB NOT NULL, domain TEXT NOT NULL, user BLOB NOT NULL, role TEXT NOT NULL,
    muted_status INTEGER, muted_ref TEXT, archived INTEGER NOT NULL DEFAULT 0, archived_ref TEXT,
    hidden INTEGER NOT NULL DEFAULT 0, hidden_ref TEXT,
    PRIMARY KEY (conversation, domain, user)) WITHOUT ROWID;
CREATE TABLE conversations_by_user (
    user BLOB NOT NULL, domain TEXT NOT NULL, conversation BLOB NOT NULL,
    PRIMARY KEY (user, domain, conversation)) WITHOUT ROWID;
CREATE TABLE conversations_remote (
    domain TEXT NOT NULL, conversation BLOB NOT NULL, user BLOB NOT NULL,
    muted_status INTEGER, muted_ref TEXT, archived INTEGER NOT NULL DEFAULT 0, archived_ref TEXT,
    hidden INTEGER NOT NULL DEFAULT 0, hidden_ref TEXT,
    PRIMARY KEY (domain, conversation, user)) WITHOUT ROWID;
CREATE TABLE conversations_relations (
    conversation BLOB NOT NULL, user BLOB NOT NULL, time INTEGER NOT NULL, relation INTEGER NOT NULL,
    PRIMARY KEY (conversation, user)) WITHOUT ROWID;
CREATE TABLE conversations_answers (key BLOB PRIMARY KEY, answer BLOB NOT NULL, created INTEGER NOT NULL);
CREATE INDEX conversations_answers_by_age ON conversations_answers (created);
CREATE TABLE conversations_keys (name TEXT PRIMARY KEY, secret BLOB NOT NULL) WITHOUT ROWID;
",
    },
    Migration {
        name: "members by backend, keys of the outbox",
        sql: concat!(
            "CREATE INDEX conversations_members_by_domain ON conversations_members (domain, conversation);",
            aldis_delivery::schema_keys!("conversations")
        ),
    },
    Migration { name: "ages in the outbox", sql: aldis_delivery::schema_ages!("conversations") },
    Migration { name: "stores heard of last", sql: aldis_delivery::schema_incarnations!("conversations") },
    Migration { name: "bounds of the outbox", sql: aldis_delivery::schema_bounds!("conversations") },
    Migration { name: "refusals of what other backends told", sql: aldis_delivery::schema_refusals!("conversations") },
];

const fn protocol_number(protocol: Protocol) -> i64 {
    match protocol {
        Protocol::Proteus => 1,
        Protocol::Mls => 2,
        Protocol::Mixed => 3,
    }
}

/// The columns of a head that hold metadata, in the order of [`METADATA_COLUMNS`].
pub(crate) struct MetadataRow {
    kind: u8,
    creator: Option<UserId>,
    name: Option<String>,
    access: String,
    access_roles: String,
    message_timer: Option<i64>,
    receipt_mode: Option<i32>,
    protocol: i64,
}

/// The columns that [`MetadataRow`] reads and writes.
pub(crate) const METADATA_COLUMNS: &str =
    "kind, creator, name, access, access_roles, message_timer, receipt_mode, protocol";

fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt("conversations_heads"))
}

impl MetadataRow {
    pub(crate) fn of(metadata: &Metadata) -> Result<Self, StoreError> {
        Ok(Self {
            kind: metadata.kind.number(),
            creator: metadata.creator,
            name: metadata.name.clone(),
            access: json(&metadata.access)?,
            access_roles: json(&metadata.access_roles)?,
            message_timer: metadata.message_timer,
            receipt_mode: metadata.receipt_mode,
            protocol: protocol_number(metadata.protocol),
        })
    }

    /// Reads from column `at` on.
    pub(crate) fn read(row: &Row<'_>, at: usize) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            kind: row.get(at)?,
            creator: row.get::<_, Option<[u8; 16]>>(at + 1)?.map(|bytes| UserId::new(uuid::Uuid::from_bytes(bytes))),
            name: row.get(at + 2)?,
            access: row.get(at + 3)?,
            access_roles: row.get(at + 4)?,
            message_timer: row.get(at + 5)?,
            receipt_mode: row.get(at + 6)?,
            protocol: row.get(at + 7)?,
        })
    }

    pub(crate) fn into_metadata(self) -> Result<Metadata, StoreError> {
        const CORRUPT: StoreError = StoreError::Corrupt("conversations_heads");
        Ok(Metadata {
            kind: ConversationType::from_number(self.kind).ok_or(CORRUPT)?,
            creator: self.creator,
            name: self.name,
            access: serde_json::from_str::<Vec<Access>>(&self.access).map_err(|_| CORRUPT)?,
            access_roles: serde_json::from_str::<Vec<AccessRole>>(&self.access_roles).map_err(|_| CORRUPT)?,
            message_timer: self.message_timer,
            receipt_mode: self.receipt_mode,
            protocol: [Protocol::Proteus, Protocol::Mls, Protocol::Mixed]
                .into_iter()
                .find(|protocol| protocol_number(*protocol) == self.protocol)
                .ok_or(CORRUPT)?,
        })
    }

    /// Inserts a head at version 1; `false` when there is one.
    pub(crate) fn insert(&self, tx: &Connection, id: &[u8; 16], time: i64) -> Result<bool, StoreError> {
        let sql = "INSERT INTO conversations_heads (id, kind, creator, name, access, access_roles, message_timer, \
                   receipt_mode, protocol, version, last_sequence, last_time) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1, 1, ?10) ON CONFLICT (id) DO NOTHING";
        let inserted = tx.prepare_cached(sql)?.execute(params![
            id,
            self.kind,
            self.creator.as_ref().map(UserId::as_bytes),
            self.name,
            self.access,
            self.access_roles,
            self.message_timer,
            self.receipt_mode,
            self.protocol,
            time
        ])?;
        Ok(inserted == 1)
    }

    /// Replaces the metadata of a head.
    pub(crate) fn update(&self, tx: &Connection, id: &[u8; 16]) -> Result<(), StoreError> {
        let sql = "UPDATE conversations_heads SET kind = ?2, creator = ?3, name = ?4, access = ?5, access_roles = ?6, \
                   message_timer = ?7, receipt_mode = ?8, protocol = ?9 WHERE id = ?1";
        tx.prepare_cached(sql)?.execute(params![
            id,
            self.kind,
            self.creator.as_ref().map(UserId::as_bytes),
            self.name,
            self.access,
            self.access_roles,
            self.message_timer,
            self.receipt_mode,
            self.protocol
        ])?;
        Ok(())
    }
}

/// The columns that hold a member's own settings.
pub(crate) struct SettingsRow;

impl SettingsRow {
    /// The columns, in order.
    pub(crate) const COLUMNS: &'static str = "muted_status, muted_ref, archived, archived_ref, hidden, hidden_ref";
    /// Reads from column `at` on.
    pub(crate) fn read(row: &Row<'_>, at: usize) -> Result<Settings, rusqlite::Error> {
        Ok(Settings {
            muted_status: row.get(at)?,
            muted_ref: row.get(at + 1)?,
            archived: row.get(at + 2)?,
            archived_ref: row.get(at + 3)?,
            hidden: row.get(at + 4)?,
            hidden_ref: row.get(at + 5)?,
        })
    }

    /// Replaces the settings of the member whose row has these values in the key columns.
    pub(crate) fn write(
        tx: &Connection,
        table: &'static str,
        key_columns: [&'static str; 3],
        settings: &Settings,
        key: (impl ToSql, impl ToSql, impl ToSql),
    ) -> Result<(), StoreError> {
        let [first, second, third] = key_columns;
        let sql = format!(
            "UPDATE {table} SET muted_status = ?1, muted_ref = ?2, archived = ?3, archived_ref = ?4, hidden = ?5, \
             hidden_ref = ?6 WHERE {first} = ?7 AND {second} = ?8 AND {third} = ?9"
        );
        tx.prepare_cached(&sql)?.execute(params![
            settings.muted_status,
            settings.muted_ref,
            settings.archived,
            settings.archived_ref,
            settings.hidden,
            settings.hidden_ref,
            key.0,
            key.1,
            key.2
        ])?;
        Ok(())
    }
}

/// Puts a mark; `false` when the stored one is newer.
pub(crate) fn put_mark(tx: &Connection, mark: &Mark) -> Result<bool, StoreError> {
    let sql = "INSERT INTO conversations_relations (conversation, user, time, relation) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT (conversation, user) DO UPDATE SET time = excluded.time, relation = excluded.relation \
               WHERE excluded.time >= time";
    let relation = i32::from(aldis_proto::convert::to_relation(mark.relation));
    let changed = tx.prepare_cached(sql)?.execute(params![
        mark.conversation.as_bytes(),
        mark.user.as_bytes(),
        mark.time.millis(),
        relation
    ])?;
    Ok(changed == 1)
}

/// Adds a conversation to the index of one of our users.
pub(crate) fn index(tx: &Connection, user: UserId, domain: &str, conversation: &[u8; 16]) -> Result<(), StoreError> {
    let sql = "INSERT INTO conversations_by_user (user, domain, conversation) VALUES (?1, ?2, ?3) \
               ON CONFLICT (user, domain, conversation) DO NOTHING";
    tx.prepare_cached(sql)?.execute(params![user.as_bytes(), domain, conversation])?;
    Ok(())
}

/// Takes a conversation off the index of one of our users.
pub(crate) fn unindex(tx: &Connection, user: UserId, domain: &str, conversation: &[u8; 16]) -> Result<(), StoreError> {
    let sql = "DELETE FROM conversations_by_user WHERE user = ?1 AND domain = ?2 AND conversation = ?3";
    tx.prepare_cached(sql)?.execute(params![user.as_bytes(), domain, conversation])?;
    Ok(())
}
