//! What an administrator does with what waits.

use aldis_proto::internal::v1::{
    ChangeOutboxRequest, ListBacklogRequest, ListLanesRequest, ListRowsRequest,
    change_outbox_request::{Change, Drop, Pause, Replay, Resume},
    conversations_outbox_server::ConversationsOutbox as _,
};

use super::*;
use crate::{OutboxServer, conversations_outbox_at_rest, conversations_outbox_to_read};

const BETA: &str = "beta.test";

async fn change(server: &OutboxServer, change: Change) -> Result<(u64, u64), Status> {
    let request = ChangeOutboxRequest { peer: BETA.to_owned(), change: Some(change) };
    let answer = server.change_outbox(Request::new(request)).await?.into_inner();
    Ok((answer.rows, answer.skipped))
}

fn lane(lane: u8) -> Bytes {
    vec![lane; 16].into()
}

#[tokio::test]
async fn what_waits_is_told_by_peer_lane_and_event_but_never_what_it_says() {
    let pair = pair().await;
    let server = OutboxServer::of(pair.outbox.clone());
    pair.send(vec![to_beta(1, "reject")]).await;
    eventually("a dead letter", async || pair.count("conversations_outbox").await == 0).await;
    change(&server, Change::Pause(Pause {})).await.unwrap();
    pair.send(vec![to_beta(1, "secret"), to_beta(2, "b"), to_beta(1, "c")]).await;
    eventually("the relay is held", async || {
        let answer = server.list_backlog(Request::new(ListBacklogRequest {})).await.unwrap().into_inner();
        let [peer] = answer.peers.as_slice() else { panic!("{answer:?}") };
        assert_eq!((peer.peer.as_str(), peer.rows, peer.bytes, peer.dead, peer.marked), (BETA, 3, 8, 1, 0));
        assert!(peer.oldest > 0 && peer.paused > 0);
        peer.activity == "paused"
    })
    .await;
    let lanes = ListLanesRequest { peer: BETA.to_owned(), limit: 10 };
    let lanes = server.list_lanes(Request::new(lanes)).await.unwrap().into_inner().lanes;
    let counted: Vec<_> = lanes.iter().map(|it| (it.lane.clone(), it.rows, it.bytes, it.dead)).collect();
    assert_eq!(counted, [(lane(1), 2, 7, 1), (lane(2), 1, 1, 0)]);
    let rows = async |dead, after| {
        let peer = BETA.to_owned();
        let asked = ListRowsRequest { peer, lane: Some(lane(1)), dead, after, limit: 10 };
        server.list_rows(Request::new(asked)).await.unwrap().into_inner().rows
    };
    let waiting = rows(false, 0).await;
    let told: Vec<_> = waiting.iter().map(|row| (row.sequence, row.kind, row.bytes)).collect();
    assert_eq!(told, [(2, 30, 6), (3, 30, 1)]);
    assert_eq!(rows(false, waiting[0].id).await.len(), 1);
    let dead = rows(true, 0).await;
    assert_eq!((dead.len(), dead[0].reason.as_str(), dead[0].died > 0), (1, "bad-request", true));
    assert!(!format!("{waiting:?}").contains("secret"));
    let bad = ListRowsRequest { peer: BETA.to_owned(), limit: 0, ..ListRowsRequest::default() };
    assert!(server.list_rows(Request::new(bad)).await.is_err());
    change(&server, Change::Resume(Resume {})).await.unwrap();
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
}

#[tokio::test]
async fn refused_messages_are_sent_again_and_refused_changes_are_not() {
    let pair = pair().await;
    let server = OutboxServer::of(pair.outbox.clone());
    let changed = Outgoing { kind: 13, ..to_beta(1, "reject") };
    let events = ["reject-1", "a", "reject-3", "b"].map(|body| to_beta(1, body));
    pair.send([vec![changed], events.into()].concat()).await;
    pair.send(vec![to_beta(2, "reject-1 2")]).await;
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.count("conversations_outbox_dead").await, 4);
    let again = Change::Replay(Replay { lane: Some(lane(1)) });
    assert_eq!(change(&server, again.clone()).await.unwrap(), (2, 1));
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.seen(1).await, ["a", "b", "reject-1"]);
    assert_eq!(pair.count("conversations_outbox_dead").await, 3);
    assert_eq!(pair.count("conversations_reconcile").await, 1);
    let forget = |lane| Change::Drop(Drop { lane, dead: true });
    assert_eq!(change(&server, forget(Some(lane(2)))).await.unwrap(), (1, 0));
    assert_eq!(change(&server, forget(None)).await.unwrap(), (2, 0));
    assert_eq!(pair.count("conversations_outbox_dead").await, 0);
}

#[tokio::test]
async fn what_waits_is_dropped_by_lane_and_the_peer_is_told() {
    let pair = pair().await;
    let server = OutboxServer::of(pair.outbox.clone());
    change(&server, Change::Pause(Pause {})).await.unwrap();
    pair.send([(1, "a"), (2, "b"), (1, "c")].map(|(lane, body)| to_beta(lane, body)).into()).await;
    let dropped = Change::Drop(Drop { lane: Some(lane(1)), dead: false });
    assert_eq!(change(&server, dropped.clone()).await.unwrap(), (2, 0));
    assert_eq!(change(&server, dropped).await.unwrap(), (0, 0));
    pair.send(vec![to_beta(1, "d")]).await;
    change(&server, Change::Resume(Resume {})).await.unwrap();
    eventually("the outbox is empty", async || pair.count("conversations_outbox").await == 0).await;
    assert_eq!(pair.seen(1).await, ["missed 1-2", "d"]);
    assert_eq!(pair.seen(2).await, ["b"]);
}

#[tokio::test]
async fn what_makes_no_sense_changes_nothing() {
    let pair = pair().await;
    let server = OutboxServer::of(pair.outbox.clone());
    let code = async |peer: &str, change| {
        let request = ChangeOutboxRequest { peer: peer.to_owned(), change };
        server.change_outbox(Request::new(request)).await.unwrap_err().code()
    };
    let drop_in = |lane: &[u8]| Change::Drop(Drop { lane: Some(lane.to_vec().into()), dead: false });
    assert_eq!(code(BETA, None).await, tonic::Code::InvalidArgument);
    assert_eq!(code(BETA, Some(drop_in(b"short"))).await, tonic::Code::InvalidArgument);
    assert_eq!(code("service:notifications", Some(Change::Pause(Pause {}))).await, tonic::Code::InvalidArgument);
    // Over a store that is another process's nothing is changed.
    let place = InProcess::new();
    place.serve(Routes::new(conversations_outbox_to_read(pair.alpha.db.clone())));
    let mut client =
        aldis_proto::internal::v1::conversations_outbox_client::ConversationsOutboxClient::new(place.channel());
    let request = ChangeOutboxRequest { peer: BETA.to_owned(), change: Some(Change::Pause(Pause {})) };
    assert_eq!(client.change_outbox(request).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    assert!(client.list_backlog(ListBacklogRequest {}).await.is_ok());
}

#[tokio::test]
async fn what_is_changed_at_rest_is_found_by_the_relays() {
    let first = pair().await;
    change(&OutboxServer::of(first.outbox.clone()), Change::Pause(Pause {})).await.unwrap();
    first.send(["a", "b"].map(|body| to_beta(1, body)).into()).await;
    let Pair { alpha, beta, _relay: relay, outbox, .. } = first;
    std::mem::drop((relay, outbox));

    let clock = Arc::new(SystemClock);
    let at_rest = Outbox::open(Component::Conversations, domain("alpha.test"), alpha.db.clone(), clock).await.unwrap();
    let place = InProcess::new();
    place.serve(Routes::new(conversations_outbox_at_rest(at_rest)));
    let mut client =
        aldis_proto::internal::v1::conversations_outbox_client::ConversationsOutboxClient::new(place.channel());
    let peers = client.list_backlog(ListBacklogRequest {}).await.unwrap().into_inner().peers;
    assert_eq!((peers[0].rows, peers[0].activity.as_str()), (2, ""));
    for (wanted, rows) in [(Change::Drop(Drop { lane: Some(lane(1)), dead: false }), 2), (Change::Resume(Resume {}), 0)]
    {
        let request = ChangeOutboxRequest { peer: BETA.to_owned(), change: Some(wanted) };
        assert_eq!(client.change_outbox(request).await.unwrap().into_inner().rows, rows);
    }
    std::mem::drop(place);

    let second = pair_of(alpha, beta, None).await;
    second.send(vec![to_beta(1, "c")]).await;
    eventually("the outbox is empty", async || second.count("conversations_outbox").await == 0).await;
    assert_eq!(second.seen(1).await, ["missed 1-2", "c"]);
}
