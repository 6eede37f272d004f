//! A small HTTP client for the tests: one request, one connection, the whole answer.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Whether the body broke off before its end.
    pub is_broken: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }
}

/// A body of one piece, as hyper wants it.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

/// Sends a request to a port of this machine, and returns the whole answer.
#[track_caller]
pub fn send(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> Answer {
    let mut request = Request::builder().method(method).uri(target);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", format!("127.0.0.1:{port}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let bytes: Vec<u8> = body.into();
    let body = Whole((!bytes.is_empty()).then(|| bytes.into()));
    let request = request.body(body).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let exchange = async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            read(sender.send_request(request).await.unwrap()).await
        };
        let answer = timeout(LIMIT, exchange).await;
        answer.unwrap_or_else(|_| panic!("{method} {target} was not answered"))
    })
}

async fn read(mut response: Response<Incoming>) -> Answer {
    let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap().to_owned();
    let all = response.headers().iter();
    let pairs = all.map(|(name, value)| (name.to_string(), text(value)));
    let (headers, status) = (pairs.collect(), response.status().as_u16());
    let (mut body, mut is_broken) = (Vec::new(), false);
    loop {
        let body_of = response.body_mut();
        match poll_fn(|context| std::pin::Pin::new(&mut *body_of).poll_frame(context)).await {
            Some(Ok(frame)) => body.extend(frame.into_data().unwrap_or_default()),
            Some(Err(_)) => {
                is_broken = true;
                break;
            }
            None => break,
        }
    }
    Answer {
        status,
        headers,
        body,
        is_broken,
    }
}
