//! The first people of a local federation: Alice at the first backend and Bob at the second, connected and in a group, so
//! that the first thing to do is to write.
//!
//! They are made as administrators and apps make people, through the backends: what is in the folder alone is who they
//! are. Whatever was broken off goes on at the next start.

use std::{collections::BTreeSet, time::Duration};

use aldis_api::ApiVersion;
use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    layout::{Access, Backend, Folder, loopback, write},
    ready::send,
};
use crate::{admin::Administration, config::Config};

const NAMES: [(&str, &str); 2] = [("Alice", "alice"), ("Bob", "bob")];
/// What their group is called.
pub(crate) const GROUP: &str = "Hello across domains";
/// How long backends that just started may take to work with each other.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(300);
/// A debug build that hashes a password on a busy machine is slow.
const ANSWER: Duration = Duration::from_secs(20);

/// Somebody who can log in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) handle: String,
    pub(crate) domain: String,
    pub(crate) email: String,
    pub(crate) password: String,
}

/// Content of `people.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// Whether they are all there, know each other and have their group.
    introduced: bool,
    people: Vec<Person>,
}

/// The people of these backends, all of which run. Makes them at the first start that has two backends.
pub(crate) async fn of(folder: &Folder, backends: &[Backend]) -> Result<Vec<Person>> {
    let mut record = match read(folder)? {
        Some(record) => record,
        None if backends.len() < NAMES.len() => return Ok(Vec::new()),
        None => {
            let people = NAMES.into_iter().zip(backends).map(|((name, handle), backend)| Person {
                name: name.to_owned(),
                handle: handle.to_owned(),
                domain: backend.domain.to_string(),
                email: format!("{handle}@{}", backend.domain),
                password: new_password(),
            });
            let record = Record { introduced: false, people: people.collect() };
            save(folder, &record)?;
            record
        }
    };
    let home = |person: &Person| backends.iter().find(|backend| backend.domain.as_str() == person.domain);
    if let (false, [first, second, ..]) = (record.introduced, &*record.people)
        && let (Some(a), Some(b)) = (home(first), home(second))
    {
        introduce(folder, (first, a), (second, b)).await?;
        record.introduced = true;
        save(folder, &record)?;
    }
    record.people.retain(|person| record.introduced && home(person).is_some());
    Ok(record.people)
}

fn read(folder: &Folder) -> Result<Option<Record>> {
    let file = folder.people();
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(Some(toml::from_str(&text).with_context(|| file.display().to_string())?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

fn save(folder: &Folder, record: &Record) -> Result<()> {
    let text = format!("# The first people of this federation, for `aldis local up`.\n{}", toml::to_string(record)?);
    write(&folder.people(), text.as_bytes(), Access::Owner)
}

/// Sixteen letters and digits that can be read aloud and typed: 80 bits.
fn new_password() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let random = rand::random::<[u8; 16]>();
    let letters: String = random.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
    [&letters[..4], &letters[4..8], &letters[8..12], &letters[12..]].join("-")
}

/// Makes both, has one ask and the other accept, and makes their group.
async fn introduce(folder: &Folder, first: (&Person, &Backend), second: (&Person, &Backend)) -> Result<()> {
    let first = Session::begin(folder, first.0, first.1).await?;
    let second = Session::begin(folder, second.0, second.1).await?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        // Each step may be taken again.
        match first.meet(&second).await {
            Ok(()) => return Ok(()),
            Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Somebody who is logged in.
struct Session {
    api: String,
    token: String,
    id: String,
    domain: String,
}

impl Session {
    /// Logs in; makes the account if there is none.
    async fn begin(folder: &Folder, person: &Person, backend: &Backend) -> Result<Self> {
        let api = format!("http://{}/v{}", loopback(backend.client), ApiVersion::MAX.0);
        let credentials = json!({ "email": person.email, "password": person.password });
        let mut session = Self { api, token: String::new(), id: String::new(), domain: person.domain.clone() };
        let login = async |session: &Self| session.ask(Method::POST, "/login", Some(&credentials)).await;
        let answer = match login(&session).await? {
            (StatusCode::FORBIDDEN, _) => {
                let config = Config::load(&folder.of(&backend.domain).config())?;
                let administration = Administration::of(&config).await?;
                let Person { email, password, name, handle, .. } = person;
                let made = administration.create_user(email, password, name, handle).await;
                made.with_context(|| format!("{} at {}", person.handle, person.domain))?;
                login(&session).await?
            }
            answer => answer,
        };
        let answer = expect(answer, "/login")?;
        session.token = text(&answer, "access_token")?;
        session.id = text(&answer, "user")?;
        Ok(session)
    }

    async fn meet(&self, other: &Self) -> Result<()> {
        let to = |it: &Self| format!("/connections/{}/{}", it.domain, it.id);
        self.call(Method::POST, &to(other), None).await?;
        other.call(Method::PUT, &to(self), Some(&json!({ "status": "accepted" }))).await?;
        if self.groups().await?.contains(GROUP) {
            return Ok(());
        }
        let group = json!({
            "name": GROUP,
            "qualified_users": [{ "id": other.id, "domain": other.domain }],
            "conversation_role": "wire_member",
            "access": ["invite"],
            "access_role": ["team_member", "non_team_member", "guest", "service"],
            "receipt_mode": 1,
            "protocol": "proteus",
        });
        self.call(Method::POST, "/conversations", Some(&group)).await.map(drop)
    }

    /// The names of the groups here.
    async fn groups(&self) -> Result<BTreeSet<String>> {
        let ids = self.call(Method::POST, "/conversations/list-ids", Some(&json!({}))).await?;
        let wanted = json!({ "qualified_ids": ids["qualified_conversations"] });
        let answer = self.call(Method::POST, "/conversations/list", Some(&wanted)).await?;
        let found = answer["found"].as_array().context("no list of conversations")?;
        Ok(found.iter().filter_map(|it| it["name"].as_str()).map(str::to_owned).collect())
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        expect(self.ask(method, path, body).await?, path)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.api));
        if !self.token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let (status, text) = send(request.body(Full::new(Bytes::from(body)))?, ANSWER).await?;
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }
}

fn expect((status, answer): (StatusCode, Value), path: &str) -> Result<Value> {
    if !status.is_success() {
        let path = path.split('/').nth(1).unwrap_or_default();
        bail!("/{path} answered {status} {}", answer["label"].as_str().unwrap_or_default());
    }
    Ok(answer)
}

fn text(answer: &Value, key: &str) -> Result<String> {
    let text = answer[key].as_str().unwrap_or_default();
    ensure!(!text.is_empty(), "no `{key}` in the answer");
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn passwords_can_be_typed_and_not_guessed() {
        let password = super::new_password();
        let parts: Vec<&str> = password.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [4, 4, 4, 4], "{password}");
        assert!(parts.concat().chars().all(|it| it.is_ascii_alphanumeric() && !"lo01".contains(it)), "{password}");
        assert_ne!(password, super::new_password());
    }
}
