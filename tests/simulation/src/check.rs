//! Whether everything that was told has arrived, once and in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use aldis_delivery::Component;
use aldis_storage::StoreError;
use rusqlite::Connection;

use crate::{
    backend::{Backend, Process},
    faults::during,
    senders::NOTIFICATIONS,
    service::{Nature, head},
    tables::{COMPONENTS, EVENT, MISSED},
};

/// A row of `changes`.
struct Change {
    id: u64,
    component: String,
    peer: String,
    lane: Vec<u8>,
    sequence: i64,
    nature: u8,
}

/// A row of `effects`.
struct Effect {
    origin: String,
    component: String,
    lane: Vec<u8>,
    what: i64,
    id: u64,
    low: i64,
    high: i64,
}

/// What the store of a backend says in the end.
pub(crate) struct Books {
    changes: Vec<Change>,
    effects: Vec<Effect>,
    pushed: Vec<u64>,
    /// Changes among the dead letters.
    dead: BTreeSet<u64>,
}

/// What waits: components and peers with their numbers of rows.
pub(crate) async fn waiting(process: &Process) -> Option<Vec<(String, i64)>> {
    let read = process.db.read(|tx| {
        let mut waiting = Vec::new();
        for component in COMPONENTS.map(Component::as_str) {
            // What is under a retired key is not sent any more.
            let mut query = tx.prepare(&format!(
                "SELECT peer, count(*) FROM {component}_outbox \
                 WHERE peer NOT IN (SELECT key FROM {component}_outbox_retired) GROUP BY peer"
            ))?;
            let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
            for row in rows {
                let (peer, count) = row?;
                waiting.push((format!("{component} for {peer}"), count));
            }
        }
        Ok(waiting)
    });
    during(process, read).await?.ok()
}

pub(crate) async fn books(process: &Process) -> Option<Books> {
    during(process, process.db.read(read)).await?.ok()
}

fn read(tx: &Connection) -> Result<Books, StoreError> {
    let mut query = tx.prepare("SELECT id, component, peer, lane, sequence, nature FROM changes ORDER BY number")?;
    let changes = query.query_map([], |row| {
        Ok(Change {
            id: row.get::<_, i64>(0)?.unsigned_abs(),
            component: row.get(1)?,
            peer: row.get(2)?,
            lane: row.get(3)?,
            sequence: row.get(4)?,
            nature: row.get(5)?,
        })
    })?;
    let changes = changes.collect::<Result<_, _>>()?;
    let mut query = tx.prepare("SELECT origin, component, lane, what, id, low, high FROM effects ORDER BY number")?;
    let effects = query.query_map([], |row| {
        Ok(Effect {
            origin: row.get(0)?,
            component: row.get(1)?,
            lane: row.get(2)?,
            what: row.get(3)?,
            id: row.get::<_, i64>(4)?.unsigned_abs(),
            low: row.get(5)?,
            high: row.get(6)?,
        })
    })?;
    let effects = effects.collect::<Result<_, _>>()?;
    let mut query = tx.prepare("SELECT id FROM pushed ORDER BY number")?;
    let pushed = query.query_map([], |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()))?;
    let pushed = pushed.collect::<Result<_, _>>()?;
    let mut dead = BTreeSet::new();
    for component in COMPONENTS {
        let c = component.as_str();
        let mut query = tx.prepare(&format!(
            "SELECT body FROM {c}_outbox_dead UNION ALL \
             SELECT body FROM {c}_outbox WHERE peer IN (SELECT key FROM {c}_outbox_retired)"
        ))?;
        let bodies = query.query_map([], |row| row.get::<_, Vec<u8>>(0))?.collect::<Result<Vec<_>, _>>()?;
        dead.extend(bodies.iter().filter_map(|body| head(body)).map(|(id, _)| id));
    }
    Ok(Books { changes, effects, pushed, dead })
}

/// Compares the books of all backends, which are at rest.
pub(crate) fn compare(backends: &[Arc<Backend>], books: &[Books]) {
    let Some(trace) = backends.first().map(|backend| backend.world.trace.clone()) else { return };
    let restored = |place: usize| backends[place].restores.load(Ordering::SeqCst) > 0;
    let mut kept: BTreeSet<u64> = BTreeSet::new();
    for (sender, from) in books.iter().enumerate() {
        kept.extend(from.changes.iter().map(|change| change.id));
        pushes(&backends[sender], from);
        for (receiver, to) in books.iter().enumerate().filter(|(receiver, _)| *receiver != sender) {
            let pair = Pair { sender: &backends[sender], receiver: &backends[receiver], from, to };
            pair.compare(restored(sender), restored(receiver));
        }
    }
    if !(0..backends.len()).any(restored) {
        for id in trace.was_confirmed().difference(&kept) {
            trace.wrong(format!("lost: change {id} was confirmed and is not in its own store"));
        }
    }
}

/// What a backend told its own notifications.
fn pushes(backend: &Backend, books: &Books) {
    let trace = &backend.world.trace;
    for component in COMPONENTS {
        let told: Vec<u64> = books
            .changes
            .iter()
            .filter(|change| change.peer == NOTIFICATIONS && change.component == component.as_str())
            .map(|change| change.id)
            .collect();
        let known: BTreeSet<u64> = told.iter().copied().collect();
        let got: Vec<u64> = books.pushed.iter().copied().filter(|id| known.contains(id)).collect();
        if told != got {
            let domain = &backend.domain;
            trace.wrong(format!("{domain} told its notifications {} times, and they got {}", told.len(), got.len()));
        }
    }
}

type Lane<'a> = (&'a str, &'a [u8]);

struct Pair<'a> {
    sender: &'a Backend,
    receiver: &'a Backend,
    from: &'a Books,
    to: &'a Books,
}

impl Pair<'_> {
    fn compare(&self, sender_restored: bool, receiver_restored: bool) {
        let trace = &self.sender.world.trace;
        let names = format!("{} to {}", self.sender.domain, self.receiver.domain);
        let (origin, peer) = (self.sender.domain.as_str(), self.receiver.domain.as_str());
        let mut lanes: BTreeMap<Lane<'_>, Vec<&Change>> = BTreeMap::new();
        for change in self.from.changes.iter().filter(|change| change.peer == peer) {
            lanes.entry((&change.component, &change.lane)).or_default().push(change);
        }
        let mut effects: BTreeMap<Lane<'_>, Vec<u64>> = BTreeMap::new();
        let mut missed: BTreeMap<Lane<'_>, Vec<(i64, i64)>> = BTreeMap::new();
        for effect in self.to.effects.iter().filter(|effect| effect.origin == origin) {
            let lane: Lane<'_> = (&effect.component, &effect.lane);
            match effect.what {
                EVENT => effects.entry(lane).or_default().push(effect.id),
                MISSED => missed.entry(lane).or_default().push((effect.low, effect.high)),
                _ => {}
            }
        }
        let mut known: BTreeSet<u64> = BTreeSet::new();
        for (lane, changes) in &lanes {
            let arrived = effects.get(lane).map(Vec::as_slice).unwrap_or_default();
            let set: BTreeSet<u64> = arrived.iter().copied().collect();
            if set.len() != arrived.len() {
                trace.wrong(format!("duplicated: {names}, {lane:?}"));
            }
            known.extend(changes.iter().map(|change| change.id));
            let expected: Vec<u64> = changes.iter().map(|change| change.id).filter(|id| set.contains(id)).collect();
            let of_these: BTreeSet<u64> = expected.iter().copied().collect();
            let got: Vec<u64> = arrived.iter().copied().filter(|id| of_these.contains(id)).collect();
            if expected != got {
                trace.wrong(format!("reordered: {names}, {lane:?}: {expected:?} came as {got:?}"));
            }
            let ranges = missed.get(lane).map(Vec::as_slice).unwrap_or_default();
            for change in changes.iter().filter(|change| !set.contains(&change.id)) {
                let is_missed = ranges.iter().any(|(low, high)| (*low..=*high).contains(&change.sequence));
                let is_dead = self.from.dead.contains(&change.id);
                // What is dropped while it is on its way, or ended after it was dropped, leaves a dead letter without content.
                let is_dead = is_dead || self.sender.has_dropped.load(Ordering::SeqCst);
                let excused = match change.nature {
                    // A store that was restored knows less of what it refused, or was refused.
                    nature if nature == Nature::Refused as u8 => is_dead || sender_restored || receiver_restored,
                    nature if nature == Nature::Large as u8 => is_dead,
                    _ => is_dead && self.sender.has_ended.load(Ordering::SeqCst),
                };
                // Lost by its receiver, which told its own clients so when it was restored, while the sender's lanes began
                // anew: nothing comes in them that would show what is missing.
                let is_forgotten = sender_restored && receiver_restored && trace.was_applied(change.id);
                if !excused && !is_missed && !is_forgotten {
                    trace.wrong(format!("lost: change {} from {names}, {lane:?}", change.id));
                }
            }
        }
        if !sender_restored {
            for id in effects.values().flatten().filter(|id| !known.contains(id)) {
                trace.wrong(format!("unexpected: change {id} from {names} was never kept"));
            }
        }
    }
}
