//! What other backends may ask about our users, and tell us about theirs. Every caller is a proven origin that our
//! policy admits; ids of acting users are bare and belong to the origin; everything has a bound.

use std::{collections::HashSet, sync::Arc};

use aldis_api::status;
use aldis_delivery::{Arrivals, Envelope, Positions, Receive, Verdict};
use aldis_peers::{Origin, Policy};
use aldis_proto::{
    convert::{
        InvalidWire, bytes_of, client_ids, from_profile, optional_team, to_clients, to_prekey, to_profile, user_id,
        user_ids,
    },
    federation::v1::{
        ClaimPrekeysRequest, ClaimPrekeysResponse, GetUserByHandleRequest, GetUserByHandleResponse, GetUsersRequest,
        GetUsersResponse, ListClientsRequest, ListClientsResponse, ListConnectionsRequest, ListConnectionsResponse,
        RequestConnectionRequest, RequestConnectionResponse, SearchPolicy as SearchPolicyMessage, SearchUsersRequest,
        SearchUsersResponse, UsersEvent,
        claim_prekeys_request::Claim,
        claim_prekeys_response::{ClientPrekey, UserPrekeys},
        list_connections_response::Connection,
        request_connection_response::{Connected, Outcome, Reaction, Refused, refused::Reason},
        users_event::Change,
        users_server::{Users, UsersServer},
    },
};
use aldis_storage::StoreError;
use aldis_types::{Domain, Handle, Name, Profile, Qualified, SearchPolicy, Timestamp, UserId};
use prost::Message;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use crate::{
    accounts::Accounts,
    clients::Clients,
    connections::{
        Asked, ConnectionError, Connections,
        reconciliation::{read_pair, write_pair},
    },
    events::{CONNECTION_RESCINDED, PROFILE_CHANGED, USER_DELETED},
    peers::{MAX_USERS, WantedClients},
    quotas::Quotas,
    search::{MAX_TERM_CHARS, Search},
};

/// Most clients of one user in a claim.
const MAX_CLIENTS: usize = 64;
/// What a claim of every client counts as.
const ALL_CLIENTS_COUNT: usize = 8;
/// Largest request.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;
/// Largest event in the lane of a user.
const MAX_EVENT_BYTES: usize = 64 * 1024;

/// The capabilities that other backends use.
pub(crate) struct Federation {
    pub(crate) domain: Domain,
    pub(crate) policy: Policy,
    pub(crate) accounts: Accounts,
    pub(crate) clients: Clients,
    pub(crate) connections: Connections,
    pub(crate) search: Search,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) arrivals: Arrivals,
}

impl Federation {
    pub(crate) fn server(self: Arc<Self>) -> UsersServer<Self> {
        UsersServer::from_arc(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// The calling backend, which our policy admits.
    fn admit<T>(&self, request: &Request<T>) -> Result<Origin, Status> {
        self.policy.admit_caller(&self.domain, request)
    }

    fn search_policy(&self, origin: &Origin) -> SearchPolicy {
        self.policy.current().search_policy(origin.domain())
    }
}

fn claims(claims: &[Claim]) -> Result<Vec<(UserId, WantedClients)>, InvalidWire> {
    if claims.len() > MAX_USERS {
        return Err(InvalidWire("claims"));
    }
    let mut seen = HashSet::with_capacity(claims.len());
    let wanted = claims.iter().map(|claim| {
        let user = user_id(&claim.user)?;
        if claim.clients.len() > MAX_CLIENTS || (claim.all_clients && !claim.clients.is_empty()) || !seen.insert(user) {
            return Err(InvalidWire("claims"));
        }
        let clients =
            if claim.all_clients { WantedClients::All } else { WantedClients::These(client_ids(&claim.clients)) };
        Ok((user, clients))
    });
    wanted.collect()
}

#[tonic::async_trait]
impl Users for Federation {
    #[tracing::instrument(name = "grpc.federation.get_users", skip_all, fields(peer.domain))]
    async fn get_users(&self, request: Request<GetUsersRequest>) -> Result<Response<GetUsersResponse>, Status> {
        self.admit(&request)?;
        let users = user_ids(&request.into_inner().users, MAX_USERS)?;
        let accounts = self.accounts.accounts(users).await.map_err(|error| status(&error))?;
        let profiles = accounts.iter().map(|account| to_profile(&account.profile(&self.domain))).collect();
        Ok(Response::new(GetUsersResponse { profiles }))
    }

    #[tracing::instrument(name = "grpc.federation.get_user_by_handle", skip_all)]
    async fn get_user_by_handle(
        &self,
        request: Request<GetUserByHandleRequest>,
    ) -> Result<Response<GetUserByHandleResponse>, Status> {
        let origin = self.admit(&request)?;
        let request = request.into_inner();
        let handle: Handle = request.handle.parse().map_err(|_| InvalidWire("handle"))?;
        self.quotas.handle(&origin, &handle)?;
        let team = optional_team(request.searcher_team.as_ref())?;
        let allowed = self.search_policy(&origin) != SearchPolicy::NoSearch
            && self.policy.current().allows_team(origin.domain(), team);
        if !allowed {
            return Ok(Response::new(GetUserByHandleResponse { profile: None }));
        }
        let found = self.accounts.profile_by_handle(&self.domain, &handle).await.map_err(|error| status(&error))?;
        Ok(Response::new(GetUserByHandleResponse { profile: found.as_ref().map(to_profile) }))
    }

    #[tracing::instrument(name = "grpc.federation.search_users", skip_all)]
    async fn search_users(
        &self,
        request: Request<SearchUsersRequest>,
    ) -> Result<Response<SearchUsersResponse>, Status> {
        let origin = self.admit(&request)?;
        let request = request.into_inner();
        let team = optional_team(request.searcher_team.as_ref())?;
        if request.term.is_empty() || request.term.chars().count() > MAX_TERM_CHARS {
            return Err(InvalidWire("term").into());
        }
        self.quotas.search(&origin, &request.term)?;
        let policy = self.search_policy(&origin);
        // Our users are in no team, so a filter by team leaves nobody.
        let nobody = request.only_in_teams.is_some() || !self.policy.current().allows_team(origin.domain(), team);
        let size = usize::try_from(request.size).unwrap_or(usize::MAX);
        let found = if nobody {
            Vec::new()
        } else {
            self.search.for_origin(policy, &request.term, size).await.map_err(|error| status(&error))?
        };
        let policy = SearchPolicyMessage::from(policy).into();
        Ok(Response::new(SearchUsersResponse { profiles: found.iter().map(to_profile).collect(), policy }))
    }

    #[tracing::instrument(name = "grpc.federation.list_clients", skip_all)]
    async fn list_clients(
        &self,
        request: Request<ListClientsRequest>,
    ) -> Result<Response<ListClientsResponse>, Status> {
        let origin = self.admit(&request)?;
        let request = request.into_inner();
        let users = user_ids(&request.users, MAX_USERS)?;
        let listed = if request.lease {
            self.clients.lease(origin.domain(), &users).await
        } else {
            self.clients.list_local(&users).await.map(|clients| (clients, None))
        };
        let (clients, lease) = listed.map_err(|error| status(&error))?;
        let lease_millis = lease.map_or(0, |lease| u32::try_from(lease.as_millis()).unwrap_or(0));
        Ok(Response::new(ListClientsResponse { users: clients.iter().map(to_clients).collect(), lease_millis }))
    }

    #[tracing::instrument(name = "grpc.federation.claim_prekeys", skip_all)]
    async fn claim_prekeys(
        &self,
        request: Request<ClaimPrekeysRequest>,
    ) -> Result<Response<ClaimPrekeysResponse>, Status> {
        let origin = self.admit(&request)?;
        let wanted = claims(&request.into_inner().claims)?;
        let counts: Vec<_> = wanted
            .iter()
            .map(|(user, clients)| match clients {
                WantedClients::All => (*user, ALL_CLIENTS_COUNT),
                WantedClients::These(clients) => (*user, clients.len()),
            })
            .collect();
        self.quotas.prekeys(&origin, &counts)?;
        let taken = self.clients.take_prekeys(wanted).await.map_err(|error| status(&error))?;
        let users = taken
            .into_iter()
            .map(|(user, prekeys)| UserPrekeys {
                user: bytes_of(user),
                clients: prekeys
                    .into_iter()
                    .map(|(client, prekey)| ClientPrekey { client: client.0, prekey: prekey.as_ref().map(to_prekey) })
                    .collect(),
            })
            .collect();
        Ok(Response::new(ClaimPrekeysResponse { users }))
    }

    #[tracing::instrument(name = "grpc.federation.request_connection", skip_all)]
    async fn request_connection(
        &self,
        request: Request<RequestConnectionRequest>,
    ) -> Result<Response<RequestConnectionResponse>, Status> {
        let origin = self.admit(&request)?;
        let request = request.into_inner();
        let from = Qualified::new(user_id(&request.from)?, origin.domain().clone());
        let to = user_id(&request.to)?;
        let name: Name = request.from_name.parse().map_err(|_| InvalidWire("from_name"))?;
        let team = optional_team(request.from_team.as_ref())?;
        self.quotas.connection(origin.domain(), to)?;
        let time = Timestamp::from_millis(request.time);
        let asked = self.connections.asked(from, name, team, to, time).await.map_err(|error| status(&error))?;
        let refused = |reason: Reason| Outcome::Refused(Refused { reason: reason.into() });
        let outcome = match asked {
            Asked::Noted(true) => Outcome::Connected(Connected { reaction: Reaction::Connect.into() }),
            Asked::Noted(false) => Outcome::Connected(Connected { reaction: Reaction::None.into() }),
            Asked::NotActivated => refused(Reason::NotActivated),
            Asked::TeamNotFederating => refused(Reason::TeamNotFederating),
        };
        Ok(Response::new(RequestConnectionResponse { outcome: Some(outcome) }))
    }

    #[tracing::instrument(name = "grpc.federation.list_connections", skip_all)]
    async fn list_connections(
        &self,
        request: Request<ListConnectionsRequest>,
    ) -> Result<Response<ListConnectionsResponse>, Status> {
        let origin = self.admit(&request)?;
        let request = request.into_inner();
        let after = request.after.as_ref().map(read_pair).transpose()?;
        self.quotas.comparison(&origin)?;
        let told = self.connections.told(origin.domain(), after).await;
        let told = told.map_err(|error| status(&ConnectionError::from(error)))?;
        let Some((told, more)) = told else {
            return Err(Status::unavailable("too many requests are on their way"));
        };
        if request.compare_too {
            self.arrivals.note(origin.domain());
        }
        let connections = told.into_iter().map(|told| Connection {
            pair: Some(write_pair((told.user, told.other))),
            time: told.time.millis(),
            unsettled: told.unsettled,
        });
        Ok(Response::new(ListConnectionsResponse { connections: connections.collect(), more }))
    }
}

/// An event that makes sense: what a user of the origin did.
enum Event {
    Rescinded { to: UserId, time: Timestamp },
    Deleted,
    Profile(Box<Profile>),
}

/// Why an event is not applied.
enum Unreadable {
    Malformed,
    Unknown,
}

/// Why an event that makes no sense is refused.
const BAD_REQUEST: &str = "bad-request";

/// Kinds of event that are understood.
pub(crate) const KINDS: &[u32] = &[CONNECTION_RESCINDED, USER_DELETED, PROFILE_CHANGED];

/// Who did what. The lane of a user holds what that user did, and nothing else.
fn read(origin: &Origin, envelope: &Envelope) -> Result<(Qualified<UserId>, Event), Unreadable> {
    if !KINDS.contains(&envelope.kind) {
        return Err(Unreadable::Unknown);
    }
    if envelope.body.len() > MAX_EVENT_BYTES {
        return Err(Unreadable::Malformed);
    }
    let malformed = |_| Unreadable::Malformed;
    let event = UsersEvent::decode(envelope.body.clone()).map_err(|_| Unreadable::Malformed)?;
    let user = Qualified::new(user_id(&event.user).map_err(malformed)?, origin.domain().clone());
    if *user.id.as_bytes() != envelope.lane {
        return Err(Unreadable::Malformed);
    }
    let read = match (envelope.kind, event.change) {
        (CONNECTION_RESCINDED, Some(Change::ConnectionRescinded(rescinded))) => {
            let to = user_id(&rescinded.to).map_err(malformed)?;
            Event::Rescinded { to, time: Timestamp::from_millis(event.time) }
        }
        (USER_DELETED, Some(Change::UserDeleted(_))) => Event::Deleted,
        (PROFILE_CHANGED, Some(Change::ProfileChanged(changed))) => {
            let profile = changed.profile.ok_or(Unreadable::Malformed)?;
            let profile = from_profile(&profile, origin.domain()).map_err(malformed)?;
            if profile.id != user {
                return Err(Unreadable::Malformed);
            }
            Event::Profile(Box::new(profile))
        }
        _ => return Err(Unreadable::Malformed),
    };
    Ok((user, read))
}

impl Federation {
    async fn apply(&self, origin: &Origin, envelope: Envelope, positions: &Positions) -> Verdict {
        let positions = positions.clone();
        let connections = &self.connections;
        let outcome = match read(origin, &envelope) {
            Err(Unreadable::Unknown) => return Verdict::Unsupported,
            Err(Unreadable::Malformed) => {
                let skipped = connections.store().skip(positions, envelope.refused(BAD_REQUEST)).await;
                skipped.map(|()| Verdict::Rejected(BAD_REQUEST)).map_err(ConnectionError::from)
            }
            Ok((from, Event::Rescinded { to, time })) => {
                connections.taken_back(from, to, time, positions, envelope).await.map(|()| Verdict::Applied)
            }
            Ok((gone, Event::Deleted)) => {
                connections.departed(gone, positions, envelope).await.map(|()| Verdict::Applied)
            }
            Ok((_, Event::Profile(profile))) => {
                connections.profile_changed(*profile, positions, envelope).await.map(|()| Verdict::Applied)
            }
        };
        outcome.unwrap_or_else(|error| {
            tracing::error!(%error, peer.domain = %origin.domain(), "an event of another backend cannot be applied");
            Verdict::Deferred
        })
    }
}

#[async_trait::async_trait]
impl Receive for Federation {
    async fn receive(&self, origin: &Origin, envelopes: Vec<Envelope>, positions: &Positions) -> Vec<Verdict> {
        let mut waiting: HashSet<[u8; 16]> = HashSet::new();
        let mut verdicts = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            let lane = envelope.lane;
            let verdict = if waiting.contains(&lane) {
                Verdict::Deferred
            } else {
                let span = tracing::info_span!("received.user_event", peer.domain = %origin.domain());
                envelope.trace.join(&span);
                self.apply(origin, envelope, positions).instrument(span).await
            };
            if !matches!(verdict, Verdict::Applied | Verdict::Rejected(_)) {
                waiting.insert(lane);
            }
            verdicts.push(verdict);
        }
        verdicts
    }

    async fn missed(&self, origin: &Origin, envelopes: Vec<Envelope>, positions: &Positions) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            let user = UserId::new(uuid::Uuid::from_bytes(envelope.lane));
            tracing::warn!(peer.domain = %origin.domain(), user.id = %user, "another backend dropped what a user of its own did");
            let user = Qualified::new(user, origin.domain().clone());
            let noted = self.connections.missed(user, positions.clone(), envelope).await;
            verdicts.push(match noted {
                Ok(()) => Verdict::Applied,
                Err(error) => {
                    tracing::error!(%error, "what was dropped by another backend cannot be noted");
                    Verdict::Deferred
                }
            });
        }
        verdicts
    }

    /// Connections are compared, not told of: nobody reads what others did in order.
    async fn renewed(&self, _: &Origin, _: [u8; 16]) -> Result<(), StoreError> {
        Ok(())
    }

    fn opened(&self, origin: &Origin) {
        self.arrivals.note(origin.domain());
    }
}
