//! Routes of the page: who may see it, what is read for it, and what its forms do.

mod act;
mod files;
mod look;
mod restore;
mod session;

use axum::Router;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use crate::api::bad_request;
use crate::app::{App, Reader};
use crate::auth::{Role, Who};
use crate::page::{self, Chrome};
use crate::problem::Problem;

/// Which clock the page's times are on.
const ZONE_NOTE: &str = "Times are UTC; schedules name their own zone.";

macro_rules! routes {
    ($($method:ident $path:literal => $handler:path;)*) => {
        /// Method and path of every route of the page, so that a test of all of them leaves none out.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        /// Returns the routes of the page.
        pub(crate) fn routes() -> Router<App> {
            Router::new()$(.route($path, $method($handler)))*.fallback(nothing_here)
        }
    };
}

routes! {
    get "/" => look::overview;
    get "/databases/{database}" => look::database;
    get "/databases/{database}/history" => look::history;
    get "/databases/{database}/calendar" => look::calendar;
    get "/databases/{database}/restore" => look::restore;
    post "/databases/{database}/backup" => act::backup;
    post "/databases/{database}/drill" => act::drill;
    post "/databases/{database}/verify" => act::verify;
    get "/backups/{id}" => look::backup;
    post "/backups/{id}/pin" => act::pin;
    post "/backups/{id}/unpin" => act::unpin;
    post "/backups/{id}/accept" => act::accept;
    get "/backups/{id}/download" => files::dump;
    get "/backups/{id}/tables/{table}" => files::rows;
    post "/backups/{id}/tables/{table}/restore" => restore::rows;
    get "/runs/{id}" => look::run;
    get "/drills/{id}" => look::drill;
    get "/diff" => look::diff;
    get "/wall" => look::wall;
    get "/badge/{name}" => look::badge;
    get "/login" => session::form;
    post "/login" => session::sign_in;
    post "/logout" => session::sign_out;
    get "/assets/{name}" => files::asset;
}

/// What did not work, as a page.
pub(crate) struct Trouble {
    problem: Problem,
    chrome: Box<Chrome>,
}

/// A result of a page.
pub(crate) type Shown<T = Response> = Result<T, Trouble>;

impl Trouble {
    fn new(problem: impl Into<Problem>, chrome: &Chrome) -> Self {
        Self {
            problem: problem.into(),
            chrome: Box::new(chrome.clone()),
        }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let Self { problem, chrome } = self;
        let failure = &problem.failure;
        let markup = if problem.status == StatusCode::UNAUTHORIZED {
            page::login::render(&chrome, None, None)
        } else {
            let shown = page::error::Problem {
                status: problem.status.as_u16(),
                title: title(problem.status).to_owned(),
                detail: failure.message.clone(),
                hints: failure.hints.clone(),
                id: Some(failure.id.to_owned()),
            };
            page::error::render(&chrome, &shown)
        };
        problem.headed((problem.status, markup).into_response())
    }
}

fn title(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "That cannot be asked",
        403 => "Not allowed",
        404 => "There is no such thing",
        409 => "Not now",
        422 => "It is not good",
        429 => "Too many attempts",
        502 | 503 => "What lies behind does not answer",
        _ => "It did not work",
    }
}

/// A visitor of a page, with its frame. The role that a page needs is asked for with [`Visit::needs`].
pub(crate) struct Visit {
    pub(crate) who: Who,
    pub(crate) chrome: Chrome,
}

impl FromRequestParts<App> for Visit {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Trouble> {
        let signed_out = chrome(app, None);
        match <Reader as FromRequestParts<App>>::from_request_parts(parts, app).await {
            Ok(Reader(who)) => Ok(Self {
                chrome: chrome(app, Some(&who)),
                who,
            }),
            Err(problem) => Err(Trouble::new(problem, &signed_out)),
        }
    }
}

impl Visit {
    /// Fails where the role does not suffice.
    pub(crate) fn needs(&self, role: Role) -> Shown<()> {
        if self.who.role >= role {
            return Ok(());
        }
        let message = format!(
            "this needs the role `{}`, and you have `{}`",
            role.as_str(),
            self.who.role.as_str()
        );
        Err(self.trouble(Problem::forbidden(message)))
    }

    /// Makes a page of what did not work.
    pub(crate) fn trouble(&self, problem: impl Into<Problem>) -> Trouble {
        Trouble::new(problem, &self.chrome)
    }

    /// Takes a value, or makes a page of why there is none.
    pub(crate) fn take<T, E: Into<Problem>>(&self, result: Result<T, E>) -> Shown<T> {
        result.map_err(|problem| self.trouble(problem))
    }

    /// Takes a value that is there, or says that there is no such thing.
    pub(crate) fn find<T>(&self, found: Option<T>, what: &str) -> Shown<T> {
        found.ok_or_else(|| self.trouble(Problem::not_found(format!("there is no {what}"))))
    }

    pub(crate) fn query<T>(&self, query: Result<Query<T>, QueryRejection>) -> Shown<T> {
        self.take(crate::api::query(query))
    }

    pub(crate) fn form<T>(&self, form: Result<Form<T>, FormRejection>) -> Shown<T> {
        let read = form.map(|Form(form)| form);
        self.take(read.map_err(|error| bad_request(&error.body_text())))
    }

    /// Goes on to another page, so that a reload repeats nothing.
    pub(crate) fn go(&self, path: &str) -> Response {
        Redirect::to(&self.chrome.link(path)).into_response()
    }
}

fn chrome(app: &App, who: Option<&Who>) -> Chrome {
    let now = app.context.clock.now();
    Chrome {
        doubt: who.and_then(|_| app.known().doubt(now)),
        base: app.settings.base.clone(),
        role: who.map_or(Role::Read, |who| who.role),
        who: who.and_then(|who| who.name.clone()),
        is_watch_only: app.settings.is_watch_only,
        now,
        zone_note: ZONE_NOTE.to_owned(),
    }
}

/// Says that something is not there: on a page only behind a sign-in, and to an API client as JSON.
async fn nothing_here(visit: Result<Visit, Trouble>, uri: Uri) -> Response {
    let problem = Problem::not_found(format!("there is no `{}`", uri.path()));
    match visit {
        _ if uri.path().contains("/api/") => problem.into_response(),
        Ok(visit) => visit.trouble(problem).into_response(),
        Err(trouble) => trouble.into_response(),
    }
}
