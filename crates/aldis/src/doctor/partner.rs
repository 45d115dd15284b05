//! What this backend has agreed with a partner, and how they stand.

use aldis_federator::probe::{Check, Side};
use aldis_types::{Domain, PolicySnapshot, RemoteState, Strategy};
use serde_json::Value;

use crate::{admin::Administration, config::Config};

const POLICY: &str = "policy";
const CONNECTION: &str = "peer-state";
const BACKLOG: &str = "peer-backlog";
/// Age of the oldest event at which somebody should look.
const OLD_SECONDS: f64 = 60.0;

/// Whether we talk to the partner at all.
pub(super) async fn policy(config: &Config, partner: &Domain) -> Check {
    if !config.store.path.exists() {
        return Check::skipped(POLICY, "there is no store yet");
    }
    let asked = async { Administration::of(config).await?.policy().await };
    match asked.await {
        Ok(policy) => judged(&policy, partner),
        Err(error) => Check::skipped(POLICY, format!("the backend cannot be asked: {error:#}")),
    }
}

fn judged(policy: &PolicySnapshot, partner: &Domain) -> Check {
    let failed = |found: String, advice: String| Check::failed(POLICY, Side::Ours, found, advice);
    let search = policy.search_policy(partner);
    let state = policy.remotes.get(partner).map(|remote| remote.state);
    match (policy.strategy, state) {
        (Strategy::AllowNone, _) => failed(
            "`users.federation.strategy` is allow_none: this backend federates with nobody".to_owned(),
            "set it to \"allow_list\" and start again".to_owned(),
        ),
        (_, Some(RemoteState::Suspended)) => {
            failed(format!("{partner} is suspended here"), format!("`aldis remote resume {partner}`"))
        }
        (_, Some(RemoteState::Ended)) => {
            let advice = format!("`aldis remote set {partner} --search-policy …` begins anew");
            failed(format!("federation with {partner} was ended here"), advice)
        }
        (Strategy::AllowList, None) => {
            let advice = format!("`aldis remote set {partner} --search-policy …`");
            failed(format!("{partner} is not on the list of this backend"), advice)
        }
        (Strategy::AllowAll, None) => {
            Check::passed(POLICY, format!("everybody is allowed; their users find here: {search}"))
        }
        (_, Some(RemoteState::Active)) => {
            let restricted = policy.remotes.get(partner).is_some_and(|remote| remote.teams.is_some());
            let teams = if restricted { ", users of some teams only" } else { "" };
            Check::passed(POLICY, format!("active; their users find here: {search}{teams}"))
        }
    }
}

/// What the running backend knows of the partner.
pub(super) fn standing(partner: &Domain, status: Option<&Vec<Value>>) -> Vec<Check> {
    let Some(status) = status else {
        return [CONNECTION, BACKLOG].map(|name| Check::skipped(name, "the backend does not run")).into();
    };
    let rows: Vec<&Value> = status
        .iter()
        .filter_map(|body| body["remotes"].as_array())
        .flatten()
        .filter(|remote| remote["domain"] == partner.as_str())
        .collect();
    vec![connection(&rows), backlog(&rows)]
}

fn connection(rows: &[&Value]) -> Check {
    let known = rows.iter().find(|row| row["peer"].is_object()).map(|row| &row["peer"]);
    let Some(peer) = known else { return Check::skipped(CONNECTION, "no contact since the start") };
    let error = peer["last_error"].as_str().unwrap_or_default();
    let last = if error.is_empty() { String::new() } else { format!("; last error: {error}") };
    let left_alone = peer["breaker"].as_str().is_some_and(|breaker| breaker != "closed");
    if left_alone || peer["reachable"] == false {
        let advice = "see the checks above; it is tried again all the time";
        return Check::failed(CONNECTION, Side::Between, format!("the federator does not reach it{last}"), advice);
    }
    Check::passed(CONNECTION, format!("the federator reaches it{last}"))
}

fn backlog(rows: &[&Value]) -> Check {
    let mut events = 0;
    let mut oldest: f64 = 0.0;
    let waiting: Vec<&Value> = rows.iter().map(|row| &row["backlog"]).filter(|backlog| backlog.is_object()).collect();
    for part in &waiting {
        events += part["events"].as_u64().unwrap_or(0);
        oldest = oldest.max(part["oldest_seconds"].as_f64().unwrap_or(0.0));
    }
    if waiting.is_empty() {
        return Check::skipped(BACKLOG, "the processes that run don't know");
    }
    let found = format!("{events} events wait for it, the oldest for {oldest:.0} s");
    if events > 0 && oldest > OLD_SECONDS {
        let advice = "messages arrive late there until the partner can be reached; nothing is lost";
        Check::warning(BACKLOG, Side::Between, found, advice)
    } else {
        Check::passed(BACKLOG, found)
    }
}
