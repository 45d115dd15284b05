//! `aldis user`.

use std::io::BufRead as _;

use aldis_proto::{
    convert,
    internal::v1::{
        AccountState, CreateUserRequest, DeleteUserRequest, ListUsersRequest, LogOutUserRequest, ResetPasswordRequest,
        ResumeUserRequest, ShowUserRequest, ShowUserResponse, SuspendUserRequest, UserRecord, UserReference,
        user_admin_client::UserAdminClient, user_reference::Who,
    },
};
use aldis_types::{ClientId, UserId};
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Administration, ConfigFile, ask, print_json, print_lines, time, time_or_dash};
use crate::config::Config;

/// Accounts that are asked for at once.
const PAGE: u32 = 500;

/// Commands of `aldis user`.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Create an activated account and print its qualified id as JSON.
    Create(CreateUser),
    /// Show accounts in the order of their ids.
    List(ListUsers),
    /// Show one account, its devices and how many sessions it has.
    Show {
        #[command(flatten)]
        user: OneUser,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Refuse the user's logins and end what they have open, within 2 seconds. Their messages go on waiting for them.
    Suspend(OneUser),
    /// Let a suspended user in again, with the sessions that they had.
    Resume(OneUser),
    /// Set another password, end all sessions, and forget wrong attempts.
    ResetPassword {
        #[command(flatten)]
        user: OneUser,
        /// The password; without this option it is read from standard input, one line.
        #[arg(long)]
        password: Option<String>,
    },
    /// Delete an account for good: only a tombstone stays. Contacts and conversations are told, here and elsewhere.
    Delete {
        #[command(flatten)]
        user: OneUser,
        /// Needed, because it cannot be undone.
        #[arg(long)]
        yes: bool,
    },
    /// End all sessions of a user: cookies, tokens and open sockets, within 2 seconds.
    Logout(OneUser),
}

#[derive(Debug, Args)]
pub(crate) struct CreateUser {
    /// The e-mail address, with which the user logs in.
    #[arg(long)]
    email: String,
    /// The password; without this option it is read from standard input, one line.
    #[arg(long)]
    password: Option<String>,
    /// The name that others see.
    #[arg(long)]
    name: String,
    /// The unique handle by which others find the user.
    #[arg(long)]
    handle: Option<String>,
    #[command(flatten)]
    config: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct OneUser {
    /// Who: an id, a handle, or an e-mail address.
    user: String,
    #[command(flatten)]
    config: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct ListUsers {
    /// Only accounts in this state.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// At most so many accounts.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with = "all")]
    limit: u32,
    /// All accounts.
    #[arg(long)]
    all: bool,
    /// Only accounts that come after this one: the last id of the page before.
    #[arg(long, value_name = "ID")]
    after: Option<UserId>,
    /// One JSON object: `users`, and `next`, the value for `--after` when there are more.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// Where an account is in its life.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum State {
    /// May log in.
    Active,
    /// The address is still to be proven.
    Pending,
    /// Was suspended by an administrator.
    Suspended,
    /// Is gone; only its id is left.
    Deleted,
}

impl From<State> for AccountState {
    fn from(state: State) -> Self {
        match state {
            State::Active => Self::Active,
            State::Pending => Self::Pending,
            State::Suspended => Self::Suspended,
            State::Deleted => Self::Deleted,
        }
    }
}

fn state_name(record: &UserRecord) -> &'static str {
    match record.state() {
        AccountState::Unspecified => "unknown",
        AccountState::Active => "active",
        AccountState::Pending => "pending",
        AccountState::Suspended => "suspended",
        AccountState::Deleted => "deleted",
    }
}

/// Runs a command of `aldis user`.
pub(crate) async fn run(command: User) -> Result<()> {
    match command {
        User::Create(arguments) => create(arguments).await,
        User::List(arguments) => list(arguments).await,
        User::Show { user, json } => {
            let (users, domain, user) = users(user).await?;
            let mut client = users.client();
            let shown = ask(async { client.show_user(ShowUserRequest { user }).await }).await?;
            show(&shown, &domain, json)
        }
        User::Suspend(user) => {
            let (users, _, user) = users(user).await?;
            let mut client = users.client();
            ask(async { client.suspend_user(SuspendUserRequest { user }).await }).await.map(drop)
        }
        User::Resume(user) => {
            let (users, _, user) = users(user).await?;
            let mut client = users.client();
            ask(async { client.resume_user(ResumeUserRequest { user }).await }).await.map(drop)
        }
        User::ResetPassword { user, password } => {
            let password = password_or_line(password)?;
            let (users, _, user) = users(user).await?;
            let mut client = users.client();
            ask(async { client.reset_password(ResetPasswordRequest { user, password }).await }).await.map(drop)
        }
        User::Delete { user, yes } => {
            if !yes {
                bail!("deleting {} cannot be undone: say so with --yes", user.user);
            }
            let (users, _, user) = users(user).await?;
            let mut client = users.client();
            ask(async { client.delete_user(DeleteUserRequest { user }).await }).await.map(drop)
        }
        User::Logout(user) => {
            let (users, _, user) = users(user).await?;
            let mut client = users.client();
            ask(async { client.log_out_user(LogOutUserRequest { user }).await }).await.map(drop)
        }
    }
}

impl Administration {
    /// Makes an activated account.
    pub(crate) async fn create_user(&self, email: &str, password: &str, name: &str, handle: &str) -> Result<()> {
        let (email, password, name) = (email.to_owned(), password.to_owned(), name.to_owned());
        let request = CreateUserRequest { email, password, name, handle: Some(handle.to_owned()) };
        let mut client = self.client();
        ask(async { client.create_user(request).await }).await.map(drop)
    }

    fn client(&self) -> UserAdminClient<aldis_proto::channel::Channel> {
        UserAdminClient::new(self.channel.clone())
    }
}

/// The way to the backend, its domain, and whom the text means.
async fn users(one: OneUser) -> Result<(Administration, String, Option<UserReference>)> {
    let config = Config::load(&one.config.config)?;
    let who = reference(&one.user, config.domain.as_str())?;
    let administration = Administration::of(&config).await?;
    Ok((administration, config.domain.to_string(), Some(UserReference { who: Some(who) })))
}

fn reference(text: &str, domain: &str) -> Result<Who> {
    let bare = text.strip_suffix(domain).and_then(|rest| rest.strip_suffix('@')).unwrap_or(text);
    if let Ok(id) = bare.parse::<UserId>() {
        return Ok(Who::Id(convert::bytes_of(id)));
    }
    match text.strip_prefix('@') {
        Some(handle) => Ok(Who::Handle(handle.to_owned())),
        None if text.contains('@') => Ok(Who::Email(text.to_owned())),
        None if text.is_empty() => bail!("no user is named"),
        None => Ok(Who::Handle(text.to_owned())),
    }
}

fn password_or_line(password: Option<String>) -> Result<String> {
    match password {
        Some(password) => Ok(password),
        None => {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).context("reading the password from standard input")?;
            Ok(line.trim_end_matches(['\r', '\n']).to_owned())
        }
    }
}

async fn create(arguments: CreateUser) -> Result<()> {
    let config = Config::load(&arguments.config.config)?;
    let password = password_or_line(arguments.password)?;
    let administration = Administration::of(&config).await?;
    let request =
        CreateUserRequest { email: arguments.email, password, name: arguments.name, handle: arguments.handle };
    let mut client = administration.client();
    let created = ask(async { client.create_user(request).await }).await?;
    let id = convert::user_id(&created.id)?;
    print_json(&json!({ "id": id, "domain": created.domain }))
}

async fn list(arguments: ListUsers) -> Result<()> {
    let config = Config::load(&arguments.config.config)?;
    let administration = Administration::of(&config).await?;
    let state = arguments.state.map_or(AccountState::Unspecified, AccountState::from);
    let mut left = if arguments.all { u32::MAX } else { arguments.limit };
    let mut after = arguments.after.map(convert::bytes_of).unwrap_or_default();
    let mut shown = Vec::new();
    let mut more = true;
    while more && left > 0 {
        let request = ListUsersRequest { after: after.clone(), limit: left.min(PAGE), state: state.into() };
        let mut client = administration.client();
        let page = ask(async { client.list_users(request).await }).await?;
        let Some(last) = page.users.last() else { break };
        after = last.id.clone();
        more = page.more;
        left = left.saturating_sub(u32::try_from(page.users.len()).unwrap_or(u32::MAX));
        if arguments.json {
            shown.extend(
                page.users.iter().map(|user| record(user, config.domain.as_str())).collect::<Result<Vec<_>>>()?,
            );
        } else {
            print_lines(page.users.iter().map(line).collect::<Result<Vec<_>>>()?)?;
        }
    }
    let next = if more && !after.is_empty() { Some(convert::user_id(&after)?) } else { None };
    if arguments.json {
        return print_json(&json!({ "users": shown, "next": if shown.is_empty() { None } else { next } }));
    }
    if let Some(next) = next.filter(|_| more) {
        eprintln!("there are more: --after {next}");
    }
    Ok(())
}

fn line(user: &UserRecord) -> Result<String> {
    let id = convert::user_id(&user.id)?;
    let handle = user.handle.as_deref().map_or_else(|| "-".to_owned(), |handle| format!("@{handle}"));
    Ok(format!("{id}  {:9}  {}  {handle:20}  {}", state_name(user), time_or_dash(user.created), user.name))
}

fn record(user: &UserRecord, domain: &str) -> Result<Value> {
    Ok(json!({
        "id": convert::user_id(&user.id)?,
        "domain": domain,
        "name": user.name,
        "handle": user.handle,
        "email": user.email,
        "unverified_email": user.unverified_email,
        "state": state_name(user),
        "created": time(user.created),
    }))
}

fn show(shown: &ShowUserResponse, domain: &str, as_json: bool) -> Result<()> {
    let user = shown.user.as_ref().context("the backend answered without an account")?;
    if as_json {
        let clients = shown.clients.iter().map(|client| {
            json!({
                "id": ClientId(client.id),
                "type": client.r#type,
                "class": client.class,
                "label": client.label,
                "model": client.model,
                "created": time(client.created),
            })
        });
        let mut value = record(user, domain)?;
        value["sessions"] = shown.sessions.into();
        value["clients"] = clients.collect();
        return print_json(&value);
    }
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let email = match (&user.email, &user.unverified_email) {
        (Some(email), None) => email.clone(),
        (Some(email), Some(next)) => format!("{email}, to be replaced by {next}"),
        (None, Some(next)) => format!("{next}, not proven yet"),
        (None, None) => "-".to_owned(),
    };
    let mut lines = vec![
        format!("id        {}@{domain}", convert::user_id(&user.id)?),
        format!("state     {}", state_name(user)),
        format!("name      {}", user.name),
        format!("handle    {}", dash(&user.handle)),
        format!("e-mail    {email}"),
        format!("created   {}", time_or_dash(user.created)),
        format!("sessions  {}", shown.sessions),
        format!("devices   {}", shown.clients.len()),
    ];
    lines.extend(shown.clients.iter().map(|client| {
        let id = ClientId(client.id).to_string();
        let (kind, class) = (&client.r#type, dash(&client.class));
        format!("  {id:16}  {kind:9}  {class:9}  {}  {}", time_or_dash(client.created), dash(&client.model))
    }));
    print_lines(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_in_any_way() {
        let id = "5a6b3c4d-0000-4000-8000-000000000001";
        let bytes = convert::bytes_of(id.parse::<UserId>().unwrap());
        let of = |text: &str| reference(text, "alpha.test").unwrap();
        assert_eq!(of(id), Who::Id(bytes.clone()));
        assert_eq!(of(&format!("{id}@alpha.test")), Who::Id(bytes));
        assert_eq!(of("@ann"), Who::Handle("ann".to_owned()));
        assert_eq!(of("ann"), Who::Handle("ann".to_owned()));
        assert_eq!(of("ann@alpha.test"), Who::Email("ann@alpha.test".to_owned()));
        assert!(reference("", "alpha.test").is_err());
    }
}
