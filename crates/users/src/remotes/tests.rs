use aldis_proto::internal::v1::{
    ListRemotesRequest, RemoteState as StateMessage, SetRemoteRequest, SetRemoteStateRequest, WatchPolicyRequest,
    policy_client::PolicyClient, remote_admin_client::RemoteAdminClient,
};
use tonic::Code;

use super::store::{SqliteRemotes, suite};
use crate::testing::{Backend, database};

fn set(domain: &str, search_policy: u32) -> SetRemoteRequest {
    SetRemoteRequest { domain: domain.to_owned(), search_policy, ..SetRemoteRequest::default() }
}

fn state(domain: &str, state: StateMessage) -> SetRemoteStateRequest {
    SetRemoteStateRequest { domain: domain.to_owned(), state: state.into() }
}

#[tokio::test]
async fn suite_on_sqlite() {
    let (_folder, db) = database().await;
    suite::all(&SqliteRemotes::new(db)).await;
}

#[tokio::test]
async fn a_change_is_in_force_at_once_and_streamed() {
    let backend = Backend::alone().await;
    let beta = "beta.test".parse().unwrap();
    let mut watch =
        PolicyClient::new(backend.internal.clone()).watch(WatchPolicyRequest {}).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert!(first.remotes.is_empty());
    assert!(!backend.policy.allows(&beta));
    let mut admin = RemoteAdminClient::new(backend.admin.clone());
    admin.set_remote(set("Beta.test", 2)).await.unwrap();
    assert!(backend.policy.allows(&beta));
    let next = watch.message().await.unwrap().unwrap();
    assert!(next.version > first.version);
    assert_eq!((next.remotes[0].domain.as_str(), next.remotes[0].search_policy), ("beta.test", 2));

    admin.set_remote_state(state("beta.test", StateMessage::Suspended)).await.unwrap();
    assert!(!backend.policy.allows(&beta));
    admin.set_remote(set("beta.test", 3)).await.unwrap();
    assert!(!backend.policy.allows(&beta), "a new search policy resumes nobody");
    admin.set_remote_state(state("beta.test", StateMessage::Active)).await.unwrap();
    assert!(backend.policy.allows(&beta));
    let listed = admin.list_remotes(ListRemotesRequest {}).await.unwrap().into_inner().policy.unwrap();
    assert_eq!(listed.remotes.len(), 1);
    let version = listed.version;
    admin.set_remote_state(state("beta.test", StateMessage::Active)).await.unwrap();
    let listed = admin.list_remotes(ListRemotesRequest {}).await.unwrap().into_inner().policy.unwrap();
    assert_eq!(listed.version, version, "nothing changed");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_one_line() {
    let backend = Backend::alone().await;
    let mut admin = RemoteAdminClient::new(backend.admin.clone());
    let mut refused = Vec::new();
    for request in [set("alpha.test", 3), set("not a domain", 3), set("beta.test", 0), set("beta.test", 9)] {
        refused.push(admin.set_remote(request).await.unwrap_err());
    }
    for request in [state("alpha.test", StateMessage::Suspended), state("beta.test", StateMessage::Unspecified)] {
        refused.push(admin.set_remote_state(request).await.unwrap_err());
    }
    assert!(refused.iter().all(|status| status.code() == Code::InvalidArgument), "{refused:?}");
    assert!(refused.iter().all(|status| !status.message().is_empty() && !status.message().contains('\n')));
    let unknown = admin.set_remote_state(state("beta.test", StateMessage::Suspended)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let unknown = admin.set_remote_state(state("beta.test", StateMessage::Ended)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn what_was_ended_is_not_resumed_but_set_anew() {
    let backend = Backend::alone().await;
    let mut admin = RemoteAdminClient::new(backend.admin.clone());
    admin.set_remote(set("beta.test", 3)).await.unwrap();
    admin.set_remote_state(state("beta.test", StateMessage::Ended)).await.unwrap();
    let remotes = async |mut admin: RemoteAdminClient<_>| {
        admin.list_remotes(ListRemotesRequest {}).await.unwrap().into_inner().policy.unwrap().remotes
    };
    let first = remotes(admin.clone()).await.remove(0);
    assert!(first.state() == StateMessage::Ended && first.ended > 0);
    for other in [StateMessage::Active, StateMessage::Suspended] {
        let refused = admin.set_remote_state(state("beta.test", other)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
    admin.set_remote_state(state("beta.test", StateMessage::Ended)).await.unwrap();
    assert_eq!(remotes(admin.clone()).await.remove(0).ended, first.ended, "ended once");
    admin.set_remote(set("beta.test", 2)).await.unwrap();
    let revived = remotes(admin.clone()).await.remove(0);
    assert!(revived.state() == StateMessage::Active && revived.ended == 0);
}
