//! Registration, login and the session of one user on one device.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aldis_types::{ClientId, ConversationId, Qualified, UserId};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    http::{Answer, Api},
    mail::MailFolder,
    message::Recipients,
    prekeys,
};

/// The password of every test account.
pub const PASSWORD: &str = "correct horse battery";
/// One-time prekeys of a new device; few, because making them costs time.
const PREKEYS: u16 = 5;

/// What a person tells a backend about himself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Display name.
    pub name: String,
    /// Unique name on the backend.
    pub handle: String,
    /// Address, also for login.
    pub email: String,
    /// For login.
    pub password: String,
}

impl Person {
    /// Somebody whose handle and address nobody else has.
    pub fn new(name: &str) -> Self {
        let unique = Uuid::new_v4().simple().to_string();
        let ascii: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let handle = format!("{}_{}", ascii.to_ascii_lowercase(), &unique[..12]);
        Self { name: name.to_owned(), email: format!("{handle}@mail.test"), handle, password: PASSWORD.to_owned() }
    }
}

/// Access token and cookie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    /// The bearer token.
    pub token: String,
    /// The value of the `zuid` cookie.
    pub cookie: String,
}

impl Session {
    /// The id of this session in its token: events that it causes skip its own socket.
    pub fn connection(&self) -> Option<&str> {
        self.token.split('.').find_map(|field| field.strip_prefix("c="))
    }
}

/// A user in one session, which belongs to one device once it has one.
#[derive(Debug)]
pub struct User {
    /// The user's backend.
    pub api: Api,
    /// The account.
    pub person: Person,
    /// Its id.
    pub id: Qualified<UserId>,
    session: Mutex<Session>,
    client: Option<ClientId>,
    pub(super) known: Mutex<HashMap<Qualified<ConversationId>, Recipients>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl User {
    /// Registers by code from the mail folder and takes the handle. The user has no device yet.
    pub async fn register(api: &Api, mail: &MailFolder, person: Person) -> Result<Self> {
        api.post("/activate/send", &json!({ "email": person.email })).await?.expect(200)?;
        let code = mail.code(&person.email).await?;
        let body = json!({
            "name": person.name,
            "email": person.email,
            "email_code": code,
            "password": person.password,
            "accent_id": 1,
            "locale": "en",
            "label": "harness",
            "assets": [],
        });
        let answer = api.post("/register", &body).await?.expect(201)?;
        let profile: Value = answer.json()?;
        let id = serde_json::from_value(profile["qualified_id"].clone()).context("qualified_id of the new account")?;
        let cookie = answer.cookie().context("the answer to /register sets no cookie")?;
        let user = Self::with_session(api, person, id, Session { token: String::new(), cookie });
        user.renew().await?;
        user.put("/self/handle", &json!({ "handle": user.person.handle })).await?.expect(200)?;
        Ok(user)
    }

    /// Logs in with the password, as a session of its own without a device.
    pub async fn login(api: &Api, person: &Person) -> Result<Self> {
        let body = json!({ "email": person.email, "password": person.password });
        let answer = api.post("/login?persist=true", &body).await?.expect(200)?;
        let cookie = answer.cookie().context("the answer to /login sets no cookie")?;
        let token = token_of(&answer)?;
        let me = api.call(Method::GET, "/self").token(&token)?.send().await?.expect(200)?.value()?;
        let id = serde_json::from_value(me["qualified_id"].clone()).context("qualified_id in /self")?;
        Ok(Self::with_session(api, person.clone(), id, Session { token, cookie }))
    }

    fn with_session(api: &Api, person: Person, id: Qualified<UserId>, session: Session) -> Self {
        Self { api: api.clone(), person, id, session: Mutex::new(session), client: None, known: Mutex::default() }
    }

    /// Adds a permanent device to the account and binds this session to it. The password is given along, so it may be
    /// a further device too.
    pub async fn add_device(mut self) -> Result<Self> {
        let body = prekeys::new_client("permanent", PREKEYS, Some(&self.person.password))?;
        let answer = self.post("/clients", &body).await?.expect(201)?;
        let id: ClientId = serde_json::from_value(answer.value()?["id"].clone()).context("id of the new client")?;
        self.client = Some(id);
        self.renew().await?;
        Ok(self)
    }

    /// The same account on a further device, with a session of its own.
    pub async fn on_another_device(&self) -> Result<Self> {
        Self::login(&self.api, &self.person).await?.add_device().await
    }

    /// The device of this session.
    pub fn client(&self) -> Result<ClientId> {
        self.client.with_context(|| format!("{} has no device in this session", self.person.name))
    }

    /// Token and cookie as they are now.
    pub fn session(&self) -> Session {
        lock(&self.session).clone()
    }

    /// Replaces token and cookie.
    pub fn set_session(&self, session: Session) {
        *lock(&self.session) = session;
    }

    /// `POST /access` with the cookie, bound to the device if there is one; returns the answer whatever it is, and
    /// keeps a new token and cookie.
    pub async fn access(&self) -> Result<Answer> {
        let session = self.session();
        let path = match self.client {
            Some(client) => format!("/access?client_id={client}"),
            None => "/access".to_owned(),
        };
        let mut call = self.api.call(Method::POST, path).header("cookie", &format!("zuid={}", session.cookie))?;
        if !session.token.is_empty() {
            call = call.token(&session.token)?;
        }
        let answer = call.send().await?;
        if answer.status == 200 {
            let cookie = answer.cookie().unwrap_or(session.cookie);
            self.set_session(Session { token: token_of(&answer)?, cookie });
        }
        Ok(answer)
    }

    /// Renews the access token.
    pub async fn renew(&self) -> Result<()> {
        self.access().await?.expect(200).map(drop)
    }

    /// Ends the session at the backend.
    pub async fn logout(&self) -> Result<Answer> {
        let session = self.session();
        let call = self.api.call(Method::POST, "/access/logout").token(&session.token)?;
        call.header("cookie", &format!("zuid={}", session.cookie))?.send().await
    }

    /// A request with the token. As the apps do, renews the token once when the answer is 401.
    pub async fn request(&self, method: Method, path: &str, body: Body<'_>) -> Result<Answer> {
        let attempt = async || {
            let call = self.api.call(method.clone(), path).token(&self.session().token)?;
            let call = match &body {
                Body::Empty => call,
                Body::Json(value) => call.json(value)?,
                Body::Bytes(content_type, bytes) => call.bytes(content_type, bytes.clone())?,
            };
            call.send().await
        };
        let answer = attempt().await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        self.renew().await?;
        let answer = attempt().await?;
        if answer.status == 401 {
            bail!("{method} {path}: 401 for a fresh token");
        }
        Ok(answer)
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.request(Method::GET, path, Body::Empty).await
    }

    /// `HEAD`.
    pub async fn head(&self, path: &str) -> Result<Answer> {
        self.request(Method::HEAD, path, Body::Empty).await
    }

    /// `POST` with JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.request(Method::POST, path, Body::Json(body)).await
    }

    /// `POST` without body.
    pub async fn post_empty(&self, path: &str) -> Result<Answer> {
        self.request(Method::POST, path, Body::Empty).await
    }

    /// `PUT` with JSON.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        self.request(Method::PUT, path, Body::Json(body)).await
    }

    /// `DELETE` without body.
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.request(Method::DELETE, path, Body::Empty).await
    }

    /// `DELETE` with JSON.
    pub async fn delete_with(&self, path: &str, body: &Value) -> Result<Answer> {
        self.request(Method::DELETE, path, Body::Json(body)).await
    }
}

/// The body of a request.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// None.
    Empty,
    /// JSON, compressed on the way.
    Json(&'a Value),
    /// Bytes of this content type.
    Bytes(&'a str, Bytes),
}

fn token_of(answer: &Answer) -> Result<String> {
    let body = answer.value()?;
    let complete = body["token_type"] == "Bearer" && body["expires_in"].is_u64() && body["user"].is_string();
    match body["access_token"].as_str() {
        Some(token) if complete && !token.contains('%') => Ok(token.to_owned()),
        _ => bail!("an incomplete session: {body}"),
    }
}
