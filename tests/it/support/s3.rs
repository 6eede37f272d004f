//! A real S3 server in the test process: signatures, conditional puts, checksums and multipart uploads are checked.
//!
//! It runs on a thread of its own, so that tests which wait for the built binary can use it too. Dropping it ends it
//! and removes what it stored.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use async_trait::async_trait;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::CANARY;
use super::gcs::Gcs;

/// What a server answers, or the reason for which it closes the connection without an answer.
pub type Answer = io::Result<Response<Body>>;

/// Stands between the connection and the real service.
#[async_trait]
pub trait Front: Send + Sync + 'static {
    /// Answers a request, by passing it on or otherwise.
    async fn answer(&self, request: Request<Incoming>, service: &Service) -> Answer;
}

/// Passes everything on.
struct Plain;

#[async_trait]
impl Front for Plain {
    async fn answer(&self, request: Request<Incoming>, service: &Service) -> Answer {
        service.answer(request).await
    }
}

/// What answers in the end.
#[derive(Clone)]
pub enum Service {
    /// S3.
    S3(S3Service),
    /// S3 that speaks GCS's dialect.
    Gcs(S3Service, Arc<Gcs>),
    /// A server elsewhere, to which requests go as they are.
    At(SocketAddr),
}

impl Service {
    /// Lets it answer.
    pub async fn answer(&self, request: Request<Incoming>) -> Answer {
        match self {
            Self::S3(service) => call(request, service).await,
            Self::Gcs(service, gcs) => gcs.answer(request, |request| call(request, service)).await,
            Self::At(address) => forward(request, *address).await,
        }
    }
}

async fn call(request: Request<Incoming>, service: &S3Service) -> Answer {
    let answer = service.call(request.map(Body::from)).await;
    answer.map_err(|error| io::Error::other(Box::<dyn StdError + Send + Sync>::from(error)))
}

async fn forward(request: Request<Incoming>, address: SocketAddr) -> Answer {
    let socket = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(socket)
        .await
        .map_err(io::Error::other)?;
    // Ends with its one request.
    tokio::spawn(connection);
    let answer = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    Ok(answer.map(Body::from))
}

/// A running server with one empty bucket.
pub struct S3Server {
    /// Where it answers: `http://127.0.0.1:<port>`.
    pub endpoint: String,
    /// Id of the only key it takes.
    pub access_key: String,
    /// The only key it takes.
    pub secret_key: String,
    /// Name of its bucket.
    pub bucket: String,
    root: TempDir,
    /// Dropping it tells the thread to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Starts a server on a free port.
    pub fn start() -> Self {
        Self::start_behind(Arc::new(Plain))
    }

    /// Starts a server whose requests pass through `front` first.
    pub fn start_behind(front: Arc<dyn Front>) -> Self {
        Self::start_as(front, None)
    }

    /// Starts a server that speaks GCS's dialect where one is given.
    pub fn start_as(front: Arc<dyn Front>, gcs: Option<Arc<Gcs>>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (access_key, secret_key, bucket) = ("AKIATEST", CANARY, "acme-backups");
        std::fs::create_dir(root.path().join(bucket)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
        let service = match gcs {
            Some(gcs) => {
                gcs.root.set(root.path().to_owned()).unwrap();
                Service::Gcs(builder.build(), gcs)
            }
            None => {
                builder.set_auth(SimpleAuth::from_single(access_key, secret_key));
                Service::S3(builder.build())
            }
        };
        let (stop, stopped) = oneshot::channel();
        let (address, thread) = listen(front, service, stopped);
        Self {
            endpoint: format!("http://{address}"),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            bucket: bucket.to_owned(),
            root,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Returns the variables that give a program the key.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("AWS_ACCESS_KEY_ID", self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone()),
        ]
    }

    /// Returns the folder in which the bucket's objects lie as files.
    pub fn bucket_dir(&self) -> PathBuf {
        self.root.path().join(&self.bucket)
    }

    /// Returns the keys of all objects, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        collect_keys(&self.bucket_dir(), "", &mut keys);
        keys.sort();
        keys
    }

    /// Returns how many multipart uploads are neither completed nor aborted.
    pub fn unfinished(&self) -> usize {
        let entries = std::fs::read_dir(self.root.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name.starts_with(".upload-") && name.ends_with(".json"))
            .count()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server has shown in the test already.
            let _ = thread.join();
        }
    }
}

/// Listens on a free port and on a thread of its own, which ends when it is told so.
pub fn listen(
    front: Arc<dyn Front>,
    service: Service,
    stopped: oneshot::Receiver<()>,
) -> (SocketAddr, JoinHandle<()>) {
    let (started, address) = mpsc::channel();
    // Joined when the server is dropped.
    let thread = std::thread::spawn(move || run(front, service, started, stopped));
    (address.recv().unwrap(), thread)
}

fn run(
    front: Arc<dyn Front>,
    service: Service,
    started: mpsc::Sender<SocketAddr>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        started.send(listener.local_addr().unwrap()).unwrap();
        tokio::select! {
            () = serve(listener, front, service) => {}
            _ = stopped => {}
        }
    });
    // Hung connections must not hold up the test.
    runtime.shutdown_background();
}

async fn serve(listener: TcpListener, front: Arc<dyn Front>, service: Service) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let (front, service) = (Arc::clone(&front), service.clone());
        // Ends with its connection, or with the runtime.
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let (front, service) = (Arc::clone(&front), service.clone());
                async move { front.answer(request, &service).await }
            });
            // A connection that a script cuts ends with an error, which is what the script wanted.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), answer)
                .await;
        });
    }
}

fn collect_keys(folder: &Path, prefix: &str, keys: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let key = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect_keys(&entry.path(), &format!("{key}/"), keys);
        } else {
            keys.push(key);
        }
    }
}
