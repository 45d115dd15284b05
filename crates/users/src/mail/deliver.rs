//! Writing a mail and handing it on: to a folder or to a mail server.

use std::{path::PathBuf, time::Duration};

use aldis_types::Domain;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::authentication::Credentials,
};

use super::{Purpose, store::StoredMail};
use crate::config::{self, SmtpEncryption};

/// How long one exchange with the mail server may take.
const SMTP_DEADLINE: Duration = Duration::from_secs(60);

/// Why a mail was not handed on. Holds neither recipient nor text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MailError {
    /// Neither folder nor mail server is configured.
    #[error("mail is not configured")]
    NotConfigured,
    /// A setting cannot be used.
    #[error("mail setting: {0}")]
    Setting(&'static str),
    /// The mail cannot be written, e.g. because the recipient is no valid mailbox.
    #[error("the mail cannot be composed")]
    Compose,
    /// The folder.
    #[error("writing to the mail folder: {0}")]
    Folder(#[from] std::io::Error),
    /// The mail server; its answer may quote the recipient and is left out.
    #[error("mail server: {0}")]
    Smtp(&'static str),
}

enum Way {
    Nowhere,
    Folder(PathBuf),
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
}

/// Where mails go.
pub(crate) struct Delivery {
    way: Way,
    from: Mailbox,
    domain: Domain,
    activation_url: Option<String>,
    password_reset_url: Option<String>,
    deletion_url: Option<String>,
}

impl Delivery {
    pub(crate) fn new(config: &config::Mail, domain: &Domain) -> Result<Self, MailError> {
        let from = config.from.clone().unwrap_or_else(|| format!("aldis@{domain}"));
        let way = match (&config.folder, &config.smtp) {
            (Some(folder), _) => {
                std::fs::create_dir_all(folder)?;
                Way::Folder(folder.clone())
            }
            (None, Some(smtp)) => Way::Smtp(Box::new(transport(smtp)?)),
            (None, None) => Way::Nowhere,
        };
        Ok(Self {
            way,
            from: from.parse().map_err(|_| MailError::Setting("from"))?,
            domain: domain.clone(),
            activation_url: config.activation_url.clone(),
            password_reset_url: config.password_reset_url.clone(),
            deletion_url: config.deletion_url.clone(),
        })
    }

    /// Hands one mail on.
    pub(crate) async fn deliver(&self, mail: &StoredMail) -> Result<(), MailError> {
        let message = self.compose(mail)?;
        match &self.way {
            Way::Nowhere => Err(MailError::NotConfigured),
            Way::Folder(folder) => {
                // The same mail always gets the same name: a crash after the rename leaves no second file.
                let name = format!("{:014}-{:08}.eml", mail.created.millis(), mail.id);
                let (folder, text) = (folder.clone(), message.formatted());
                tokio::task::spawn_blocking(move || write_complete(folder, &name, &text))
                    .await
                    .map_err(std::io::Error::other)??;
                Ok(())
            }
            Way::Smtp(transport) => match tokio::time::timeout(SMTP_DEADLINE, transport.send(message)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(MailError::Smtp(smtp_failure(&error))),
                Err(_) => Err(MailError::Smtp("no answer in time")),
            },
        }
    }

    fn compose(&self, mail: &StoredMail) -> Result<Message, MailError> {
        let recipient = mail.recipient.as_str().parse().map_err(|_| MailError::Compose)?;
        let header =
            |name: &'static str, value: &str| HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned());
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, recipient))
            .subject(self.subject(mail))
            .message_id(Some(format!("<{}.{}@{}>", mail.created.millis(), mail.id, self.domain)))
            .raw_header(header("X-Zeta-Purpose", mail.purpose.as_str()))
            .raw_header(header("X-Zeta-Key", &mail.key))
            .raw_header(header("X-Zeta-Code", &mail.code))
            .header(ContentType::TEXT_PLAIN)
            .body(self.text(mail))
            .map_err(|_| MailError::Compose)
    }

    fn subject(&self, mail: &StoredMail) -> String {
        match mail.purpose {
            Purpose::Activation => format!("Confirm your e-mail address on {}", self.domain),
            Purpose::Verification => format!("{} is your code for {}", mail.code, self.domain),
            Purpose::PasswordReset => format!("A new password for your account on {}", self.domain),
            Purpose::Deletion => format!("Delete your account on {}?", self.domain),
        }
    }

    fn text(&self, mail: &StoredMail) -> String {
        let (action, url) = match mail.purpose {
            Purpose::Activation => ("confirm this e-mail address", &self.activation_url),
            Purpose::Verification => ("create your account", &None),
            Purpose::PasswordReset => ("set a new password", &self.password_reset_url),
            Purpose::Deletion => ("delete your account with everything in it", &self.deletion_url),
        };
        let link = url.as_ref().map(|url| url.replace("{key}", &mail.key).replace("{code}", &mail.code));
        let mut text = format!("Hello,\n\nuse this code to {action} on {}:\n\n    {}\n", self.domain, mail.code);
        if matches!(mail.purpose, Purpose::PasswordReset | Purpose::Deletion) {
            text.push_str("\nIt goes with this key:\n\n    ");
            text.push_str(&mail.key);
            text.push('\n');
        }
        if let Some(link) = link {
            text.push_str("\nor open this page:\n\n    ");
            text.push_str(&link);
            text.push('\n');
        }
        text.push_str("\nIf you did not ask for this, ignore this mail: without the code nothing happens.\n");
        text
    }
}

fn transport(smtp: &config::Smtp) -> Result<AsyncSmtpTransport<Tokio1Executor>, MailError> {
    type Transport = AsyncSmtpTransport<Tokio1Executor>;
    let builder = match smtp.encryption {
        SmtpEncryption::Starttls => Transport::starttls_relay(&smtp.host),
        SmtpEncryption::Tls => Transport::relay(&smtp.host),
        SmtpEncryption::None => Ok(Transport::builder_dangerous(&smtp.host)),
    };
    let mut builder = builder.map_err(|_| MailError::Setting("smtp.host"))?.timeout(Some(Duration::from_secs(20)));
    if let Some(port) = smtp.port {
        builder = builder.port(port);
    }
    if let (Some(username), Some(password)) = (&smtp.username, &smtp.password) {
        builder = builder.credentials(Credentials::new(username.clone(), password.expose().to_owned()));
    }
    Ok(builder.build())
}

fn smtp_failure(error: &lettre::transport::smtp::Error) -> &'static str {
    if error.is_permanent() {
        "refused the mail"
    } else if error.is_transient() {
        "cannot take the mail now"
    } else if error.is_tls() {
        "TLS failed"
    } else if error.is_timeout() {
        "timed out"
    } else {
        "cannot be reached"
    }
}

/// Writes a file so that it is complete and durable as soon as its name can be seen.
fn write_complete(folder: PathBuf, name: &str, text: &[u8]) -> std::io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let unfinished = folder.join(format!(".{name}.part"));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, folder.join(name))?;
    std::fs::File::open(&folder)?.sync_all()
}
