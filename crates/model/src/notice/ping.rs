//! What a dead-man ping says, and where.

use secrecy::{ExposeSecret, SecretString};

use super::config::{DATABASE_MARK, PingConfig, PingStyle};
use super::{Notice, Outcome};

/// Healthchecks keeps the first 100 kB of a body. A unit that is counted is three bytes at most.
const MAX_BODY_CHARS: usize = 33_000;

/// What a ping says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingKind {
    /// A backup begins.
    Start,
    /// A backup is good.
    Success,
    /// A backup failed, or something behind it.
    Failure,
    /// Nothing happened: the way is tried, and the check's state stays as it is.
    Log,
}

impl From<&Notice> for PingKind {
    fn from(notice: &Notice) -> Self {
        match (notice.event, notice.outcome) {
            (super::Event::Test, _) => Self::Log,
            (_, Outcome::Good) => Self::Success,
            _ => Self::Failure,
        }
    }
}

/// Returns the address to ping; none where the service is not told of this.
pub fn url(ping: &PingConfig, kind: PingKind, database: &str) -> Option<SecretString> {
    let own = match kind {
        PingKind::Start => ping.start_url.as_ref(),
        PingKind::Failure => ping.failure_url.as_ref(),
        PingKind::Success | PingKind::Log => None,
    };
    let address = match (own, ping.style, kind) {
        (Some(url), ..) => url.expose_secret().to_owned(),
        (None, _, PingKind::Success) => ping.url.expose_secret().to_owned(),
        (None, PingStyle::Plain, _) => return None,
        (None, PingStyle::Healthchecks, kind) => {
            let word = match kind {
                PingKind::Start => "start",
                PingKind::Failure => "fail",
                PingKind::Success | PingKind::Log => "log",
            };
            with_word(ping.url.expose_secret(), word)
        }
    };
    Some(address.replace(DATABASE_MARK, database).into())
}

/// Puts a word behind the path, in front of a query such as `?create=1`.
fn with_word(url: &str, word: &str) -> String {
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (url, String::new()),
    };
    format!("{}/{word}{query}", path.trim_end_matches('/'))
}

/// Returns what stands in the body: all that is known, its end where it is too long.
pub fn body(notice: &Notice) -> String {
    notice.log(MAX_BODY_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(url: &str, style: PingStyle) -> PingConfig {
        PingConfig {
            url: url.into(),
            style,
            start_url: None,
            failure_url: None,
        }
    }

    fn told(ping: &PingConfig, kind: PingKind) -> Option<String> {
        url(ping, kind, "shop").map(|url| url.expose_secret().to_owned())
    }

    #[test]
    fn healthchecks_has_a_word_for_each() {
        let hc = ping(
            "https://hc.example/key/pg-{database}/?create=1",
            PingStyle::Healthchecks,
        );
        for (kind, expected) in [
            (
                PingKind::Start,
                "https://hc.example/key/pg-shop/start?create=1",
            ),
            (
                PingKind::Success,
                "https://hc.example/key/pg-shop/?create=1",
            ),
            (
                PingKind::Failure,
                "https://hc.example/key/pg-shop/fail?create=1",
            ),
            (PingKind::Log, "https://hc.example/key/pg-shop/log?create=1"),
        ] {
            assert_eq!(told(&hc, kind).as_deref(), Some(expected));
        }
    }

    #[test]
    fn others_hear_of_success_alone_unless_they_say_where() {
        let mut plain = ping("https://x.example/push/k?status=up", PingStyle::Plain);
        assert_eq!(told(&plain, PingKind::Start), None);
        assert_eq!(told(&plain, PingKind::Failure), None);
        assert_eq!(told(&plain, PingKind::Log), None);
        assert_eq!(
            told(&plain, PingKind::Success).as_deref(),
            Some("https://x.example/push/k?status=up")
        );
        plain.failure_url = Some("https://x.example/push/k?status=down&msg={database}".into());
        assert_eq!(
            told(&plain, PingKind::Failure).as_deref(),
            Some("https://x.example/push/k?status=down&msg=shop")
        );
    }
}
