//! Push tokens in the embedded store.

use aldis_storage::{Db, Migration, StoreError};
use aldis_types::{ClientId, UserId};
use async_trait::async_trait;
use rusqlite::{Row, params};

use super::{PushToken, PushTokenStore};
use crate::push_tokens::Transport;

/// The table of push tokens. The row id orders a user's tokens by age.
pub(crate) const MIGRATION: Migration = Migration {
    name: "push-tokens",
    sql: "CREATE TABLE notifications_push_tokens (
            age INTEGER PRIMARY KEY AUTOINCREMENT,
            user BLOB NOT NULL,
            client INTEGER NOT NULL,
            transport TEXT NOT NULL,
            app TEXT NOT NULL,
            token TEXT NOT NULL
        );
        CREATE INDEX notifications_push_tokens_by_user ON notifications_push_tokens (user, age);
        CREATE UNIQUE INDEX notifications_push_tokens_by_token ON notifications_push_tokens (token, app, transport);",
};

const REPLACE_TOKEN: &str = "DELETE FROM notifications_push_tokens WHERE token = ? AND app = ? AND transport = ?";
const REPLACE_CLIENTS: &str =
    "DELETE FROM notifications_push_tokens WHERE user = ? AND client = ? AND app = ? AND transport = ?";
const INSERT: &str =
    "INSERT INTO notifications_push_tokens (user, client, transport, app, token) VALUES (?, ?, ?, ?, ?)";
const KEEP_NEWEST: &str = "DELETE FROM notifications_push_tokens WHERE user = ?1 AND age NOT IN \
    (SELECT age FROM notifications_push_tokens WHERE user = ?1 ORDER BY age DESC LIMIT ?2)";
const LIST: &str = "SELECT transport, app, token, client FROM notifications_push_tokens WHERE user = ? ORDER BY age";
const REMOVE: &str = "DELETE FROM notifications_push_tokens WHERE user = ? AND token = ?";
const FORGET: &str = "DELETE FROM notifications_push_tokens WHERE user = ?1 AND (?2 IS NULL OR client = ?2)";

/// Push tokens in the embedded store.
pub(crate) struct SqlitePushTokens(pub Db);

fn token(row: &Row<'_>) -> Result<PushToken, StoreError> {
    let transport: String = row.get(0)?;
    Ok(PushToken {
        transport: Transport::parse(&transport).ok_or(StoreError::Corrupt("notifications_push_tokens"))?,
        app: row.get(1)?,
        token: row.get(2)?,
        client: ClientId(row.get::<_, i64>(3)?.cast_unsigned()),
    })
}

#[async_trait]
impl PushTokenStore for SqlitePushTokens {
    async fn add(&self, user: UserId, token: PushToken, limit: u32) -> Result<(), StoreError> {
        self.0
            .write(move |tx| {
                let (user, client) = (user.as_bytes(), token.client.0.cast_signed());
                let (transport, app) = (token.transport.as_str(), &token.app);
                tx.prepare_cached(REPLACE_TOKEN)?.execute(params![token.token, app, transport])?;
                tx.prepare_cached(REPLACE_CLIENTS)?.execute(params![user, client, app, transport])?;
                tx.prepare_cached(INSERT)?.execute(params![user, client, transport, app, token.token])?;
                tx.prepare_cached(KEEP_NEWEST)?.execute(params![user, limit])?;
                Ok(())
            })
            .await
    }

    async fn list(&self, user: UserId) -> Result<Vec<PushToken>, StoreError> {
        self.0
            .read(move |tx| {
                let mut statement = tx.prepare_cached(LIST)?;
                let mut rows = statement.query([user.as_bytes()])?;
                let mut tokens = Vec::new();
                while let Some(row) = rows.next()? {
                    tokens.push(token(row)?);
                }
                Ok(tokens)
            })
            .await
    }

    async fn remove(&self, user: UserId, token: String) -> Result<bool, StoreError> {
        self.0.write(move |tx| Ok(tx.prepare_cached(REMOVE)?.execute(params![user.as_bytes(), token])? > 0)).await
    }

    async fn forget(&self, user: UserId, client: Option<ClientId>) -> Result<(), StoreError> {
        self.0
            .write(move |tx| {
                let client = client.map(|client| client.0.cast_signed());
                tx.prepare_cached(FORGET)?.execute(params![user.as_bytes(), client])?;
                Ok(())
            })
            .await
    }

    async fn users(&self) -> Result<Vec<UserId>, StoreError> {
        self.0
            .read(|tx| {
                let mut statement = tx.prepare("SELECT DISTINCT user FROM notifications_push_tokens")?;
                let mut rows = statement.query([])?;
                let mut users = Vec::new();
                while let Some(row) = rows.next()? {
                    let id = UserId::from_bytes(row.get_ref(0)?.as_blob().unwrap_or_default());
                    users.push(id.map_err(|_| StoreError::Corrupt("notifications_push_tokens"))?);
                }
                Ok(users)
            })
            .await
    }
}
