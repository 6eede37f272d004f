//! One e-mail: text and HTML, over a connection that is protected as the configuration says.
//!
//! A server that offers no TLS where some was asked for gets neither login nor mail.

use std::time::{Duration, SystemTime};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use secrecy::ExposeSecret;

use super::http::chain;
use crate::model::notice::{EmailConfig, MailTls, Notice, NotifierConfig};

/// Longest wait for one answer of the server.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);

/// Wait in front of the second try, where the server says that it may work later.
const WAIT: Duration = Duration::from_secs(1);

/// Sends a notice.
pub(super) async fn send(
    email: &EmailConfig,
    config: &NotifierConfig,
    notice: &Notice,
) -> Result<(), String> {
    let message = message(email, notice)?;
    let transport = transport(email, config)?;
    let first = transport.send(message.clone()).await;
    let again = match first {
        Ok(_) => return Ok(()),
        Err(error) if error.is_transient() => error,
        Err(error) => return Err(why(&error)),
    };
    tracing::debug!(why = why(&again), "the mail server asks to try later");
    tokio::time::sleep(WAIT).await;
    match transport.send(message).await {
        Ok(_) => Ok(()),
        Err(error) => Err(why(&error)),
    }
}

fn why(error: &Error) -> String {
    match error.status() {
        Some(_) => format!("the mail server refused: {}", chain(error)),
        None => format!("the mail server cannot be used: {}", chain(error)),
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
    let bad = |error| format!("`{text}` is no mail address: {error}");
    text.parse().map_err(bad)
}

fn transport(
    email: &EmailConfig,
    config: &NotifierConfig,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let tls = match email.tls {
        MailTls::None => Tls::None,
        MailTls::StartTls => Tls::Required(parameters(email, config)?),
        MailTls::Implicit => Tls::Wrapper(parameters(email, config)?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&email.host)
        .port(email.port_in_force())
        .tls(tls)
        .timeout(Some(ANSWER_LIMIT));
    if let (Some(user), Some(password)) = (&email.user, &email.password) {
        let password = password.expose_secret().to_owned();
        builder = builder.credentials(Credentials::new(user.clone(), password));
    }
    Ok(builder.build())
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
