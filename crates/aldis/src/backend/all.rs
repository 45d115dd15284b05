//! `aldis all`: every service in this process. They call each other without sockets, through the same servers.

use aldis_delivery::Component;
use aldis_peers::Peers;
use aldis_proto::channel::{Channel, InProcess};
use aldis_runtime::operations::Health;
use anyhow::{Context as _, Result};
use axum::Router;

use super::{
    admin::{self, Administration},
    parts::{Process, Store, federation_troubles, ingress, store_works, tokens_can_be_checked},
    start,
    status::Sources,
    web,
};
use crate::config::{Config, ServiceName};

/// Runs a whole backend until `stop`, or until a signal asks it to.
pub(crate) async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<()> {
    let mut process = Process::begin("all", &config)?;
    let Store { db, locks: _locks } = Store::take_over(&config, &ServiceName::ALL).await?;
    let places = Places::default();
    let start = start::Context { config: &config, process: &process, peers: Peers::new(places.egress.channel()) };

    // Notifications first: what the others have left to tell finds it there.
    let notifications = start.notifications(aldis_storage::Store::Embedded(db.clone()), places.users.channel()).await?;
    places.notifications.serve(notifications.internal);
    let channels = (places.notifications.channel(), places.conversations.channel());
    let users = start.users(&db, channels.0, channels.1).await?;
    places.users.serve(users.internal);
    let administered = in_process(Some(users.administration));
    let channels = (places.users.channel(), places.notifications.channel());
    let conversations = start.conversations(&db, channels.0, channels.1).await?;
    places.conversations.serve(conversations.internal);
    let assets = start.assets(aldis_storage::Store::Embedded(db.clone()), Some(places.conversations.channel())).await?;

    let mut health = store_works(Health::new(), &aldis_storage::Store::Embedded(db.clone()));
    let verifier = process.verifier.clone();
    health = health.require("tokens", move || std::future::ready(tokens_can_be_checked(&verifier)));
    let mut peer_states: Option<Channel> = None;
    let mut federator_health = None;
    if let Some(federation) = &config.federation {
        let listener = ingress(federation).await?;
        let components = aldis_federator::Components {
            users: in_process(users.federation),
            conversations: in_process(conversations.federation),
            assets: assets.federation.map(|routes| in_process(Some(routes))),
        };
        let federator = start.federator(federation, components, false, listener)?;
        let states = in_process(Some(federator.internal));
        places.egress.serve_channel(start::with_peer_states(federator.egress, states.clone()));
        peer_states = Some(states);
        federator_health = Some(federator.health.clone());
        health = federation_troubles(health, federator.health);
        process.adopt_federator(federator.tasks, federator.shutdown);
    } else {
        places.egress.serve_channel(start::no_federation());
    }

    process.parts.adopt("notifications", notifications.tasks);
    process.parts.adopt("users", users.tasks);
    process.parts.adopt("conversations", conversations.tasks);
    process.parts.adopt("assets", assets.tasks);
    process.close_sockets_at_end(notifications.sockets);
    let mut routes =
        Router::new().merge(users.client).merge(conversations.client).merge(assets.client).merge(notifications.client);
    if config.web.enabled {
        routes = routes.merge(web::routes(&config));
    }
    process.serve_clients(&config, config.client.listen, routes).await?;
    let sources = Sources {
        peers: peer_states.clone(),
        federator: federator_health,
        outboxes: Some((db.clone(), &[Component::Users, Component::Conversations])),
    };
    let administration =
        Administration { users: administered, conversations: places.conversations.channel(), peer_states };
    admin::serve(&mut process, &config.store, administration).context("administration socket")?;
    process.serve_operations(&config, config.operations.listen, health, sources).await?;
    process.run(stop).await
}

/// Where the services find each other.
#[derive(Default)]
struct Places {
    users: InProcess,
    conversations: InProcess,
    notifications: InProcess,
    egress: start::Later,
}

fn in_process(routes: Option<tonic::service::Routes>) -> Channel {
    let place = InProcess::new();
    if let Some(routes) = routes {
        place.serve(routes);
    }
    place.channel()
}
