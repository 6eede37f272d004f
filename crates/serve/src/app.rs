//! What every handler has, and who may call it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::auth::{Auth, COOKIE, Role, Secret, Who};
use crate::problem::Problem;
use crate::proxies::Proxies;
use crate::runs::Runs;
use crate::scheduler::Heart;
use crate::snapshot::Snapshot;
use pgkeep_core::context::Context;
use pgkeep_core::setup::Setup;
use pgkeep_model::id::DatabaseName;

/// How the server is set up, besides what it works on.
pub struct Settings {
    /// Where the page begins, without a slash at its end: empty, or `/backups`.
    pub base: String,
    /// Whether it only looks: nothing is started or changed.
    pub is_watch_only: bool,
    /// Proxies whose word about the client is taken.
    pub proxies: Proxies,
    /// Secret of the cron route alone.
    pub cron_secret: Option<Secret>,
    /// Whether that may stand in the address, or in the body.
    pub is_query_secret_allowed: bool,
    /// The same of the body.
    pub is_body_secret_allowed: bool,
    /// How long after the start of one the cron route starts no other.
    pub min_interval: Duration,
    /// Key of badges and of the wall view.
    pub view_key: Option<Secret>,
}

/// What handlers work with; clones are the same.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// See [`App`].
pub struct Shared {
    /// How the server is set up.
    pub settings: Settings,
    /// Who may do what.
    pub auth: Auth,
    /// The runs of this process.
    pub runs: Runs,
    /// What is known.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// What requests are made of.
    pub setup: Setup,
    /// Clock, notices, and the wish to stop.
    pub context: Context,
    /// Ends what streams on.
    pub streams: CancellationToken,
    /// Asks for a new look at the storages.
    pub refresh: Arc<Notify>,
    /// Whether the scheduler lives.
    pub heart: Heart,
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// Makes it.
    pub fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// Returns what is known now.
    pub fn known(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Has the storages looked at again, and waits a little until that is done, so that what was changed is seen.
    pub async fn looked_again(&self) {
        const PATIENCE: Duration = Duration::from_secs(3);
        let mut snapshot = self.snapshot.clone();
        let asked = self.context.clock.now();
        self.refresh.notify_one();
        let newer = snapshot.wait_for(|known| known.at > asked);
        let _ = tokio::time::timeout(PATIENCE, newer).await; // it is seen a little later then
    }

    /// Returns the set-up narrowed to a database of the configuration; another one is not found.
    pub fn setup_for(&self, database: &DatabaseName) -> Result<Setup, Problem> {
        let known = self.known();
        if known.config.database(database.as_str()).is_none() {
            return Err(Problem::not_found(format!(
                "there is no database `{database}` in the configuration"
            )));
        }
        let mut setup = self.setup.clone();
        setup.database = Some(database.to_string());
        Ok(setup)
    }

    /// Fails where the server only looks.
    pub fn may_act(&self) -> Result<(), Problem> {
        if self.settings.is_watch_only {
            let message = "this server only watches: it was started with `--watch`";
            return Err(Problem::forbidden(message));
        }
        Ok(())
    }

    /// Finds who asks; none where the request does not say.
    pub fn who(&self, parts: &Parts) -> Result<Option<Who>, Problem> {
        let address = self.address(parts);
        if let Some(token) = bearer(&parts.headers) {
            return match self.auth.by_token(token) {
                Some(who) => Ok(Some(who)),
                None if self.auth.failed(address, Instant::now()) => Err(Problem::too_many()),
                None => Err(Problem::unauthorized()),
            };
        }
        let now = self.context.clock.now();
        let sessions = sessions(&parts.headers, self.is_secure(parts));
        let by_session = |value: &str| self.auth.by_session(value, now);
        match sessions.into_iter().find_map(by_session) {
            Some(who) => Ok(Some(who)),
            None if self.auth.is_open() => self.local(parts).map(Some),
            None => Ok(None),
        }
    }

    /// Without any token the page is for this machine alone. Another site whose name points here is told by that
    /// name.
    fn local(&self, parts: &Parts) -> Result<Who, Problem> {
        let host = host(parts).unwrap_or_default();
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => &host,
        };
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_here = name == "localhost" || address.is_ok_and(|address| address.is_loopback());
        if !is_here {
            let message = "without tokens the server answers by the name `localhost` alone";
            return Err(Problem::forbidden(message));
        }
        Ok(Who {
            name: None,
            role: Role::Operate,
            is_session: true,
        })
    }

    /// Returns the address of the client, by the word of a proxy that is trusted.
    pub fn address(&self, parts: &Parts) -> IpAddr {
        let connected = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = connected.map_or(IpAddr::from([127, 0, 0, 1]), |ConnectInfo(peer)| peer.ip());
        self.settings.proxies.client(peer, &parts.headers)
    }

    /// Tells whether the client speaks TLS, by the word of a proxy that is trusted.
    pub fn is_secure(&self, parts: &Parts) -> bool {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let is_trusted =
            peer.is_some_and(|ConnectInfo(peer)| self.settings.proxies.trusts(peer.ip()));
        let proto = parts.headers.get("x-forwarded-proto");
        is_trusted && proto.is_some_and(|proto| proto == "https")
    }
}

/// Returns the name under which the server was asked.
fn host(parts: &Parts) -> Option<String> {
    let header = parts.headers.get(header::HOST)?;
    Some(header.to_str().ok()?.to_owned())
}

/// Returns what a client sends as its token or secret.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What the name of the cookie begins with behind TLS: no neighbour below the same domain can set such a cookie.
///
/// Source: <https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Set-Cookie#cookie_prefixes>
pub const HOST_PREFIX: &str = "__Host-";

/// Returns all that may be a session. Without TLS, as far as we know, both names count.
fn sessions(headers: &HeaderMap, is_secure: bool) -> Vec<&str> {
    let all = headers.get_all(header::COOKIE).into_iter();
    let pairs = all
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs.filter_map(|pair| session(pair, is_secure)).collect()
}

/// Returns the value of a cookie where it is a session by its name.
fn session(pair: &str, is_secure: bool) -> Option<&str> {
    let (key, value) = pair.trim().split_once('=')?;
    let is_ours = match key.strip_prefix(HOST_PREFIX) {
        Some(rest) => rest == COOKIE,
        None => key == COOKIE && !is_secure,
    };
    is_ours.then_some(value)
}

/// Refuses what another site made a browser ask. A client that sends a token by itself is no browser.
///
/// Source: <https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site>; where a browser does not send
/// it, the origin must be ours.
pub fn check_site(parts: &Parts) -> Result<(), Problem> {
    if matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let text = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let is_ours = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let place = origin.split_once("://").map(|(_, place)| place);
            place.is_some() && place == host(parts).as_deref()
        }
        // Neither is sent by programs only.
        (None, None) => true,
    };
    if is_ours {
        Ok(())
    } else {
        Err(Problem::forbidden("another site sent this request"))
    }
}

/// Finds who asks, and whether they may do what needs a role.
fn allow(parts: &Parts, app: &App, needed: Role) -> Result<Who, Problem> {
    let who = app.who(parts)?.ok_or_else(Problem::unauthorized)?;
    if who.role < needed {
        let message = format!(
            "this needs the role `{}`, and the token has `{}`",
            needed.as_str(),
            who.role.as_str()
        );
        return Err(Problem::forbidden(message));
    }
    if who.is_session {
        check_site(parts)?;
    }
    Ok(who)
}

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident => $role:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name(pub Who);

        impl FromRequestParts<App> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
                allow(parts, app, $role).map(Self)
            }
        }
    )*};
}

roles! {
    /// A client that may look.
    Reader => Role::Read;
    /// A client that may make backups.
    Operator => Role::Operate;
    /// A client that may restore and take data away.
    Restorer => Role::Restore;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, values: &[&'static str]) -> HeaderMap {
        let value = |text| (name.clone(), header::HeaderValue::from_static(text));
        values.iter().copied().map(value).collect()
    }

    #[test]
    fn behind_tls_only_the_cookie_that_no_neighbour_can_set_counts() {
        let all = headers(
            header::COOKIE,
            &[
                "pgkeep_session=planted; other=x",
                "a=b; __Host-pgkeep_session=own",
                "pgkeep_session_2=y",
            ],
        );
        assert_eq!(sessions(&all, true), ["own"]);
        assert_eq!(sessions(&all, false), ["planted", "own"]);
        let planted = headers(header::COOKIE, &["pgkeep_session=planted"]);
        assert!(sessions(&planted, true).is_empty());
    }

    #[test]
    fn only_a_bearer_is_a_token() {
        let sent = |text| headers(header::AUTHORIZATION, &[text]);
        assert_eq!(bearer(&sent("bearer  abc ")), Some("abc"));
        for other in ["Basic abc", "Bearer", "abc", "BearerX abc"] {
            assert_eq!(bearer(&sent(other)), None, "{other}");
        }
    }
}
