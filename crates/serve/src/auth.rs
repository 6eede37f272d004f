//! Who asks, and what they may do: tokens with names and roles, and sessions of a browser made of them.
//!
//! Only hashes of tokens are held and compared, all of them, in constant time. A session is a cookie that proves itself
//! by a code made with the token's hash: a token that is taken out of the configuration ends its sessions, and nothing is
//! stored.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use pgkeep_model::words::hex;

/// What a client may do; each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Read,
    /// Make backups, drills and verifications, and pin.
    Operate,
    /// Restore, accept, and take data away.
    Restore,
}

impl Role {
    /// Returns the role as it stands in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Restore => "restore",
        }
    }
}

/// A client that may be here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Name of the token; none where no token is configured.
    pub name: Option<String>,
    /// What they may do.
    pub role: Role,
    /// Whether a browser sent it along by itself, so that another site may have made it ask.
    pub is_session: bool,
}

/// A secret as it is known: by its hash.
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes a secret.
    pub fn new(secret: &SecretString) -> Self {
        Self(hash(secret.expose_secret()))
    }

    /// Tells whether `given` is the secret, in constant time.
    pub fn opens(&self, given: &str) -> bool {
        let is_it: Choice = self.0.ct_eq(&hash(given));
        bool::from(is_it)
    }
}

/// A token as it is known.
struct Token {
    name: String,
    role: Role,
    secret: Secret,
}

/// All tokens, and who guessed wrong lately.
pub struct Auth {
    tokens: Vec<Token>,
    failures: Mutex<HashMap<IpAddr, Vec<Instant>>>,
}

/// How many wrong tokens an address may send within [`FAILURE_WINDOW`].
const MAX_FAILURES: usize = 10;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// How many addresses are remembered; with more of them, guesses come from all over the world.
const MAX_ADDRESSES: usize = 10_000;

/// How long a session lasts.
pub const SESSION: Duration = Duration::from_secs(12 * 3600);

/// The name of the cookie.
pub const COOKIE: &str = "pgkeep_session";

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

impl Auth {
    /// Takes tokens by name and role.
    pub fn new(tokens: impl IntoIterator<Item = (String, Role, SecretString)>) -> Self {
        let token = |(name, role, secret): (String, Role, SecretString)| Token {
            name,
            role,
            secret: Secret::new(&secret),
        };
        Self {
            tokens: tokens.into_iter().map(token).collect(),
            failures: Mutex::default(),
        }
    }

    /// Tells whether there is no token at all.
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Finds who sends this token.
    pub fn by_token(&self, presented: &str) -> Option<Who> {
        let mut found = None;
        // All are compared, so that the time says nothing of which one it was.
        for token in &self.tokens {
            if token.secret.opens(presented) {
                found = Some(token);
            }
        }
        found.map(|token| token.who(false))
    }

    /// Makes the value of a session's cookie for the token of this name.
    pub fn session(&self, name: &str, now: Timestamp) -> Option<String> {
        let token = self.tokens.iter().find(|token| token.name == name)?;
        let expiry = now.as_second() + i64::try_from(SESSION.as_secs()).unwrap_or(0);
        let text = format!("v1.{name}.{expiry}");
        let code = hex(&token.code(&text).finalize().into_bytes());
        Some(format!("{text}.{code}"))
    }

    /// Finds whose session this is.
    pub fn by_session(&self, value: &str, now: Timestamp) -> Option<Who> {
        let (text, code) = value.rsplit_once('.')?;
        let mut parts = text.split('.');
        let (version, name, expiry) = (parts.next()?, parts.next()?, parts.next()?);
        let token = self.tokens.iter().find(|token| token.name == name)?;
        let proves = hex(&token.code(text).finalize().into_bytes());
        let is_it: Choice = proves.as_bytes().ct_eq(code.as_bytes());
        let is_alive = expiry
            .parse::<i64>()
            .is_ok_and(|expiry| now.as_second() < expiry);
        (version == "v1" && bool::from(is_it) && is_alive).then(|| token.who(true))
    }

    /// Notes and logs a wrong token, secret or key of an address, and tells whether there were too many lately.
    pub fn failed(&self, address: IpAddr, now: Instant) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &Instant| now.duration_since(*at) < FAILURE_WINDOW;
        if failures.len() >= MAX_ADDRESSES {
            failures.retain(|_, times| times.iter().any(is_recent));
        }
        if failures.len() >= MAX_ADDRESSES && !failures.contains_key(&address) {
            return true;
        }
        let times = failures.entry(address).or_default();
        times.retain(is_recent);
        if times.len() >= MAX_FAILURES {
            return true;
        }
        times.push(now);
        let count = times.len();
        // No more than these are logged: a guesser must not fill the log.
        tracing::warn!(target: "pgkeep", %address, count, "a wrong token, secret or key was sent, {count} within a minute");
        false
    }
}

impl Token {
    fn who(&self, is_session: bool) -> Who {
        Who {
            name: Some(self.name.clone()),
            role: self.role,
            is_session,
        }
    }

    fn code(&self, text: &str) -> Hmac<Sha256> {
        let mut code = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.secret.0)
            .expect("a code takes a key of any length");
        code.update(text.as_bytes());
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth() -> Auth {
        Auth::new([
            (
                "wall".to_owned(),
                Role::Read,
                "read-read-read-read".to_owned().into(),
            ),
            (
                "ci".to_owned(),
                Role::Operate,
                "operate-operate-1".to_owned().into(),
            ),
        ])
    }

    #[test]
    fn a_token_is_known_by_its_whole_text() {
        let auth = auth();
        let who = auth.by_token("operate-operate-1").unwrap();
        assert_eq!((who.name.as_deref(), who.role), (Some("ci"), Role::Operate));
        for wrong in ["", "operate-operate-", "operate-operate-12", "read"] {
            assert_eq!(auth.by_token(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_session_is_that_of_its_token_until_it_ends() {
        let (auth, now) = (auth(), Timestamp::from_second(1_800_000_000).unwrap());
        let later = |seconds: i64| Timestamp::from_second(now.as_second() + seconds).unwrap();
        let cookie = auth.session("ci", now).unwrap();
        let who = auth.by_session(&cookie, later(43_199)).unwrap();
        assert!(who.is_session && who.role == Role::Operate);
        assert_eq!(auth.by_session(&cookie, later(43_200)), None);
        let other = cookie.replacen(".ci.", ".wall.", 1);
        assert_eq!(auth.by_session(&other, now), None);
        let longer = cookie.replacen(&later(43_200).as_second().to_string(), "9999999999", 1);
        assert_eq!(auth.by_session(&longer, now), None);
        let changed = Auth::new([(
            "ci".to_owned(),
            Role::Operate,
            "another-another-1".to_owned().into(),
        )]);
        assert_eq!(changed.by_session(&cookie, now), None);
        for bad in ["", "v1", "v1.ci.1", "...", "v1.ci.x.y"] {
            assert_eq!(auth.by_session(bad, now), None, "{bad}");
        }
    }

    #[test]
    fn guessing_is_slowed_down_by_address() {
        let (auth, now) = (auth(), Instant::now());
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        assert!((0..MAX_FAILURES).all(|_| !auth.failed(one, now)));
        assert!(auth.failed(one, now) && !auth.failed(other, now));
        assert!(!auth.failed(one, now + FAILURE_WINDOW));
        assert!(
            auth.by_token("operate-operate-1").is_some(),
            "never locked out"
        );
    }
}
