//! Signing in and out: a token becomes a cookie that no script reads and no other site sends.

use std::time::Instant;

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::{Trouble, chrome};
use crate::app::{App, HOST_PREFIX, check_site};
use crate::auth::{COOKIE, SESSION};
use crate::page::login::render;
use crate::problem::Problem;

/// Where to go behind the form.
#[derive(Default, Deserialize)]
pub(crate) struct Next {
    next: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct SignIn {
    token: String,
    next: Option<String>,
}

/// The request's head, for what no other extractor has.
pub(crate) struct Head(pub(crate) Parts);

impl axum::extract::FromRequestParts<App> for Head {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.clone()))
    }
}

pub(crate) async fn form(
    State(app): State<App>,
    next: Result<Query<Next>, QueryRejection>,
) -> Response {
    let next = next.ok().and_then(|Query(next)| next.next);
    render(&chrome(&app, None), None, next.as_deref()).into_response()
}

pub(crate) async fn sign_in(
    State(app): State<App>,
    Head(parts): Head,
    form: Result<Form<SignIn>, FormRejection>,
) -> Response {
    let frame = chrome(&app, None);
    if let Err(problem) = check_site(&parts) {
        return Trouble::new(problem, &frame).into_response();
    }
    let Ok(Form(form)) = form else {
        let page = render(&frame, Some("There was no token."), None);
        return (StatusCode::BAD_REQUEST, page).into_response();
    };
    let who = app.auth.by_token(form.token.trim());
    let name = who.and_then(|who| who.name);
    let session = name.and_then(|name| app.auth.session(&name, app.context.clock.now()));
    let Some(session) = session else {
        if app.auth.failed(app.address(&parts), Instant::now()) {
            return Trouble::new(Problem::too_many(), &frame).into_response();
        }
        let page = render(
            &frame,
            Some("This token is not known."),
            form.next.as_deref(),
        );
        return (StatusCode::UNAUTHORIZED, page).into_response();
    };
    // A link must not lead elsewhere behind a sign-in.
    let next = form.next.filter(|path| is_ours(path, &frame.base));
    let target = next.unwrap_or_else(|| frame.link("/"));
    let seconds = SESSION.as_secs();
    with_cookie(&app, &parts, Redirect::to(&target), &session, seconds)
}

/// Tells whether a path is one of this page. Browsers drop tabs and line ends, take a backslash for a slash, and read
/// what follows two slashes as a host, so none of these may stand in it.
fn is_ours(path: &str, base: &str) -> bool {
    let is_below = path
        .strip_prefix(base)
        .is_some_and(|rest| rest.starts_with('/'));
    let is_printable = path.bytes().all(|byte| byte.is_ascii_graphic());
    is_below && is_printable && !path.contains("//") && !path.contains('\\')
}

pub(crate) async fn sign_out(State(app): State<App>, Head(parts): Head) -> Response {
    let frame = chrome(&app, None);
    if let Err(problem) = check_site(&parts) {
        return Trouble::new(problem, &frame).into_response();
    }
    with_cookie(&app, &parts, Redirect::to(&frame.link("/login")), "", 0)
}

fn with_cookie(app: &App, parts: &Parts, to: Redirect, value: &str, seconds: u64) -> Response {
    let (prefix, secure) = if app.is_secure(parts) {
        (HOST_PREFIX, "; Secure")
    } else {
        ("", "")
    };
    let cookie = format!(
        "{prefix}{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    );
    let mut response = to.into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_leads_to_a_path_of_this_page() {
        for (base, path) in [
            ("", "/"),
            ("", "/backups/shop-20260102T030405Z-7f3a?q=a%20b"),
            ("/backups", "/backups/databases/shop"),
        ] {
            assert!(is_ours(path, base), "{path}");
        }
        for (base, path) in [
            ("", ""),
            ("", "evil.example"),
            ("", "//evil.example"),
            ("", "/\t/evil.example"),
            ("", "/\n/evil.example"),
            ("", "/\r\n/evil.example"),
            ("", "\t//evil.example"),
            ("", "/\\evil.example"),
            ("", "/ /evil.example"),
            ("", "/é"),
            ("/backups", "/"),
            ("/backups", "/backups.evil.example/"),
            ("/backups", "/backups//evil.example"),
        ] {
            assert!(!is_ours(path, base), "{path:?}");
        }
    }
}
