//! Changes at random moments: what they tell is committed with them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use aldis_delivery::{Appended, Component, LocalService, Outbox, Outgoing, Peer};
use aldis_proto::internal::v1::{Notification, PushRequest};
use aldis_storage::StoreError;
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use rusqlite::{Connection, params};

use crate::{
    backend::{Backend, Process, TAKES},
    service::{Broken, HEAD, NEWER, Nature},
    tables::COMPONENTS,
};

/// Lanes of each component towards each other backend.
const LANES: u64 = 5;
/// `ConversationEvent.message_sent`, and some change of state of either component.
const MESSAGE: u32 = 30;
const CHANGE: u32 = 11;

/// The name of our own notifications in `changes`.
pub(crate) const NOTIFICATIONS: &str = "notifications";

/// A change, and what it tells.
#[derive(Clone)]
struct Told {
    id: u64,
    peer: Peer,
    lane: [u8; 16],
    kind: u32,
    nature: Nature,
    body: Bytes,
}

/// Makes changes until it is dropped.
pub(crate) async fn send(backend: Arc<Backend>) {
    let chance = backend.chance.fork();
    loop {
        let pause = match chance.number(10) {
            0 => chance.millis(1_000, 4_000),
            1..=3 => Duration::from_millis(1),
            _ => chance.millis(10, 500),
        };
        tokio::time::sleep(pause).await;
        let Some(process) = backend.process() else { continue };
        let which = chance.index(2);
        let count = match chance.number(80) {
            0 => 50 + chance.index(350),
            1..=9 => 2 + chance.index(12),
            _ => 1,
        };
        let told = (0..count).map(|_| choose(&backend, which)).collect();
        let writing = write(&backend, &process, which, told);
        if chance.percent(70) {
            writing.await;
        } else {
            // Somebody else goes on meanwhile.
            let (backend, process) = (backend.clone(), process.clone());
            drop(writing);
            let told = vec![choose(&backend, which)];
            tokio::spawn(async move { write(&backend, &process, which, told).await });
        }
    }
}

/// One more change in each lane: what is missing before it is found by it.
pub(crate) async fn close(backend: &Arc<Backend>) -> bool {
    let Some(process) = backend.process() else { return false };
    for (which, component) in COMPONENTS.into_iter().enumerate() {
        let mut told = Vec::new();
        for (place, domain) in backend.world.domains.iter().enumerate() {
            if *domain != backend.domain {
                told.extend((0..LANES).map(|lane| {
                    let id = backend.world.next_change.fetch_add(1, Ordering::SeqCst);
                    made(id, Peer::Backend(domain.clone()), (component, place, lane), CHANGE, Nature::Usual, 0)
                }));
            }
        }
        if !write(backend, &process, which, told).await {
            return false;
        }
    }
    true
}

fn choose(backend: &Backend, which: usize) -> Told {
    let (chance, world) = (&backend.chance, &backend.world);
    let id = world.next_change.fetch_add(1, Ordering::SeqCst);
    let others: Vec<usize> = (0..world.domains.len()).filter(|place| *place != backend.number).collect();
    let place = others[chance.index(others.len())];
    let (peer, lane) = (Peer::Backend(world.domains[place].clone()), (COMPONENTS[which], place, chance.number(LANES)));
    match chance.number(100) {
        0..=9 => made(id, Peer::Service(LocalService::Notifications), lane, 0, Nature::Usual, 0),
        10..=12 => made(id, peer, lane, CHANGE, Nature::Refused, 0),
        13..=14 => made(id, peer, lane, MESSAGE, Nature::Large, usize::try_from(TAKES).unwrap_or(0)),
        15 => made(id, peer, lane, NEWER, Nature::Usual, 0),
        16..=40 => made(id, peer, lane, CHANGE, Nature::Usual, chance.index(600)),
        _ => made(id, peer, lane, MESSAGE, Nature::Usual, chance.index(4_000)),
    }
}

fn made(
    id: u64,
    peer: Peer,
    (component, place, lane): (Component, usize, u64),
    kind: u32,
    nature: Nature,
    size: usize,
) -> Told {
    let mut key = [0; 16];
    key[0] = component.as_str().as_bytes()[0];
    key[1] = u8::try_from(lane).unwrap_or(0);
    key[2] = u8::try_from(place).unwrap_or(0);
    let mut body = BytesMut::with_capacity(HEAD + size);
    body.put_u64(id);
    body.put_u8(nature as u8);
    body.put_bytes(0, size);
    let mut body = body.freeze();
    if matches!(peer, Peer::Service(_)) {
        let notification = Notification { event: body, ..Notification::default() };
        body = PushRequest { notifications: vec![notification] }.encode_to_vec().into();
    }
    Told { id, peer, lane: key, kind, nature, body }
}

fn outgoing(told: &[Told]) -> Vec<Outgoing> {
    let row =
        |told: &Told| Outgoing { peer: told.peer.clone(), lane: told.lane, kind: told.kind, body: told.body.clone() };
    told.iter().map(row).collect()
}

/// The change itself, which the store keeps.
fn change(tx: &Connection, component: Component, told: &Told, sequence: i64) -> Result<(), StoreError> {
    let peer = match &told.peer {
        Peer::Backend(domain) => domain.as_str(),
        Peer::Service(_) => NOTIFICATIONS,
    };
    tx.prepare_cached(
        "INSERT INTO changes (id, component, peer, lane, sequence, nature) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        told.id.cast_signed(),
        component.as_str(),
        peer,
        told.lane.as_slice(),
        sequence,
        told.nature as u8
    ])?;
    Ok(())
}

/// The sequences that rows were given which were just appended.
fn sequences(tx: &Connection, component: Component, count: usize) -> Result<Vec<i64>, StoreError> {
    let sql = format!("SELECT sequence FROM {}_outbox ORDER BY id DESC LIMIT ?", component.as_str());
    let mut query = tx.prepare_cached(&sql)?;
    let found = query.query_map([i64::try_from(count).unwrap_or(0)], |row| row.get(0))?;
    let mut found = found.collect::<Result<Vec<i64>, _>>()?;
    found.reverse();
    Ok(found)
}

fn change_and_tell(
    tx: &Connection,
    outbox: &Outbox,
    component: Component,
    all: &[Told],
) -> Result<Appended, StoreError> {
    let appended = outbox.append(tx, &outgoing(all))?;
    for (told, sequence) in all.iter().zip(sequences(tx, component, all.len())?) {
        change(tx, component, told, sequence)?;
    }
    Ok(appended)
}

/// Whether the author was told that the changes are kept.
async fn write(backend: &Arc<Backend>, process: &Arc<Process>, which: usize, told: Vec<Told>) -> bool {
    let (component, outbox, trace) = (COMPONENTS[which], process.outboxes[which].clone(), &backend.world.trace);
    let ids: Vec<u64> = told.iter().map(|told| told.id).collect();
    let appending = outbox.clone();
    let writing = async {
        if backend.world.broken == Some(Broken::ToldLater) {
            let all = told.clone();
            process.db.write(move |tx| all.iter().try_for_each(|told| change(tx, component, told, 0))).await?;
            process.db.write(move |tx| appending.append(tx, &outgoing(&told))).await
        } else {
            process.db.write(move |tx| change_and_tell(tx, &appending, component, &told)).await
        }
    };
    // Some authors do not wait for the end, as an app whose connection breaks.
    let chance = &backend.chance;
    let patience = if chance.percent(6) { chance.millis(0, 6) } else { Duration::from_secs(3_600) };
    let written = tokio::select! {
        biased;
        () = process.life.over() => return false,
        () = tokio::time::sleep(patience) => return false,
        written = writing => written,
    };
    match written {
        Ok(appended) => {
            drop(outbox.committed(appended));
            for id in &ids {
                trace.confirm(*id);
                trace.count("changes");
            }
            true
        }
        Err(error) => {
            trace.count("refused-writes");
            if !error.is_overloaded() {
                trace.wrong(format!("a change could not be written: {error}"));
            }
            false
        }
    }
}
