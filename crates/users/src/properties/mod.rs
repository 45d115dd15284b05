//! Properties: what clients of one user share with each other, as JSON under keys.

mod error;
pub(crate) mod http;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use aldis_api::Session;
use aldis_types::UserId;
pub(crate) use error::PropertyError;
use serde_json::{Value, value::RawValue};

use self::store::{PropertyStore, SetOutcome};
use crate::{accounts::LOCAL_DELIVERY, config::Config, detached::detached, events};

/// Longest key.
const MAX_KEY_BYTES: usize = 1024;
/// Largest value.
pub(crate) const MAX_VALUE_BYTES: usize = 512 * 1024;

/// A key: printable ASCII, at most 1,024 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PropertyKey(String);

impl PropertyKey {
    pub(crate) fn new(key: String) -> Result<Self, PropertyError> {
        if key.len() > MAX_KEY_BYTES {
            Err(PropertyError::KeyTooLarge)
        } else if key.is_empty() || !key.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            Err(PropertyError::InvalidKey)
        } else {
            Ok(Self(key))
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A value: JSON, returned as it was given.
#[derive(Debug, Clone)]
pub(crate) struct PropertyValue(Box<RawValue>);

impl PropertyValue {
    /// Checks size, syntax and nesting.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, PropertyError> {
        if bytes.len() > MAX_VALUE_BYTES {
            return Err(PropertyError::ValueTooLarge);
        }
        // Reading it as a value bounds the nesting, which reading it raw does not.
        serde_json::from_slice::<Value>(bytes).map_err(|_| PropertyError::InvalidValue)?;
        serde_json::from_slice(bytes).map(Self).map_err(|_| PropertyError::InvalidValue)
    }

    pub(crate) fn raw(&self) -> &RawValue {
        &self.0
    }
}

/// Properties of our users.
#[derive(Clone)]
pub(crate) struct Properties {
    config: Arc<Config>,
    store: Arc<dyn PropertyStore>,
}

impl Properties {
    pub(crate) fn new(config: Arc<Config>, store: Arc<dyn PropertyStore>) -> Self {
        Self { config, store }
    }

    /// One value; `None` when it is not set.
    pub(crate) async fn get(&self, user: UserId, key: PropertyKey) -> Result<Option<Box<RawValue>>, PropertyError> {
        Ok(self.store.get(user, key.0).await?)
    }

    /// All of them.
    pub(crate) async fn all(&self, user: UserId) -> Result<BTreeMap<String, Box<RawValue>>, PropertyError> {
        Ok(self.store.all(user).await?)
    }

    /// Sets a value and tells the user's other clients.
    pub(crate) async fn set(
        &self,
        session: Session,
        key: PropertyKey,
        value: PropertyValue,
    ) -> Result<(), PropertyError> {
        let user = session.user;
        let event = http::set_event(&key, &value);
        let effects = vec![events::to_users(user, &[user], &event, Some(&session))];
        let (store, limit) = (self.store.clone(), self.config.limits.properties);
        detached(async move {
            match store.set(user, key.0, value.0, limit, effects).await? {
                SetOutcome::Set(delivery) => {
                    delivery.local(LOCAL_DELIVERY).await;
                    Ok(())
                }
                SetOutcome::TooMany => Err(PropertyError::TooMany),
            }
        })
        .await
    }

    /// Removes one value, or all of them; nothing is told when there was none.
    pub(crate) async fn remove(&self, session: Session, key: Option<PropertyKey>) -> Result<(), PropertyError> {
        let user = session.user;
        let event = http::remove_event(key.as_ref());
        let effects = vec![events::to_users(user, &[user], &event, Some(&session))];
        let store = self.store.clone();
        detached(async move {
            if let Some(delivery) = store.remove(user, key.map(|key| key.0), effects).await? {
                delivery.local(LOCAL_DELIVERY).await;
            }
            Ok(())
        })
        .await
    }
}
