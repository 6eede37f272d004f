//! One envelope on its way: a POST to the project of the DSN. What went wrong comes back in words, without the key.

use std::time::Duration;

use reqwest::Client;
use sentry_types::Dsn;
use sentry_types::protocol::v7::Envelope;

use pgkeep_core::notify::chain;

/// How much of Sentry's answer is told.
const TOLD_CHARS: usize = 200;

/// How an envelope names its sender.
const AGENT: &str = concat!("pgkeep/", env!("CARGO_PKG_VERSION"));

/// Makes the client; a service that takes no connection within `limit` is not there.
pub(crate) fn client(limit: Duration) -> Result<Client, String> {
    let client = pgkeep_https::client().connect_timeout(limit).build();
    client.map_err(|error| chain(&error))
}

/// Sends an envelope once: what did not arrive is told, and not worth a second wait.
pub(crate) async fn send(client: &Client, dsn: &Dsn, envelope: &Envelope) -> Result<(), String> {
    let mut body = Vec::new();
    envelope
        .to_writer(&mut body)
        .map_err(|error| format!("it cannot be written: {error}"))?;
    let request = client
        .post(dsn.envelope_api_url())
        .header("X-Sentry-Auth", dsn.to_auth(Some(AGENT)).to_string())
        .header("Content-Type", "application/x-sentry-envelope")
        .body(body);
    let mut response = request.send().await.map_err(|error| {
        let error = error.without_url();
        format!("it cannot be reached: {}", chain(&error))
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    // Its first piece says what is wrong; one that breaks off says nothing.
    let piece = response.chunk().await.ok().flatten().unwrap_or_default();
    let begin: String = String::from_utf8_lossy(&piece)
        .trim()
        .chars()
        .take(TOLD_CHARS)
        .collect();
    let said = pgkeep_model::name::printable(&begin).replace('`', "'");
    if said.is_empty() {
        Err(format!("it answered {status}"))
    } else {
        Err(format!("it answered {status} and said `{said}`"))
    }
}
