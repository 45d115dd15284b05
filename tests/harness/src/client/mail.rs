//! Codes from the mail folder of a backend.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::wait::eventually;

/// The folder into which a backend delivers its mail.
#[derive(Debug, Clone)]
pub struct MailFolder(PathBuf);

/// One mail, its headers only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// File name, by which mails sort in time.
    pub name: String,
    headers: Vec<(String, String)>,
}

impl Mail {
    /// The value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn parse(name: String, text: &str) -> Self {
        let head = text.lines().take_while(|line| !line.is_empty());
        let headers = head
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Self { name, headers }
    }
}

impl MailFolder {
    /// The folder at `path`, which need not exist before the first mail.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// All mails to an address, oldest first.
    pub fn to(&self, address: &str) -> Result<Vec<Mail>> {
        let mut found = Vec::new();
        let Ok(entries) = std::fs::read_dir(&self.0) else { return Ok(found) };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.extension().is_none_or(|extension| extension != "eml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).with_context(|| format!("mail {}", path.display()))?;
            let mail = Mail::parse(name, &text);
            if mail.header("To").is_some_and(|to| to.contains(address)) {
                found.push(mail);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Waits for a mail to this address with a code, and gives the newest code.
    pub async fn code(&self, address: &str) -> Result<String> {
        self.newest_code(address, None).await
    }

    /// As [`MailFolder::code`], of mails with this `X-Zeta-Purpose`.
    pub async fn code_for(&self, address: &str, purpose: &str) -> Result<String> {
        self.newest_code(address, Some(purpose)).await
    }

    async fn newest_code(&self, address: &str, purpose: Option<&str>) -> Result<String> {
        eventually(&format!("a mail with a code to {address}"), async || {
            let mails = self.to(address)?;
            let wanted = |mail: &&Mail| purpose.is_none() || mail.header("X-Zeta-Purpose") == purpose;
            let code = mails.iter().rev().filter(wanted).find_map(|mail| mail.header("X-Zeta-Code"));
            code.map(str::to_owned).context("no mail with X-Zeta-Code")
        })
        .await
    }
}
