//! The program as its users meet it: a local federation of real processes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

/// Only a failing test reaches it: debug builds on a busy machine are slow.
const PATIENCE: Duration = Duration::from_secs(150);

fn aldis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aldis")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::str::from_utf8(&output.stdout).unwrap()
}

/// The one line with which a command failed.
fn refusal(output: &Output) -> &str {
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    let text = std::str::from_utf8(&output.stderr).unwrap().trim_end();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn pid(value: &Value) -> Pid {
    Pid::from_raw(i32::try_from(value.as_u64().unwrap()).unwrap()).unwrap()
}

fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let zombie = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'));
    zombie || test_kill_process(pid).is_err()
}

/// A running `aldis local …` that is stopped in the end.
struct Running {
    child: Child,
    ready: Value,
    output: PathBuf,
    errors: PathBuf,
    ready_file: PathBuf,
}

impl Running {
    fn start(folder: &Path, name: &str, arguments: &[&str]) -> Self {
        let path = |end: &str| folder.join(format!("{name}{end}"));
        let (output, errors, ready_file) = (path(".out"), path(".err"), path(".json"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_aldis"))
            .args(arguments)
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(File::create(&errors).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let text = eventually("the ready file", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(&errors).unwrap());
            fs::read_to_string(&ready_file).ok()
        });
        let ready = serde_json::from_str(&text).unwrap();
        Self { child, ready, output, errors, ready_file }
    }

    fn backend(&self, index: usize) -> &Value {
        &self.ready["backends"][index]
    }

    /// The processes that it started.
    fn processes(&self) -> Vec<Pid> {
        let backends = self.ready["backends"].as_array().unwrap();
        let services = backends.iter().filter_map(|it| it["services"].as_array()).flatten();
        backends.iter().chain(services).map(|it| pid(&it["pid"])).chain([pid(&self.ready["dns"]["pid"])]).collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks it to stop and waits until it has, and everything with it.
    fn stop(mut self, signal: Signal) {
        self.signal(signal);
        let status = eventually("the end of the program", || self.child.try_wait().unwrap());
        assert!(signal == Signal::KILL || status.success(), "{status}");
        for process in self.processes() {
            eventually("the end of what it started", || is_gone(process).then_some(()));
        }
        assert_eq!(self.ready_file.exists(), signal == Signal::KILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::TERM);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(&self.errors).unwrap_or_default());
        }
    }
}

struct Http(tokio::runtime::Runtime, reqwest::Client);

impl Http {
    fn new() -> Self {
        aldis_runtime::workload::install_crypto();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self(runtime, client)
    }

    fn send(&self, method: &str, url: &str, token: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let mut request = self.1.request(method.parse().unwrap(), url).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.0.block_on(async {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            Some((status, response.json().await.unwrap_or(Value::Null)))
        })
    }

    fn call(&self, method: &str, url: &str, token: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.send(method, url, token, body).unwrap();
        assert!((200..300).contains(&status), "{method} {url}: {status} {answer}");
        answer
    }

    fn login(&self, api: &str, email: &str) -> String {
        let body = json!({ "email": email, "password": "ann likes lamps" });
        let answer = self.call("POST", &format!("{api}/login"), "", Some(body));
        answer["access_token"].as_str().unwrap().to_owned()
    }

    fn finds(&self, backend: &Value, token: &str, domain: &str, handle: &str) -> Option<(u16, Value)> {
        let api = backend["api"].as_str().unwrap();
        let (status, answer) = self.send("GET", &format!("{api}/users/by-handle/{domain}/{handle}"), token, None)?;
        Some((status, answer["label"].clone()))
    }
}

fn create_user(config: &Value, handle: &str) -> Value {
    let email = format!("{handle}@example.com");
    let output = aldis(&[
        "user",
        "create",
        "--config",
        config.as_str().unwrap(),
        "--email",
        &email,
        "--password",
        "ann likes lamps",
        "--name",
        handle,
        "--handle",
        handle,
    ]);
    serde_json::from_str(stdout(&output)).unwrap()
}

#[test]
fn a_federation_comes_up_is_administered_survives_a_kill_and_leaves_nothing_behind() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("federation");
    let dir = dir.to_str().unwrap();
    let running =
        Running::start(parent.path(), "up", &["local", "up", "--dir", dir, "--base-port", "0", "--no-people"]);
    assert!(running.ready.get("people").is_none() && !Path::new(dir).join("people.toml").exists());
    let (alpha, beta) = (running.backend(0).clone(), running.backend(1).clone());
    let http = Http::new();
    for backend in [&alpha, &beta] {
        let url = format!("{}/readyz", backend["operations"].as_str().unwrap());
        assert_eq!(http.call("GET", &url, "", None)["status"], "ready");
        for file in ["config", "mail_dir", "certificate_file", "key_file"] {
            assert!(Path::new(backend[file].as_str().unwrap()).is_absolute());
            assert!(Path::new(backend[file].as_str().unwrap()).exists());
        }
    }

    // Nothing starts twice, and nothing is removed under a running backend.
    assert!(refusal(&aldis(&["local", "clean", "--dir", dir])).contains("stop it first"));
    assert!(String::from_utf8(aldis(&["local", "up", "--dir", dir]).stderr).unwrap().contains("runs from"));

    // Accounts and remotes, while the backends run.
    let ann = create_user(&alpha["config"], "ann");
    create_user(&beta["config"], "bob");
    assert_eq!(ann["domain"], "alpha.test");
    let token = http.login(alpha["api"].as_str().unwrap(), "ann@example.com");
    assert_eq!(http.finds(&alpha, &token, "beta.test", "bob"), Some((200, Value::Null)));
    let remote = |arguments: &[&str]| {
        let config = alpha["config"].as_str().unwrap();
        aldis(&[&["remote"], arguments, &["--config", config]].concat())
    };
    stdout(&remote(&["suspend", "beta.test"]));
    let denied = Some((400, Value::from("federation-denied")));
    eventually("the suspension", || (http.finds(&alpha, &token, "beta.test", "bob") == denied).then_some(()));
    let listed: Value = serde_json::from_str(stdout(&remote(&["list", "--json"]))).unwrap();
    assert_eq!((&listed[0]["domain"], &listed[0]["state"]), (&json!("beta.test"), &json!("suspended")));
    stdout(&remote(&["resume", "beta.test"]));
    eventually("the end of the suspension", || {
        (http.finds(&alpha, &token, "beta.test", "bob")? == (200, Value::Null)).then_some(())
    });
    assert!(refusal(&remote(&["suspend", "alpha.test"])).contains("own domain"));
    assert!(refusal(&remote(&["suspend", "not a domain"])).contains("not a domain"));
    assert!(refusal(&remote(&["suspend", "delta.test"])).contains("not on the list"));

    // Mail lies where the ready file says.
    let body = json!({ "email": "cleo@example.com" });
    http.call("POST", &format!("{}/activate/send", alpha["api"].as_str().unwrap()), "", Some(body));
    let mail = eventually("the mail", || {
        let mut mails = fs::read_dir(alpha["mail_dir"].as_str().unwrap()).unwrap();
        mails.find_map(|it| Some(it.unwrap().path()).filter(|it| it.extension().is_some_and(|it| it == "eml")))
    });
    let mail = fs::read_to_string(mail).unwrap();
    assert!(mail.contains("X-Zeta-Purpose: ") && mail.contains("X-Zeta-Code: "), "{mail}");

    // A killed backend is reported, not restarted, and comes back by its command alone.
    kill_process(pid(&beta["pid"]), Signal::KILL).unwrap();
    eventually("the report", || {
        let errors = fs::read_to_string(&running.errors).unwrap();
        errors.contains("beta.test (process").then_some(())
    });
    let command: Vec<&str> = beta["command"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let mut again = Command::new(command[0])
        .args(&command[1..])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    eventually("the backend that came back", || {
        (http.finds(&alpha, &token, "beta.test", "bob")? == (200, Value::Null)).then_some(())
    });
    let guide = fs::read_to_string(&running.output).unwrap();
    assert!(guide.contains("2 backends are ready") && guide.contains("user create"), "{guide}");
    let logs = fs::read_to_string(&running.errors).unwrap();
    assert!(logs.contains("alpha.test | ") && !logs.contains("ann@example.com"), "{logs}");
    running.stop(Signal::INT);

    // What `up` did not start is not stopped by it.
    assert!(again.try_wait().unwrap().is_none());
    kill_process(Pid::from_child(&again), Signal::TERM).unwrap();
    assert!(eventually("the end of the backend", || again.try_wait().unwrap()).success());
    stdout(&aldis(&["local", "clean", "--dir", dir]));
    assert!(!Path::new(dir).exists());
}

#[test]
fn the_guide_can_be_followed_and_a_killed_up_takes_everything_along() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a folder");
    let running =
        Running::start(parent.path(), "up", &["local", "up", "--dir", dir.to_str().unwrap(), "--base-port", "0"]);
    let guide = fs::read_to_string(&running.output).unwrap();
    let commands: Vec<&str> = guide.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let commands = commands.join("\n");
    if Command::new("curl").arg("--version").output().is_ok() {
        let output = Command::new("bash").args(["-euc", &commands]).output().unwrap();
        let text = stdout(&output);
        assert!(text.contains(r#""status":"accepted""#) && text.contains("user.connection"), "{commands}\n{text}");
        assert!(text.contains(r#""handle":"ben""#) && text.contains("conversation."), "{text}");
    }
    running.stop(Signal::KILL);
}

/// What somebody who logged in as the ready file says finds: token, conversations by name, and states of connections.
fn looks_around(http: &Http, running: &Running, index: usize) -> (String, BTreeMap<String, Value>, Vec<Value>) {
    let person = &running.ready["people"][index];
    let api = format!("{}/v13", running.backend(index)["api"].as_str().unwrap());
    assert_eq!(person["domain"], running.backend(index)["domain"]);
    let body = json!({ "email": person["email"], "password": person["password"] });
    let answer = http.call("POST", &format!("{api}/login"), "", Some(body));
    let token = answer["access_token"].as_str().unwrap().to_owned();
    let me = http.call("GET", &format!("{api}/self"), &token, None);
    assert_eq!((&me["handle"], &me["name"]), (&person["handle"], &person["name"]));
    let ids = http.call("POST", &format!("{api}/conversations/list-ids"), &token, Some(json!({})));
    let wanted = json!({ "qualified_ids": ids["qualified_conversations"] });
    let list = http.call("POST", &format!("{api}/conversations/list"), &token, Some(wanted));
    let named = list["found"].as_array().unwrap().iter().filter_map(|it| Some((it["name"].as_str()?.to_owned(), it)));
    let groups = named.map(|(name, it)| (name, it["members"]["others"].clone())).collect();
    let connections = http.call("POST", &format!("{api}/list-connections"), &token, Some(json!({ "size": 10 })));
    let states = connections["connections"].as_array().unwrap().iter().map(|it| it["status"].clone()).collect();
    (token, groups, states)
}

#[test]
fn the_first_people_are_connected_and_in_a_group_and_stay_who_they_are() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("federation");
    let arguments = ["local", "up", "--dir", dir.to_str().unwrap(), "--base-port", "0"];
    let running = Running::start(parent.path(), "up", &arguments);
    let http = Http::new();
    for index in [0, 1] {
        let (_, groups, connections) = looks_around(&http, &running, index);
        assert_eq!(connections, ["accepted"]);
        let others = groups["Hello across domains"].as_array().unwrap();
        let other = running.backend(1 - index)["domain"].clone();
        assert_eq!((others.len(), &others[0]["qualified_id"]["domain"]), (1, &other), "{groups:?}");
    }
    // They are told where to go, each under a host name of its own.
    let guide = fs::read_to_string(&running.output).unwrap();
    let people = running.ready["people"].clone();
    for (index, host) in [(0, "http://127.0.0.1:"), (1, "http://localhost:")] {
        let app = running.backend(index)["app"].as_str().unwrap();
        assert!(app.starts_with(host) && app.ends_with("/app/") && guide.contains(app), "{app}");
        for key in ["email", "password"] {
            assert!(guide.contains(people[index][key].as_str().unwrap()), "{guide}");
        }
        let facts = http.call("GET", &format!("{app}config.json"), "", None);
        assert_eq!((&facts["domain"], &facts["federation"]), (&people[index]["domain"], &json!(true)));
    }
    let logs = fs::read_to_string(&running.errors).unwrap();
    assert!(!logs.contains("could not") && !logs.contains(people[0]["password"].as_str().unwrap()), "{logs}");
    for file in [dir.join("people.toml"), running.ready_file.clone()] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    running.stop(Signal::KILL);

    // Broken off before it was written down that they are there: nobody is made twice.
    let record = dir.join("people.toml");
    let text = fs::read_to_string(&record).unwrap();
    assert!(text.contains("introduced = true"));
    fs::write(&record, text.replace("introduced = true", "introduced = false")).unwrap();
    let again = Running::start(parent.path(), "again", &arguments);
    assert_eq!(again.ready["people"], people);
    // Without connections to processes that are gone.
    let (_, groups, connections) = looks_around(&Http::new(), &again, 0);
    assert_eq!((groups.len(), connections.len()), (1, 1));
    assert_eq!(fs::read_to_string(&record).unwrap(), text);
    again.stop(Signal::TERM);
    stdout(&aldis(&["local", "clean", "--dir", dir.to_str().unwrap()]));
    assert!(!dir.exists());
}

#[test]
fn services_in_processes_of_their_own_look_like_one_backend() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("federation");
    let dir = dir.to_str().unwrap();
    stdout(&aldis(&["local", "init", "--dir", dir, "--base-port", "0"]));
    let up = Running::start(parent.path(), "up", &["local", "up", "--dir", dir, "--domain", "alpha.test"]);
    let arguments = ["local", "services", "--dir", dir, "--domain", "beta.test"];
    let services = Running::start(parent.path(), "services", &arguments);
    let (alpha, beta) = (up.backend(0), services.backend(0));
    let names: Vec<_> = beta["services"].as_array().unwrap().iter().map(|it| it["service"].as_str().unwrap()).collect();
    assert_eq!(names, ["users", "conversations", "assets", "notifications", "federator", "web"]);
    assert_eq!(services.ready["dns"], up.ready["dns"]);

    let http = Http::new();
    create_user(&alpha["config"], "ann");
    create_user(&beta["config"], "bob");
    let (a, b) = (alpha["api"].as_str().unwrap(), beta["api"].as_str().unwrap());
    let (ann, bob) = (http.login(a, "ann@example.com"), http.login(b, "bob@example.com"));
    assert_eq!(http.finds(beta, &bob, "alpha.test", "ann"), Some((200, Value::Null)));
    let found = http.call("GET", &format!("{a}/users/by-handle/beta.test/bob"), &ann, None);
    let bob_id = found["qualified_id"]["id"].as_str().unwrap();
    http.call("POST", &format!("{a}/connections/beta.test/{bob_id}"), &ann, None);
    let me = http.call("GET", &format!("{a}/self"), &ann, None);
    let path = format!("{b}/connections/alpha.test/{}", me["id"].as_str().unwrap());
    http.call("PUT", &path, &bob, Some(json!({ "status": "accepted" })));
    let facts = http.call("GET", &format!("{}config.json", beta["app"].as_str().unwrap()), "", None);
    assert_eq!(facts["domain"], "beta.test");
    // Users, conversations and notifications of beta have worked together.
    eventually("the conversation", || {
        let answer = http.call("GET", &format!("{b}/v9/notifications?size=100"), &bob, None);
        answer.to_string().contains("conversation.").then_some(())
    });
    let ids = http.call("POST", &format!("{b}/conversations/list-ids"), &bob, Some(json!({})));
    assert!(!ids["qualified_conversations"].as_array().unwrap().is_empty());
    assert_eq!(http.send("GET", &format!("{b}/v7/self"), &bob, None).unwrap().1["label"], "unsupported-version");

    let refused = |more: &[&str]| refusal(&aldis(&[&arguments, more].concat())).to_owned();
    assert!(refused(&["--replicas", "2"]).contains("not available yet"));
    assert!(refused(&["--cql", "127.0.0.1:9042"]).contains("not available yet"));
    let processes = services.processes();
    services.signal(Signal::TERM);
    for process in processes.into_iter().filter(|it| *it != pid(&up.ready["dns"]["pid"])) {
        eventually("the end of a service", || is_gone(process).then_some(()));
    }
    up.stop(Signal::TERM);
}

#[test]
fn wrong_settings_stop_the_start_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("aldis.toml");
    fs::write(&file, "domain = 'alpha.test'\nstore.path = 'aldis.db'\nclient.listen = 'here'\n").unwrap();
    let output = aldis(&["all", "--config", file.to_str().unwrap()]);
    let text = refusal(&output);
    assert!(text.contains("`client.listen` = \"here\""), "{text}");

    let mut command = Command::new(env!("CARGO_BIN_EXE_aldis"));
    command.args(["all", "--config", file.to_str().unwrap()]);
    command.env("ALDIS_CLIENT__LISTEN", "127.0.0.1:0").env("ALDIS_STORE__READERS", "900");
    let output = command.output().unwrap();
    assert!(refusal(&output).contains("`store.readers` = 900; allowed: 1 to 64"));
}

#[test]
fn a_configuration_is_printed_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("aldis.toml");
    let path = file.to_str().unwrap();
    let printed = aldis(&["config", "print"]);
    let printed = stdout(&printed);
    assert!(printed.contains("#retention_days = 28\n") && printed.contains("\n# Allowed: 1 to 3650.\n"), "{printed}");
    fs::write(&file, printed).unwrap();
    let error = aldis(&["config", "check", path]);
    assert!(refusal(&error).contains("`store.path` = "), "{error:?}");
    fs::create_dir(folder.path().join("data")).unwrap();
    assert!(stdout(&aldis(&["config", "check", path])).contains("nothing is wrong"));
    let cases = [
        ("[client]\nbody_limit_bytes = 1", "`client.body_limit_bytes` = 1; allowed: 1024 to "),
        ("[client.tls]\ncertificate_file = 'a.pem'\nkey_file = 'a-key.pem'", "`client.tls.certificate_file` = "),
        ("[user]", "unknown key `user`; known keys here: domain, "),
    ];
    for (text, expected) in cases {
        fs::write(&file, format!("domain = 'alpha.test'\nstore.path = 'data/aldis.db'\n{text}\n")).unwrap();
        let error = aldis(&["config", "check", path]);
        assert!(refusal(&error).contains(expected), "{error:?}");
    }
    let missing = aldis(&["config", "check", folder.path().join("none.toml").to_str().unwrap()]);
    assert!(refusal(&missing).contains("none.toml"));
}

#[tokio::test]
async fn a_backend_serves_https_itself() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["api.alpha.test".to_owned()]).unwrap();
    fs::write(folder.path().join("client.pem"), made.cert.pem()).unwrap();
    fs::write(folder.path().join("client-key.pem"), made.signing_key.serialize_pem()).unwrap();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (client, operations) = (free(), free());
    let file = folder.path().join("aldis.toml");
    let text = format!(
        "domain = 'alpha.test'\nstore.path = 'aldis.db'\noperations.listen = '{operations}'\n[client]\nlisten = '{client}'\n\
         tls = {{ certificate_file = 'client.pem', key_file = 'client-key.pem' }}\n\
         [users.deeplink]\nbackend_url = 'https://api.alpha.test'\n"
    );
    fs::write(&file, text).unwrap();
    let mut backend = Command::new(env!("CARGO_BIN_EXE_aldis"))
        .args(["all", "--config", file.to_str().unwrap()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let browser = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()])
        .resolve("api.alpha.test", client)
        .build()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let answer = loop {
        match browser.get("https://api.alpha.test/deeplink.json").header("origin", "https://app.test").send().await {
            Ok(answer) => break answer,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(answer.status().is_success());
    assert!(answer.headers().contains_key("strict-transport-security"));
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    let link: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(
        (&link["title"], &link["endpoints"]["backendWSURL"]),
        (&json!("alpha.test"), &json!("https://api.alpha.test"))
    );
    // Plain HTTP is not spoken there.
    assert!(reqwest::get(format!("http://{client}/api-version")).await.is_err());
    kill_process(Pid::from_child(&backend), Signal::TERM).unwrap();
    assert!(backend.wait().unwrap().success());
}
