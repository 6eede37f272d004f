//! Connections: how many there are at once, and how long a client may take to say what it wants.
//!
//! A client that sends its request a byte at a time holds a connection and memory; without limits a few thousand of them
//! end the server for everyone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::problem::Problem;

/// What clients may take.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// How many connections are open at once; those beyond wait in the queue of the operating system.
    connections: usize,
    /// How long a client may take to send the head of a request, and how long a connection may lie idle before one.
    head: Duration,
}

/// What clients of a server may take.
pub(crate) const LIMITS: Limits = Limits {
    connections: 512,
    head: Duration::from_secs(10),
};

/// How long a client may take to send the body of a request: a form, or a few lines of JSON.
const BODY: Duration = Duration::from_secs(10);

/// Most bytes of the body of a request.
pub(crate) const MAX_BODY: usize = 256 * 1024;

/// How long nothing is accepted where the operating system has no room for another connection.
const NO_ROOM: Duration = Duration::from_secs(1);

/// Accepts connections and answers on them until `stop`; then lets answers end that have begun.
pub(crate) async fn answer(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let free = Arc::new(Semaphore::new(limits.connections));
    let open = TaskTracker::new();
    loop {
        let next = async {
            let permit = Arc::clone(&free).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, stop) = (router.clone(), stop.clone());
                open.spawn(async move {
                    serve_one(stream, peer, router, limits.head, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(target: "pgkeep", "a connection was not accepted: {error}");
                sleep(NO_ROOM).await;
            }
        }
    }
    drop(listener);
    open.close();
    open.wait().await;
}

async fn serve_one(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    head: Duration,
    stop: CancellationToken,
) {
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = inner.call(request);
        async move { Ok::<_, Infallible>(answer.await.into_response()) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients go away at any moment; that is no news.
        tracing::debug!(target: "pgkeep", %peer, "a connection broke off: {error}");
    }
}

/// Gives the body of a request a time within which it must have come: 408 where a handler waited for more of it.
pub(crate) async fn in_time(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let is_late = Arc::new(AtomicBool::new(false));
    let (deadline, late) = (Instant::now() + BODY, Arc::clone(&is_late));
    let request = request.map(|body| {
        let pieces = body.into_data_stream();
        Body::from_stream(stream::try_unfold(pieces, move |mut pieces| {
            let late = Arc::clone(&late);
            async move {
                match timeout_at(deadline, pieces.next()).await {
                    Ok(None) => Ok(None),
                    Ok(Some(piece)) => piece.map(|piece| Some((piece, pieces))),
                    Err(elapsed) => {
                        late.store(true, Ordering::Relaxed);
                        Err(axum::Error::new(elapsed))
                    }
                }
            }
        }))
    });
    let response = next.run(request).await;
    if is_late.load(Ordering::Relaxed) {
        return Problem::too_slow().into_response();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_crowd_waits_until_silent_clients_are_let_go_of() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "here"));
        let (stop, limits) = (
            CancellationToken::new(),
            Limits {
                connections: 2,
                head: Duration::from_millis(500),
            },
        );
        let began = Instant::now();
        let server = tokio::spawn(answer(listener, router, limits, stop.clone()));
        let connect = || async { TcpStream::connect(address).await.unwrap() };
        let silent = [connect().await, connect().await];
        let mut third = connect().await;
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        third.write_all(request).await.unwrap();
        let mut text = String::new();
        third.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("here"));
        assert!(began.elapsed() >= limits.head, "it did not wait");
        drop(silent);
        stop.cancel();
        let ended = timeout(Duration::from_secs(20), server).await;
        ended.unwrap().unwrap();
    }
}
