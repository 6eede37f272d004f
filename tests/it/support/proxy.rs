//! A TCP proxy in front of a server that breaks connections on demand: what a bad network does to a dump (row D9).
//!
//! Counts the bytes from the server to the client, on each connection by itself.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often the accepting thread looks whether it is over.
const TICK: Duration = Duration::from_millis(5);

/// What happens after the bytes.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Both sides are closed.
    Cut,
    /// Nothing moves any more, and nothing is closed.
    Stall,
}

/// An answer that is lost: of the statement that holds `last`, on a connection on which `first` was said before.
#[derive(Clone, Copy)]
pub struct Lost {
    pub first: &'static str,
    pub last: &'static str,
    /// Whether nobody is let in from then on.
    pub is_final: bool,
}

/// How long a server may take to carry out the statement whose answer is lost.
const CARRIED_OUT: Duration = Duration::from_millis(500);

/// A proxy on a port of its own. Dropping it closes everything.
pub struct Proxy {
    port: u16,
    is_over: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy to `127.0.0.1:server` that breaks after so many bytes.
    pub fn start(server: u16, after_bytes: u64, fault: Fault) -> Self {
        Self::accepting(move |client, flag| {
            connect(client, server, after_bytes, fault, flag);
        })
    }

    /// Starts a proxy that hands on everything but one answer: the server does what it was told, and nobody hears of it.
    pub fn losing(server: u16, lost: Lost) -> Self {
        let is_shut = Arc::new(AtomicBool::new(false));
        Self::accepting(move |client, _| {
            if !is_shut.load(Ordering::Relaxed) {
                connect_losing(&client, server, lost, &is_shut);
            }
        })
    }

    /// Starts a proxy that hands on everything, and lets nobody in who brings settings, as PgBouncer does.
    pub fn refusing_options(server: u16) -> Self {
        Self::accepting(move |client, flag| {
            client
                .set_nonblocking(false)
                .expect("a connection can block");
            if let Some(opening) = opening_without_options(&client) {
                let up = connect(client, server, u64::MAX, Fault::Cut, flag);
                (&up).write_all(&opening).expect("the server listens");
            }
        })
    }

    fn accepting(connect: impl Fn(TcpStream, &Arc<AtomicBool>) + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        listener
            .set_nonblocking(true)
            .expect("a listener can be polled");
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        let acceptor = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => connect(client, &flag),
                    Err(_) => thread::sleep(TICK),
                }
            }
        });
        Self {
            port,
            is_over,
            acceptor: Some(acceptor),
        }
    }

    /// Returns the port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.acceptor.take().map(JoinHandle::join);
        // A second panic while a test fails would end the whole suite.
        assert!(thread::panicking() || ended.is_some_and(|result| result.is_ok()));
    }
}

/// Both directions get a thread, which ends with its connection.
fn connect(
    client: TcpStream,
    server: u16,
    after_bytes: u64,
    fault: Fault,
    flag: &Arc<AtomicBool>,
) -> TcpStream {
    let server = TcpStream::connect(("127.0.0.1", server)).expect("the server listens");
    client
        .set_nonblocking(false)
        .expect("a connection can block");
    let up = (share(&client), share(&server));
    thread::spawn(move || copy(up.0, up.1, u64::MAX));
    let opened = share(&server);
    let flag = Arc::clone(flag);
    thread::spawn(move || {
        let left = copy(share(&server), share(&client), after_bytes);
        if left == 0 && matches!(fault, Fault::Stall) {
            while !flag.load(Ordering::Relaxed) {
                thread::sleep(TICK);
            }
        }
        // Either may be gone already.
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
    opened
}

/// Reads what a client says first, without encryption. Nothing when it is refused, because of its settings, or gone.
fn opening_without_options(mut client: &TcpStream) -> Option<Vec<u8>> {
    loop {
        let mut length = [0; 4];
        client.read_exact(&mut length).ok()?;
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        client.read_exact(&mut rest).ok()?;
        // A wish for encryption has nothing behind its number.
        if rest.len() == 4 {
            client.write_all(b"N").ok()?;
            continue;
        }
        if !rest.windows(8).any(|bytes| bytes == b"options\0") {
            return Some([&length[..], &rest].concat());
        }
        let said = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0";
        let length = u32::try_from(said.len() + 4).ok()?.to_be_bytes();
        client.write_all(&[b"E", &length[..], said].concat()).ok()?;
        return None;
    }
}

/// Both directions get a thread, which ends with its connection.
fn connect_losing(client: &TcpStream, server: u16, lost: Lost, is_shut: &Arc<AtomicBool>) {
    let server = TcpStream::connect(("127.0.0.1", server)).expect("the server listens");
    client
        .set_nonblocking(false)
        .expect("a connection can block");
    let down = (share(&server), share(client));
    thread::spawn(move || {
        copy(down.0, share(&down.1), u64::MAX);
        let _ = down.1.shutdown(Shutdown::Both); // it may be gone already
    });
    let (mut from, mut to, is_shut) = (share(client), server, Arc::clone(is_shut));
    thread::spawn(move || {
        let (mut block, mut said) = ([0; 8192], String::new());
        while let Ok(count @ 1..) = from.read(&mut block) {
            let text = String::from_utf8_lossy(&block[..count]).into_owned();
            let is_it = said.contains(lost.first) && text.contains(lost.last);
            said += &text;
            if is_it {
                is_shut.store(lost.is_final, Ordering::Relaxed);
                // No answer gets through, and the server is not told that nobody listens before it is done.
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.write_all(&block[..count]);
                thread::sleep(CARRIED_OUT);
            } else if to.write_all(&block[..count]).is_ok() {
                continue;
            }
            break;
        }
        let _ = to.shutdown(Shutdown::Both); // it may be gone already
    });
}

fn share(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a socket can be shared")
}

/// Copies until `left` bytes have passed or one side is gone; returns how many were left.
fn copy(mut from: TcpStream, mut to: TcpStream, mut left: u64) -> u64 {
    let mut block = [0; 8192];
    while left > 0 {
        let some = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Ok(count @ 1..) = from.read(&mut block[..some]) else {
            break;
        };
        if to.write_all(&block[..count]).is_err() {
            break;
        }
        left -= count as u64;
    }
    left
}
