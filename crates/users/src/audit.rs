//! Records of changes to accounts and remotes: who did what to whom. They hold ids and domains, never addresses,
//! names or secrets.

/// One record; kept for a year.
#[derive(Debug, Clone)]
pub(crate) struct AuditEntry {
    /// `client` for the client API, `admin` for the administrator, `system` for the service itself.
    pub(crate) actor: &'static str,
    /// What was done, e.g. `account-created`.
    pub(crate) action: &'static str,
    /// To what: the id of an account or the domain of a remote.
    pub(crate) subject: String,
    /// More, when there is more to say.
    pub(crate) detail: String,
}

impl AuditEntry {
    pub(crate) fn new(actor: &'static str, action: &'static str, subject: impl ToString) -> Self {
        Self { actor, action, subject: subject.to_string(), detail: String::new() }
    }

    pub(crate) fn detail(mut self, detail: impl ToString) -> Self {
        self.detail = detail.to_string();
        self
    }
}
