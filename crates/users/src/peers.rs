//! What we ask other backends about their users. Their answers are filtered here: only objects of the backend that was
//! asked, only what was asked for, everything within bounds.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use aldis_peers::{CallOptions, PeerError, Peers};
use aldis_proto::{
    channel::Channel,
    convert::{bytes_of, from_clients, from_prekey, from_profile, user_id},
    federation::v1::{
        ClaimPrekeysRequest, ForgetClientsRequest, GetUserByHandleRequest, GetUsersRequest, ListClientsRequest,
        RequestConnectionRequest, SearchUsersRequest, TeamList, claim_prekeys_request::Claim,
        conversations_client::ConversationsClient, request_connection_response as connection,
        users_client::UsersClient,
    },
};
use aldis_types::{
    ClientId, Domain, Handle, Name, Prekey, Profile, Remote, SearchPolicy, TeamId, Timestamp, UserClients, UserId,
};

/// Most users in one call.
pub(crate) const MAX_USERS: usize = 500;
/// Most clients of one user that are believed.
const MAX_CLIENTS: usize = 64;
/// A call that changes something at the other backend.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// How long a backend may take to forget; it is told again then.
const FORGET: Duration = Duration::from_secs(1);

/// Of which clients of a user prekeys are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WantedClients {
    All,
    These(Vec<ClientId>),
}

/// The prekeys of one user: `None` where there is no such client, or it never published one.
pub(crate) type ClaimedPrekeys = (UserId, Vec<(ClientId, Option<Prekey>)>);

/// What the other backend says to a connection request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RemoteAnswer {
    /// Noted; `true` when the other user is, or becomes, connected too.
    Connected(bool),
    /// No such activated user.
    NotActivated,
    /// The user's team does not federate with us.
    TeamNotFederating,
}

/// A connection request of a user of ours.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionRequest {
    pub(crate) from: UserId,
    pub(crate) from_name: Name,
    pub(crate) time: Timestamp,
}

/// Asks other backends about users.
#[derive(Clone)]
pub(crate) struct UserPeers {
    client: UsersClient<Channel>,
    conversations: ConversationsClient<Channel>,
}

impl UserPeers {
    pub(crate) fn new(peers: &Peers) -> Self {
        Self {
            client: UsersClient::new(peers.channel()).max_decoding_message_size(MAX_ANSWER_BYTES),
            conversations: ConversationsClient::new(peers.channel()),
        }
    }

    /// For further questions about users.
    pub(crate) fn client(&self) -> UsersClient<Channel> {
        self.client.clone()
    }

    /// Profiles of at most [`MAX_USERS`] users of one backend.
    #[tracing::instrument(name = "peer.get_users", skip_all, fields(peer.domain = %domain))]
    pub(crate) async fn get_users(&self, domain: &Domain, users: &[UserId]) -> Result<Vec<Profile>, PeerError> {
        let options = CallOptions::default();
        let message = GetUsersRequest { users: users.iter().map(bytes_of).collect() };
        let request = Peers::request(domain, message, &options);
        let answer = Peers::finish(domain, &options, self.client.clone().get_users(request)).await?;
        let mut wanted: HashSet<UserId> = users.iter().copied().collect();
        let profiles = answer.profiles.iter().take(MAX_USERS).filter_map(|profile| from_profile(profile, domain).ok());
        Ok(profiles.filter(|profile| wanted.remove(&profile.id.id)).collect())
    }

    /// The user with exactly this handle.
    #[tracing::instrument(name = "peer.get_user_by_handle", skip_all, fields(peer.domain = %domain))]
    pub(crate) async fn user_by_handle(&self, domain: &Domain, handle: &Handle) -> Result<Option<Profile>, PeerError> {
        let options = CallOptions::default();
        let message = GetUserByHandleRequest { handle: handle.as_str().to_owned(), searcher_team: None };
        let request = Peers::request(domain, message, &options);
        let answer = Peers::finish(domain, &options, self.client.clone().get_user_by_handle(request)).await?;
        let profile = answer.profile.and_then(|profile| from_profile(&profile, domain).ok());
        Ok(profile.filter(|profile| profile.handle.as_ref() == Some(handle)))
    }

    /// Search by the other backend's policy for us.
    #[tracing::instrument(name = "peer.search_users", skip_all, fields(peer.domain = %domain))]
    pub(crate) async fn search(
        &self,
        domain: &Domain,
        term: String,
        only_in_teams: Option<Vec<TeamId>>,
        size: usize,
    ) -> Result<(Vec<Profile>, SearchPolicy), PeerError> {
        let options = CallOptions::default();
        let message = SearchUsersRequest {
            term,
            searcher_team: None,
            only_in_teams: only_in_teams.map(|teams| TeamList { teams: teams.iter().map(bytes_of).collect() }),
            size: u32::try_from(size).unwrap_or(u32::MAX),
        };
        let request = Peers::request(domain, message, &options);
        let answer = Peers::finish(domain, &options, self.client.clone().search_users(request)).await?;
        let policy = answer.policy().try_into().map_err(|error| PeerError::invalid_answer(domain, error))?;
        let mut seen = HashSet::new();
        let profiles = answer.profiles.iter().take(size).filter_map(|profile| from_profile(profile, domain).ok());
        let profiles = profiles.filter(|profile| seen.insert(profile.id.id)).collect();
        Ok((profiles, policy))
    }

    /// Clients of at most [`MAX_USERS`] users of one backend; users without clients are left out.
    #[tracing::instrument(name = "peer.list_clients", skip_all, fields(peer.domain = %domain))]
    pub(crate) async fn list_clients(&self, domain: &Domain, users: &[UserId]) -> Result<Vec<UserClients>, PeerError> {
        let options = CallOptions::default();
        let message = ListClientsRequest { users: users.iter().map(bytes_of).collect(), lease: false };
        let request = Peers::request(domain, message, &options);
        let answer = Peers::finish(domain, &options, self.client.clone().list_clients(request)).await?;
        let mut wanted: HashSet<UserId> = users.iter().copied().collect();
        let mut found = Vec::with_capacity(answer.users.len().min(MAX_USERS));
        for clients in answer.users.iter().take(MAX_USERS) {
            let clients = from_clients(clients).map_err(|error| PeerError::invalid_answer(domain, error))?;
            if wanted.remove(&clients.user) {
                found.push(clients);
            }
        }
        Ok(found)
    }

    /// Has a backend forget what it knows of the clients of at most [`MAX_USERS`] users of ours.
    #[tracing::instrument(name = "peer.forget_clients", skip_all, fields(peer.domain = %domain))]
    pub(crate) async fn forget_clients(&self, domain: &Domain, users: &[UserId]) -> Result<(), PeerError> {
        let options = CallOptions { deadline: Some(FORGET), ..CallOptions::default() };
        let message = ForgetClientsRequest { users: users.iter().map(bytes_of).collect() };
        let request = Peers::request(domain, message, &options);
        Peers::finish(domain, &options, self.conversations.clone().forget_clients(request)).await.map(drop)
    }

    /// Takes one prekey for each wanted client of at most [`MAX_USERS`] users of one backend. A wanted client that the
    /// answer leaves out has none.
    #[tracing::instrument(name = "peer.claim_prekeys", skip_all, fields(peer.domain = %domain))]
    pub(crate) async fn claim_prekeys(
        &self,
        domain: &Domain,
        wanted: &[(UserId, WantedClients)],
    ) -> Result<Vec<ClaimedPrekeys>, PeerError> {
        let options = CallOptions::default();
        let claims = wanted.iter().map(|(user, clients)| {
            let (clients, all_clients) = match clients {
                WantedClients::All => (Vec::new(), true),
                WantedClients::These(clients) => (clients.iter().map(|client| client.0).collect(), false),
            };
            Claim { user: bytes_of(user), clients, all_clients }
        });
        let request = Peers::request(domain, ClaimPrekeysRequest { claims: claims.collect() }, &options);
        let answer = Peers::finish(domain, &options, self.client.clone().claim_prekeys(request)).await?;
        let mut given: HashMap<UserId, Vec<(ClientId, Option<Prekey>)>> = HashMap::new();
        for user in answer.users.iter().take(MAX_USERS) {
            let id = user_id(&user.user).map_err(|error| PeerError::invalid_answer(domain, error))?;
            let prekeys = user.clients.iter().take(MAX_CLIENTS).map(|client| {
                let prekey = client.prekey.as_ref().and_then(|prekey| from_prekey(prekey).ok());
                (ClientId(client.client), prekey)
            });
            given.insert(id, prekeys.collect());
        }
        let answers = wanted.iter().map(|(user, clients)| {
            let given = given.remove(user).unwrap_or_default();
            let prekeys = match clients {
                WantedClients::All => given,
                WantedClients::These(clients) => {
                    let mut given: HashMap<_, _> = given.into_iter().collect();
                    clients.iter().map(|client| (*client, given.remove(client).flatten())).collect()
                }
            };
            (*user, prekeys)
        });
        Ok(answers.collect())
    }

    /// Asks to connect a user of ours with one of theirs.
    #[tracing::instrument(name = "peer.request_connection", skip_all, fields(peer.domain = %to.domain()))]
    pub(crate) async fn request_connection(
        &self,
        request: &ConnectionRequest,
        to: &Remote<UserId>,
    ) -> Result<RemoteAnswer, PeerError> {
        let options = CallOptions::default();
        let domain = to.domain();
        let message = RequestConnectionRequest {
            from: bytes_of(request.from),
            to: bytes_of(to.id()),
            from_team: None,
            time: request.time.millis(),
            from_name: request.from_name.as_str().to_owned(),
        };
        let call = Peers::request(domain, message, &options);
        let answer = Peers::finish(domain, &options, self.client.clone().request_connection(call)).await?;
        match answer.outcome {
            Some(connection::Outcome::Connected(connected)) => match connected.reaction() {
                connection::Reaction::None => Ok(RemoteAnswer::Connected(false)),
                connection::Reaction::Connect => Ok(RemoteAnswer::Connected(true)),
                connection::Reaction::Unspecified => Err(PeerError::invalid_answer(domain, "no reaction")),
            },
            Some(connection::Outcome::Refused(refused)) => match refused.reason() {
                connection::refused::Reason::NotActivated => Ok(RemoteAnswer::NotActivated),
                connection::refused::Reason::TeamNotFederating => Ok(RemoteAnswer::TeamNotFederating),
                connection::refused::Reason::Unspecified => Err(PeerError::invalid_answer(domain, "no reason")),
            },
            None => Err(PeerError::invalid_answer(domain, "no outcome")),
        }
    }
}
