//! The parts of a message's way, each alone: checking its token, storing it, decoding it.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::{collections::BTreeSet, hint::black_box, path::Path, sync::Arc};

use aldis_api::{
    TokenVerifier,
    auth::AuthState,
    token::{self, Claims, Kind},
};
use aldis_delivery::{Component, Outbox, Outgoing, Peer};
use aldis_harness::client::{Draft, Recipients, wire::QualifiedNewOtrMessage};
use aldis_proto::{
    federation::v1::{Batch, ConversationEvent, Envelope, MessageSent, QualifiedId, conversation_event, message_sent},
    internal::v1::{AuthSnapshot, auth_snapshot},
};
use aldis_runtime::SystemClock;
use aldis_storage::{Db, DbOptions, Migration};
use aldis_types::{ClientId, ConnId, Domain, Qualified, UserId};
use anyhow::Result;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ed25519_dalek::SigningKey;
use prost::Message as _;
use tokio::runtime::Runtime;
use uuid::Uuid;

const EXPIRES: i64 = 4_000_000_000;
const NOW: i64 = 1_800_000_000;
const TEXT: usize = 400;

fn tokens(criterion: &mut Criterion) {
    let key = SigningKey::from_bytes(&[7; 32]);
    let claims = Claims {
        user: UserId::new(Uuid::from_u128(1)),
        client: Some(ClientId(0xb17)),
        kind: Kind::Access { connection: ConnId(42) },
        expires: Some(EXPIRES),
        session: false,
    };
    let text = token::sign(&claims, 1, &key);
    let mut group = criterion.benchmark_group("token");
    group.bench_function("sign", |bench| bench.iter(|| token::sign(black_box(&claims), 1, &key)));
    group.bench_function("verify", |bench| {
        bench.iter(|| token::verify(black_box(&text), |_| Some(key.verifying_key())));
    });
    let verifier = TokenVerifier::new();
    verifier.update(AuthState::from_snapshot(&AuthSnapshot {
        keys: vec![auth_snapshot::Key { index: 1, public_key: Bytes::copy_from_slice(key.verifying_key().as_bytes()) }],
        version: 1,
        ..AuthSnapshot::default()
    }));
    group.bench_function("verify again", |bench| bench.iter(|| verifier.verify(black_box(&text), NOW)));
    group.finish();
}

const TABLES: &[Migration] = &[
    Migration { name: "outbox", sql: aldis_delivery::schema!("conversations") },
    Migration { name: "keys of the outbox", sql: aldis_delivery::schema_keys!("conversations") },
    Migration { name: "ages in the outbox", sql: aldis_delivery::schema_ages!("conversations") },
    Migration { name: "stores heard of last", sql: aldis_delivery::schema_incarnations!("conversations") },
    Migration { name: "bounds of the outbox", sql: aldis_delivery::schema_bounds!("conversations") },
];
/// Jobs that one group commit can hold together in this measurement.
const TOGETHER: u64 = 64;

async fn outbox(folder: &Path) -> Result<(Db, Outbox, Domain)> {
    let db = Db::open(&folder.join("store.db"), &DbOptions::default())?;
    db.migrate("conversations", TABLES).await?;
    let own: Domain = "alpha.test".parse()?;
    let outbox = Outbox::open(Component::Conversations, own, db.clone(), Arc::new(SystemClock)).await?;
    Ok((db, outbox, "beta.test".parse()?))
}

async fn append(db: &Db, outbox: &Outbox, peer: &Domain, jobs: u64) -> Result<()> {
    let mut writes = tokio::task::JoinSet::new();
    for job in 0..jobs {
        let (db, outbox, peer) = (db.clone(), outbox.clone(), Peer::Backend(peer.clone()));
        writes.spawn(async move {
            let mut lane = [0; 16];
            lane[..8].copy_from_slice(&job.to_be_bytes());
            let outgoing = Outgoing { peer, lane, kind: 30, body: Bytes::from(vec![0; TEXT]) };
            let appending = outbox.clone();
            let appended = db.write(move |tx| appending.append(tx, std::slice::from_ref(&outgoing))).await?;
            let _ = outbox.committed(appended);
            anyhow::Ok(())
        });
    }
    while let Some(write) = writes.join_next().await {
        write??;
    }
    Ok(())
}

fn store(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let runtime = Runtime::new().expect("runtime");
    let (db, outbox, peer) = runtime.block_on(outbox(folder.path())).expect("store");
    let mut group = criterion.benchmark_group("store");
    group.sample_size(20);
    for jobs in [1, TOGETHER] {
        group.throughput(Throughput::Elements(jobs));
        group.bench_function(format!("append {jobs} together"), |bench| {
            bench.iter(|| runtime.block_on(append(&db, &outbox, &peer, jobs)).expect("append"));
        });
    }
    group.finish();
}

fn recipients(domain: &Domain, users: u128) -> Recipients {
    let one =
        |number| (Qualified::new(UserId::new(Uuid::from_u128(number)), domain.clone()), BTreeSet::from([ClientId(1)]));
    (0..users).map(one).collect()
}

fn batch(domain: &Domain, envelopes: u64) -> Bytes {
    let envelope = |sequence: u64| {
        let recipient = message_sent::Recipient {
            user: Bytes::from_static(&[1; 16]),
            clients: vec![message_sent::ClientText { client: 1, text: Bytes::from(vec![0; TEXT]) }],
        };
        let sent = MessageSent { sender_client: 7, recipients: vec![recipient], ..MessageSent::default() };
        let event = ConversationEvent {
            conversation: Bytes::from_static(&[2; 16]),
            actor: Some(QualifiedId { id: Bytes::from_static(&[3; 16]), domain: domain.to_string() }),
            change: Some(conversation_event::Change::MessageSent(sent)),
            ..ConversationEvent::default()
        };
        Envelope {
            lane: Bytes::from_static(&[2; 16]),
            sequence,
            previous: sequence - 1,
            event_id: Bytes::from_static(&[4; 16]),
            kind: 30,
            body: event.encode_to_vec().into(),
            traceparent: None,
        }
    };
    Batch { envelopes: (1..=envelopes).map(envelope).collect() }.encode_to_vec().into()
}

fn decoding(criterion: &mut Criterion) {
    let domain: Domain = "beta.test".parse().expect("domain");
    let mut group = criterion.benchmark_group("decode");
    for users in [1, 500] {
        let body = Draft::new(recipients(&domain, users), &"x".repeat(TEXT)).encode(ClientId(7));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("message for {users}"), |bench| {
            bench.iter_batched(|| body.clone(), QualifiedNewOtrMessage::decode, BatchSize::SmallInput);
        });
    }
    let body = batch(&domain, 256);
    group.throughput(Throughput::Elements(256));
    group.bench_function("batch of 256 envelopes with their events", |bench| {
        bench.iter_batched(
            || body.clone(),
            |body| {
                let batch = Batch::decode(body).expect("batch");
                let events = batch.envelopes.into_iter().map(|envelope| ConversationEvent::decode(envelope.body));
                events.collect::<Result<Vec<_>, _>>()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(parts, tokens, store, decoding);
criterion_main!(parts);
