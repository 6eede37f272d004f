//! The page in a real browser: signing in, looking, starting runs, on a phone, in the dark, without script.

use serde_json::json;

use super::{RESTORE, Serving, Shop};
use crate::support::browser::{Browser, browser};

/// A shop with a schedule and a policy, its server, and a browser that is signed in.
struct Session<'a> {
    serving: Serving<'a>,
    browser: Browser,
}

const KEYS: &str = "    max_age: 36h\n    schedule: '15 3 1 1 *'\n    catch_up: 1m\n    timezone: Europe/Berlin\n    \
                    retention: {keep_last: 3}\n    drill: {recovery_target: 15m}\n";

impl<'a> Session<'a> {
    fn start(shop: &'a Shop, browser: Browser, flags: &[&str]) -> Self {
        let session = Self {
            serving: shop.serve(flags),
            browser,
        };
        session.go("/login");
        session.browser.fill("input[name=token]", RESTORE);
        session.browser.press_text("Sign in");
        session.browser.wait_for("shop");
        session
    }

    fn go(&self, path: &str) {
        let address = format!("http://127.0.0.1:{}{path}", self.serving.port);
        self.browser.go(&address);
    }

    fn end(self) {
        drop(self.browser);
        self.serving.end().expect(0);
    }
}

#[test]
fn from_the_sign_in_to_a_backup_a_drill_and_the_calendar() {
    let Some(shop) = Shop::new(KEYS) else { return };
    let Some(browser) = browser() else { return };
    let session = Session::start(&shop, browser, &[]);
    let page = &session.browser;
    page.wait_for("no good backup");
    page.press_text("shop");
    page.wait_for("Could I restore now?");
    page.press_text("Back up now");
    // The run's page follows its events, and loads itself when it ended. A reload changes nothing.
    page.run(page.client().refresh()).unwrap();
    page.wait_for("It went well.");
    assert!(page.text().contains("by me"), "{}", page.text());
    session.go("/databases/shop");
    page.wait_until("the backup", || {
        page.run(page.client().refresh()).unwrap();
        page.text().contains("Could I restore now? Yes") || page.text().contains("1 backup")
    });
    page.press_text("Drill now");
    page.wait_for("It went well.");
    page.press_text("What was restored and compared");
    page.wait_for("users");
    session.go("/databases/shop/calendar");
    page.wait_for("last 1 of 3");
    session.go("/databases/shop/restore");
    page.wait_for("gunzip");
    session.go("/databases/shop/history");
    page.wait_for("drill");
    page.assert_silent();

    // A backup: its tables by name, whatever they are called, and a table to take away.
    let listed = session.serving.get("/api/v1/backups").expect(200).json();
    let id = listed["backups"][0]["id"].as_str().unwrap().to_owned();
    session.go(&format!("/backups/{id}"));
    page.wait_for("<b>x</b>");
    assert_eq!(
        page.script("return document.querySelectorAll('main b').length"),
        0
    );
    let got = page.script(
        "return (async () => { const link = document.querySelector('a[href*=\"users\"][href$=\"csv\"]'); \
         const answer = await fetch(link.href); return [answer.status, (await answer.text()).split('\\n').length]; })()",
    );
    assert_eq!(got, json!([200, 1002]));
    page.fill("input[name=reason]", "before <i>the</i> move");
    page.press_text("Pin");
    page.wait_for("before <i>the</i> move (by me)");
    page.assert_silent();
    page.press_text("Sign out");
    page.wait_for("Token");
    session.go("/");
    page.wait_for("Token");
    session.end();
}

#[test]
fn it_fits_a_phone_and_the_dark_and_keeps_what_is_open() {
    let Some(shop) = Shop::new(KEYS) else { return };
    let Some(browser) = browser() else { return };
    let session = Session::start(&shop, browser, &[]);
    let page = &session.browser;
    let id = session.serving.start("backups");
    session.serving.wait_for(&id);
    let backup = format!("/backups/{id}");
    let run = format!("/runs/{id}");
    let all = [
        "/",
        "/databases/shop",
        "/databases/shop/history",
        "/databases/shop/calendar",
        "/databases/shop/restore",
        &backup,
        &run,
        "/wall",
    ];
    std::thread::sleep(std::time::Duration::from_secs(2));
    let phone = json!({"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": true});
    page.devtools("Emulation.setDeviceMetricsOverride", phone);
    for path in all {
        session.go(path);
        page.wait_for("shop");
        assert!(!page.is_too_wide(), "{path} is wider than a phone");
    }
    page.devtools("Emulation.clearDeviceMetricsOverride", json!({}));
    let colour = "return getComputedStyle(document.body).color";
    session.go("/");
    let light = page.script(colour);
    let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    page.devtools("Emulation.setEmulatedMedia", dark);
    assert_ne!(page.script(colour), light, "the dark is as light");

    // What somebody opened stays open when the page refreshes itself.
    session.go("/databases/shop");
    page.script("document.querySelector('main details[id]').open = true; document.querySelector('main').dataset.old = 'yes'");
    page.wait_until("a refresh", || {
        page.script("return document.querySelector('main').dataset.old || ''") == ""
    });
    assert_eq!(
        page.script("return document.querySelector('main details[id]').open"),
        true
    );
    page.assert_silent();
    session.end();
}

#[test]
fn everything_works_without_script() {
    let Some(shop) = Shop::new(KEYS) else { return };
    let Some(browser) = browser() else { return };
    let serving = shop.serve(&["--base-path", "/b"]);
    browser.devtools(
        "Emulation.setScriptExecutionDisabled",
        json!({"value": true}),
    );
    browser.go(&format!("http://127.0.0.1:{}/b/", serving.port));
    browser.fill("input[name=token]", RESTORE);
    browser.press("button[type=submit]");
    browser.press("a[href$='/databases/shop']");
    browser.press("form[action$='/backup'] button");
    let is_good = || {
        browser
            .run(browser.client().source())
            .unwrap()
            .contains("It went well.")
    };
    let began = std::time::Instant::now();
    while !is_good() {
        assert!(began.elapsed() < crate::support::browser::LIMIT);
        std::thread::sleep(std::time::Duration::from_millis(200));
        browser.run(browser.client().refresh()).unwrap();
    }
    drop(browser);
    serving.end().expect(0);
}
