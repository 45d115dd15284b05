//! Tables of this service, laid out as the partitions of a wide-column store would be: the key's first column is the
//! partition, and no hot path joins across partitions.

use aldis_storage::Migration;

/// Steps in order; released ones never change.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { name: "accounts, clients, connections, remotes", sql: TABLES },
    Migration { name: "outbox of users", sql: aldis_delivery::schema!("users") },
    Migration { name: "who did it and what came of it, in audit records", sql: AUDIT },
    Migration {
        name: "end of federation, keys of the outbox",
        sql: concat!(
            "ALTER TABLE users_remotes ADD COLUMN ended INTEGER;",
            "CREATE INDEX users_connections_by_domain ON users_connections (domain, status);",
            aldis_delivery::schema_keys!("users")
        ),
    },
    Migration {
        name: "families of cookies",
        sql: "ALTER TABLE users_cookies ADD COLUMN family INTEGER;
              UPDATE users_cookies SET family = id;",
    },
    Migration {
        name: "confirmations by mail, connections by the other user",
        sql: "CREATE TABLE users_confirmations (
                  user BLOB NOT NULL, kind INTEGER NOT NULL, hash BLOB NOT NULL, failures INTEGER NOT NULL,
                  expires INTEGER NOT NULL, PRIMARY KEY (user, kind)) WITHOUT ROWID;
              CREATE INDEX users_confirmations_by_expiry ON users_confirmations (expires);
              CREATE INDEX users_connections_by_other ON users_connections (other, domain);",
    },
    Migration { name: "ages in the outbox of users", sql: aldis_delivery::schema_ages!("users") },
    Migration { name: "pinned keys of remotes", sql: PINS },
    Migration { name: "stores heard of last", sql: aldis_delivery::schema_incarnations!("users") },
    Migration {
        name: "leases on lists of clients",
        sql: "CREATE TABLE users_leases (one INTEGER PRIMARY KEY CHECK (one = 1));",
    },
    Migration {
        name: "when clients were last active",
        sql: "ALTER TABLE users_clients ADD COLUMN last_active INTEGER;",
    },
    Migration { name: "bounds of the outbox", sql: aldis_delivery::schema_bounds!("users") },
    Migration { name: "what other backends were told of connections", sql: TOLD },
    Migration { name: "refusals of what other backends told", sql: aldis_delivery::schema_refusals!("users") },
];

// `wanted`: whether the user told the other one's backend that he wants the connection, and has not taken it back; 2: not known,
// because he has blocked since. `told`: when.
const TOLD: &str = "
ALTER TABLE users_connections ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users_connections ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
UPDATE users_connections SET wanted = CASE status WHEN 1 THEN 1 WHEN 3 THEN 1 WHEN 5 THEN 2 ELSE 0 END, told = time;
CREATE INDEX users_connections_wanted ON users_connections (domain, user, other) WHERE wanted > 0;
DROP INDEX users_connections_by_other;
CREATE INDEX users_connections_by_other ON users_connections (domain, other, user);
";

const AUDIT: &str = "
ALTER TABLE users_audit ADD COLUMN who TEXT NOT NULL DEFAULT '';
ALTER TABLE users_audit ADD COLUMN outcome TEXT NOT NULL DEFAULT 'done';
CREATE INDEX users_audit_by_subject ON users_audit (subject, id);
";

const PINS: &str = "ALTER TABLE users_remotes ADD COLUMN pins TEXT NOT NULL DEFAULT '[]';";

const TABLES: &str = "
CREATE TABLE users_accounts (
    id BLOB NOT NULL PRIMARY KEY, name TEXT NOT NULL, handle TEXT, email TEXT, unverified_email TEXT, password TEXT,
    locale TEXT NOT NULL, accent_id INTEGER NOT NULL, assets TEXT NOT NULL, text_status TEXT, protocols TEXT NOT NULL,
    suspended INTEGER NOT NULL, deleted INTEGER NOT NULL, version INTEGER NOT NULL, created INTEGER NOT NULL);
CREATE INDEX users_accounts_unactivated ON users_accounts (created) WHERE email IS NULL AND deleted = 0;
CREATE TABLE users_emails (email TEXT NOT NULL PRIMARY KEY, user BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE users_handles (handle TEXT NOT NULL PRIMARY KEY, user BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE users_search (term TEXT NOT NULL, user BLOB NOT NULL, PRIMARY KEY (term, user)) WITHOUT ROWID;
CREATE TABLE users_codes (
    key TEXT NOT NULL PRIMARY KEY, email TEXT NOT NULL, code TEXT NOT NULL, user BLOB, failures INTEGER NOT NULL,
    used INTEGER NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX users_codes_by_expiry ON users_codes (expires);

CREATE TABLE users_token_keys (
    position INTEGER PRIMARY KEY, seed BLOB NOT NULL, created INTEGER NOT NULL, retired INTEGER);
CREATE TABLE users_cookies (
    user BLOB NOT NULL, id INTEGER NOT NULL, session INTEGER NOT NULL, created INTEGER NOT NULL,
    expires INTEGER NOT NULL, label TEXT, successor INTEGER, client INTEGER,
    PRIMARY KEY (user, id)) WITHOUT ROWID;
CREATE INDEX users_cookies_by_expiry ON users_cookies (expires);
CREATE TABLE users_revocations (
    user BLOB NOT NULL, kind INTEGER NOT NULL, subject INTEGER NOT NULL, expires INTEGER NOT NULL,
    PRIMARY KEY (user, kind, subject)) WITHOUT ROWID;
CREATE INDEX users_revocations_by_expiry ON users_revocations (expires);
CREATE TABLE users_attempts (
    kind INTEGER NOT NULL, subject BLOB NOT NULL, count INTEGER NOT NULL, expires INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)) WITHOUT ROWID;
CREATE INDEX users_attempts_by_expiry ON users_attempts (expires);

CREATE TABLE users_clients (
    user BLOB NOT NULL, client INTEGER NOT NULL, type TEXT NOT NULL, class TEXT, label TEXT, model TEXT, cookie TEXT,
    created INTEGER NOT NULL, capabilities TEXT NOT NULL, mls_public_keys TEXT NOT NULL,
    PRIMARY KEY (user, client)) WITHOUT ROWID;
CREATE TABLE users_prekeys (
    user BLOB NOT NULL, client INTEGER NOT NULL, id INTEGER NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (user, client, id)) WITHOUT ROWID;

CREATE TABLE users_connections (
    user BLOB NOT NULL, domain TEXT NOT NULL, other BLOB NOT NULL, status INTEGER NOT NULL, time INTEGER NOT NULL,
    remote_time INTEGER NOT NULL, PRIMARY KEY (user, domain, other)) WITHOUT ROWID;

CREATE TABLE users_properties (
    user BLOB NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (user, key));

CREATE TABLE users_mail (
    id INTEGER PRIMARY KEY AUTOINCREMENT, recipient TEXT NOT NULL, purpose TEXT NOT NULL, key TEXT NOT NULL,
    code TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL,
    attempts INTEGER NOT NULL, next INTEGER NOT NULL);
CREATE INDEX users_mail_by_next ON users_mail (next);

CREATE TABLE users_remotes (
    domain TEXT NOT NULL PRIMARY KEY, state INTEGER NOT NULL, search_policy INTEGER NOT NULL, teams TEXT)
    WITHOUT ROWID;
CREATE TABLE users_policy (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL);

CREATE TABLE users_audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, detail TEXT NOT NULL);
";
