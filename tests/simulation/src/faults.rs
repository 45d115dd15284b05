//! What goes wrong.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use aldis_proto::internal::v1::{
    ChangeOutboxRequest,
    change_outbox_request::{Change, Drop as Dropped, Pause, Resume},
    conversations_outbox_client::ConversationsOutboxClient,
    users_outbox_client::UsersOutboxClient,
};
use tokio::task::JoinSet;

use crate::{
    backend::{Backend, Process},
    chance::Chance,
    network::Dns,
};

/// Which of the rarer faults a run has.
#[derive(Clone, Copy)]
pub(crate) struct Rare {
    pub(crate) restores: bool,
    pub(crate) drops: bool,
    pub(crate) endings: bool,
}

/// Lets things go wrong until it is dropped.
pub(crate) async fn strike(backends: Vec<Arc<Backend>>, chance: Chance, rare: Rare) {
    // What ends by itself after a while.
    let mut passing = JoinSet::new();
    loop {
        tokio::time::sleep(chance.millis(50, 1_200)).await;
        let backend = backends[chance.index(backends.len())].clone();
        let others: Vec<_> = backends.iter().filter(|other| other.number != backend.number).cloned().collect();
        let other = others[chance.index(others.len())].clone();
        backend.world.trace.count("faults");
        match chance.number(26) {
            0..=4 => kill(&backend, &chance),
            5..=6 => sever(&mut passing, &backend, &other, &chance),
            7..=8 => {
                let silently = chance.percent(40);
                if backend.world.network.cut(silently) {
                    backend.world.trace.note(format_args!("a connection is cut, silently: {silently}"));
                }
            }
            9..=10 => delay(&mut passing, backend, &other, &chance),
            11 => forget_names(&mut passing, backend, &chance),
            12 => {
                backend.world.trace.note(format_args!("{} suspends {}", backend.domain, other.domain));
                backend.suspend(vec![other.domain.clone()]);
                let length = chance.millis(100, 10_000);
                passing.spawn(async move {
                    tokio::time::sleep(length).await;
                    backend.suspend(Vec::new());
                });
            }
            13..=14 => moody(&mut passing, backend, &chance),
            15 => {
                let Some(process) = backend.process() else { continue };
                let length = chance.millis(200, 8_000);
                passing.spawn(fill_disk(backend, process, length));
            }
            16 => {
                if let Some(process) = backend.process() {
                    backend.world.trace.note(format_args!("{} has a slow disk", backend.domain));
                    process.steps.is_slow.store(true, Ordering::SeqCst);
                    let length = chance.millis(500, 8_000);
                    passing.spawn(async move {
                        tokio::time::sleep(length).await;
                        process.steps.is_slow.store(false, Ordering::SeqCst);
                    });
                }
            }
            17 => {
                let (which, length) = (chance.index(2), chance.millis(200, 6_000));
                passing.spawn(async move {
                    let pause = Change::Pause(Pause {});
                    administer(&backend, which, other.domain.as_str(), pause).await;
                    tokio::time::sleep(length).await;
                    administer(&backend, which, other.domain.as_str(), Change::Resume(Resume {})).await;
                });
            }
            18 => backend.mood.knows_newer.store(chance.percent(50), Ordering::SeqCst),
            19 if rare.drops => {
                let which = chance.index(2);
                backend.has_dropped.store(true, Ordering::SeqCst);
                passing.spawn(async move {
                    let dropped = Change::Drop(Dropped { lane: None, dead: false });
                    administer(&backend, which, other.domain.as_str(), dropped).await;
                });
            }
            20 if rare.endings => {
                let which = chance.index(2);
                passing.spawn(async move {
                    let Some(process) = backend.process() else { return };
                    backend.has_ended.store(true, Ordering::SeqCst);
                    backend.world.trace.note(format_args!("{} drops all for {}", backend.domain, other.domain));
                    let dropping = process.outboxes[which].drop_backlog(&other.domain);
                    let _ = during(&process, dropping).await;
                });
            }
            21..=23 if rare.restores => {
                if let Err(error) = backend.back_up() {
                    backend.world.trace.wrong(format!("a backup failed: {error:#}"));
                }
                backend.world.trace.note(format_args!("{} is backed up", backend.domain));
            }
            24..=25 if rare.restores && backend.process().is_some() && backend.restore_next() => {
                if let Some(process) = backend.process() {
                    process.life.end();
                }
            }
            _ => {}
        }
    }
}

fn kill(backend: &Backend, chance: &Chance) {
    if let Some(process) = backend.process() {
        let steps = if chance.percent(30) { 0 } else { 1 + chance.number(60) };
        backend.world.trace.note(format_args!("{} ends in {steps} steps", backend.domain));
        if steps == 0 { process.life.end() } else { process.steps.kill_in(steps) }
    }
}

fn sever(passing: &mut JoinSet<()>, backend: &Arc<Backend>, other: &Arc<Backend>, chance: &Chance) {
    let both = chance.percent(60);
    let length = if chance.percent(30) { chance.millis(8_000, 25_000) } else { chance.millis(50, 4_000) };
    let (network, from, to) = (backend.world.network.clone(), backend.number, other.number);
    backend.world.trace.note(format_args!("{} reaches {} no more, both: {both}", backend.domain, other.domain));
    let set = move |is_severed| {
        network.sever(from, to, is_severed);
        if both {
            network.sever(to, from, is_severed);
        }
    };
    set(true);
    passing.spawn(async move {
        tokio::time::sleep(length).await;
        set(false);
    });
}

fn delay(passing: &mut JoinSet<()>, backend: Arc<Backend>, other: &Backend, chance: &Chance) {
    let (most, to) = ([50, 400, 3_000, 12_000][chance.index(4)], other.number);
    backend.world.trace.note(format_args!("{} to {}: up to {most} ms", backend.domain, other.domain));
    backend.world.network.set_link(backend.number, to, 1, most);
    let length = chance.millis(200, 20_000);
    passing.spawn(async move {
        tokio::time::sleep(length).await;
        backend.world.network.set_link(backend.number, to, 1, 8);
    });
}

fn forget_names(passing: &mut JoinSet<()>, backend: Arc<Backend>, chance: &Chance) {
    let dns = if chance.percent(50) { Dns::Fails } else { Dns::Silent };
    backend.world.trace.note(format_args!("names: {dns:?}"));
    backend.world.network.set_dns(dns);
    let length = chance.millis(1_000, 20_000);
    passing.spawn(async move {
        tokio::time::sleep(length).await;
        backend.world.network.set_dns(Dns::Works);
    });
}

fn moody(passing: &mut JoinSet<()>, backend: Arc<Backend>, chance: &Chance) {
    let (is_slow, length) = (chance.percent(40), chance.millis(100, 12_000));
    backend.world.trace.note(format_args!("{} is slow: {is_slow}, or has too much to do", backend.domain));
    let set = move |backend: &Backend, value| {
        let mood = if is_slow { &backend.mood.is_slow } else { &backend.mood.is_overloaded };
        mood.store(value, Ordering::SeqCst);
    };
    set(&backend, true);
    passing.spawn(async move {
        tokio::time::sleep(length).await;
        set(&backend, false);
    });
}

/// For as long as a process lives.
pub(crate) async fn during<T>(process: &Process, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = process.life.over() => None,
        done = work => Some(done),
    }
}

/// The store may not grow for a while.
async fn fill_disk(backend: Arc<Backend>, process: Arc<Process>, length: Duration) {
    backend.world.trace.note(format_args!("{} has a full disk", backend.domain));
    limit(&process, 1).await;
    tokio::time::sleep(length).await;
    limit(&process, i64::from(u32::MAX) - 1).await;
    backend.world.trace.note(format_args!("{} has room again", backend.domain));
}

/// Lets the store have no more than so many pages; never fewer than it has.
pub(crate) async fn limit(process: &Process, pages: i64) {
    let set = process.db.write(move |tx| {
        tx.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        Ok(())
    });
    let _ = during(process, set).await;
}

/// What an administrator does with the outbox.
pub(crate) async fn administer(backend: &Backend, which: usize, peer: &str, change: Change) {
    let Some(process) = backend.process() else { return };
    backend.world.trace.note(format_args!("{}: {change:?} for {peer}", backend.domain));
    let request = ChangeOutboxRequest { peer: peer.to_owned(), change: Some(change) };
    let channel = process.administration[which].clone();
    let done = async {
        if which == 0 {
            UsersOutboxClient::new(channel).change_outbox(request).await
        } else {
            ConversationsOutboxClient::new(channel).change_outbox(request).await
        }
    };
    let _ = during(&process, done).await;
}

/// Lets a relay go on.
pub(crate) fn resume() -> Change {
    Change::Resume(Resume {})
}
