//! GCS's dialect of S3's protocol: bearer tokens, generations, and conditions on them, in front of the S3 server of the tests.
//!
//! Generations are numbers that never come twice. A condition is judged and its write carried out under one lock, as the real
//! one does, so that of many writers one wins.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use s3s::Body;

use super::s3::Answer;

/// What GCS keeps of objects that S3 does not.
#[derive(Default)]
pub struct Gcs {
    generations: Mutex<HashMap<PathBuf, u64>>,
    next: Mutex<u64>,
    /// The only token that it takes; every one where none is set.
    token: Mutex<Option<String>>,
    /// The tokens that came.
    seen: Mutex<Vec<String>>,
    /// What the JSON API says of the bucket; none where the login may not ask.
    resource: Mutex<Option<String>>,
    writing: tokio::sync::Mutex<()>,
    /// Where the bucket's folder is; set once the server runs.
    pub root: OnceLock<PathBuf>,
}

impl Gcs {
    /// From now on every other token is refused.
    pub fn take_only(&self, token: &str) {
        *self.token.lock().unwrap() = Some(token.to_owned());
    }

    /// From now on the bucket may be asked about, and is this.
    pub fn is(&self, resource: &str) {
        *self.resource.lock().unwrap() = Some(resource.to_owned());
    }

    /// Returns the tokens that came, without those that came right before.
    pub fn tokens(&self) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap().clone();
        seen.dedup();
        seen
    }

    /// Answers a request; `pass_on` lets S3 answer.
    pub async fn answer<F>(
        &self,
        request: Request<Incoming>,
        pass_on: impl FnOnce(Request<Incoming>) -> F,
    ) -> Answer
    where
        F: Future<Output = Answer>,
    {
        let token = bearer(&request);
        self.seen.lock().unwrap().push(token.clone());
        let wanted = self.token.lock().unwrap().clone();
        if wanted.is_some_and(|wanted| wanted != token) {
            return Ok(refuse(401, "AuthenticationRequired"));
        }
        if request.uri().path().starts_with("/storage/v1/b/") {
            return Ok(match self.resource.lock().unwrap().clone() {
                Some(resource) => Response::new(Body::from(resource)),
                None => refuse(403, "AccessDenied"),
            });
        }
        let method = request.method().clone();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let (request, key) = into_s3(request);
        let file = self
            .root
            .get()
            .expect("set before the first request")
            .join(key);
        let is_read = matches!(method, Method::GET | Method::HEAD);
        let is_write = method == Method::PUT && !query.contains("partNumber=")
            || method == Method::POST && query.contains("uploadId=");
        if !is_write && method != Method::DELETE {
            let mut answer = pass_on(request).await?;
            if is_read && answer.status().is_success() && file.is_file() {
                self.tell(&mut answer, self.generation(&file));
            }
            return Ok(answer);
        }
        let _alone = self.writing.lock().await;
        if let Some(wanted) = request.headers().get("x-goog-if-generation-match") {
            let wanted: u64 = wanted.to_str().unwrap().parse().unwrap();
            let now = if file.is_file() {
                self.generation(&file)
            } else {
                0
            };
            if wanted != now {
                return Ok(refuse(412, "PreconditionFailed"));
            }
        }
        let mut answer = pass_on(request).await?;
        if answer.status().is_success() {
            self.generations.lock().unwrap().remove(&file);
            if is_write {
                self.tell(&mut answer, self.generation(&file));
            }
        }
        Ok(answer)
    }

    fn generation(&self, file: &Path) -> u64 {
        let mut generations = self.generations.lock().unwrap();
        *generations.entry(file.to_owned()).or_insert_with(|| {
            let mut next = self.next.lock().unwrap();
            // As large as real ones: no number of 32 bits.
            *next = (*next).max(1_700_000_000_000_000) + 1;
            *next
        })
    }

    fn tell(&self, answer: &mut Response<Body>, generation: u64) {
        let headers = answer.headers_mut();
        headers.insert("x-goog-generation", HeaderValue::from(generation));
    }
}

/// Returns the token of a request; empty where there is none.
fn bearer(request: &Request<Incoming>) -> String {
    let header = request.headers().get(AUTHORIZATION);
    let text = header
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    text.strip_prefix("Bearer")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Takes the token off, and writes the path as S3's clients do; returns the path below the server's folder as well.
fn into_s3(mut request: Request<Incoming>) -> (Request<Incoming>, String) {
    request.headers_mut().remove(AUTHORIZATION);
    let escapes = [("%2F", "/"), ("%2E", "."), ("%2D", "-"), ("%5F", "_")];
    let path = escapes
        .iter()
        .fold(request.uri().path().to_owned(), |path, (escape, sign)| {
            path.replace(escape, sign)
        });
    let target = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.clone(),
    };
    *request.uri_mut() = target.parse::<Uri>().unwrap();
    (request, path.trim_start_matches('/').to_owned())
}

fn refuse(status: u16, code: &str) -> Response<Body> {
    let body = format!(
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>No.</Message><Details>as GCS says</Details></Error>"
    );
    let answer = Response::builder().status(status);
    answer.body(Body::from(body)).unwrap()
}
