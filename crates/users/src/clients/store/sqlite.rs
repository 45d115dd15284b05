use aldis_api::Session;
use aldis_delivery::{Appended, Outbox, Outgoing};
use aldis_storage::{Db, StoreError};
use aldis_types::{ClientId, ClientType, Prekey, PrekeyId, Timestamp, UserId};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{AddOutcome, Added, ClientChange, ClientStore, NewClient, RemoveOutcome, UpdateOutcome};
use crate::{
    accounts::store::rows as accounts,
    auth::store::{Revocation, forget_client_sessions, lift_client_revocation},
    clients::{Client, PublicClient},
    events::Effects,
    peers::{ClaimedPrekeys, WantedClients},
    sql,
};

/// Clients in `SQLite`.
pub(crate) struct SqliteClients {
    db: Db,
    outbox: Outbox,
}

impl SqliteClients {
    pub(crate) fn new(db: Db, outbox: Outbox) -> Self {
        Self { db, outbox }
    }
}

const CLIENT: &str = "client, type, class, label, model, cookie, created, capabilities, mls_public_keys, last_active";

fn client(row: &Row<'_>) -> rusqlite::Result<Client> {
    let class: Option<String> = row.get(2)?;
    Ok(Client {
        id: sql::client_id(row, 0)?,
        kind: sql::keyword(row, 1)?,
        class: class.is_some().then(|| sql::keyword(row, 2)).transpose()?,
        label: row.get(3)?,
        model: row.get(4)?,
        cookie: row.get(5)?,
        created: sql::time(row, 6)?,
        capabilities: sql::json(row, 7)?,
        mls_public_keys: sql::json(row, 8)?,
        last_active: row.get::<_, Option<i64>>(9)?.map(Timestamp::from_millis),
    })
}

fn get(tx: &Connection, user: UserId, id: ClientId) -> rusqlite::Result<Option<Client>> {
    tx.prepare_cached(&format!("SELECT {CLIENT} FROM users_clients WHERE user = ? AND client = ?"))?
        .query_row(params![user.as_bytes().as_slice(), id.0.cast_signed()], client)
        .optional()
}

fn list(tx: &Connection, user: UserId) -> rusqlite::Result<Vec<Client>> {
    let mut query = tx.prepare_cached(&format!("SELECT {CLIENT} FROM users_clients WHERE user = ?"))?;
    let mut clients = query.query_map([user.as_bytes().as_slice()], client)?.collect::<Result<Vec<_>, _>>()?;
    clients.sort_unstable_by_key(|client| client.id);
    Ok(clients)
}

fn public(tx: &Connection, user: UserId) -> rusqlite::Result<Vec<PublicClient>> {
    let mut query = tx.prepare_cached("SELECT client, class FROM users_clients WHERE user = ?")?;
    let rows = query.query_map([user.as_bytes().as_slice()], |row| {
        let class = row.get_ref(1)?.as_str_or_null()?.is_some();
        Ok((sql::client_id(row, 0)?, class.then(|| sql::keyword(row, 1)).transpose()?))
    })?;
    let mut clients = rows.collect::<Result<Vec<_>, _>>()?;
    clients.sort_unstable_by_key(|(id, _)| *id);
    Ok(clients)
}

fn put(tx: &Connection, user: UserId, client: &Client) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO users_clients (user, client, type, class, label, model, cookie, created, \
         capabilities, mls_public_keys, last_active) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        user.as_bytes().as_slice(),
        client.id.0.cast_signed(),
        sql::to_keyword(&client.kind)?,
        client.class.as_ref().map(sql::to_keyword).transpose()?,
        client.label,
        client.model,
        client.cookie,
        client.created.millis(),
        sql::to_json(&client.capabilities)?,
        sql::to_json(&client.mls_public_keys)?,
        client.last_active.map(Timestamp::millis)
    ])?;
    Ok(())
}

fn put_prekeys<'a>(
    tx: &Connection,
    user: UserId,
    client: ClientId,
    prekeys: impl IntoIterator<Item = &'a Prekey>,
) -> rusqlite::Result<()> {
    let mut insert =
        tx.prepare_cached("INSERT OR REPLACE INTO users_prekeys (user, client, id, key) VALUES (?, ?, ?, ?)")?;
    for prekey in prekeys {
        insert.execute(params![user.as_bytes().as_slice(), client.0.cast_signed(), prekey.id.0, prekey.key])?;
    }
    Ok(())
}

/// Removes a client with its prekeys and sessions, but for one family of cookies; gives what is revoked, or `None`
/// when there is no such client.
fn remove(
    tx: &Connection,
    user: UserId,
    id: ClientId,
    except: Option<u32>,
    tokens_expire: Timestamp,
) -> rusqlite::Result<Option<Vec<Revocation>>> {
    let Some(client) = get(tx, user, id)? else { return Ok(None) };
    let key = params![user.as_bytes().as_slice(), id.0.cast_signed()];
    tx.prepare_cached("DELETE FROM users_clients WHERE user = ? AND client = ?")?.execute(key)?;
    tx.prepare_cached("DELETE FROM users_prekeys WHERE user = ? AND client = ?")?.execute(key)?;
    forget_client_sessions(tx, user, id, client.cookie.as_deref(), except, tokens_expire).map(Some)
}

/// What a registration comes to, before its effects are written.
enum Add {
    Added(Box<Added>),
    NeedsPassword,
    TooMany,
    NoAccount,
}

fn add(
    tx: &Connection,
    session: &Session,
    new: &NewClient,
    authenticated: bool,
    limit: u32,
    tokens_expire: Timestamp,
) -> Result<Add, StoreError> {
    let user = session.user;
    if accounts::get(tx, user)?.is_none_or(|account| account.deleted) {
        return Ok(Add::NoAccount);
    }
    let clients = list(tx, user)?;
    let id = new.client.id;
    let known = clients.iter().find(|client| client.id == id);
    let same_kind: Vec<_> =
        clients.iter().filter(|client| client.kind == new.client.kind && client.id != id).map(|c| c.id).collect();
    let renewed = known.is_some_and(|client| client.kind == new.client.kind);
    if !renewed && !same_kind.is_empty() && !authenticated {
        return Ok(Add::NeedsPassword);
    }
    let replaced = if new.client.kind == ClientType::Temporary { same_kind.clone() } else { Vec::new() };
    if new.client.kind == ClientType::Permanent && same_kind.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
        return Ok(Add::TooMany);
    }
    let mut revoked = Vec::new();
    for old in &replaced {
        let except = Some(session.connection.family());
        revoked.extend(remove(tx, user, *old, except, tokens_expire)?.into_iter().flatten());
    }
    let mut client = new.client.clone();
    if let Some(known) = known {
        (client.created, client.last_active) = (known.created, known.last_active);
    }
    lift_client_revocation(tx, user, id)?;
    put(tx, user, &client)?;
    put_prekeys(tx, user, id, &new.prekeys)?;
    Ok(Add::Added(Box::new(Added { client, replaced, revoked })))
}

fn update(
    tx: &Connection,
    user: UserId,
    id: ClientId,
    change: &ClientChange,
) -> Result<Result<(), UpdateOutcome>, StoreError> {
    let Some(mut client) = get(tx, user, id)? else { return Ok(Err(UpdateOutcome::NotFound)) };
    if let Some(capabilities) = &change.capabilities {
        if client.capabilities.iter().any(|had| !capabilities.contains(had)) {
            return Ok(Err(UpdateOutcome::CapabilityRemoved));
        }
        client.capabilities.clone_from(capabilities);
    }
    for (scheme, key) in &change.mls_public_keys {
        if client.mls_public_keys.get(scheme).is_some_and(|known| known != key) {
            return Ok(Err(UpdateOutcome::OtherMlsKey));
        }
        client.mls_public_keys.insert(scheme.clone(), key.clone());
    }
    if change.label.is_some() {
        client.label.clone_from(&change.label);
    }
    put(tx, user, &client)?;
    put_prekeys(tx, user, id, change.prekeys.iter().chain(&change.last_prekey))?;
    Ok(Ok(()))
}

/// Those of the clients that exist and were last active before this time, if ever.
fn not_active_since(
    tx: &Connection,
    clients: Vec<(UserId, ClientId)>,
    time: Timestamp,
) -> rusqlite::Result<Vec<(UserId, ClientId)>> {
    let mut query = tx.prepare_cached(
        "SELECT 1 FROM users_clients WHERE user = ? AND client = ? AND (last_active IS NULL OR last_active < ?)",
    )?;
    let mut found = Vec::new();
    for (user, client) in clients {
        if query.exists(params![user.as_bytes().as_slice(), client.0.cast_signed(), time.millis()])? {
            found.push((user, client));
        }
    }
    Ok(found)
}

/// The single writer decides races; numbers ascend, so the last resort key comes last.
fn take_prekey(tx: &Connection, user: UserId, client: ClientId) -> rusqlite::Result<Option<Prekey>> {
    let (user, client) = (user.as_bytes().as_slice(), client.0.cast_signed());
    let prekey = tx
        .prepare_cached("SELECT id, key FROM users_prekeys WHERE user = ? AND client = ? ORDER BY id LIMIT 1")?
        .query_row(params![user, client], |row| Ok(Prekey { id: PrekeyId(row.get(0)?), key: row.get(1)? }))
        .optional()?;
    if let Some(prekey) = prekey.as_ref().filter(|prekey| prekey.id != PrekeyId::LAST_RESORT) {
        tx.prepare_cached("DELETE FROM users_prekeys WHERE user = ? AND client = ? AND id = ?")?.execute(params![
            user,
            client,
            prekey.id.0
        ])?;
    }
    Ok(prekey)
}

#[async_trait]
impl ClientStore for SqliteClients {
    async fn get(&self, user: UserId, client: ClientId) -> Result<Option<Client>, StoreError> {
        self.db.read(move |tx| Ok(get(tx, user, client)?)).await
    }

    async fn list(&self, user: UserId) -> Result<Vec<Client>, StoreError> {
        self.db.read(move |tx| Ok(list(tx, user)?)).await
    }

    async fn public(&self, users: Vec<UserId>) -> Result<Vec<(UserId, Vec<PublicClient>)>, StoreError> {
        self.db
            .read(move |tx| {
                let found = users.into_iter().map(|user| Ok((user, public(tx, user)?)));
                Ok(found.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    async fn needs_password(&self, user: UserId, client: ClientId, kind: ClientType) -> Result<bool, StoreError> {
        let clients = self.list(user).await?;
        let same_kind = || clients.iter().filter(|known| known.kind == kind);
        Ok(same_kind().next().is_some() && !same_kind().any(|known| known.id == client))
    }

    async fn add(
        &self,
        session: Session,
        new: NewClient,
        authenticated: bool,
        limit: u32,
        tokens_expire: Timestamp,
        effects: Effects<Added>,
    ) -> Result<AddOutcome, StoreError> {
        let outbox = self.outbox.traced();
        let (outcome, appended) = self
            .db
            .write(move |tx| {
                let outcome = add(tx, &session, &new, authenticated, limit, tokens_expire)?;
                let appended = match &outcome {
                    Add::Added(added) => outbox.append(tx, &effects(added))?,
                    Add::NeedsPassword | Add::TooMany | Add::NoAccount => Appended::default(),
                };
                Ok((outcome, appended))
            })
            .await?;
        let delivery = self.outbox.committed(appended);
        Ok(match outcome {
            Add::Added(added) => AddOutcome::Added { added, delivery },
            Add::NeedsPassword => AddOutcome::NeedsPassword,
            Add::TooMany => AddOutcome::TooMany,
            Add::NoAccount => AddOutcome::NoAccount,
        })
    }

    async fn update(
        &self,
        user: UserId,
        client: ClientId,
        change: ClientChange,
        effects: Vec<Outgoing>,
    ) -> Result<UpdateOutcome, StoreError> {
        let outbox = self.outbox.traced();
        let updated = self
            .db
            .write(move |tx| match update(tx, user, client, &change)? {
                Ok(()) => outbox.append(tx, &effects).map(Ok),
                Err(refused) => Ok(Err(refused)),
            })
            .await?;
        Ok(match updated {
            Ok(appended) => UpdateOutcome::Updated(self.outbox.committed(appended)),
            Err(refused) => refused,
        })
    }

    async fn remove(
        &self,
        user: UserId,
        client: ClientId,
        except: Option<u32>,
        tokens_expire: Timestamp,
        effects: Vec<Outgoing>,
    ) -> Result<RemoveOutcome, StoreError> {
        let outbox = self.outbox.traced();
        let removed = self
            .db
            .write(move |tx| match remove(tx, user, client, except, tokens_expire)? {
                Some(revoked) => Ok(Some((revoked, outbox.append(tx, &effects)?))),
                None => Ok(None),
            })
            .await?;
        Ok(match removed {
            Some((revoked, appended)) => RemoveOutcome::Removed { delivery: self.outbox.committed(appended), revoked },
            None => RemoveOutcome::NotFound,
        })
    }

    async fn prekey_ids(&self, user: UserId, client: ClientId) -> Result<Vec<PrekeyId>, StoreError> {
        self.db
            .read(move |tx| {
                let mut query =
                    tx.prepare_cached("SELECT id FROM users_prekeys WHERE user = ? AND client = ? ORDER BY id")?;
                let rows = query.query_map(params![user.as_bytes().as_slice(), client.0.cast_signed()], |row| {
                    row.get(0).map(PrekeyId)
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn note_active(&self, clients: Vec<(UserId, ClientId)>, time: Timestamp) -> Result<(), StoreError> {
        // Most have been noted already; the writer is for those that have not.
        let new = self.db.read(move |tx| Ok(not_active_since(tx, clients, time)?)).await?;
        if new.is_empty() {
            return Ok(());
        }
        self.db
            .write(move |tx| {
                let mut note =
                    tx.prepare_cached("UPDATE users_clients SET last_active = ?3 WHERE user = ?1 AND client = ?2")?;
                for (user, client) in not_active_since(tx, new, time)? {
                    note.execute(params![user.as_bytes().as_slice(), client.0.cast_signed(), time.millis()])?;
                }
                Ok(())
            })
            .await
    }

    async fn had_leases(&self) -> Result<bool, StoreError> {
        self.db.read(|tx| Ok(tx.query_row("SELECT EXISTS (SELECT 1 FROM users_leases)", [], |row| row.get(0))?)).await
    }

    async fn note_leases(&self) -> Result<(), StoreError> {
        let sql = "INSERT INTO users_leases (one) VALUES (1) ON CONFLICT (one) DO NOTHING";
        self.db.write(move |tx| Ok(tx.execute(sql, []).map(drop)?)).await
    }

    async fn take_prekeys(&self, wanted: Vec<(UserId, WantedClients)>) -> Result<Vec<ClaimedPrekeys>, StoreError> {
        self.db
            .write(move |tx| {
                let mut taken = Vec::with_capacity(wanted.len());
                for (user, clients) in wanted {
                    let clients = match clients {
                        WantedClients::These(clients) => clients,
                        WantedClients::All => public(tx, user)?.into_iter().map(|(id, _)| id).collect(),
                    };
                    let mut prekeys = Vec::with_capacity(clients.len());
                    for client in clients {
                        prekeys.push((client, take_prekey(tx, user, client)?));
                    }
                    taken.push((user, prekeys));
                }
                Ok(taken)
            })
            .await
    }
}
