//! A real mail server as a process, with a certificate that an authority of its own signed.
//!
//! It is Python's `aiosmtpd`, which `scripts/test` installs beside the build; a test that lacks it says so and skips.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{CANARY, skip};

/// A running mail server. Dropping it ends it.
pub struct MailServer {
    /// Where it answers on 127.0.0.1, which its certificate calls `localhost`, too.
    pub port: u16,
    folder: TempDir,
    child: Child,
}

impl MailServer {
    /// Starts a server that takes the user `app` with the canary as password where `has_login`, and whose answers to the
    /// first mails are `answers`; `ADDRESS=ANSWER` is for a recipient, once. None where the machine lacks it.
    pub fn start(tls: &str, has_login: bool, answers: &[&str]) -> Option<Self> {
        let python = python()?;
        let folder = tempfile::tempdir().unwrap();
        certify(folder.path());
        fs::write(folder.path().join("password"), CANARY).unwrap();
        fs::create_dir(folder.path().join("mails")).unwrap();
        let here = |name: &str| folder.path().join(name);
        let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/smtp.py");
        let mut command = Command::new(python);
        command.arg(server).arg(here("mails")).args(["--tls", tls]);
        command
            .arg("--cert")
            .arg(here("cert.pem"))
            .arg("--key")
            .arg(here("key.pem"));
        if has_login {
            command
                .args(["--user", "app", "--password-file"])
                .arg(here("password"));
        }
        for answer in answers {
            command.args(["--answer", answer]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        Some(Self {
            port: line.trim().parse().unwrap(),
            folder,
            child,
        })
    }

    /// Returns the certificate of the authority that signed the server's.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Returns the mails that came, oldest first.
    pub fn mails(&self) -> Vec<Value> {
        let mails = (1..).map(|number| self.folder.path().join(format!("mails/{number}.json")));
        mails
            .map_while(|path| fs::read(path).ok())
            .map(|bytes| serde_json::from_slice(&bytes).unwrap())
            .collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // It ends with its standard input; this is for one that does not.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the Python that has `aiosmtpd`: `scripts/test` makes it beside the build.
fn python() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_pgkeep")).ancestors().nth(2)?;
    let python = target.join("tools/mail/bin/python3");
    if !python.is_file() {
        skip("there is no mail server: `scripts/test` installs aiosmtpd");
        return None;
    }
    Some(python)
}

/// Makes an authority and a certificate for `localhost`. One that signs itself may not stand for a server.
pub(super) fn certify(folder: &Path) {
    let run = |arguments: &str| {
        let status = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder)
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "openssl {arguments}");
    };
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
    fs::write(folder.join("names"), names).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    run(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"
    ));
    run(&format!(
        "req {key} -keyout key.pem -out request.pem -subj /CN=localhost"
    ));
    run(
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile names",
    );
}
