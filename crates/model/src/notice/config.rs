//! Who wants to hear of what, as the configuration says it.

use std::path::PathBuf;

use secrecy::SecretString;

use super::{Event, Notice};

/// What stands for the database's name in the address of a ping.
pub const DATABASE_MARK: &str = "{database}";

/// One entry of `notify`.
#[derive(Clone, Debug)]
pub struct NotifierConfig {
    /// How it is told.
    pub channel: Channel,
    /// What it is told; a ping hears of backups alone.
    pub on: Vec<Event>,
    /// The databases that it is told of; empty means all.
    pub databases: Vec<String>,
    /// Certificates to trust for the service, beside the usual ones.
    pub ca_certificate: Option<PathBuf>,
}

/// A way to tell somebody.
#[derive(Clone, Debug)]
pub enum Channel {
    /// E-mail.
    Email(EmailConfig),
    /// An incoming webhook of Slack, or of what speaks like it.
    Slack(HookConfig),
    /// A webhook of Discord.
    Discord(HookConfig),
    /// Any address that takes a JSON document.
    Webhook(WebhookConfig),
    /// A service that misses pings which do not come.
    Ping(PingConfig),
}

/// The webhook of a chat.
#[derive(Clone, Debug)]
pub struct HookConfig {
    /// Its address, which is all that is needed to write there.
    pub url: SecretString,
}

/// Where JSON documents go.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// The address.
    pub url: SecretString,
    /// The key that documents are signed with.
    pub secret: Option<SecretString>,
    /// Headers of each request.
    pub headers: Vec<(String, SecretString)>,
}

/// Where e-mail goes, and by which server.
#[derive(Clone, Debug)]
pub struct EmailConfig {
    /// The server.
    pub host: String,
    /// Its port; `None` means the usual one of `tls`.
    pub port: Option<u16>,
    /// How the connection is protected.
    pub tls: MailTls,
    /// Whom to log in as; given exactly when `password` is.
    pub user: Option<String>,
    /// The password of `user`.
    pub password: Option<SecretString>,
    /// Who sends.
    pub from: String,
    /// Who receives; never empty.
    pub to: Vec<String>,
}

impl EmailConfig {
    /// Returns the port in force.
    pub fn port_in_force(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            MailTls::StartTls => 587,
            MailTls::Implicit => 465,
            MailTls::None => 25,
        })
    }
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MailTls {
    /// Begun in the clear and then protected; a server that cannot is not used.
    #[default]
    StartTls,
    /// Protected from the first byte.
    Implicit,
    /// Not at all.
    None,
}

impl MailTls {
    /// Returns the name that stands in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StartTls => "starttls",
            Self::Implicit => "implicit",
            Self::None => "none",
        }
    }
}

/// Where a dead-man ping goes.
#[derive(Clone, Debug)]
pub struct PingConfig {
    /// The address; `{database}` in it stands for the database's name.
    pub url: SecretString,
    /// What the service understands.
    pub style: PingStyle,
    /// Address for the start of a backup, instead of the style's own.
    pub start_url: Option<SecretString>,
    /// Address for a backup that failed, instead of the style's own.
    pub failure_url: Option<SecretString>,
}

/// What a ping's service understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PingStyle {
    /// `/start` and `/fail` behind the address, a log in the body. <https://healthchecks.io/docs/http_api/>
    #[default]
    Healthchecks,
    /// The address alone, on success alone.
    Plain,
}

impl PingStyle {
    /// Returns the name that stands in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthchecks => "healthchecks",
            Self::Plain => "plain",
        }
    }
}

impl NotifierConfig {
    /// Tells whether the notifier is to hear of a database at all.
    pub fn is_for(&self, database: &str) -> bool {
        self.databases.is_empty() || self.databases.iter().any(|name| name == database)
    }

    /// Tells whether the notifier is to hear of this.
    ///
    /// A failure is told to whoever asked for failures, and to whoever asked for every run of its kind. A ping stands for
    /// whole backups: one that leaves tables out must not keep it quiet.
    pub fn wants(&self, notice: &Notice) -> bool {
        let is_wanted = match self.channel {
            Channel::Ping(_) => notice.verb == "backup" && !notice.is_partial,
            _ => self.on.iter().any(|event| notice.concerns(*event)),
        };
        is_wanted && self.is_for(&notice.database)
    }

    /// Returns the name of the channel, as it stands in the config.
    pub fn kind(&self) -> &'static str {
        match self.channel {
            Channel::Email(_) => "email",
            Channel::Slack(_) => "slack",
            Channel::Discord(_) => "discord",
            Channel::Webhook(_) => "webhook",
            Channel::Ping(_) => "ping",
        }
    }

    /// Returns all that nobody else may read: passwords, keys, and addresses, because whoever has one may write there.
    pub fn secrets(&self) -> Vec<SecretString> {
        match &self.channel {
            Channel::Email(email) => email.password.iter().cloned().collect(),
            Channel::Slack(hook) | Channel::Discord(hook) => vec![hook.url.clone()],
            Channel::Webhook(hook) => {
                let values = hook.headers.iter().map(|(_, value)| value);
                let all = [&hook.url].into_iter().chain(&hook.secret).chain(values);
                all.cloned().collect()
            }
            Channel::Ping(ping) => {
                let others = ping.start_url.iter().chain(&ping.failure_url);
                [&ping.url].into_iter().chain(others).cloned().collect()
            }
        }
    }
}
