//! One request to a webhook or a ping's service: signed where asked for, tried twice where that may help.
//!
//! Promises to follow no redirect, because anyone who answers with one would learn the secrets, and to put no address
//! into an error.

use std::path::Path;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Certificate, Client, Method, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha2::Sha256;

use pgkeep_model::notice::{Notice, NotifierConfig};
use pgkeep_model::words::hex;

/// Longest wait in front of the second try; a service that asks for more is not tried again.
const MAX_WAIT: Duration = Duration::from_secs(4);

/// Wait in front of the second try where the service says nothing.
const WAIT: Duration = Duration::from_secs(1);

/// A service that does not take a connection by then is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How much of an answer is read and how much of it is reported: services say in a few words what is wrong.
const MAX_ANSWER_BYTES: usize = 4096;
const TOLD_CHARS: usize = 200;

/// A request to make.
pub(super) struct Request<'a> {
    method: Method,
    url: SecretString,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    ca_certificate: Option<&'a Path>,
}

/// Why a try failed.
struct Fault {
    why: String,
    /// How long to wait before the next try; none where it makes no sense.
    again_in: Option<Duration>,
}

impl<'a> Request<'a> {
    /// Prepares a POST.
    pub fn post(url: SecretString, config: &'a NotifierConfig) -> Self {
        Self {
            method: Method::POST,
            url,
            headers: Vec::new(),
            body: Vec::new(),
            ca_certificate: config.ca_certificate.as_deref(),
        }
    }

    /// Prepares a GET.
    pub fn get(url: SecretString, config: &'a NotifierConfig) -> Self {
        Self {
            method: Method::GET,
            ..Self::post(url, config)
        }
    }

    /// Adds headers.
    pub fn headers(mut self, headers: &[(String, SecretString)]) -> Self {
        let plain = headers
            .iter()
            .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()));
        self.headers.extend(plain);
        self
    }

    /// Takes a JSON document as the body.
    pub fn json(mut self, document: &Value) -> Self {
        self.headers
            .push(("Content-Type".into(), "application/json".into()));
        self.body = document.to_string().into_bytes();
        self
    }

    /// Takes text as the body.
    pub fn text(mut self, text: String) -> Self {
        self.headers
            .push(("Content-Type".into(), "text/plain; charset=utf-8".into()));
        self.body = text.into_bytes();
        self
    }

    /// Signs the body: HMAC-SHA256 over the time in seconds, a dot, and the body. The time lets a receiver refuse what
    /// was sent before.
    pub fn signed(mut self, secret: &SecretString, now: i64) -> Self {
        let signature = signature(secret.expose_secret().as_bytes(), now, &self.body);
        self.headers
            .push(("Pgkeep-Timestamp".into(), now.to_string()));
        self.headers
            .push(("Pgkeep-Signature".into(), format!("sha256={signature}")));
        self
    }

    /// Sends it, and once more where that may help.
    pub async fn send(self) -> Result<(), String> {
        self.send_and_read().await.map(drop)
    }

    /// Sends a ping. Services answer 200 to an address that they do not know.
    pub async fn send_ping(self) -> Result<(), String> {
        let answer = self.send_and_read().await?;
        let is_refused = ["not found", "not_found", "rate limited"];
        if is_refused.iter().any(|words| answer.contains(words)) {
            Err(format!("it answered `{answer}`"))
        } else {
            Ok(())
        }
    }

    async fn send_and_read(self) -> Result<String, String> {
        let client = client(self.ca_certificate)?;
        let wait = match self.once(&client).await {
            Ok(answer) => return Ok(answer),
            Err(Fault {
                again_in: Some(wait),
                ..
            }) => wait,
            Err(fault) => return Err(fault.why),
        };
        tokio::time::sleep(wait).await;
        self.once(&client).await.map_err(|fault| fault.why)
    }

    async fn once(&self, client: &Client) -> Result<String, Fault> {
        let mut request = client.request(self.method.clone(), self.url.expose_secret());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let sent = request.body(self.body.clone()).send().await;
        let mut response = sent.map_err(unsent)?;
        let answer = read(&mut response).await;
        judge(&response, answer)
    }
}

/// Puts a notice into the document that a webhook gets.
pub(super) fn document(notice: &Notice) -> Value {
    let mut document = serde_json::to_value(notice).expect("a notice holds only JSON's own types");
    document["text"] = notice.text().into();
    document
}

fn client(ca_certificate: Option<&Path>) -> Result<Client, String> {
    let mut builder = pgkeep_https::client().connect_timeout(CONNECT_LIMIT);
    if let Some(path) = ca_certificate {
        let pem = super::read_certificates(path)?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .map_err(|error| super::bad_certificates(path, &error.to_string()))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| chain(&error))
}

/// Only what surely did not arrive, or what the service asks to have again, is sent again.
fn unsent(error: reqwest::Error) -> Fault {
    let again_in = error.is_connect().then_some(WAIT);
    let error = error.without_url();
    Fault {
        why: format!("it cannot be reached: {}", chain(&error)),
        again_in,
    }
}

fn judge(response: &Response, answer: String) -> Result<String, Fault> {
    let status = response.status();
    if status.is_success() {
        return Ok(answer);
    }
    let said = if answer.is_empty() {
        String::new()
    } else {
        format!(" and said `{answer}`")
    };
    let why = if status.is_redirection() {
        format!(
            "it answered {status}: the address has moved; no redirect is followed, because the address is a secret: \
             put the new one into the configuration"
        )
    } else {
        format!("it answered {status}{said}")
    };
    let may_pass = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    let wait = retry_after(response).unwrap_or(WAIT);
    Err(Fault {
        why,
        again_in: (may_pass && wait <= MAX_WAIT).then_some(wait),
    })
}

fn retry_after(response: &Response) -> Option<Duration> {
    let header = response.headers().get("retry-after")?.to_str().ok()?;
    // Discord writes fractions.
    let seconds: f64 = header.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Reads the first words of an answer. One that breaks off was given all the same.
async fn read(response: &mut Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER_BYTES {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    pgkeep_model::name::printable(&line)
        .replace('`', "'")
        .chars()
        .take(TOLD_CHARS)
        .collect()
}

/// Joins an error with its causes, without what only repeats that a request was made.
pub fn chain(error: &dyn std::error::Error) -> String {
    const EMPTY: [&str; 2] = ["error sending request", "client error (Connect)"];
    let mut words: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let is_said = words.iter().any(|known| known.contains(&text));
        if !is_said && !EMPTY.contains(&text.as_str()) {
            words.push(text);
        }
        next = error.source();
    }
    words.join(": ")
}

fn signature(secret: &[u8], now: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of HMAC has any length");
    mac.update(format!("{now}.").as_bytes());
    mac.update(body);
    hex(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '1767323045.{"a":1}' | openssl dgst -sha256 -hmac s3cret`
    #[test]
    fn a_signature_is_what_openssl_makes() {
        assert_eq!(
            signature(b"s3cret", 1_767_323_045, br#"{"a":1}"#),
            "19deeee1dbf3e68132db6a4db41cfe324ecf01ea3d30e68ce4b483b0d0980d5c"
        );
    }
}
