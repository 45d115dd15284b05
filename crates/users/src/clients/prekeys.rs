//! Prekeys: checked on upload, handed out at most once each, the last resort key alone over and over.

use std::collections::{BTreeMap, HashMap};

use aldis_peers::FAN_OUT;
use aldis_types::{ClientId, Domain, Locality, Prekey, PrekeyId, Qualified, UserId};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ciborium::Value;
use futures::StreamExt;

use super::{ClientError, Clients};
use crate::peers::{ClaimedPrekeys, MAX_USERS, WantedClients};

/// Longest key, in characters of base64.
const MAX_KEY_CHARS: usize = 1024;
/// Nesting of CBOR that is followed; a prekey needs three levels.
const MAX_DEPTH: usize = 16;
/// Users whose prekeys one job of the store takes.
const USERS_PER_JOB: usize = 64;
/// Clients of one user that can be asked for at once.
const MAX_CLIENTS: usize = 64;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Checks one-time keys: none of them has the number of the last resort key.
pub(crate) fn check(prekeys: &[Prekey]) -> Result<(), ClientError> {
    let fine = |prekey: &Prekey| prekey.id != PrekeyId::LAST_RESORT && is_prekey(prekey);
    if prekeys.iter().all(fine) { Ok(()) } else { Err(ClientError::MalformedPrekeys) }
}

/// Checks a last resort key.
pub(crate) fn check_last(prekey: &Prekey) -> Result<(), ClientError> {
    if prekey.id == PrekeyId::LAST_RESORT && is_prekey(prekey) { Ok(()) } else { Err(ClientError::MalformedPrekeys) }
}

/// Base64 of a CBOR map `{0: version, 1: prekey id, 2: key, 3: key, 4: optional signature}` with the id that the JSON
/// around it states.
fn is_prekey(prekey: &Prekey) -> bool {
    if prekey.key.len() > MAX_KEY_CHARS {
        return false;
    }
    let Ok(bytes) = BASE64.decode(&prekey.key) else { return false };
    let mut rest = bytes.as_slice();
    let Ok(Value::Map(entries)) = ciborium::de::from_reader_with_recursion_limit::<Value, _>(&mut rest, MAX_DEPTH)
    else {
        return false;
    };
    let field =
        |number: u64| entries.iter().find(|(key, _)| key.as_integer() == Some(number.into())).map(|(_, value)| value);
    let integer = |number| field(number).and_then(Value::as_integer).map(i128::from);
    let known =
        entries.iter().all(|(key, _)| key.as_integer().map(i128::from).is_some_and(|number| (0..=4).contains(&number)));
    let key = |number| matches!(field(number), Some(Value::Map(_) | Value::Bytes(_)));
    rest.is_empty()
        && known
        && integer(0).is_some_and(|version| (0..=255).contains(&version))
        && integer(1) == Some(prekey.id.0.into())
        && key(2)
        && key(3)
}

/// The outcome of claiming prekeys of many users.
#[derive(Debug, Default)]
pub(crate) struct ClaimedMany {
    /// By domain, user and client; `None` where there is no such client, or it never published a prekey.
    pub(crate) prekeys: BTreeMap<Domain, BTreeMap<UserId, BTreeMap<ClientId, Option<Prekey>>>>,
    /// Users whose backend could not be asked.
    pub(crate) failed: Vec<Qualified<UserId>>,
}

impl Clients {
    /// Takes prekeys of our own users.
    pub(crate) async fn take_prekeys(
        &self,
        wanted: Vec<(UserId, WantedClients)>,
    ) -> Result<Vec<ClaimedPrekeys>, ClientError> {
        let mut taken = Vec::with_capacity(wanted.len());
        for chunk in wanted.chunks(USERS_PER_JOB) {
            taken.extend(self.parts.store.take_prekeys(chunk.to_vec()).await?);
        }
        Ok(taken)
    }

    /// Takes prekeys of one user, anywhere.
    async fn claim(
        &self,
        user: Qualified<UserId>,
        wanted: WantedClients,
    ) -> Result<Vec<(ClientId, Option<Prekey>)>, ClientError> {
        let taken = match self.parts.domain.locate(user) {
            Locality::Local(user) => self.take_prekeys(vec![(*user.id(), wanted)]).await?,
            Locality::Remote(user) => self.parts.peers.claim_prekeys(user.domain(), &[(*user.id(), wanted)]).await?,
        };
        Ok(taken.into_iter().next().map(|(_, prekeys)| prekeys).unwrap_or_default())
    }

    /// Takes one prekey of one client.
    pub(crate) async fn claim_prekey(&self, user: Qualified<UserId>, client: ClientId) -> Result<Prekey, ClientError> {
        let taken = self.claim(user, WantedClients::These(vec![client])).await?;
        taken.into_iter().find_map(|(_, prekey)| prekey).ok_or(ClientError::PrekeyNotFound)
    }

    /// Takes one prekey of each client of a user.
    pub(crate) async fn claim_bundle(&self, user: Qualified<UserId>) -> Result<Vec<(ClientId, Prekey)>, ClientError> {
        let taken = self.claim(user, WantedClients::All).await?;
        Ok(taken.into_iter().filter_map(|(client, prekey)| Some((client, prekey?))).collect())
    }

    /// Takes one prekey for each of many clients; users of backends that cannot be asked are listed as failed.
    pub(crate) async fn claim_many(
        &self,
        wanted: BTreeMap<Domain, HashMap<UserId, Vec<ClientId>>>,
    ) -> Result<ClaimedMany, ClientError> {
        if wanted.values().map(HashMap::len).sum::<usize>() > MAX_USERS {
            return Err(ClientError::TooManyUsers);
        }
        if wanted.values().flat_map(HashMap::values).any(|clients| clients.len() > MAX_CLIENTS) {
            return Err(ClientError::TooManyUsers);
        }
        let asked = wanted.into_iter().map(|(domain, users)| async move {
            let users: Vec<_> =
                users.into_iter().map(|(user, clients)| (user, WantedClients::These(clients))).collect();
            let outcome = self.claim_at(&domain, &users).await;
            (domain, users, outcome)
        });
        let mut asked = futures::stream::iter(asked).buffer_unordered(FAN_OUT);
        let mut result = ClaimedMany::default();
        while let Some((domain, users, outcome)) = asked.next().await {
            match outcome {
                Ok(claimed) => {
                    let claimed = claimed.into_iter().map(|(user, prekeys)| (user, prekeys.into_iter().collect()));
                    result.prekeys.insert(domain, claimed.collect());
                }
                Err(ClientError::Peer(error)) => {
                    tracing::debug!(peer.domain = %domain, %error, "prekeys of another backend cannot be claimed");
                    result.failed.extend(users.into_iter().map(|(user, _)| Qualified::new(user, domain.clone())));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(result)
    }

    async fn claim_at(
        &self,
        domain: &Domain,
        users: &[(UserId, WantedClients)],
    ) -> Result<Vec<ClaimedPrekeys>, ClientError> {
        if *domain == self.parts.domain {
            self.take_prekeys(users.to_vec()).await
        } else {
            Ok(self.parts.peers.claim_prekeys(domain, users).await?)
        }
    }
}
