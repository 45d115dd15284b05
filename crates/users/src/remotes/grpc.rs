//! `aldis.internal.v1.Policy` and `aldis.internal.v1.RemoteAdmin`.

use std::sync::Arc;

use aldis_api::status;
use aldis_proto::{
    convert::{key_pin, team_id, to_policy},
    federation::v1::SearchPolicy as SearchPolicyMessage,
    internal::v1::{
        ListRemotesRequest, ListRemotesResponse, PolicySnapshot as PolicyMessage, SetRemoteRequest, SetRemoteResponse,
        SetRemoteStateRequest, SetRemoteStateResponse, WatchPolicyRequest,
        policy_server::{Policy as PolicyService, PolicyServer},
        remote_admin_server::{RemoteAdmin, RemoteAdminServer},
    },
};
use aldis_types::{Domain, PolicySnapshot, SearchPolicy};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::{RemoteChange, RemoteError, Remotes, Restriction};
use crate::{administration::Administration, audit::Administrator, beats};

/// Streams the policy to our own services.
pub(crate) struct PolicyGrpc(pub(crate) Remotes);

impl PolicyGrpc {
    pub(crate) fn server(self) -> PolicyServer<Self> {
        PolicyServer::new(self)
    }
}

#[tonic::async_trait]
impl PolicyService for PolicyGrpc {
    type WatchStream = BoxStream<'static, Result<PolicyMessage, Status>>;

    #[tracing::instrument(name = "grpc.remotes.watch", skip_all)]
    async fn watch(&self, _: Request<WatchPolicyRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let message = |snapshot: &Arc<PolicySnapshot>| to_policy(snapshot);
        Ok(Response::new(beats::stream(self.0.watch(), message)))
    }
}

/// Teams that one remote can be restricted to.
const MAX_TEAMS: usize = 1000;
/// Keys that can be pinned for one remote.
const MAX_PINS: usize = 16;

/// The list for the administrator.
pub(crate) struct RemoteAdminGrpc {
    pub(crate) remotes: Remotes,
    pub(crate) administration: Administration,
}

impl RemoteAdminGrpc {
    pub(crate) fn server(self) -> RemoteAdminServer<Self> {
        RemoteAdminServer::new(self)
    }
}

fn domain(text: &str) -> Result<Domain, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("{text:?} is {error}")))
}

fn change(request: &SetRemoteRequest) -> Result<RemoteChange, Status> {
    let search_policy = match request.search_policy {
        0 => None,
        number => {
            let policy = i32::try_from(number)
                .ok()
                .and_then(|number| SearchPolicyMessage::try_from(number).ok())
                .and_then(|policy| SearchPolicy::try_from(policy).ok());
            Some(policy.ok_or_else(|| {
                Status::invalid_argument("the search policy is one of: no_search, exact_handle_search, full_search")
            })?)
        }
    };
    let teams = request.teams.as_ref().map(|restriction| {
        if restriction.teams.len() > MAX_TEAMS || restriction.any != restriction.teams.is_empty() {
            return Err(Status::invalid_argument(format!("a restriction names 1 to {MAX_TEAMS} teams")));
        }
        let teams = restriction.teams.iter().map(|team| team_id(team)).collect::<Result<Vec<_>, _>>()?;
        Ok(if restriction.any { Restriction::None } else { Restriction::Teams(teams) })
    });
    let pins = request.pins.as_ref().map(|pins| {
        if pins.pins.len() > MAX_PINS {
            return Err(Status::invalid_argument(format!("at most {MAX_PINS} keys are pinned")));
        }
        Ok(pins.pins.iter().map(|pin| key_pin(pin)).collect::<Result<Vec<_>, _>>()?)
    });
    Ok(RemoteChange { search_policy, teams: teams.transpose()?, pins: pins.transpose()? })
}

impl RemoteAdminGrpc {
    /// Records what was refused, and says so.
    async fn refused(&self, by: &Administrator, action: &'static str, domain: &Domain, error: RemoteError) -> Status {
        let why = match &error {
            RemoteError::OwnDomain => "own-domain",
            RemoteError::Unknown => "not-found",
            RemoteError::NoSearchPolicy => "no-search-policy",
            RemoteError::TooMany => "too-many",
            RemoteError::Ended => "ended",
            RemoteError::Store(_) => "store-failed",
        };
        self.administration.refused(by.does(action, domain), why).await;
        refused(&error)
    }
}

fn refused(error: &RemoteError) -> Status {
    match error {
        RemoteError::OwnDomain | RemoteError::NoSearchPolicy => Status::invalid_argument(error.to_string()),
        RemoteError::Unknown => Status::not_found(error.to_string()),
        RemoteError::TooMany => Status::resource_exhausted(error.to_string()),
        RemoteError::Ended => Status::failed_precondition(error.to_string()),
        RemoteError::Store(_) => status(error),
    }
}

#[tonic::async_trait]
impl RemoteAdmin for RemoteAdminGrpc {
    #[tracing::instrument(name = "grpc.remotes.list", skip_all)]
    async fn list_remotes(&self, _: Request<ListRemotesRequest>) -> Result<Response<ListRemotesResponse>, Status> {
        Ok(Response::new(ListRemotesResponse { policy: Some(to_policy(&self.remotes.current())) }))
    }

    #[tracing::instrument(name = "grpc.remotes.set", skip_all)]
    async fn set_remote(&self, request: Request<SetRemoteRequest>) -> Result<Response<SetRemoteResponse>, Status> {
        let by = Administrator::of(&request);
        let request = request.into_inner();
        let change = change(&request)?;
        let domain = domain(&request.domain)?;
        match self.remotes.set(&by, domain.clone(), change).await {
            Ok(()) => Ok(Response::new(SetRemoteResponse {})),
            Err(error) => Err(self.refused(&by, "remote-set", &domain, error).await),
        }
    }

    #[tracing::instrument(name = "grpc.remotes.set_state", skip_all)]
    async fn set_remote_state(
        &self,
        request: Request<SetRemoteStateRequest>,
    ) -> Result<Response<SetRemoteStateResponse>, Status> {
        let by = Administrator::of(&request);
        let request = request.into_inner();
        let state = request
            .state()
            .try_into()
            .map_err(|_| Status::invalid_argument("the state is one of: active, suspended, ended"))?;
        let domain = domain(&request.domain)?;
        match self.remotes.set_state(&by, domain.clone(), state).await {
            Ok(()) => Ok(Response::new(SetRemoteStateResponse {})),
            Err(error) => Err(self.refused(&by, "remote-state-set", &domain, error).await),
        }
    }
}
