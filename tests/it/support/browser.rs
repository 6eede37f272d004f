//! A real Chromium, driven over the WebDriver protocol by its own driver.

use std::fmt::Debug;
use std::future::Future;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use url::{ParseError, Url};

use super::postgres::free_port;
use super::skip;

/// How long anything on a page may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(45);

/// A driver and the window that it has.
pub struct Browser {
    driver: Child,
    profile: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    client: Option<Client>,
}

/// What the protocol has no word for: a command of Chromium's own.
#[derive(Debug)]
struct Own {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Own {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        let session = session.unwrap_or_default();
        base.join(&format!("session/{session}/{}", self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// Starts a browser; none after telling why.
pub fn browser() -> Option<Browser> {
    let found = (which::which("chromedriver"), which::which("chromium"));
    let (Ok(driver), Ok(chromium)) = found else {
        skip(
            "Chromium and its driver are not installed (`PGKEEP_TEST_BROWSER=yes scripts/test` installs them)",
        );
        return None;
    };
    Some(Browser::start(driver, chromium))
}

impl Browser {
    fn start(driver: PathBuf, chromium: PathBuf) -> Self {
        let port = free_port();
        let profile = tempfile::tempdir().unwrap();
        let driver = Command::new(driver)
            .arg(format!("--port={port}"))
            .env("TMPDIR", profile.path())
            .env("HOME", profile.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < LIMIT, "the driver never listened");
            std::thread::sleep(Duration::from_millis(50));
        }
        // As root Chromium has no sandbox; the rest keeps it from asking the world.
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1200,900",
        ];
        let folder = format!(
            "--user-data-dir={}",
            profile.path().join("profile").display()
        );
        let all: Vec<&str> = arguments.into_iter().chain([folder.as_str()]).collect();
        let options = json!({
            "goog:chromeOptions": {"binary": chromium, "args": all},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let wanted: Map<String, Value> = options.as_object().unwrap().clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(wanted);
        let client = runtime.block_on(builder.connect(&format!("http://127.0.0.1:{port}")));
        Self {
            driver,
            profile,
            runtime,
            client: Some(client.unwrap()),
        }
    }

    /// Carries out what is asked of the window.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    #[track_caller]
    pub fn go(&self, address: &str) {
        self.run(self.client().goto(address)).unwrap();
    }

    /// Returns what stands on the page, as people see it.
    pub fn text(&self) -> String {
        let text = self.script("return document.body.innerText");
        text.as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn script(&self, script: &str) -> Value {
        self.run(self.client().execute(script, Vec::new())).unwrap()
    }

    /// Waits until a text stands on the page.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.wait_until(&format!("`{text}`"), || self.text().contains(text));
    }

    #[track_caller]
    pub fn wait_until(&self, what: &str, is_it: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_it() {
            assert!(
                began.elapsed() < LIMIT,
                "{what} never came:\n{}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses what is found by a selector.
    #[track_caller]
    pub fn press(&self, selector: &str) {
        let found = self.run(
            self.client()
                .wait()
                .at_most(LIMIT)
                .for_element(Locator::Css(selector)),
        );
        self.run(found.unwrap().click()).unwrap();
    }

    /// Presses the button or link that says this.
    #[track_caller]
    pub fn press_text(&self, text: &str) {
        let path = format!("//*[self::a or self::button][normalize-space()='{text}']");
        let found = self.run(
            self.client()
                .wait()
                .at_most(LIMIT)
                .for_element(Locator::XPath(&path)),
        );
        self.run(found.unwrap().click()).unwrap();
    }

    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        let found = self
            .run(self.client().find(Locator::Css(selector)))
            .unwrap();
        self.run(found.send_keys(text)).unwrap();
    }

    /// Carries out a command of the DevTools protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: Value) {
        let body = json!({"cmd": command, "params": parameters});
        let own = Own {
            path: "goog/cdp/execute",
            body,
        };
        self.run(self.client().issue_cmd(own)).unwrap();
    }

    /// Returns what the console said since it was asked last.
    #[track_caller]
    pub fn console(&self) -> Vec<String> {
        let own = Own {
            path: "se/log",
            body: json!({"type": "browser"}),
        };
        let told = self.run(self.client().issue_cmd(own)).unwrap();
        let lines = told.as_array().unwrap().iter();
        lines.map(|line| line["message"].to_string()).collect()
    }

    /// Fails where the console told of anything: a violation of the policy, a script that broke, a file that is not there.
    #[track_caller]
    pub fn assert_silent(&self) {
        assert_eq!(self.console(), [""; 0]);
    }

    /// Tells whether the page is wider than its window.
    pub fn is_too_wide(&self) -> bool {
        self.script("return document.documentElement.scrollWidth > window.innerWidth") == true
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            let _ = self.runtime.block_on(client.close());
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        // What Chromium still writes must not stop the folder from going.
        std::thread::sleep(Duration::from_millis(100));
        let _ = std::fs::remove_dir_all(self.profile.path());
    }
}
