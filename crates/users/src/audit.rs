//! Records of changes to accounts, keys and remotes: who did what to whom. They hold ids and domains, never addresses,
//! names or secrets.

use aldis_runtime::listen::LocalPeer;

/// One record; kept for the time of a setting.
#[derive(Debug, Clone)]
pub(crate) struct AuditEntry {
    /// `client` for the client API, `admin` for the administrator, `system` for the service itself.
    pub(crate) actor: &'static str,
    /// Which process it was, for administration.
    pub(crate) who: String,
    /// What was done, e.g. `account-created`.
    pub(crate) action: &'static str,
    /// To what: the id of an account or the domain of a remote.
    pub(crate) subject: String,
    /// More, when there is more to say.
    pub(crate) detail: String,
    /// `done`, or why it was refused.
    pub(crate) outcome: &'static str,
}

impl AuditEntry {
    pub(crate) fn new(actor: &'static str, action: &'static str, subject: impl ToString) -> Self {
        Self { actor, who: String::new(), action, subject: subject.to_string(), detail: String::new(), outcome: "done" }
    }

    pub(crate) fn detail(mut self, detail: impl ToString) -> Self {
        self.detail = detail.to_string();
        self
    }

    /// Something that was not done.
    pub(crate) fn refused(mut self, why: &'static str) -> Self {
        self.outcome = why;
        self
    }
}

/// An administrator, by the process that speaks for them.
#[derive(Debug, Clone)]
pub(crate) struct Administrator(String);

impl Administrator {
    /// Who made a request.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        Self(match request.extensions().get::<LocalPeer>() {
            Some(LocalPeer { uid, pid: Some(pid) }) => format!("uid {uid}, pid {pid}"),
            Some(LocalPeer { uid, pid: None }) => format!("uid {uid}"),
            None => "unknown".to_owned(),
        })
    }

    /// A record of something that they do.
    pub(crate) fn does(&self, action: &'static str, subject: impl ToString) -> AuditEntry {
        AuditEntry { who: self.0.clone(), ..AuditEntry::new("admin", action, subject) }
    }
}
