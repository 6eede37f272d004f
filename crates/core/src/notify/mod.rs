//! Sending notices: the only place besides `storage/` that speaks to a network by itself.
//!
//! Promises that all notifiers together cost a bounded time, run in parallel, and that none of them ever fails a run:
//! what did not arrive comes back as a [`Delivery`]. Follows no redirect and tells no secret, neither its own nor
//! others'.

mod http;
mod mail;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::clock::Clock;
use crate::stop::Stop;
use pgkeep_model::notice::{
    Channel, Event, Notice, NotifierConfig, PingConfig, PingKind, ping_body, ping_url,
};
use pgkeep_model::redact::Redactor;

pub use http::chain;

/// How long a notifier may take. With [`START_GRACE`] in front of it ten seconds are not reached.
const LIMIT: Duration = Duration::from_secs(9);

/// What a notifier still gets that has cost as much before, in a run over many databases.
const LEAST_LIMIT: Duration = Duration::from_secs(1);

/// How long the ping of a start may still take when its backup is done: overtaken, it would undo the ping of the end.
const START_GRACE: Duration = Duration::from_millis(900);

/// How long after a wish to stop a notice is given up. What follows it, the record of the run and the end of background
/// work, takes two seconds of the ten.
const STOPPED_LIMIT: Duration = Duration::from_secs(7);

/// Pieces of an address or a header that are at least this long may be the secret part of it.
const MIN_TOKEN: usize = 16;

/// Begins the error of a notifier to which a test cannot be sent.
pub const NOT_TRIED: &str = "not tried";

/// What came of telling one notifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// Which one, such as `slack`, or `slack (entry 2 of notify)` where there are several.
    pub notifier: String,
    /// Whether it took the notice.
    pub delivered: bool,
    /// Why not, or whom it did not reach although others have it; never with a secret in it.
    pub error: Option<String>,
}

/// Tells people how runs ended.
#[async_trait]
pub trait Notify: Send + Sync {
    /// Tells everybody who wants to hear of it, all at once, and returns what came of each.
    async fn tell(&self, notice: &Notice, stop: &Stop) -> Vec<Delivery>;

    /// Tells that a backup of `database` begins, without waiting. Dropping the result gives up.
    fn start(&self, database: &str) -> Starting;
}

/// No notifier wants anything.
#[derive(Debug, Default)]
pub struct Nobody;

#[async_trait]
impl Notify for Nobody {
    async fn tell(&self, _: &Notice, _: &Stop) -> Vec<Delivery> {
        Vec::new()
    }

    fn start(&self, _: &str) -> Starting {
        Starting::default()
    }
}

/// Pings of a start under way. Dropping them gives them up.
#[derive(Debug, Default)]
pub struct Starting(Vec<AbortOnDropHandle<()>>);

impl Starting {
    /// Waits a moment for what is still under way.
    pub async fn settle(self) {
        // What did not arrive by then is given up, so that it cannot arrive behind the ping of the end.
        let _ = tokio::time::timeout(START_GRACE, join_all(self.0)).await;
    }
}

/// The notifiers of the configuration.
pub struct Notifiers {
    all: Vec<Arc<Notifier>>,
    redactor: Redactor,
    host: String,
    clock: Arc<dyn Clock>,
}

struct Notifier {
    label: String,
    config: NotifierConfig,
    redactor: Redactor,
    /// How long it took in vain so far, in milliseconds.
    wasted_ms: AtomicU64,
}

impl Notifiers {
    /// Takes the entries of the configuration. `redactor` knows every other secret; `host` is this machine's name.
    pub fn new(
        configs: &[NotifierConfig],
        redactor: &Redactor,
        host: String,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let secrets: Vec<SecretString> = configs.iter().flat_map(secret_forms).collect();
        let redactor = Redactor::new(&secrets).merge(redactor);
        let is_alone = |config: &NotifierConfig| {
            configs
                .iter()
                .filter(|other| other.kind() == config.kind())
                .count()
                == 1
        };
        let notifier = |(number, config): (usize, &NotifierConfig)| {
            let kind = config.kind();
            Arc::new(Notifier {
                label: if is_alone(config) {
                    kind.to_owned()
                } else {
                    format!("{kind} (entry {number} of notify)")
                },
                config: config.clone(),
                redactor: redactor.clone(),
                wasted_ms: AtomicU64::new(0),
            })
        };
        Self {
            all: (1..).zip(configs).map(notifier).collect(),
            redactor,
            host,
            clock,
        }
    }

    /// Sends a test to every notifier, whatever it asked for, and returns what came of each. A ping's service is told
    /// in a way that leaves its check as it is, or not at all.
    pub async fn send_test(&self, stop: &Stop) -> Vec<Delivery> {
        let notice = Notice::test(self.clock.now());
        self.send(&self.all, &notice, stop).await
    }

    /// Tells whether anybody asked for an event.
    pub fn hears(&self, event: Event) -> bool {
        self.all.iter().any(|one| one.config.on.contains(&event))
    }

    async fn send(&self, whom: &[Arc<Notifier>], notice: &Notice, stop: &Stop) -> Vec<Delivery> {
        let mut notice = notice.clone().redacted(&self.redactor);
        notice.host.clone_from(&self.host);
        let now = self.clock.now().as_second();
        let deliver = |one: &Arc<Notifier>| {
            let (one, notice) = (Arc::clone(one), notice.clone());
            let stop = stop.clone();
            async move { one.deliver(&notice, now, &stop).await }
        };
        join_all(whom.iter().map(deliver)).await
    }
}

#[async_trait]
impl Notify for Notifiers {
    async fn tell(&self, notice: &Notice, stop: &Stop) -> Vec<Delivery> {
        let wanting: Vec<Arc<Notifier>> = self
            .all
            .iter()
            .filter(|one| one.config.wants(notice))
            .cloned()
            .collect();
        self.send(&wanting, notice, stop).await
    }

    fn start(&self, database: &str) -> Starting {
        let mut under_way = Vec::new();
        for one in &self.all {
            let Channel::Ping(ping) = &one.config.channel else {
                continue;
            };
            if !one.config.is_for(database) {
                continue;
            }
            let Some(url) = ping_url(ping, PingKind::Start, database) else {
                continue;
            };
            let (one, ping) = (Arc::clone(one), ping.clone());
            // It ends by its limit, or when the handle is dropped at the end of the backup.
            under_way.push(AbortOnDropHandle::new(tokio::spawn(
                async move {
                    let sending = one.ping(&ping, &url, None);
                    // The ping of the end tells whether the service can be reached; this one only tells the length of
                    // the run.
                    if let Ok(Err(why)) = tokio::time::timeout(LIMIT, sending).await {
                        let why = one.redactor.redact(&why).into_owned();
                        tracing::info!(
                            notifier = one.label,
                            why,
                            "the ping of the start did not arrive"
                        );
                    }
                }
                .in_current_span(),
            )));
        }
        Starting(under_way)
    }
}

impl Notifier {
    async fn deliver(&self, notice: &Notice, now: i64, stop: &Stop) -> Delivery {
        let started = Instant::now();
        let wasted = Duration::from_millis(self.wasted_ms.load(Ordering::Relaxed));
        let limit = LIMIT.saturating_sub(wasted).max(LEAST_LIMIT);
        let sent = tokio::select! {
            // What arrived counts, also at the last moment.
            biased;
            sent = self.send(notice, now) => sent,
            () = tokio::time::sleep(limit) => Err(format!("it did not answer within {} s", limit.as_secs())),
            () = stop.overdue(STOPPED_LIMIT) => Err("there was no time left after the request to stop".to_owned()),
        };
        if sent.is_err() {
            let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.wasted_ms.fetch_add(took, Ordering::Relaxed);
        }
        let tell = |why: String| self.redactor.redact(&why).into_owned();
        Delivery {
            notifier: self.label.clone(),
            delivered: sent.is_ok(),
            error: sent.unwrap_or_else(Some).map(tell),
        }
    }

    /// Returns what is to be said of a notice that reached some and not others.
    async fn send(&self, notice: &Notice, now: i64) -> Result<Option<String>, String> {
        let post = |url: &SecretString| http::Request::post(url.clone(), &self.config);
        let sent = match &self.config.channel {
            Channel::Email(email) => return mail::send(email, &self.config, notice).await,
            Channel::Slack(hook) => post(&hook.url).json(&notice.slack()).send().await,
            Channel::Discord(hook) => post(&hook.url).json(&notice.discord()).send().await,
            Channel::Webhook(hook) => {
                let document = http::document(notice);
                let request = post(&hook.url).headers(&hook.headers).json(&document);
                match &hook.secret {
                    Some(secret) => request.signed(secret, now).send().await,
                    None => request.send().await,
                }
            }
            Channel::Ping(ping) => {
                let kind = PingKind::from(notice);
                match ping_url(ping, kind, &notice.database) {
                    Some(url) => self.ping(ping, &url, Some(notice)).await,
                    None if kind == PingKind::Log => Err(format!(
                        "{NOT_TRIED}: a plain ping would count as a good backup"
                    )),
                    // A service that hears of success alone alarms by itself.
                    None => Ok(()),
                }
            }
        };
        sent.map(|()| None)
    }

    async fn ping(
        &self,
        ping: &PingConfig,
        url: &SecretString,
        notice: Option<&Notice>,
    ) -> Result<(), String> {
        use pgkeep_model::notice::PingStyle;
        let request = match ping.style {
            PingStyle::Healthchecks => {
                let body = notice.map(ping_body).unwrap_or_default();
                http::Request::post(url.clone(), &self.config).text(body)
            }
            PingStyle::Plain => http::Request::get(url.clone(), &self.config),
        };
        request.send_ping().await
    }
}

/// Returns all forms of a notifier's secrets that could stand in a text: an error may show a part of an address.
pub fn secret_forms(config: &NotifierConfig) -> Vec<SecretString> {
    let mut forms = Vec::new();
    for secret in config.secrets() {
        let text = secret.expose_secret();
        // The host of an address is no secret; behind the name of a scheme (`Bearer`) stands the token itself.
        let (behind, skipped) = match text.split_once("://") {
            Some((_, behind)) => (behind, 1),
            None => (text, 0),
        };
        let pieces = behind.split(['/', '?', '&', '=', '@', ':', '#', ' ']);
        let tokens: Vec<_> = pieces
            .skip(skipped)
            .filter(|piece| piece.len() >= MIN_TOKEN)
            .map(|token| SecretString::from(token.to_owned()))
            .collect();
        forms.extend(tokens);
        forms.push(secret);
    }
    forms
}

fn read_certificates(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| bad_certificates(path, &error.to_string()))
}

fn bad_certificates(path: &Path, why: &str) -> String {
    format!(
        "cannot read the certificates in `{}`: {why}",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_model::notice::WebhookConfig;

    #[test]
    fn the_token_of_an_address_or_a_header_is_hidden_by_itself() {
        let config = NotifierConfig {
            channel: Channel::Webhook(WebhookConfig {
                url: "https://hooks.example/services/T0/abcdefghijklmnopqrst".into(),
                secret: None,
                headers: vec![("Authorization".into(), "Bearer 0123456789abcdefghij".into())],
            }),
            on: Vec::new(),
            databases: Vec::new(),
            ca_certificate: None,
        };
        let redactor = Redactor::new(&secret_forms(&config));
        for (text, told) in [
            (
                "GET /services/T0/abcdefghijklmnopqrst",
                "GET /services/T0/***",
            ),
            ("token 0123456789abcdefghij refused", "token *** refused"),
            (
                "https://hooks.example/services/T0/abcdefghijklmnopqrst",
                "***",
            ),
            (
                "hooks.example cannot be reached",
                "hooks.example cannot be reached",
            ),
        ] {
            assert_eq!(redactor.redact(text), told);
        }
    }
}
