//! Tables and statements, one set per component.

/// The tables of a component's outbox and of what it received: one migration step of the service.
///
/// | table | partition | holds |
/// |---|---|---|
/// | `…_outbox` | peer | rows on their way, in order of commit |
/// | `…_outbox_lanes` | peer | the last sequence given in each lane |
/// | `…_outbox_dead` | peer | rows that the peer refused for good |
/// | `…_outbox_store` | – | incarnation of this store and epoch of its relay |
/// | `…_received` | origin | the last sequence applied in each lane |
/// | `…_received_epochs` | origin | the highest epoch seen |
#[macro_export]
macro_rules! schema {
    ($component:literal) => {
        concat!(
            "CREATE TABLE ",
            $component,
            "_outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, peer TEXT NOT NULL, lane BLOB NOT NULL, \
             sequence INTEGER NOT NULL, kind INTEGER NOT NULL, body BLOB NOT NULL, created INTEGER NOT NULL, trace TEXT);",
            "CREATE INDEX ",
            $component,
            "_outbox_by_peer ON ",
            $component,
            "_outbox (peer, id);",
            "CREATE TABLE ",
            $component,
            "_outbox_lanes (peer TEXT NOT NULL, lane BLOB NOT NULL, last INTEGER NOT NULL, \
             PRIMARY KEY (peer, lane)) WITHOUT ROWID;",
            "CREATE TABLE ",
            $component,
            "_outbox_dead (id INTEGER PRIMARY KEY, peer TEXT NOT NULL, lane BLOB NOT NULL, sequence INTEGER NOT NULL, \
             kind INTEGER NOT NULL, body BLOB NOT NULL, created INTEGER NOT NULL, reason TEXT NOT NULL, \
             died INTEGER NOT NULL);",
            "CREATE TABLE ",
            $component,
            "_outbox_store (one INTEGER PRIMARY KEY CHECK (one = 1), incarnation BLOB NOT NULL, epoch INTEGER NOT NULL);",
            "CREATE TABLE ",
            $component,
            "_received (origin TEXT NOT NULL, incarnation BLOB NOT NULL, lane BLOB NOT NULL, last INTEGER NOT NULL, \
             PRIMARY KEY (origin, incarnation, lane)) WITHOUT ROWID;",
            "CREATE TABLE ",
            $component,
            "_received_epochs (origin TEXT NOT NULL, incarnation BLOB NOT NULL, epoch INTEGER NOT NULL, \
             PRIMARY KEY (origin, incarnation)) WITHOUT ROWID;"
        )
    };
}

/// Keys under which rows of a backend are kept after its lanes began anew: a further migration step of the service.
///
/// | table | partition | holds |
/// |---|---|---|
/// | `…_outbox_keys` | domain | the key of a backend whose lanes began anew; all others have their domain |
/// | `…_outbox_retired` | – | keys whose rows and lanes are to be dropped |
#[macro_export]
macro_rules! schema_keys {
    ($component:literal) => {
        concat!(
            "CREATE TABLE ",
            $component,
            "_outbox_keys (domain TEXT PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID;",
            "CREATE TABLE ",
            $component,
            "_outbox_retired (key TEXT PRIMARY KEY) WITHOUT ROWID;"
        )
    };
}

/// A later migration step of the same tables: dead letters are found by their age.
#[macro_export]
macro_rules! schema_ages {
    ($component:literal) => {
        concat!("CREATE INDEX ", $component, "_outbox_dead_by_age ON ", $component, "_outbox_dead (died);")
    };
}

/// A later migration step of the same tables: which store of an origin was heard of last.
#[macro_export]
macro_rules! schema_incarnations {
    ($component:literal) => {
        concat!("ALTER TABLE ", $component, "_received_epochs ADD COLUMN number INTEGER NOT NULL DEFAULT 0;")
    };
}

/// A later migration step of the same tables: bounds, pauses, and what has to be compared.
///
/// | table | partition | holds |
/// |---|---|---|
/// | `…_outbox_peers` | domain | whether its relay is paused, and how much was dropped |
/// | `…_outbox_earlier` | key | keys whose rows are sent as from the store that was before a restore |
/// | `…_reconcile` | peer | lanes, ours or the peer's, in which something was lost or refused, when last; an empty lane stands for all |
#[macro_export]
macro_rules! schema_bounds {
    ($component:literal) => {
        concat!(
            "CREATE TABLE ",
            $component,
            "_outbox_peers (domain TEXT PRIMARY KEY, paused INTEGER, dropped INTEGER NOT NULL DEFAULT 0, \
             last_dropped INTEGER) WITHOUT ROWID;",
            "CREATE TABLE ",
            $component,
            "_reconcile (peer TEXT NOT NULL, ours INTEGER NOT NULL, lane BLOB NOT NULL, since INTEGER NOT NULL, \
             reason TEXT NOT NULL, PRIMARY KEY (peer, ours, lane)) WITHOUT ROWID;",
            "ALTER TABLE ",
            $component,
            "_outbox_store ADD COLUMN services BLOB;",
            "ALTER TABLE ",
            $component,
            "_outbox_store ADD COLUMN restored BLOB;",
            "CREATE TABLE ",
            $component,
            "_outbox_earlier (key TEXT PRIMARY KEY, incarnation BLOB NOT NULL) WITHOUT ROWID;",
            "CREATE INDEX ",
            $component,
            "_outbox_dropped ON ",
            $component,
            "_outbox (peer, lane) WHERE kind = 2;",
            "CREATE INDEX ",
            $component,
            "_outbox_dead_by_peer ON ",
            $component,
            "_outbox_dead (peer, id);"
        )
    };
}

/// A later migration step of the same tables: what was refused of other backends is answered alike when it comes again.
///
/// | table | partition | holds |
/// |---|---|---|
/// | `…_received_refusals` | origin | the last envelopes that were refused for good, and why |
#[macro_export]
macro_rules! schema_refusals {
    ($component:literal) => {
        concat!(
            "CREATE TABLE ",
            $component,
            "_received_refusals (number INTEGER PRIMARY KEY AUTOINCREMENT, origin TEXT NOT NULL, incarnation BLOB NOT NULL, \
             lane BLOB NOT NULL, sequence INTEGER NOT NULL, label TEXT NOT NULL);",
            "CREATE UNIQUE INDEX ",
            $component,
            "_received_refusals_by_place ON ",
            $component,
            "_received_refusals (origin, incarnation, lane, sequence);",
            "CREATE INDEX ",
            $component,
            "_received_refusals_by_origin ON ",
            $component,
            "_received_refusals (origin, number);"
        )
    };
}

/// Statements with the component's table names filled in.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) next_in_lane: String,
    pub(crate) insert: String,
    pub(crate) newest: String,
    pub(crate) batch: String,
    pub(crate) any: String,
    pub(crate) peers: String,
    pub(crate) place: String,
    pub(crate) delete: String,
    pub(crate) bury: String,
    pub(crate) withdraw: String,
    pub(crate) renamed: String,
    pub(crate) key: String,
    pub(crate) rename: String,
    pub(crate) retire: String,
    pub(crate) retired: String,
    pub(crate) retired_done: String,
    pub(crate) ids: String,
    pub(crate) dead_peer: String,
    pub(crate) drop_lanes: String,
    pub(crate) next_after: String,
    pub(crate) earlier: String,
    pub(crate) forget_earlier: String,
    pub(crate) retire_earlier: String,
    pub(crate) mark: String,
    pub(crate) pause: String,
    pub(crate) paused: String,
    pub(crate) dropped: String,
    pub(crate) open_store: String,
    pub(crate) received: ReceivedStatements,
}

/// Those of the receiving side.
#[derive(Debug)]
pub(crate) struct ReceivedStatements {
    pub(crate) advance: String,
    pub(crate) position: String,
    pub(crate) jump: String,
    pub(crate) is_new_store: String,
    pub(crate) raise_epoch: String,
    pub(crate) forget_epochs: String,
    pub(crate) epoch: String,
    pub(crate) later_epoch: String,
    pub(crate) refuse: String,
    pub(crate) forget_refusals: String,
    pub(crate) refusal: String,
}

impl Statements {
    /// The last sequence applied in a lane.
    pub(crate) fn position_of(c: &str) -> String {
        format!("SELECT last FROM {c}_received WHERE origin = ?1 AND incarnation = ?2 AND lane = ?3")
    }

    pub(crate) fn new(c: &str) -> Self {
        Self {
            next_in_lane: format!(
                "INSERT INTO {c}_outbox_lanes (peer, lane, last) VALUES (?1, ?2, 1) \
                 ON CONFLICT (peer, lane) DO UPDATE SET last = last + 1 RETURNING last"
            ),
            insert: format!(
                "INSERT INTO {c}_outbox (peer, lane, sequence, kind, body, created, trace) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
            ),
            newest: format!("SELECT max(id) FROM {c}_outbox WHERE peer = ?1"),
            batch: format!(
                "SELECT id, lane, sequence, kind, body, trace FROM {c}_outbox WHERE peer = ?1 AND id > ?2 ORDER BY id LIMIT ?3"
            ),
            any: format!("SELECT EXISTS (SELECT 1 FROM {c}_outbox WHERE peer = ?1)"),
            peers: format!(
                "SELECT DISTINCT peer FROM {c}_outbox WHERE peer NOT IN (SELECT key FROM {c}_outbox_retired)"
            ),
            place: format!("SELECT peer, lane, kind FROM {c}_outbox WHERE id = ?1"),
            delete: format!("DELETE FROM {c}_outbox WHERE id = ?1"),
            bury: format!(
                "INSERT INTO {c}_outbox_dead (id, peer, lane, sequence, kind, body, created, reason, died) \
                 SELECT id, peer, lane, sequence, kind, body, created, ?2, ?3 FROM {c}_outbox WHERE id = ?1 \
                 ON CONFLICT (id) DO NOTHING"
            ),
            withdraw: format!("UPDATE {c}_outbox SET kind = ?2, body = x'' WHERE id = ?1"),
            renamed: format!("SELECT EXISTS (SELECT 1 FROM {c}_outbox_keys)"),
            key: format!("SELECT key FROM {c}_outbox_keys WHERE domain = ?1"),
            rename: format!("INSERT OR REPLACE INTO {c}_outbox_keys (domain, key) VALUES (?1, ?2)"),
            retire: format!("INSERT OR IGNORE INTO {c}_outbox_retired (key) VALUES (?1)"),
            retired: format!("SELECT key FROM {c}_outbox_retired LIMIT 1"),
            retired_done: format!("DELETE FROM {c}_outbox_retired WHERE key = ?1"),
            ids: format!("SELECT id FROM {c}_outbox WHERE peer = ?1 ORDER BY id LIMIT ?2"),
            dead_peer: format!("UPDATE {c}_outbox_dead SET peer = ?2 WHERE id = ?1"),
            drop_lanes: format!(
                "DELETE FROM {c}_outbox_lanes WHERE peer = ?1 AND lane IN \
                 (SELECT lane FROM {c}_outbox_lanes WHERE peer = ?1 LIMIT ?2)"
            ),
            next_after: format!(
                "SELECT sequence, kind, CASE kind WHEN 2 THEN body ELSE x'' END FROM {c}_outbox \
                 WHERE peer = ?1 AND lane = ?2 AND sequence > ?3 ORDER BY id LIMIT 1"
            ),
            earlier: format!(
                "SELECT waiting.peer FROM {c}_outbox AS waiting JOIN {c}_outbox_earlier AS earlier \
                 ON waiting.peer = earlier.key WHERE earlier.key = ?1 OR (earlier.key > ?1 || '#' AND earlier.key < ?1 || '$') \
                 ORDER BY waiting.id LIMIT 1"
            ),
            forget_earlier: format!("DELETE FROM {c}_outbox_earlier WHERE key = ?1"),
            retire_earlier: format!(
                "DELETE FROM {c}_outbox_earlier WHERE key = ?1 OR (key > ?1 || '#' AND key < ?1 || '$') RETURNING key"
            ),
            mark: format!(
                "INSERT INTO {c}_reconcile (peer, ours, lane, since, reason) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (peer, ours, lane) DO UPDATE SET since = excluded.since, reason = excluded.reason"
            ),
            pause: format!(
                "INSERT INTO {c}_outbox_peers (domain, paused) VALUES (?1, ?2) \
                 ON CONFLICT (domain) DO UPDATE SET paused = excluded.paused"
            ),
            paused: format!("SELECT domain FROM {c}_outbox_peers WHERE paused IS NOT NULL"),
            dropped: format!(
                "INSERT INTO {c}_outbox_peers (domain, dropped, last_dropped) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (domain) DO UPDATE SET dropped = dropped + excluded.dropped, \
                 last_dropped = excluded.last_dropped"
            ),
            open_store: format!(
                "INSERT INTO {c}_outbox_store (one, incarnation, epoch) VALUES (1, ?1, 1) \
                 ON CONFLICT (one) DO UPDATE SET epoch = epoch + 1 RETURNING incarnation, epoch"
            ),
            received: ReceivedStatements::new(c),
        }
    }
}

impl ReceivedStatements {
    fn new(c: &str) -> Self {
        Self {
            advance: format!(
                "INSERT INTO {c}_received (origin, incarnation, lane, last) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (origin, incarnation, lane) DO UPDATE SET last = excluded.last WHERE last = ?5"
            ),
            position: Statements::position_of(c),
            jump: format!(
                "INSERT INTO {c}_received (origin, incarnation, lane, last) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (origin, incarnation, lane) DO UPDATE SET last = excluded.last \
                 WHERE last >= ?5 AND last < excluded.last"
            ),
            is_new_store: format!(
                "SELECT EXISTS (SELECT 1 FROM {c}_received_epochs WHERE origin = ?1) AND NOT EXISTS \
                 (SELECT 1 FROM {c}_received_epochs WHERE origin = ?1 AND incarnation = ?2)"
            ),
            raise_epoch: format!(
                "INSERT INTO {c}_received_epochs (origin, incarnation, epoch, number) \
                 SELECT ?1, ?2, ?3, coalesce(max(number), 0) + 1 FROM {c}_received_epochs WHERE origin = ?1 \
                 ON CONFLICT (origin, incarnation) DO UPDATE SET epoch = excluded.epoch, number = excluded.number \
                 WHERE epoch <= excluded.epoch"
            ),
            forget_epochs: format!(
                "DELETE FROM {c}_received_epochs WHERE origin = ?1 AND number <= \
                 (SELECT number FROM {c}_received_epochs WHERE origin = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)"
            ),
            epoch: format!("SELECT epoch FROM {c}_received_epochs WHERE origin = ?1 AND incarnation = ?2"),
            later_epoch: format!(
                "SELECT max(later.epoch) FROM {c}_received_epochs AS later JOIN {c}_received_epochs AS own \
                 ON later.origin = own.origin AND later.number > own.number \
                 WHERE own.origin = ?1 AND own.incarnation = ?2"
            ),
            refuse: format!(
                "INSERT INTO {c}_received_refusals (origin, incarnation, lane, sequence, label) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (origin, incarnation, lane, sequence) DO NOTHING"
            ),
            forget_refusals: format!(
                "DELETE FROM {c}_received_refusals WHERE origin = ?1 AND number <= \
                 (SELECT number FROM {c}_received_refusals WHERE origin = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)"
            ),
            refusal: format!(
                "SELECT label FROM {c}_received_refusals \
                 WHERE origin = ?1 AND incarnation = ?2 AND lane = ?3 AND sequence = ?4"
            ),
        }
    }
}
