//! One e-mail: text and HTML, over a connection that is protected as the configuration says.
//!
//! A server that offers no TLS where some was asked for gets neither login nor mail.

use std::time::{Duration, SystemTime};

use lettre::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::http::chain;
use pgkeep_model::notice::{EmailConfig, MailTls, Notice, NotifierConfig};

/// Longest wait for one answer of the server.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

/// Wait in front of the second try, where the server says that it may work later.
const WAIT: Duration = Duration::from_secs(1);

/// One way to answer is enough; these are what servers know.
const MECHANISMS: &[Mechanism] = &[Mechanism::Plain, Mechanism::Login];

/// Longest wait for a server to say goodbye, when all is done.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a mail, or one recipient, came to nothing.
struct Trouble {
    why: String,
    /// Whether the server says that it may work later.
    is_transient: bool,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let why = match error.status() {
            Some(_) => format!("the mail server refused: {}", chain(&error)),
            None => format!("the mail server cannot be used: {}", chain(&error)),
        };
        let is_transient = error.is_transient();
        Self { why, is_transient }
    }
}

/// A recipient that the server does not take.
type Refused = (Address, Trouble);

/// Sends a notice to everybody at once. Returns who did not get it, and why, where others did.
///
/// The server is asked for each recipient by itself, so that an address that is no more keeps the mail from nobody
/// else. What it may take later it is asked once more.
pub(super) async fn send(
    email: &EmailConfig,
    config: &NotifierConfig,
    notice: &Notice,
) -> Result<Option<String>, String> {
    let message = message(email, notice)?;
    let (from, all) = (message.envelope().from(), message.envelope().to());
    let mail = message.formatted();
    let server = Server::new(email, config)?;
    let until = Instant::now() + ANSWER_LIMIT;
    let refused = match server.send(from, all, &mail).await {
        Ok(refused) => refused,
        Err(trouble) if trouble.is_transient => {
            tracing::debug!(why = trouble.why, "the mail server asks to try later");
            tokio::time::sleep(WAIT).await;
            let second = server.send(from, all, &mail).await;
            return told(all, &second.map_err(|trouble| trouble.why)?);
        }
        Err(trouble) => return Err(trouble.why),
    };
    let (later, mut refused): (Vec<Refused>, Vec<Refused>) = refused
        .into_iter()
        .partition(|(_, trouble)| trouble.is_transient);
    if !later.is_empty() {
        tracing::debug!("the mail server asks to try later for some recipients");
        let addresses: Vec<Address> = later.iter().map(|(to, _)| to.clone()).collect();
        let again = async {
            tokio::time::sleep(WAIT).await;
            server.send(from, &addresses, &mail).await
        };
        // Others have the mail: what becomes of this, be it nothing, is about these alone.
        let second = tokio::time::timeout_at(until, again).await;
        refused.extend(second.ok().and_then(Result::ok).unwrap_or(later));
    }
    told(all, &refused)
}

/// Says who was refused: an error where that is everybody.
fn told(all: &[Address], refused: &[Refused]) -> Result<Option<String>, String> {
    let words = refused
        .iter()
        .map(|(to, trouble)| format!("`{to}`: {}", trouble.why))
        .collect::<Vec<_>>()
        .join("; ");
    match refused.len() {
        0 => Ok(None),
        count if count == all.len() => Err(words),
        _ => Ok(Some(words)),
    }
}

fn message(email: &EmailConfig, notice: &Notice) -> Result<Message, String> {
    let bad = |error: &dyn std::error::Error| format!("the mail cannot be written: {error}");
    let mut builder = Message::builder()
        .from(mailbox(&email.from)?)
        .subject(notice.subject.clone())
        .date(SystemTime::from(notice.at))
        .message_id(Some(format!("<{:032x}@pgkeep>", rand::random::<u128>())));
    for to in &email.to {
        builder = builder.to(mailbox(to)?);
    }
    // Keeps answering machines quiet. <https://www.rfc-editor.org/rfc/rfc3834#section-5>
    let name = HeaderName::new_from_ascii_str("Auto-Submitted");
    let mut message = builder
        .multipart(
            MultiPart::alternative()
                .singlepart(part(ContentType::TEXT_PLAIN, notice.text()))
                .singlepart(part(ContentType::TEXT_HTML, notice.html())),
        )
        .map_err(|error| bad(&error))?;
    let generated = HeaderValue::new(name, "auto-generated".to_owned());
    message.headers_mut().insert_raw(generated);
    Ok(message)
}

fn part(kind: ContentType, text: String) -> SinglePart {
    SinglePart::builder().header(kind).body(text)
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    let bad = |error| format!("`{text}` is not a mail address: {error}");
    text.parse().map_err(bad)
}

/// The way to a mail server.
struct Server<'a> {
    email: &'a EmailConfig,
    tls: Option<TlsParameters>,
    credentials: Option<Credentials>,
}

impl<'a> Server<'a> {
    fn new(email: &'a EmailConfig, config: &NotifierConfig) -> Result<Self, String> {
        let tls = match email.tls {
            MailTls::None => None,
            MailTls::StartTls | MailTls::Implicit => Some(parameters(email, config)?),
        };
        let credentials = match (&email.user, &email.password) {
            (Some(user), Some(password)) => {
                let password = password.expose_secret().to_owned();
                Some(Credentials::new(user.clone(), password))
            }
            _ => None,
        };
        Ok(Self {
            email,
            tls,
            credentials,
        })
    }

    /// Logs in, over TLS wherever some was asked for.
    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let hello = ClientId::default();
        let place = (self.email.host.as_str(), self.email.port_in_force());
        let (at_once, later) = match self.email.tls {
            MailTls::StartTls => (None, self.tls.clone()),
            MailTls::Implicit | MailTls::None => (self.tls.clone(), None),
        };
        let connecting =
            AsyncSmtpConnection::connect_tokio1(place, Some(ANSWER_LIMIT), &hello, at_once, None);
        let mut connection = connecting.await?;
        if let Some(tls) = later {
            connection.starttls(tls, &hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }

    /// Sends one mail to all whom the server takes it for, and returns the others. An error means that nobody got it,
    /// or that nobody knows.
    async fn send(
        &self,
        from: Option<&Address>,
        to: &[Address],
        mail: &[u8],
    ) -> Result<Vec<Refused>, Trouble> {
        let mut connection = self.connect().await?;
        let sent = transact(&mut connection, from, to, mail).await;
        // It is over, well or not; a server that does not say goodbye changes nothing.
        let _ = tokio::time::timeout(GOODBYE, connection.abort()).await;
        sent
    }
}

/// What lettre's own `send` does, which gives the mail up for all at the first recipient that is refused. The mail
/// itself is ASCII; addresses need not be.
async fn transact(
    connection: &mut AsyncSmtpConnection,
    from: Option<&Address>,
    to: &[Address],
    mail: &[u8],
) -> Result<Vec<Refused>, Trouble> {
    let is_wide = |address: &Address| !AsRef::<str>::as_ref(address).is_ascii();
    let has_wide = connection
        .server_info()
        .supports_feature(Extension::SmtpUtfEight);
    let parameters = if has_wide && to.iter().chain(from).any(is_wide) {
        vec![MailParameter::SmtpUtfEight]
    } else {
        Vec::new()
    };
    connection
        .command(Mail::new(from.cloned(), parameters))
        .await?;
    let mut refused = Vec::new();
    for address in to {
        let taken = if is_wide(address) && !has_wide {
            Err(Trouble {
                why: "the mail server accepts only ASCII addresses".to_owned(),
                is_transient: false,
            })
        } else {
            match connection
                .command(Rcpt::new(address.clone(), Vec::new()))
                .await
            {
                // Behind 421 the server hangs up on everybody.
                Err(error) if error.status().is_none_or(|code| u16::from(code) == 421) => {
                    return Err(error.into());
                }
                answer => answer.map_err(Trouble::from),
            }
        };
        refused.extend(taken.err().map(|trouble| (address.clone(), trouble)));
    }
    if refused.len() < to.len() {
        connection.command(Data).await?;
        connection.message(mail).await?;
    }
    Ok(refused)
}

fn parameters(email: &EmailConfig, config: &NotifierConfig) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(email.host.clone());
    if let Some(path) = &config.ca_certificate {
        let pem = super::read_certificates(path)?;
        let certificate = Certificate::from_pem(&pem)
            .map_err(|error| super::bad_certificates(path, &chain(&error)))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder
        .build()
        .map_err(|error| format!("TLS cannot be used: {}", chain(&error)))
}
