//! Fuzz target: what another backend's outbox may hold. Whatever it is, each envelope gets an answer, nobody but the
//! users that it may reach hears of it, and the lanes go on.

use std::panic::AssertUnwindSafe;

use aldis_proto::{convert, federation::v1 as pb};
use bolero::{check, generator::TypeGenerator};
use prost::Message;

use super::tests::{Teller, added, alpha_and_teller, conversation, created, message};
use crate::{
    federated::kind,
    testing::{World, user},
};

#[derive(Debug, Clone, TypeGenerator)]
struct Told {
    lane: u8,
    kind: u8,
    shape: Shape,
    altered: Vec<(u16, u8)>,
}

#[derive(Debug, Clone, TypeGenerator)]
enum Shape {
    Created,
    Added,
    Message,
    Bytes(Vec<u8>),
}

async fn tell(evil: &Teller, told: &Told) {
    let (friend, stranger, mallory) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "evil.test"));
    let lane = conversation(u128::from(told.lane % 4));
    let change = match &told.shape {
        Shape::Created => Some(created(&[&mallory, &friend, &stranger])),
        Shape::Added => Some(added(&[&stranger])),
        Shape::Message => Some(message(&[(&friend, 1), (&stranger, 2)])),
        Shape::Bytes(_) => None,
    };
    let mut body = match (&told.shape, change) {
        (Shape::Bytes(bytes), _) => bytes.clone(),
        (_, change) => pb::ConversationEvent {
            conversation: convert::bytes_of(lane),
            time: 1_700_000_000_000,
            version: 1,
            actor: Some(convert::to_qualified(&mallory)),
            actor_connection: None,
            change,
        }
        .encode_to_vec(),
    };
    for (place, byte) in told.altered.iter().take(4) {
        let place = usize::from(*place) % body.len().max(1);
        if let Some(target) = body.get_mut(place) {
            *target = *byte;
        }
    }
    let kind = kind::ALL[usize::from(told.kind) % kind::ALL.len()];
    evil.tell_raw(lane, kind, body).await;
}

#[test]
fn lanes_of_another_backend() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let world = World::default();
    let (friend, stranger, mallory) = (user(1, "alpha.test"), user(2, "alpha.test"), user(3, "evil.test"));
    world.connect(&[&friend, &mallory]);
    let (alpha, evil) = runtime.block_on(alpha_and_teller(&world));
    let hear = AssertUnwindSafe(|all: &Vec<Told>| {
        runtime.block_on(async {
            for told in all.iter().take(16) {
                tell(&evil, told).await;
            }
            evil.refused().await;
            assert!(alpha.pushed(&stranger).is_empty(), "told somebody who is no member");
        });
    });
    check!().with_type::<Vec<Told>>().with_iterations(40).for_each(|all| {
        let hear = &hear;
        hear.0(all);
    });
    runtime.block_on(async {
        let lane = conversation(99);
        evil.tell(lane, &mallory, kind::CREATED, created(&[&mallory, &friend])).await;
        evil.refused().await;
        let told = alpha.pushed(&friend);
        assert!(told.iter().any(|told| told.event["qualified_conversation"]["id"] == lane.to_string()));
    });
}
