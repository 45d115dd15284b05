//! Making a folder, and what is refused.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path};

use aldis_storage::ServiceLock;
use aldis_types::Domain;

use super::{
    clean, dns, init,
    layout::{Folder, State},
    up::{is_free, keeps_its_ports},
};
use crate::{admin::Administration, config::Config};

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

fn options(domains: &[&str], base_port: u16) -> init::Options {
    init::Options { domains: domains.iter().map(|it| domain(it)).collect(), base_port, throttle: true }
}

struct Made {
    _parent: tempfile::TempDir,
    folder: Folder,
    state: State,
}

async fn make(domains: &[&str], base_port: u16) -> Made {
    let parent = tempfile::tempdir().unwrap();
    let folder = Folder::at(&parent.path().join("federation")).unwrap();
    let state = init::run(&folder, &options(domains, base_port)).await.unwrap();
    Made { _parent: parent, folder, state }
}

/// Every file below `path` with its content and mode.
fn files(path: &Path) -> BTreeMap<String, (Vec<u8>, u32)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            found.insert(path.display().to_string(), (std::fs::read(&path).unwrap(), mode));
        }
    }
    found
}

#[tokio::test]
async fn a_second_run_changes_nothing_and_a_further_domain_adds_one() {
    let made = make(&[], 18000).await;
    let domains: Vec<_> = made.state.backends.iter().map(|it| it.domain.to_string()).collect();
    assert_eq!(domains, ["alpha.test", "beta.test"]);
    assert_eq!(made.state.dns().port(), 18053);
    let ports: Vec<_> = made.state.backends.iter().map(|it| (it.client, it.federation, it.operations)).collect();
    assert_eq!(ports, [(18100, 18101, 18102), (18200, 18201, 18202)]);

    let before = files(made.folder.path());
    init::run(&made.folder, &options(&[], 18000)).await.unwrap();
    init::run(&made.folder, &options(&["beta.test"], 20000)).await.unwrap();
    assert!(files(made.folder.path()) == before);

    let state = init::run(&made.folder, &options(&["gamma.test"], 18000)).await.unwrap();
    assert_eq!(state.backend(&domain("gamma.test")).unwrap().client, 18300);
    let after = files(made.folder.path());
    let unchanged = |name: &str| before[name] == after[name];
    let of_beta = made.folder.of(&domain("beta.test"));
    assert!([of_beta.config(), of_beta.key(), made.folder.ca()].iter().all(|it| unchanged(it.to_str().unwrap())));
}

#[tokio::test]
async fn every_backend_lists_all_others_until_an_administrator_decides_otherwise() {
    let made = make(&["alpha.test", "beta.test"], 0).await;
    let config = Config::load(&made.folder.of(&domain("alpha.test")).config()).unwrap();
    let administration = Administration::of(&config).await.unwrap();
    assert_eq!(administration.remotes().await.unwrap().len(), 1);
    administration.set_remote(&domain("beta.test"), aldis_types::SearchPolicy::NoSearch).await.unwrap();
    drop(administration);

    init::run(&made.folder, &options(&["gamma.test"], 0)).await.unwrap();
    let administration = Administration::of(&config).await.unwrap();
    let remotes = administration.remotes().await.unwrap();
    let search: Vec<_> = remotes.iter().map(|(it, policy)| (it.as_str(), policy.search_policy.as_str())).collect();
    assert_eq!(search, [("beta.test", "no_search"), ("gamma.test", "full_search")]);
}

#[tokio::test]
async fn private_keys_are_for_their_owner_and_mail_has_its_folder() {
    let made = make(&["alpha.test"], 0).await;
    let files = files(made.folder.path());
    let keys: Vec<_> = files.iter().filter(|(name, _)| name.ends_with("-key.pem")).collect();
    assert_eq!(keys.len(), 7);
    assert!(keys.iter().all(|(_, (_, mode))| *mode == 0o600), "{keys:?}");
    let target = made.folder.of(&domain("alpha.test"));
    assert_eq!(files[target.config().to_str().unwrap()].1, 0o600);
    assert!(target.mail().is_dir());
    let config = Config::load(&target.config()).unwrap();
    assert_eq!(config.users.mail.folder, Some(target.mail()));
    assert_eq!(config.store.path, target.store());
    keeps_its_ports(&made.folder, &made.state.backends[0]).unwrap();
}

#[tokio::test]
async fn throttling_is_on_unless_turned_off() {
    let parent = tempfile::tempdir().unwrap();
    let folder = Folder::at(parent.path()).unwrap();
    let off = init::Options { throttle: false, ..options(&["beta.test"], 0) };
    init::run(&folder, &options(&["alpha.test"], 0)).await.unwrap();
    init::run(&folder, &off).await.unwrap();
    let throttle = |name| Config::load(&folder.of(&domain(name)).config()).unwrap().client.throttle.enabled;
    assert_eq!((throttle("alpha.test"), throttle("beta.test")), (true, false));
}

#[tokio::test]
async fn picked_ports_are_kept_for_good() {
    let made = make(&["alpha.test"], 0).await;
    let again = init::run(&made.folder, &options(&["beta.test"], 0)).await.unwrap();
    assert_eq!(again.dns(), made.state.dns());
    assert_eq!(again.backends[0].client, made.state.backends[0].client);
    assert_eq!(again.backends.len(), 2);
}

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let folder = Folder::at(&parent.path().join("federation")).unwrap();
    let error = init::run(&folder, &options(&[], 80)).await.unwrap_err().to_string();
    assert!(error.contains("`--base-port` = 80") && error.contains("allowed"), "{error}");
    let error = init::run(&folder, &options(&["local.toml"], 0)).await.unwrap_err().to_string();
    assert!(error.contains("local.toml cannot be a domain"), "{error}");
    let empty = Folder::at(&parent.path().join("nothing")).unwrap();
    let error = clean::run(&empty).unwrap_err().to_string();
    assert!(error.contains("is not a local federation"), "{error}");
}

#[tokio::test]
async fn a_listener_that_leaves_loopback_is_refused() {
    let made = make(&["alpha.test"], 18000).await;
    let file = made.folder.of(&domain("alpha.test")).config();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("listen = \"127.0.0.1:18100\"", "listen = \"0.0.0.0:18100\"")).unwrap();
    let error = keeps_its_ports(&made.folder, &made.state.backends[0]).unwrap_err().to_string();
    assert!(error.contains("`client.listen` = 0.0.0.0:18100") && error.contains("127.0.0.1:18100"), "{error}");
}

#[tokio::test]
async fn cleaning_waits_until_nothing_runs_and_leaves_what_it_did_not_make() {
    let made = make(&["alpha.test", "beta.test"], 0).await;
    let held = ServiceLock::take(&made.folder.of(&domain("beta.test")).store(), "conversations").unwrap();
    let error = format!("{:#}", clean::run(&made.folder).unwrap_err());
    assert!(error.contains("stop it first") && error.contains("beta.test runs from"), "{error}");
    assert!(is_free(&made.folder, &domain("beta.test")).is_err());
    drop(held);

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(dns::serve(made.folder.clone(), async move { drop(stopped.await) }));
    let asked = async { while dns::ask(made.state.dns(), &domain("beta.test")).await.is_err() {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), asked).await.unwrap();
    assert!(dns::ask(made.state.dns(), &domain("gamma.test")).await.is_err());
    let error = clean::run(&made.folder).unwrap_err().to_string();
    assert!(error.contains("DNS server"), "{error}");
    drop(stop);
    serving.await.unwrap().unwrap();

    std::fs::write(made.folder.file("notes.txt"), "mine").unwrap();
    clean::run(&made.folder).unwrap();
    let left: Vec<_> = std::fs::read_dir(made.folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.txt"]);
}
