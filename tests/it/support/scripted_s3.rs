//! A real S3 server, one that speaks GCS's dialect, or a proxy in front of another server, that misbehaves on demand: rules say which request meets which fault, and a log counts them all.
//!
//! ```ignore
//! let server = ScriptedS3::start();
//! server.on(Rule::new("PUT", Fault::status(503, "SlowDown")).query("partNumber=2").times(1));
//! // … upload …
//! assert_eq!(server.count("PUT", "partNumber=2"), 2);
//! ```

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderValue, IF_NONE_MATCH};
use hyper::{Request, Response};
use s3s::Body;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::gcs::Gcs;
use super::s3::{Answer, Front, S3Server, Service, listen};

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers with this instead of doing anything. The request's body is read first.
    Answer {
        /// Status code.
        status: u16,
        /// Extra headers.
        headers: Vec<(&'static str, String)>,
        /// The whole body.
        body: String,
    },
    /// Never answers.
    Hang,
    /// Reads this many bytes of the request's body, then closes the connection.
    CutRequest(usize),
    /// Does what was asked, then closes the connection after this many bytes of the answer's body.
    CutAnswer(usize),
    /// Does what was asked, then closes the connection without a word.
    LoseAnswer,
    /// Does what was asked, then sends the answer's body at this many bytes a second.
    SlowAnswer(u64),
    /// Does what was asked, but claims that the object has this size (for HEAD).
    ClaimSize(u64),
    /// Does what was asked, then cuts the stored object off after this many bytes.
    Truncate(u64),
}

impl Fault {
    /// Answers with S3's error document.
    pub fn status(status: u16, code: &str) -> Self {
        let body = format!("<Error><Code>{code}</Code><Message>as scripted</Message></Error>");
        Self::Answer {
            status,
            headers: Vec::new(),
            body: if code.is_empty() { String::new() } else { body },
        }
    }

    /// Answers 200 with a body.
    pub fn body(body: impl Into<String>) -> Self {
        Self::Answer {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// Adds a header to an answer.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }
}

/// Which requests meet a fault.
#[derive(Clone, Debug)]
pub struct Rule {
    method: &'static str,
    path: String,
    query: String,
    skip: usize,
    times: usize,
    fault: Fault,
}

impl Rule {
    /// Matches every request with this method.
    pub fn new(method: &'static str, fault: Fault) -> Self {
        Self {
            method,
            path: String::new(),
            query: String::new(),
            skip: 0,
            times: usize::MAX,
            fault,
        }
    }

    /// Only where the path contains this.
    pub fn path(mut self, part: impl Into<String>) -> Self {
        self.path = part.into();
        self
    }

    /// Only where the query contains this.
    pub fn query(mut self, part: impl Into<String>) -> Self {
        self.query = part.into();
        self
    }

    /// Lets the first ones pass.
    pub fn skip(mut self, count: usize) -> Self {
        self.skip = count;
        self
    }

    /// Stops after so many.
    pub fn times(mut self, count: usize) -> Self {
        self.times = count;
        self
    }

    /// Returns the fault if it is this request's turn.
    fn meet(&mut self, seen: &Seen) -> Option<Fault> {
        let is_mine = self.method == seen.method
            && seen.path.contains(&self.path)
            && seen.query.contains(&self.query);
        if !is_mine || self.times == 0 {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times -= 1;
        Some(self.fault.clone())
    }
}

/// One request as the server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Path with the bucket.
    pub path: String,
    /// Raw query, empty where there was none.
    pub query: String,
    /// Which bytes were asked for, empty where all were.
    pub range: String,
}

/// A server with a script. It offers all that [`S3Server`] offers.
pub struct ScriptedS3 {
    server: S3Server,
    script: Arc<Script>,
}

#[derive(Default)]
struct Script {
    rules: Mutex<Vec<Rule>>,
    log: Mutex<Vec<Seen>>,
    ignores_conditions: Mutex<bool>,
    /// Where the objects lie; set once the server runs.
    bucket_dir: OnceLock<PathBuf>,
}

impl ScriptedS3 {
    /// Starts a server without rules.
    pub fn start() -> Self {
        let script = Arc::new(Script::default());
        let server = S3Server::start_behind(Arc::clone(&script) as Arc<dyn Front>);
        script.bucket_dir.set(server.bucket_dir()).unwrap();
        Self { server, script }
    }

    /// Adds a rule. The first rule that matches a request decides.
    pub fn on(&self, rule: Rule) {
        self.script.rules.lock().unwrap().push(rule);
    }

    /// Takes all rules away.
    pub fn behave(&self) {
        self.script.rules.lock().unwrap().clear();
    }

    /// Makes the server take `If-None-Match` and overwrite all the same, as some stores do.
    pub fn ignore_conditions(&self) {
        *self.script.ignores_conditions.lock().unwrap() = true;
    }

    /// Returns all requests so far.
    pub fn log(&self) -> Vec<Seen> {
        self.script.log.lock().unwrap().clone()
    }

    /// Counts requests by method and a part of their query (empty for any).
    pub fn count(&self, method: &str, query: &str) -> usize {
        self.script.count(method, query)
    }
}

/// A server with a script that speaks GCS's dialect. It offers all that [`ScriptedS3`] offers.
pub struct ScriptedGcs {
    server: ScriptedS3,
    /// What it knows besides.
    pub gcs: Arc<Gcs>,
}

impl ScriptedGcs {
    /// Starts a server without rules.
    pub fn start() -> Self {
        let (script, gcs) = (Arc::new(Script::default()), Arc::new(Gcs::default()));
        let front = Arc::clone(&script) as Arc<dyn Front>;
        let server = S3Server::start_as(front, Some(Arc::clone(&gcs)));
        script.bucket_dir.set(server.bucket_dir()).unwrap();
        Self {
            server: ScriptedS3 { server, script },
            gcs,
        }
    }
}

impl Deref for ScriptedGcs {
    type Target = ScriptedS3;

    fn deref(&self) -> &ScriptedS3 {
        &self.server
    }
}

/// A script in front of a server elsewhere.
pub struct ScriptedProxy {
    /// Where it answers: `127.0.0.1:<port>`.
    pub address: SocketAddr,
    script: Arc<Script>,
    /// Dropping it tells the thread to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ScriptedProxy {
    /// Starts one without rules in front of a server.
    pub fn start(server: SocketAddr) -> Self {
        let script = Arc::new(Script::default());
        script.bucket_dir.set(PathBuf::new()).unwrap();
        let front = Arc::clone(&script) as Arc<dyn Front>;
        let (stop, stopped) = oneshot::channel();
        let (address, thread) = listen(front, Service::At(server), stopped);
        Self {
            address,
            script,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Adds a rule. The first rule that matches a request decides.
    pub fn on(&self, rule: Rule) {
        self.script.rules.lock().unwrap().push(rule);
    }

    /// Takes all rules away.
    pub fn behave(&self) {
        self.script.rules.lock().unwrap().clear();
    }

    /// Returns all requests so far.
    pub fn log(&self) -> Vec<Seen> {
        self.script.log.lock().unwrap().clone()
    }

    /// Counts requests by method and a part of their query (empty for any).
    pub fn count(&self, method: &str, query: &str) -> usize {
        self.script.count(method, query)
    }
}

impl Drop for ScriptedProxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server has shown in the test already.
            let _ = thread.join();
        }
    }
}

impl Deref for ScriptedS3 {
    type Target = S3Server;

    fn deref(&self) -> &S3Server {
        &self.server
    }
}

#[async_trait]
impl Front for Script {
    async fn answer(&self, request: Request<Incoming>, service: &Service) -> Answer {
        let seen = Seen {
            method: request.method().to_string(),
            // GCS's clients escape slashes, too.
            path: request.uri().path().replace("%2F", "/").replace("%2E", "."),
            query: request.uri().query().unwrap_or_default().to_owned(),
            range: header(&request, "range"),
        };
        self.log.lock().unwrap().push(seen.clone());
        let fault = {
            let mut rules = self.rules.lock().unwrap();
            rules.iter_mut().find_map(|rule| rule.meet(&seen))
        };
        let file = self.file_of(&seen.path);
        if *self.ignores_conditions.lock().unwrap() && request.headers().contains_key(IF_NONE_MATCH)
        {
            // The header is signed, so it stays; what it asks about goes.
            let _ = std::fs::remove_file(&file);
        }
        match fault {
            None => service.answer(request).await,
            Some(fault) => misbehave(fault, request, service, file).await,
        }
    }
}

impl Script {
    fn count(&self, method: &str, query: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter()
            .filter(|seen| seen.method == method && seen.query.contains(query))
            .count()
    }

    /// Returns where the object of a path lies.
    fn file_of(&self, path: &str) -> PathBuf {
        let key = path.splitn(3, '/').nth(2).unwrap_or_default();
        let folder = self.bucket_dir.get().expect("set before the first request");
        folder.join(key)
    }
}

/// Returns a header as text; Azure's clients write ranges into one of their own.
fn header(request: &Request<Incoming>, name: &str) -> String {
    let names = [name.to_owned(), format!("x-ms-{name}")];
    let found = names.iter().find_map(|name| request.headers().get(name));
    let text = found.and_then(|value| value.to_str().ok());
    text.unwrap_or_default().to_owned()
}

async fn misbehave(
    fault: Fault,
    request: Request<Incoming>,
    service: &Service,
    file: PathBuf,
) -> Answer {
    match fault {
        Fault::Answer {
            status,
            headers,
            body,
        } => {
            read_request(request, usize::MAX).await;
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Body::from(body)).unwrap())
        }
        Fault::Hang => std::future::pending().await,
        Fault::CutRequest(bytes) => {
            read_request(request, bytes).await;
            Err(io::Error::other("cut as scripted"))
        }
        Fault::CutAnswer(bytes) => Ok(limit(service.answer(request).await?, bytes, None)),
        Fault::LoseAnswer => {
            service.answer(request).await?;
            Err(io::Error::other("lost as scripted"))
        }
        Fault::SlowAnswer(rate) => {
            let pause = Duration::from_secs_f64(1.0 / rate as f64);
            let answer = service.answer(request).await?;
            Ok(limit(answer, usize::MAX, Some(pause)))
        }
        Fault::ClaimSize(size) => {
            let mut answer = service.answer(request).await?;
            let headers = answer.headers_mut();
            headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
            Ok(answer)
        }
        Fault::Truncate(bytes) => {
            let answer = service.answer(request).await?;
            let stored = std::fs::File::options().write(true).open(file)?;
            stored.set_len(bytes)?;
            Ok(answer)
        }
    }
}

/// Reads at least `bytes` of a request's body, if it has so many.
async fn read_request(mut request: Request<Incoming>, bytes: usize) {
    let mut read = 0;
    while read < bytes {
        let body = request.body_mut();
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        match frame {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}

/// Sends an answer slowly, or not to its end.
fn limit(answer: Response<Body>, bytes: usize, pause: Option<Duration>) -> Response<Body> {
    answer.map(|inner| {
        Body::http_body_unsync(LimitedBody {
            inner,
            rest: Bytes::new(),
            left: bytes,
            pause,
            sleep: None,
        })
    })
}

struct LimitedBody {
    inner: Body,
    rest: Bytes,
    left: usize,
    /// Before every single byte.
    pause: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for LimitedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(sleep) = &mut self.sleep {
            std::task::ready!(sleep.as_mut().poll(context));
            self.sleep = None;
        }
        while self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let size = match self.pause {
            Some(pause) => {
                self.sleep = Some(Box::pin(tokio::time::sleep(pause)));
                1
            }
            None => self.rest.len().min(self.left),
        };
        if size == 0 {
            return Poll::Ready(Some(Err("cut as scripted".into())));
        }
        self.left -= size;
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(size)))))
    }
}
