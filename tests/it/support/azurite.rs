//! A real Azurite, Microsoft's emulator of Azure's storage: one process for all tests, and a container for each.
//!
//! It is a program of Node, which `scripts/test` installs beside the build; a test that lacks it says so and skips. A guard process
//! owns it and ends it when the pipe to this process closes.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tempfile::TempDir;

use super::mail::certify;
use super::secret::percent_encoded;
use super::{CANARY, skip};

/// A cold machine that builds beside the tests takes its time.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The account of the tests.
pub const ACCOUNT: &str = "acmebackups";

/// Ends the server when its stdin ends, then removes its folder.
const GUARD: &str = r#"
folder=$1
shift
"$@" >"$folder/log" 2>&1 &
server=$!
read -r _
kill "$server" 2>/dev/null
wait "$server"
rm -rf -- "$folder"
"#;

static SHARED: OnceLock<Option<Azurite>> = OnceLock::new();

/// Returns the shared server, or tells why there is none (the test then returns).
pub fn azurite() -> Option<&'static Azurite> {
    let shared = SHARED.get_or_init(|| Azurite::start(&[])).as_ref();
    if shared.is_none() {
        skip("Azurite is not installed (`scripts/test` installs it)");
    }
    shared
}

/// A running server.
pub struct Azurite {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where the certificate of its authority lies, if it speaks TLS.
    pub authority: Option<PathBuf>,
    guard: Child,
    certificates: Option<TempDir>,
}

impl Azurite {
    /// Starts a server with further flags.
    pub fn start(flags: &[&str]) -> Option<Self> {
        let program = program()?;
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let folder = tempfile::Builder::new()
            .prefix("pgkeep-azurite-")
            .tempdir()
            .unwrap()
            .keep();
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&folder)
            .arg(program)
            .args([
                "--inMemoryPersistence",
                "--skipApiVersionCheck",
                "--silent",
                "--disableTelemetry",
            ])
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            .args(flags)
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", account_key()))
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh can be started");
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(address).is_err() {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(
                guard.try_wait().unwrap().is_none() && Instant::now() < deadline,
                "Azurite did not start: {log}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Some(Self {
            address,
            authority: None,
            guard,
            certificates: None,
        })
    }

    /// Starts a server that speaks TLS and takes bearer tokens, as Azurite does over TLS alone; it checks whom and how long they are
    /// for, and no signature.
    pub fn with_logins() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        program()?;
        certify(folder.path());
        let (cert, key) = (path("cert.pem"), path("key.pem"));
        let flags = ["--oauth", "basic", "--cert", &cert, "--key", &key];
        let mut server = Self::start(&flags)?;
        server.authority = Some(folder.path().join("ca.pem"));
        server.certificates = Some(folder);
        Some(server)
    }

    /// Returns the address of the account.
    pub fn endpoint(&self) -> String {
        let scheme = self.authority.as_ref().map_or("http", |_| "https");
        format!("{scheme}://{}/{ACCOUNT}", self.address)
    }

    /// Returns a name that no other test has; no container is made.
    pub fn name(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!("backups-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        drop(self.certificates.take());
    }
}

/// Returns the account's key: the canary, as Azure writes keys.
pub fn account_key() -> String {
    base64(CANARY.as_bytes())
}

/// A container of the shared server, signed for as its owner.
pub struct Container {
    server: SocketAddr,
    is_encrypted: bool,
    /// Its name.
    pub name: String,
}

impl Container {
    /// Makes one on a server.
    pub fn make(server: &Azurite) -> Self {
        let container = Self {
            server: server.address,
            is_encrypted: server.authority.is_some(),
            name: server.name(),
        };
        let answer = container.send("PUT", "", "restype=container", &[]);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        container
    }

    /// Puts a blob there, with headers such as those of its metadata, in the order of their names.
    pub fn put(&self, key: &str, headers: &[(&str, &str)]) {
        let all = [&[("x-ms-blob-type", "BlockBlob")], headers].concat();
        let answer = self.send("PUT", &format!("/{key}"), "", &all);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// Takes the whole container away.
    pub fn remove(&self) {
        let answer = self.send("DELETE", "", "restype=container", &[]);
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }

    /// Returns a SAS token with permissions such as `rl`, until a time.
    /// <https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas>
    pub fn sas(&self, permissions: &str, until: &str) -> String {
        const VERSION: &str = "2023-11-03";
        let resource = format!("/blob/{ACCOUNT}/{}", self.name);
        let fields = [permissions, "", until, &resource, "", "", "", VERSION, "c"];
        let signed = format!("{}{}", fields.join("\n"), "\n".repeat(7));
        let signature = percent_encoded(&sign(&signed));
        format!(
            "sv={VERSION}&se={}&sr=c&sp={permissions}&sig={signature}",
            percent_encoded(until)
        )
    }

    /// Sends a request without a body, and returns the whole answer.
    fn send(&self, method: &str, path: &str, query: &str, headers: &[(&str, &str)]) -> String {
        let date = jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&jiff::Timestamp::now())
            .unwrap();
        let common = [("x-ms-date", date.as_str()), ("x-ms-version", "2023-11-03")];
        let mut all: Vec<_> = headers.iter().chain(&common).collect();
        all.sort();
        let path = format!("/{ACCOUNT}/{}{path}", self.name);
        let lines = |separator: &str| -> String {
            all.iter()
                .map(|(name, value)| format!("{name}:{value}{separator}"))
                .collect()
        };
        let resource = match query.split_once('=') {
            Some((name, value)) => format!("/{ACCOUNT}{path}\n{name}:{value}"),
            None => format!("/{ACCOUNT}{path}"),
        };
        let signature = sign(&format!(
            "{method}{}{}{resource}",
            "\n".repeat(12),
            lines("\n")
        ));
        let target = if query.is_empty() {
            path
        } else {
            format!("{path}?{query}")
        };
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n{}authorization: SharedKey \
             {ACCOUNT}:{signature}\r\n\r\n",
            self.server,
            lines("\r\n")
        );
        self.exchange(&request)
    }

    fn exchange(&self, request: &str) -> String {
        let mut answer = Vec::new();
        if self.is_encrypted {
            let mut child = Command::new("openssl")
                .args(["s_client", "-quiet", "-connect", &self.server.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(request.as_bytes()).unwrap();
            let stdout = child.stdout.as_mut().unwrap();
            stdout.read_to_end(&mut answer).unwrap();
            child.wait().unwrap();
        } else {
            let mut socket = TcpStream::connect(self.server).unwrap();
            socket.write_all(request.as_bytes()).unwrap();
            socket.read_to_end(&mut answer).unwrap();
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Returns a token for Azure's storages as Microsoft's login hands it out, which ends in an hour. Nobody signed it.
pub fn token() -> String {
    let now = jiff::Timestamp::now().as_second();
    let claims = serde_json::json!({
        "aud": "https://storage.azure.com", "iss": "https://sts.windows.net/11111111-2222-3333-4444-555555555555/",
        "iat": now - 60, "nbf": now - 60, "exp": now + 3600, "ver": "1.0", "oid": "pgkeep",
    });
    let header = serde_json::json!({ "alg": "RS256", "typ": "JWT" });
    let part = |json: &serde_json::Value| {
        let text = base64(json.to_string().as_bytes());
        text.trim_end_matches('=')
            .replace('+', "-")
            .replace('/', "_")
    };
    format!("{}.{}.c2lnbmVk", part(&header), part(&claims))
}

fn sign(text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(CANARY.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    base64(&mac.finalize().into_bytes())
}

/// Encodes bytes as RFC 4648 says, to the last group.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let length = group.len();
        [18, 12, 6, 0]
            .into_iter()
            .enumerate()
            .map(move |(at, shift)| {
                if at <= length {
                    char::from(DIGITS[(bits >> shift & 63) as usize])
                } else {
                    '='
                }
            })
    };
    bytes.chunks(3).flat_map(group).collect()
}

fn program() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_pgkeep")).ancestors().nth(2)?;
    let program = target.join("tools/azurite/node_modules/.bin/azurite-blob");
    program.is_file().then_some(program)
}
