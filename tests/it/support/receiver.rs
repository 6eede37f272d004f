//! A real HTTP server in the test process that takes notices: it keeps every request, and answers by rules.
//!
//! It runs on a thread of its own. Dropping it ends it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::schema;

/// What a request is met with.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status and a body.
    Status(u16, &'static str),
    /// A redirect to this address.
    Redirect(String),
    /// No answer at all.
    Hang,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Received {
    /// Returns the body; a notice as webhooks get it must be as the book says.
    pub fn json(&self) -> Value {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        let is_notice = body.get("verdict").is_some() && body.get("event").is_some();
        let problem = is_notice.then(|| schema::problem("notice", &body));
        assert_eq!(problem.flatten(), None, "{body:#}");
        body
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

struct Rule {
    part: &'static str,
    times: usize,
    reply: Reply,
}

#[derive(Default)]
struct Script {
    rules: Mutex<Vec<Rule>>,
    log: Mutex<Vec<Received>>,
}

/// A running server that answers 200 unless told otherwise.
pub struct Receiver {
    /// `http://127.0.0.1:<port>`.
    pub address: String,
    script: Arc<Script>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    pub fn start() -> Self {
        let script = Arc::new(Script::default());
        let (stop, stopped) = oneshot::channel();
        let (started, address) = mpsc::channel();
        let shared = Arc::clone(&script);
        // Joined when the server is dropped.
        let thread = std::thread::spawn(move || run(shared, &started, stopped));
        Self {
            address: format!("http://{}", address.recv().unwrap()),
            script,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Meets the next so many requests whose target contains `part` with this.
    pub fn on(&self, part: &'static str, times: usize, reply: Reply) {
        let rule = Rule { part, times, reply };
        self.script.rules.lock().unwrap().push(rule);
    }

    /// Returns the requests whose target contains `part`, oldest first.
    pub fn of(&self, part: &str) -> Vec<Received> {
        let log = self.script.log.lock().unwrap();
        log.iter()
            .filter(|seen| seen.target.contains(part))
            .cloned()
            .collect()
    }

    /// Returns the only request whose target contains `part`.
    #[track_caller]
    pub fn only(&self, part: &str) -> Received {
        let mut found = self.of(part);
        assert_eq!(found.len(), 1, "{part}: {found:#?}");
        found.remove(0)
    }

    /// Forgets what came so far.
    pub fn forget(&self) {
        self.script.log.lock().unwrap().clear();
    }

    /// Waits until such a request came.
    pub fn wait_for(&self, part: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.of(part).is_empty() {
            assert!(Instant::now() < deadline, "no request for {part} came");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server has shown in the test already.
            let _ = thread.join();
        }
    }
}

fn run(script: Arc<Script>, started: &mpsc::Sender<SocketAddr>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        started.send(listener.local_addr().unwrap()).unwrap();
        let accept = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let script = Arc::clone(&script);
                let service = service_fn(move |request| answer(Arc::clone(&script), request));
                // It ends with its connection or with the runtime.
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
    });
}

async fn answer(
    script: Arc<Script>,
    request: Request<Incoming>,
) -> Result<Response<String>, Infallible> {
    let (parts, body) = request.into_parts();
    let headers = parts.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    });
    let received = Received {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: headers.collect(),
        body: read(body).await,
    };
    let reply = script.reply_to(&received.target);
    script.log.lock().unwrap().push(received);
    let (status, location, body) = match reply {
        Reply::Status(status, body) => (status, None, body),
        Reply::Redirect(to) => (307, Some(to), ""),
        Reply::Hang => std::future::pending().await,
    };
    let mut response = Response::new(body.to_owned());
    *response.status_mut() = status.try_into().unwrap();
    if let Some(location) = location {
        response
            .headers_mut()
            .insert("location", location.parse().unwrap());
    }
    Ok(response)
}

impl Script {
    fn reply_to(&self, target: &str) -> Reply {
        let mut rules = self.rules.lock().unwrap();
        let mut mine = rules.iter_mut().filter(|rule| rule.times > 0);
        match mine.find(|rule| target.contains(rule.part)) {
            Some(rule) => {
                rule.times -= 1;
                rule.reply.clone()
            }
            None => Reply::Status(200, "OK"),
        }
    }
}

async fn read(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
    }
    bytes
}
