//! Push tokens on a cluster: a user's in one partition, and for each token whose it is.
//!
//! A token is put into its user's partition first, then claimed; whoever claims it takes it out of the partition of the one
//! before. So of users who bring the same token at once one has it in the end.

use std::{collections::BTreeSet, time::Duration};

use aldis_storage::{
    StoreError,
    cql::{Cql, Statement},
};
use aldis_types::{ClientId, UserId};
use async_trait::async_trait;
use futures::{StreamExt as _, pin_mut};
use uuid::Uuid;

use super::{PushToken, PushTokenStore};
use crate::push_tokens::Transport;

const LIST: Statement = Statement::read_latest(
    "notifications.push_tokens.list",
    "SELECT client, app, transport, \"token\", age FROM notifications_push_tokens WHERE user = ?",
);
const PUT: Statement = Statement::decide(
    "notifications.push_tokens.put",
    "UPDATE notifications_push_tokens SET \"token\" = ?, age = ? WHERE user = ? AND client = ? AND app = ? AND transport = ? \
     IF age = ?",
);
const TAKE: Statement = Statement::decide(
    "notifications.push_tokens.take",
    "DELETE FROM notifications_push_tokens WHERE user = ? AND client = ? AND app = ? AND transport = ? IF \"token\" = ?",
);
const OWNER: Statement = Statement::read_latest(
    "notifications.push_tokens.owner",
    "SELECT user, client FROM notifications_push_token_owners WHERE \"token\" = ? AND app = ? AND transport = ?",
);
const CLAIM: Statement = Statement::decide(
    "notifications.push_tokens.claim",
    "UPDATE notifications_push_token_owners SET user = ?, client = ? WHERE \"token\" = ? AND app = ? AND transport = ? \
     IF user = ? AND client = ?",
);
const GIVE_UP: Statement = Statement::decide(
    "notifications.push_tokens.give_up",
    "DELETE FROM notifications_push_token_owners WHERE \"token\" = ? AND app = ? AND transport = ? IF user = ? AND client = ?",
);
const USERS: Statement =
    Statement::read("notifications.push_tokens.users", "SELECT DISTINCT user FROM notifications_push_tokens");

const STATEMENTS: &[Statement] = &[LIST, PUT, TAKE, OWNER, CLAIM, GIVE_UP, USERS];

/// How often a change is tried while others change the same row.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);

/// Push tokens on a cluster.
pub(crate) struct ScyllaPushTokens(Cql);

type Columns = (i64, String, String, Option<String>, Option<i64>);

impl ScyllaPushTokens {
    /// Opens them; the tables must be there.
    pub(crate) async fn open(cql: Cql) -> Result<Self, StoreError> {
        cql.prepare(STATEMENTS).await?;
        Ok(Self(cql))
    }

    /// A user's tokens with their ages, oldest first.
    async fn aged(&self, user: UserId) -> Result<Vec<(i64, PushToken)>, StoreError> {
        let rows: Vec<Columns> = self.0.rows(&LIST, (user.uuid(),)).await?;
        let mut tokens = Vec::with_capacity(rows.len());
        for (client, app, transport, token, age) in rows {
            let transport = Transport::parse(&transport).ok_or(StoreError::Corrupt("notifications_push_tokens"))?;
            let Some((token, age)) = token.zip(age) else { continue };
            tokens.push((age, PushToken { transport, app, token, client: ClientId(client.cast_unsigned()) }));
        }
        tokens.sort_by_key(|(age, _)| *age);
        Ok(tokens)
    }

    /// Takes a token out of a user's partition, and gives it up if it is still the user's; whether it was there.
    async fn take(&self, user: UserId, token: &PushToken) -> Result<bool, StoreError> {
        let was_there = self.take_from(user.uuid(), token.client.0.cast_signed(), token).await?;
        self.give_up(user, token).await?;
        Ok(was_there)
    }

    async fn take_from(&self, user: Uuid, client: i64, token: &PushToken) -> Result<bool, StoreError> {
        let (transport, app) = (token.transport.as_str(), &token.app);
        self.settled(&TAKE, (user, client, app, transport, &token.token)).await
    }

    async fn give_up(&self, user: UserId, token: &PushToken) -> Result<(), StoreError> {
        let (transport, app, client) = (token.transport.as_str(), &token.app, token.client.0.cast_signed());
        self.settled(&GIVE_UP, (&token.token, app, transport, user.uuid(), client)).await.map(drop)
    }

    /// Does a removal, once more if it is not known whether it was done.
    async fn settled<V>(&self, statement: &Statement, values: V) -> Result<bool, StoreError>
    where
        V: aldis_storage::cql::SerializeRow + Clone,
    {
        match self.0.decide(statement, values.clone()).await {
            Err(error) if error.is_unsure() => self.0.decide(statement, values).await.map(|_| true),
            outcome => outcome,
        }
    }

    /// Puts a token into the user's partition as the newest, in the place of another of the same client, app and transport.
    async fn put(&self, user: UserId, token: &PushToken) -> Result<(), StoreError> {
        let same_place = |other: &PushToken| {
            (other.client, &other.app, other.transport) == (token.client, &token.app, token.transport)
        };
        for attempt in 0..ATTEMPTS {
            let tokens = self.aged(user).await?;
            let age = tokens.last().map_or(0, |(age, _)| *age) + 1;
            let before = tokens.iter().find(|(_, other)| same_place(other));
            let key = (user.uuid(), token.client.0.cast_signed(), &token.app, token.transport.as_str());
            let condition = before.map(|(age, _)| *age);
            let values = (&token.token, age, key.0, key.1, key.2, key.3, condition);
            match self.0.decide(&PUT, values).await {
                Ok(true) => {
                    if let Some((_, before)) = before.filter(|(_, before)| before.token != token.token) {
                        self.give_up(user, before).await?;
                    }
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) if error.is_unsure() => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE * (attempt + 1)).await;
        }
        Err(StoreError::Contended("notifications_push_tokens"))
    }

    /// Makes a token the user's, and takes it from whoever had it.
    async fn claim(&self, user: UserId, token: &PushToken) -> Result<(), StoreError> {
        let (transport, app) = (token.transport.as_str(), &token.app);
        let own = (user.uuid(), token.client.0.cast_signed());
        for attempt in 0..ATTEMPTS {
            let row: Option<(Option<Uuid>, Option<i64>)> = self.0.row(&OWNER, (&token.token, app, transport)).await?;
            let before = row.and_then(|(user, client)| user.zip(client));
            let (user, client) = before.unzip();
            let values = (own.0, own.1, &token.token, app, transport, user, client);
            match self.0.decide(&CLAIM, values).await {
                Ok(true) => {
                    if let Some((user, client)) = before.filter(|before| *before != own) {
                        self.take_from(user, client, token).await?;
                    }
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) if error.is_unsure() => {
                    // If it was done, the one before has to be seen to now.
                    if let Some((user, client)) = before.filter(|before| *before != own) {
                        self.take_from(user, client, token).await?;
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE * (attempt + 1)).await;
        }
        Err(StoreError::Contended("notifications_push_token_owners"))
    }
}

#[async_trait]
impl PushTokenStore for ScyllaPushTokens {
    async fn add(&self, user: UserId, token: PushToken, limit: u32) -> Result<(), StoreError> {
        // The same token of another client of the user has another place: the claim takes it out.
        self.put(user, &token).await?;
        self.claim(user, &token).await?;
        let tokens = self.aged(user).await?;
        let excess = tokens.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        for (_, token) in &tokens[..excess] {
            self.take(user, token).await?;
        }
        Ok(())
    }

    async fn list(&self, user: UserId) -> Result<Vec<PushToken>, StoreError> {
        Ok(self.aged(user).await?.into_iter().map(|(_, token)| token).collect())
    }

    async fn remove(&self, user: UserId, token: String) -> Result<bool, StoreError> {
        let mut removed = false;
        for (_, found) in self.aged(user).await?.iter().filter(|(_, found)| found.token == token) {
            removed |= self.take(user, found).await?;
        }
        Ok(removed)
    }

    async fn forget(&self, user: UserId, client: Option<ClientId>) -> Result<(), StoreError> {
        for (_, token) in self.aged(user).await? {
            if client.is_none_or(|client| client == token.client) {
                self.take(user, &token).await?;
            }
        }
        Ok(())
    }

    async fn users(&self) -> Result<Vec<UserId>, StoreError> {
        let rows = self.0.pages::<(Uuid,), _>(&USERS, ()).await?;
        pin_mut!(rows);
        let mut users = BTreeSet::new();
        while let Some(row) = rows.next().await {
            users.insert(UserId::new(row?.0));
        }
        Ok(users.into_iter().collect())
    }
}
