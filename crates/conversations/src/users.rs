//! What this service asks the users service: clients, relations, accounts.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use aldis_peers::FAN_OUT;
use aldis_proto::{
    channel::Channel,
    convert::{self, InvalidWire},
    internal::v1::{
        Account, GetAccountsRequest, GetRelationsRequest, ListClientsRequest, clients_client::ClientsClient,
        connections_client::ConnectionsClient, profiles_client::ProfilesClient,
    },
};
use aldis_types::{ClientId, Domain, Qualified, Relation, UserId};
use futures::{StreamExt, TryStreamExt, stream};
use tonic::{Request, Status};

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most users or relations in one call.
const CHUNK: usize = 1000;

/// The users service did not answer, or not by the rules.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsersError {
    #[error("the users service failed: {:?}", .0.code())]
    Failed(Box<Status>),
    #[error("the users service did not answer in time")]
    Late,
    #[error("the users service broke the rules")]
    Invalid(#[from] InvalidWire),
}

/// The clients of users, by user.
pub(crate) type ClientMap = HashMap<UserId, Vec<ClientId>>;

/// Asks the users service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Users {
    domain: Domain,
    channel: Channel,
}

impl Users {
    pub(crate) fn new(domain: Domain, channel: Channel) -> Self {
        Self { domain, channel }
    }

    /// The clients of our users; users without clients are left out.
    pub(crate) async fn clients(&self, users: &[UserId]) -> Result<ClientMap, UsersError> {
        let mut map = ClientMap::with_capacity(users.len());
        for chunk in users.chunks(CHUNK) {
            let mut client = ClientsClient::new(self.channel.clone());
            let request = ListClientsRequest { users: chunk.iter().map(convert::bytes_of).collect() };
            let answer = ask(client.list_clients(with_deadline(request))).await?;
            for entry in &answer.users {
                let entry = convert::from_clients(entry)?;
                map.insert(entry.user, entry.clients.into_iter().map(|(id, _)| id).collect());
            }
        }
        Ok(map)
    }

    /// The relation of one of our users with each of the others, in order.
    pub(crate) async fn relations(
        &self,
        user: UserId,
        others: &[Qualified<UserId>],
    ) -> Result<Vec<Option<Relation>>, UsersError> {
        let mut relations = Vec::with_capacity(others.len());
        for chunk in others.chunks(CHUNK) {
            let mut client = ConnectionsClient::new(self.channel.clone());
            let request = GetRelationsRequest {
                user: convert::bytes_of(user),
                others: chunk.iter().map(convert::to_qualified).collect(),
            };
            let answer = ask(client.get_relations(with_deadline(request))).await?;
            if answer.relations.len() != chunk.len() {
                return Err(InvalidWire("relations").into());
            }
            for relation in answer.relations() {
                relations.push(convert::from_relation(relation)?);
            }
        }
        Ok(relations)
    }

    /// Whether one of our users is connected with everybody of the list.
    pub(crate) async fn connected_with_all(
        &self,
        user: UserId,
        others: &[Qualified<UserId>],
    ) -> Result<bool, UsersError> {
        Ok(self.relations(user, others).await?.iter().all(|relation| *relation == Some(Relation::Accepted)))
    }

    /// Those of our users who, on their own side, are connected with `other`; everybody counts as connected with himself.
    pub(crate) async fn connected(
        &self,
        users: &BTreeSet<UserId>,
        other: &Qualified<UserId>,
    ) -> Result<HashSet<UserId>, UsersError> {
        let own = &self.domain;
        stream::iter(users.iter().copied())
            .map(|user| async move {
                if other.id == user && other.domain == *own {
                    return Ok((user, true));
                }
                let relations = self.relations(user, std::slice::from_ref(other)).await?;
                Ok((user, relations.first() == Some(&Some(Relation::Accepted))))
            })
            .buffer_unordered(FAN_OUT)
            .try_filter_map(|(user, connected)| async move { Ok(connected.then_some(user)) })
            .try_collect()
            .await
    }

    /// Those of our users who have an account that is activated and neither deleted nor suspended.
    pub(crate) async fn active(&self, users: &BTreeSet<UserId>) -> Result<HashSet<UserId>, UsersError> {
        self.accounts(users, |account| account.activated && !account.deleted && !account.suspended).await
    }

    /// Those of our users whose account has no address.
    pub(crate) async fn guests(&self, users: &BTreeSet<UserId>) -> Result<HashSet<UserId>, UsersError> {
        self.accounts(users, |account| !account.activated && !account.deleted).await
    }

    /// Whether the account of one of our users is gone.
    pub(crate) async fn is_deleted(&self, user: UserId) -> Result<bool, UsersError> {
        Ok(self.accounts(&[user].into(), |account| !account.deleted).await?.is_empty())
    }

    async fn accounts(
        &self,
        users: &BTreeSet<UserId>,
        wanted: impl Fn(&Account) -> bool,
    ) -> Result<HashSet<UserId>, UsersError> {
        let users: Vec<_> = users.iter().map(convert::bytes_of).collect();
        let mut found = HashSet::with_capacity(users.len());
        for chunk in users.chunks(CHUNK) {
            let mut client = ProfilesClient::new(self.channel.clone());
            let request = GetAccountsRequest { users: chunk.to_vec() };
            let answer = ask(client.get_accounts(with_deadline(request))).await?;
            for account in answer.accounts.iter().filter(|account| wanted(account)) {
                found.insert(convert::user_id(&account.id)?);
            }
        }
        Ok(found)
    }
}

fn with_deadline<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

async fn ask<R>(call: impl Future<Output = Result<tonic::Response<R>, Status>>) -> Result<R, UsersError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(UsersError::Failed(Box::new(status))),
        Err(_) => Err(UsersError::Late),
    }
}
