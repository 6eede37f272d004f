//! An S3 server over a folder, for tests and benches: `S3_SECRET=… s3_server ROOT PORT KEY`.
//!
//! Checks signatures as S3 does, and prints `listening on <address>` when it takes requests (port 0: any free one).
//! It makes no bucket: a bucket is a folder in ROOT. It ends when its stdin does, so that it never outlives its user.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, bail};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, port, key] = arguments.as_slice() else {
        bail!("usage: S3_SECRET=… s3_server ROOT PORT KEY");
    };
    // Not an argument: everyone on the machine can read those.
    let secret = std::env::var("S3_SECRET").context("S3_SECRET is not set")?;
    let root = PathBuf::from(root);
    let port: u16 = port
        .parse()
        .with_context(|| format!("`{port}` is not a port"))?;
    let files =
        FileSystem::new(&root).map_err(|error| anyhow::anyhow!("{}: {error:?}", root.display()))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(key.as_str(), secret));
    let service = builder.build();
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    // Ends the process, and with it every connection.
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        // Ends with its connection; the process with its stdin.
        tokio::spawn(serve(socket, service.clone()));
    }
}

async fn serve(socket: TcpStream, service: S3Service) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let served = Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(socket), service)
        .await;
    // A client that hangs up is no news.
    if let Err(error) = served {
        eprintln!("connection ended: {error}");
    }
    Ok(())
}
