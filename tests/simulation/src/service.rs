//! What a simulated backend does with what it is told: it notes it, in the job that moves the lane on.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aldis_delivery::{Component, Envelope, Positions, Receive, Verdict};
use aldis_peers::Origin;
use aldis_proto::internal::v1::{
    OpenConsumerRequest, OpenConsumerResponse, PushRequest, PushResponse, RemoveClientRequest, RemoveClientResponse,
    RemoveUserQueuesRequest, RemoveUserQueuesResponse, push_server,
};
use aldis_storage::{Db, StoreError};
use aldis_types::Domain;
use async_trait::async_trait;
use rusqlite::{Connection, params};
use tonic::{Request, Response, Status};

use crate::{
    chance::Chance,
    tables::{EVENT, MISSED, RENEWED},
    trace::Trace,
};

/// Kinds from here on are known only to newer builds.
pub(crate) const NEWER: u32 = 200;
/// Most envelopes that a receiver holds at once: a window, and what came with the last message of the next.
const MOST_AT_ONCE: usize = 512;
/// Bytes of a change's id and nature, with which a body begins.
pub(crate) const HEAD: usize = 9;

/// What is special about a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nature {
    Usual = 0,
    /// Its receiver refuses it for good.
    Refused = 1,
    /// It is larger than its receiver takes.
    Large = 2,
}

/// A rule of the protocol that services break, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Broken {
    /// The receiver answers before its commit.
    AnsweredEarly,
    /// The lane is moved on in a later commit than the effect.
    EffectFirst,
    /// The effect is in a later commit than that which moves the lane on.
    PositionFirst,
    /// What a change tells is not in the change's commit.
    ToldLater,
}

/// How a backend is, whichever process runs it.
#[derive(Default)]
pub(crate) struct Mood {
    /// Every call takes long.
    pub(crate) is_slow: AtomicBool,
    /// It can't do anything right now.
    pub(crate) is_overloaded: AtomicBool,
    /// It runs a newer build.
    pub(crate) knows_newer: AtomicBool,
}

impl Mood {
    pub(crate) fn recover(&self) {
        self.is_slow.store(false, Ordering::SeqCst);
        self.is_overloaded.store(false, Ordering::SeqCst);
        self.knows_newer.store(true, Ordering::SeqCst);
    }
}

type Job = Box<dyn FnOnce(&Connection) -> Result<(), StoreError> + Send>;

/// One component of one process.
pub(crate) struct Service {
    pub(crate) domain: Domain,
    pub(crate) component: Component,
    pub(crate) db: Db,
    pub(crate) mood: Arc<Mood>,
    pub(crate) chance: Chance,
    pub(crate) trace: Trace,
    pub(crate) broken: Option<Broken>,
    /// Whether envelopes that come together are applied in one job.
    pub(crate) in_one_job: bool,
}

/// The id and the nature of a change.
pub(crate) fn head(body: &[u8]) -> Option<(u64, u8)> {
    let (id, rest) = body.split_at_checked(8)?;
    Some((u64::from_be_bytes(id.try_into().ok()?), *rest.first()?))
}

impl Service {
    fn verdict(&self, envelope: &Envelope) -> Verdict {
        let Some((_, nature)) = head(&envelope.body) else {
            self.trace.wrong("an envelope cannot be read".to_owned());
            return Verdict::Rejected("bad-request");
        };
        if envelope.kind >= NEWER && !self.mood.knows_newer.load(Ordering::SeqCst) {
            Verdict::Unsupported
        } else if self.mood.is_overloaded.load(Ordering::SeqCst) || self.chance.percent(2) {
            Verdict::Deferred
        } else if nature == Nature::Refused as u8 {
            Verdict::Rejected("bad-request")
        } else {
            Verdict::Applied
        }
    }

    /// Applies envelopes in one job.
    async fn apply(&self, origin: &Origin, envelopes: Vec<(Envelope, Verdict)>, positions: &Positions) -> bool {
        let (trace, component) = (self.trace.clone(), self.component);
        let (origin, positions) = (origin.domain().clone(), positions.clone());
        match self.broken {
            Some(Broken::AnsweredEarly) => {
                let db = self.db.clone();
                tokio::spawn(async move {
                    let job = move |tx: &Connection| {
                        envelopes.iter().try_for_each(|(envelope, verdict)| {
                            positions.advance(tx, envelope)?;
                            effect(tx, (&origin, component), envelope, *verdict, &trace)
                        })
                    };
                    let _ = db.write(job).await;
                });
                true
            }
            Some(broken @ (Broken::EffectFirst | Broken::PositionFirst)) => {
                let (moved, all) = (positions, envelopes.clone());
                let advance: Job =
                    Box::new(move |tx| all.iter().try_for_each(|(envelope, _)| moved.advance(tx, envelope)));
                let note: Job = Box::new(move |tx| {
                    envelopes.iter().try_for_each(|(envelope, verdict)| {
                        effect(tx, (&origin, component), envelope, *verdict, &trace)
                    })
                });
                let jobs = if broken == Broken::EffectFirst { [note, advance] } else { [advance, note] };
                for job in jobs {
                    if self.db.write(job).await.is_err() {
                        return false;
                    }
                }
                true
            }
            _ => {
                let written = self.db.write(move |tx| {
                    envelopes.iter().try_for_each(|(envelope, verdict)| {
                        positions.advance(tx, envelope)?;
                        effect(tx, (&origin, component), envelope, *verdict, &trace)
                    })
                });
                written.await.is_ok()
            }
        }
    }

    async fn take_time(&self) {
        if self.mood.is_slow.load(Ordering::SeqCst) {
            tokio::time::sleep(self.chance.millis(100, 40_000)).await;
        }
    }
}

/// Notes an event, once.
fn effect(
    tx: &Connection,
    (origin, component): (&Domain, Component),
    envelope: &Envelope,
    verdict: Verdict,
    trace: &Trace,
) -> Result<(), StoreError> {
    let Some((id, _)) = head(&envelope.body) else { return Ok(()) };
    if verdict != Verdict::Applied {
        trace.note(format_args!("{origin} {} refused {id}", component.as_str()));
        return Ok(());
    }
    let known = tx.prepare_cached("SELECT 1 FROM effects WHERE id = ? AND what = 0")?.exists([id.cast_signed()])?;
    if known {
        trace.wrong(format!("twice: change {id} of {origin} has taken effect before"));
    }
    tx.prepare_cached(
        "INSERT INTO effects (origin, component, lane, what, id, low, high) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
    )?
    .execute(params![
        origin.as_str(),
        component.as_str(),
        envelope.lane.as_slice(),
        EVENT,
        id.cast_signed(),
        envelope.sequence.cast_signed()
    ])?;
    trace.apply(id);
    trace.note(format_args!("{origin} {} lane {} change {id}", component.as_str(), envelope.lane[1]));
    Ok(())
}

#[async_trait]
impl Receive for Service {
    async fn receive(&self, origin: &Origin, envelopes: Vec<Envelope>, positions: &Positions) -> Vec<Verdict> {
        if envelopes.len() > MOST_AT_ONCE {
            self.trace.wrong(format!("memory: {} envelopes at once", envelopes.len()));
        }
        self.trace.count("batches");
        self.take_time().await;
        let mut held: BTreeSet<[u8; 16]> = BTreeSet::new();
        let mut verdicts = Vec::with_capacity(envelopes.len());
        let mut done = Vec::new();
        for envelope in envelopes {
            let verdict = if held.contains(&envelope.lane) { Verdict::Deferred } else { self.verdict(&envelope) };
            verdicts.push(verdict);
            match verdict {
                Verdict::Applied => done.push((envelope, verdict)),
                Verdict::Rejected(label) => done.push((envelope.refused(label), verdict)),
                _ => {
                    held.insert(envelope.lane);
                }
            }
        }
        let jobs: Vec<Vec<_>> =
            if self.in_one_job { vec![done] } else { done.into_iter().map(|one| vec![one]).collect() };
        let mut failed: BTreeSet<[u8; 16]> = BTreeSet::new();
        let mut outcomes = Vec::new();
        for job in jobs {
            let lanes: Vec<_> = job.iter().map(|(envelope, _)| envelope.lane).collect();
            let may = lanes.iter().all(|lane| !failed.contains(lane));
            let applied = may && self.apply(origin, job, positions).await;
            if !applied {
                failed.extend(&lanes);
            }
            outcomes.extend(lanes.iter().map(|_| applied));
        }
        let mut outcomes = outcomes.into_iter();
        for verdict in &mut verdicts {
            if matches!(verdict, Verdict::Applied | Verdict::Rejected(_)) && !outcomes.next().unwrap_or(false) {
                *verdict = Verdict::Deferred;
            }
        }
        verdicts
    }

    async fn missed(&self, origin: &Origin, envelopes: Vec<Envelope>, positions: &Positions) -> Vec<Verdict> {
        let (all, positions, origin) = (envelopes.clone(), positions.clone(), origin.domain().clone());
        let (component, trace) = (self.component, self.trace.clone());
        let written = self.db.write(move |tx| {
            for envelope in &all {
                positions.advance(tx, envelope)?;
                tx.prepare_cached(
                    "INSERT INTO effects (origin, component, lane, what, id, low, high) VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6)",
                )?
                .execute(params![
                    origin.as_str(),
                    component.as_str(),
                    envelope.lane.as_slice(),
                    MISSED,
                    envelope.previous.cast_signed() + 1,
                    envelope.sequence.cast_signed()
                ])?;
                trace.note(format_args!("{origin} lane {} missed up to {}", envelope.lane[1], envelope.sequence));
            }
            Ok(())
        });
        self.trace.count("missed");
        vec![written.await.map_or(Verdict::Deferred, |()| Verdict::Applied); envelopes.len()]
    }

    async fn renewed(&self, origin: &Origin, _: [u8; 16]) -> Result<(), StoreError> {
        let (component, origin) = (self.component, origin.domain().clone());
        self.trace.note(format_args!("{} hears that {origin} goes on with another store", self.domain));
        self.db
            .write(move |tx| {
                tx.execute(
                    "INSERT INTO effects (origin, component, lane, what, id, low, high) VALUES (?1, ?2, x'', ?3, 0, 0, 0)",
                    params![origin.as_str(), component.as_str(), RENEWED],
                )?;
                Ok(())
            })
            .await
    }
}

/// Our own notifications service.
pub(crate) struct Pushes {
    pub(crate) db: Db,
    pub(crate) mood: Arc<Mood>,
    pub(crate) chance: Chance,
    pub(crate) trace: Trace,
}

#[async_trait]
impl push_server::Push for Pushes {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        self.trace.attempt("push");
        if self.mood.is_overloaded.load(Ordering::SeqCst) || self.chance.percent(3) {
            return Err(Status::unavailable("not now"));
        }
        let notifications = request.into_inner().notifications;
        let written = self.db.write(move |tx| {
            let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO pushed (event, id) VALUES (?1, ?2)")?;
            for notification in &notifications {
                let id = head(&notification.event).map_or(0, |(id, _)| id);
                insert.execute(params![notification.event_id.as_ref(), id.cast_signed()])?;
            }
            Ok(())
        });
        written.await.map_err(|_| Status::unavailable("the store failed"))?;
        if self.chance.percent(3) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(Response::new(PushResponse {}))
    }

    async fn remove_client(&self, _: Request<RemoveClientRequest>) -> Result<Response<RemoveClientResponse>, Status> {
        Ok(Response::new(RemoveClientResponse {}))
    }

    async fn open_consumer(&self, _: Request<OpenConsumerRequest>) -> Result<Response<OpenConsumerResponse>, Status> {
        Ok(Response::new(OpenConsumerResponse {}))
    }

    async fn remove_user(
        &self,
        _: Request<RemoveUserQueuesRequest>,
    ) -> Result<Response<RemoveUserQueuesResponse>, Status> {
        Ok(Response::new(RemoveUserQueuesResponse {}))
    }
}
