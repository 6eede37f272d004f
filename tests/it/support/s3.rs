//! A real S3 server as a process: `tests/servers/s3_server.rs` over a folder, with signatures checked.
//!
//! For runs of the built binary. It ends with its value, and by itself when the pipe to these tests closes.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{CANARY, example};

/// The access key.
pub const KEY: &str = "keeper-key";

/// The bucket that is there.
pub const BUCKET: &str = "backups";

/// A running server with one empty bucket.
pub struct S3 {
    root: TempDir,
    address: String,
    process: Child,
}

impl S3 {
    /// Starts a server on a free port. Its secret is the canary.
    pub fn start() -> Self {
        let root = TempDir::new().expect("a folder can be made");
        std::fs::create_dir(root.path().join(BUCKET)).expect("a folder can be made");
        let mut process = Command::new(example("s3_server"))
            .arg(root.path())
            .args(["0", KEY])
            .env("S3_SECRET", CANARY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the S3 server can be started");
        let mut line = String::new();
        let stdout = process.stdout.as_mut().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the S3 server tells its address");
        let address = line
            .trim()
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .to_owned();
        Self {
            root,
            address,
            process,
        }
    }

    /// Returns `http://127.0.0.1:<port>`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the variables that a client needs.
    pub fn environment(&self) -> [(&'static str, &'static str); 3] {
        [
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", CANARY),
            ("AWS_REGION", "us-east-1"),
        ]
    }

    /// Returns the folder of the bucket, to look at objects or to damage them.
    pub fn folder(&self) -> PathBuf {
        self.root.path().join(BUCKET)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
