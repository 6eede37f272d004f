//! Notices as people get them: real mail and HTTP servers, those that are down or slow, and what a run makes of it.

mod mail;

use std::fs;

use hmac::{Hmac, KeyInit, Mac};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::backup::Shop;
use crate::prune::{nights, stocked};
use crate::support::receiver::{Receiver, Reply};
use crate::support::sandbox::{Outcome, Run};
use crate::support::secret::{assert_absent, percent_encoded};
use crate::support::{CANARY, Sandbox, postgres};

/// A shop with a configuration in its folder.
struct Told {
    shop: Shop,
}

impl Told {
    fn new(notify: &Value) -> Self {
        Self::of(Shop::new(), notify)
    }

    /// Lets a shop tell what `notify` says; addresses with the canary in them come by the environment.
    fn of(mut shop: Shop, notify: &Value) -> Self {
        shop.sandbox.set("CANARY", CANARY);
        shop.sandbox.set("TOKEN", percent_encoded(CANARY));
        configure(
            &shop.sandbox,
            &json!({"shop": {"url": "${DATABASE_URL}"}}),
            notify,
        );
        Self { shop }
    }

    /// Excuses the script of the fakes, which is to say what the program prints.
    fn may_print_secret(&self) {
        let script = self.shop.fake.bin().join("fake.json");
        self.shop.sandbox.may_hold_secret(&script);
    }

    fn pgkeep(&self, arguments: &[&str]) -> Run<'_> {
        self.shop.sandbox.pgkeep(arguments)
    }

    fn backup(&self) -> Run<'_> {
        let bin = self.shop.fake.bin().display().to_string();
        self.pgkeep(&["--json", "backup", "--attempts", "1", "--bin-dir", &bin])
    }

    /// Returns the newest run record.
    fn record(&self) -> Value {
        let folder = self.shop.folder().join("shop/runs");
        let files = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let read = |path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
        let mut all: Vec<Value> = files.map(read).collect();
        all.sort_by_key(|record| record["started_at"].to_string());
        all.pop().unwrap()
    }
}

fn configure(sandbox: &Sandbox, databases: &Value, notify: &Value) {
    let config = json!({
        "databases": databases,
        "storages": {"local": {"url": "backups"}},
        "notify": notify,
    });
    sandbox.write("pgkeep.yaml", config.to_string());
}

/// One of each, at one receiver; the canary stands in each address.
fn everybody(receiver: &Receiver, on: &Value) -> Value {
    let at = |way: &str| format!("{}/{way}/${{TOKEN}}", receiver.address);
    json!([
        {"slack": {"url": at("slack"), "on": on}},
        {"discord": {"url": at("discord"), "on": on}},
        {"webhook": {"url": at("webhook"), "on": on, "secret": "${CANARY}", "headers": {"Authorization": "Bearer ${TOKEN}"}}},
        {"ping": {"url": at("ping")}},
    ])
}

fn backup_of(outcome: &Outcome) -> Value {
    outcome.summary()["backups"][0].clone()
}

#[test]
fn d1_a_failure_is_told_to_everybody_with_its_last_words() {
    let receiver = Receiver::start();
    let mut told = Told::new(&everybody(&receiver, &json!("failure")));
    told.may_print_secret();
    let words = format!("pg_dump: error: <!channel> @everyone ``` said {CANARY}");
    told.shop
        .dumps(json!({ "exit_code": 1, "last_stderr": words }));
    let outcome = told.backup().run().expect(20);
    let backup = backup_of(&outcome);
    assert_eq!(backup["stage"], "dump", "{backup}");
    let delivered = backup["notices"].as_array().unwrap();
    assert_eq!(delivered.len(), 4, "{backup}");
    assert!(
        delivered.iter().all(|one| one["delivered"] == true),
        "{backup}"
    );
    for request in receiver.of("") {
        assert_absent(CANARY, "a notice", &request.body);
    }

    let slack = receiver.only("/slack/").json();
    let subject = slack["text"].as_str().unwrap();
    assert!(
        subject.starts_with("pgkeep: shop: backup FAILED: "),
        "{subject}"
    );
    assert!(subject.ends_with("; nothing was stored"), "{subject}");
    let whole = slack.to_string();
    assert!(
        whole.contains("&lt;!channel&gt;") && !whole.contains("<!channel>"),
        "{whole}"
    );

    let discord = receiver.only("/discord/").json();
    assert_eq!(discord["allowed_mentions"], json!({"parse": []}));
    let description = discord["embeds"][0]["description"].as_str().unwrap();
    assert!(description.contains("said ***"), "{description}");

    let webhook = receiver.only("/webhook/");
    assert_eq!(
        webhook.headers["authorization"],
        format!("Bearer {}", percent_encoded(CANARY))
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(CANARY.as_bytes()).unwrap();
    mac.update(webhook.headers["pgkeep-timestamp"].as_bytes());
    mac.update(b".");
    mac.update(&webhook.body);
    let hex: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(webhook.headers["pgkeep-signature"], format!("sha256={hex}"));
    let document = webhook.json();
    let record = told.record();
    for (key, expected) in [
        ("event", json!("failure")),
        ("outcome", json!("failed")),
        ("verb", json!("backup")),
        ("database", json!("shop")),
        ("stage", json!("dump")),
        ("exit_code", record["exit_code"].clone()),
        ("subject", slack["text"].clone()),
    ] {
        assert_eq!(document[key], expected, "{key}: {document}");
    }
    assert_eq!(document["failure"]["id"], record["failure_id"]);
    assert_eq!(outcome.exit_error()["id"], record["failure_id"]);

    assert_eq!(receiver.only("/start").body, b"");
    let fail = receiver.only("/fail");
    assert_eq!(fail.method, "POST");
    assert!(
        fail.text().contains("@everyone ``` said ***"),
        "{}",
        fail.text()
    );
}

#[test]
fn success_is_told_to_those_who_asked() {
    let receiver = Receiver::start();
    let at = |way: &str| format!("{}/{way}", receiver.address);
    let told = Told::new(&json!([
        {"slack": {"url": at("quiet")}},
        {"webhook": {"url": at("hook"), "on": ["success"]}},
        {"discord": {"url": at("other"), "on": "success", "databases": ["shop"]}},
        {"ping": {"url": at("hc/{database}?create=1")}},
        {"ping": {"url": at("plain"), "style": "plain", "start_url": at("begin")}},
    ]));
    let outcome = told.backup().run().expect(0);
    let backup = backup_of(&outcome);
    assert!(receiver.of("/quiet").is_empty());
    assert_eq!(receiver.of("/other").len(), 1);
    let document = receiver.only("/hook").json();
    for key in [
        "backup_id",
        "size_bytes",
        "rows",
        "tables",
        "dump_bytes",
        "took_ms",
    ] {
        assert_eq!(document[key], backup[key], "{key}");
    }
    assert_eq!(
        (&document["event"], &document["outcome"]),
        (&json!("success"), &json!("good"))
    );
    assert_eq!(document["storages"][0]["stored"], true);
    assert_eq!(receiver.of("/hc/shop/start?create=1").len(), 1);
    assert_eq!(receiver.of("/hc/shop?create=1").len(), 1);
    assert_eq!(receiver.only("/plain").method, "GET");
    assert_eq!(receiver.only("/begin").method, "GET");
    assert!(told.record().get("undelivered").is_none());

    // A run that leaves tables out tells people, and keeps no dead-man ping quiet.
    receiver.forget();
    let bin = told.shop.fake.bin().display().to_string();
    let partial = [
        "--json",
        "backup",
        "--bin-dir",
        &bin,
        "--exclude-table",
        "orders",
    ];
    told.pgkeep(&partial).run().expect(0);
    assert_eq!(receiver.only("/hook").json()["is_partial"], true);
    assert!(receiver.of("/hc/").is_empty() && receiver.of("/plain").is_empty());
}

/// Whatever a notifier does, the backup is good, the others hear of it, and code 0 becomes 3.
#[test]
fn l12_a_notifier_that_is_down_is_a_warning() {
    for (reply, requests, words) in [
        (
            Reply::Status(500, "no `service`"),
            2,
            "500 Internal Server Error and said `no 'service'`",
        ),
        (Reply::Status(429, ""), 2, "429 Too Many Requests"),
        (
            Reply::Status(404, "no_team"),
            1,
            "404 Not Found and said `no_team`",
        ),
        (
            Reply::Redirect("http://127.0.0.1:1/stolen".into()),
            1,
            "no redirect is followed",
        ),
        (Reply::Hang, 1, "did not answer within 9 s"),
    ] {
        let receiver = Receiver::start();
        receiver.on("/slack/", usize::MAX, reply.clone());
        let told = Told::new(&everybody(&receiver, &json!(["failure", "success"])));
        let outcome = told.backup().run().expect(3);
        assert_eq!(outcome.exit_error()["id"], "notice_failed", "{outcome}");
        let backup = backup_of(&outcome);
        assert_eq!(backup["stored"], true);
        assert_eq!(receiver.of("/slack/").len(), requests, "{reply:?}");
        assert_eq!(receiver.of("/webhook/").len(), 1, "{reply:?}");
        let error = backup["notices"][0]["error"].as_str().unwrap();
        assert!(error.contains(words), "{reply:?}: {error}");
        let record = told.record();
        assert_eq!(record["exit_code"], 3);
        assert!(
            record["undelivered"][0].as_str().unwrap().contains(words),
            "{record}"
        );
        assert!(
            backup["warnings"]
                .to_string()
                .contains("the notice to slack was not delivered")
        );
    }
}

#[test]
fn l12_what_passes_is_tried_once_more_and_what_failed_stays_failed() {
    let receiver = Receiver::start();
    receiver.on("/slack/", 1, Reply::Status(503, ""));
    let mut told = Told::new(&everybody(&receiver, &json!(["failure", "success"])));
    told.backup().run().expect(0);
    assert_eq!(receiver.of("/slack/").len(), 2);

    // A ping of the start that hangs is given up in front of the ping of the end, and no reason to alarm anybody.
    receiver.forget();
    receiver.on("/start", 1, Reply::Hang);
    told.backup().run().expect(0);
    assert_eq!(receiver.of("/ping/").len(), 2);

    // An unknown ping is answered with 200 by its service.
    receiver.on("/ping/", usize::MAX, Reply::Status(200, "OK (not found)"));
    let outcome = told.backup().run().expect(3);
    assert!(
        outcome.exit_error()["message"]
            .as_str()
            .unwrap()
            .contains("OK (not found)")
    );

    // Nobody there: the run that fails keeps its own code.
    let nobody = json!([{"slack": {"url": "http://127.0.0.1:1/${TOKEN}"}}]);
    configure(
        &told.shop.sandbox,
        &json!({"shop": {"url": "${DATABASE_URL}"}}),
        &nobody,
    );
    told.shop.dumps(json!({ "exit_code": 1 }));
    let outcome = told.backup().run().expect(20);
    let error = backup_of(&outcome)["notices"][0]["error"].clone();
    assert!(
        error.as_str().unwrap().contains("cannot be reached"),
        "{error}"
    );
    assert_eq!(told.record()["undelivered"].as_array().unwrap().len(), 1);
}

/// Row L1: a signal while a notice hangs ends the run as one, and the backup stays.
#[test]
fn l1_a_signal_while_it_tells() {
    let receiver = Receiver::start();
    receiver.on("/slack/", usize::MAX, Reply::Hang);
    let told = Told::new(&everybody(&receiver, &json!("success")));
    let running = told.backup().start();
    receiver.wait_for("/slack/");
    running.signal(Signal::TERM);
    let outcome = running.wait().expect(143);
    let backup = backup_of(&outcome);
    assert_eq!(backup["stored"], true, "{outcome}");
    let record = told.record();
    assert_eq!(
        (&record["exit_code"], &record["backup_id"]),
        (&json!(143), &backup["backup_id"])
    );
    told.pgkeep(&["verify"]).run().expect(0);
}

/// A run that a signal ends is told as the failure it is.
#[test]
fn l1_a_stopped_run_is_told() {
    let receiver = Receiver::start();
    let mut told = Told::new(&everybody(&receiver, &json!("failure")));
    let mark = told.shop.sandbox.path("reached");
    let stop = json!({ "bytes": 10, "marks": mark, "sleeps_ms": 60_000 });
    told.shop
        .dumps(json!({ "one_line_bytes": 1000, "stops_after": stop }));
    let running = told.backup().start();
    running.wait_for_file(&mark);
    running.signal(Signal::INT);
    running.wait().expect(130);
    let document = receiver.only("/webhook/").json();
    assert_eq!(
        (&document["exit_code"], &document["failure"]["id"]),
        (&json!(130), &json!("interrupted"))
    );
    assert_eq!(receiver.of("/fail").len(), 1);
}

#[test]
fn each_database_has_a_notice_of_its_own() {
    let receiver = Receiver::start();
    let at = |way: &str| format!("{}/{way}", receiver.address);
    let told = Told::new(&json!([
        {"webhook": {"url": at("all"), "on": ["failure", "success"]}},
        {"webhook": {"url": at("one"), "on": ["failure", "success"], "databases": "crm"}},
        {"ping": {"url": at("hc/{database}")}},
    ]));
    let databases = json!({
        "shop": {"url": "${DATABASE_URL}", "required_tables": ["nowhere"]},
        "crm": {"url": "${DATABASE_URL}"},
    });
    let config = fs::read(told.shop.sandbox.path("pgkeep.yaml")).unwrap();
    let notify: Value = serde_json::from_slice(&config).unwrap();
    configure(&told.shop.sandbox, &databases, &notify["notify"]);
    told.backup().run().expect(21);
    let mut names: Vec<String> = receiver
        .of("/all")
        .iter()
        .map(|request| request.json()["subject"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(
        names[1].starts_with("pgkeep: shop: backup FAILED: "),
        "{names:?}"
    );
    assert!(
        names[0].starts_with("pgkeep: crm: backup good: "),
        "{names:?}"
    );
    assert_eq!(receiver.only("/one").json()["database"], "crm");
    assert_eq!(receiver.of("/hc/shop/fail").len(), 1);
    assert_eq!(receiver.of("/hc/crm").len(), 2);
}

#[test]
fn status_tells_of_what_is_stale() {
    let receiver = Receiver::start();
    let hook = format!("{}/hook", receiver.address);
    let told = Told::of(
        stocked(&nights()),
        &json!([{"webhook": {"url": hook, "on": "stale"}}]),
    );
    let status = |more: &[&str]| told.pgkeep(&[&["--json", "status"], more].concat()).run();
    status(&["--notify", "--max-age", "200000h"]).expect(0);
    status(&["--notify", "--max-age", "9999d"]).expect(0);
    assert!(receiver.of("/hook").is_empty(), "what is fresh is not told");
    let outcome = status(&["--max-age", "26h"]).expect(24);
    assert!(receiver.of("/hook").is_empty(), "nobody asked");
    let document = outcome.json()["databases"][0].clone();

    status(&["--notify", "--max-age", "26h"]).expect(24);
    let notice = receiver.only("/hook").json();
    assert_eq!(
        (&notice["event"], &notice["exit_code"]),
        (&json!("stale"), &json!(24))
    );
    assert_eq!(notice["backup_id"], document["newest_good"]["id"]);
    let subject = notice["subject"].as_str().unwrap();
    assert!(subject.contains("the limit is 26 h"), "{subject}");

    // A notifier that is down changes nothing about the code.
    receiver.on("/hook", usize::MAX, Reply::Status(400, ""));
    let outcome = status(&["--notify", "--max-age", "26h"]).expect(24);
    assert!(outcome.stderr().contains("was not delivered"), "{outcome}");

    // Where the storage is gone nobody can tell, and that is told.
    receiver.forget();
    fs::rename(told.shop.folder(), told.shop.sandbox.path("gone")).unwrap();
    fs::write(told.shop.folder(), "no folder").unwrap();
    let outcome = status(&["--notify", "--max-age", "26h"]);
    assert_ne!(outcome.code(), 0);
    let notice = receiver.only("/hook").json();
    assert_eq!(notice["exit_code"], outcome.code(), "{notice}");

    configure(
        &told.shop.sandbox,
        &json!({"shop": {"url": "${DATABASE_URL}"}}),
        &json!([{"slack": {"url": "https://hooks.example/x"}}]),
    );
    assert_eq!(
        status(&["--notify"]).expect(2).exit_error()["id"],
        "nobody_to_tell"
    );
}

#[test]
fn verify_tells_of_damage() {
    let receiver = Receiver::start();
    let told = Told::new(&everybody(&receiver, &json!("failure")));
    let backup = backup_of(&told.backup().run().expect(0));
    told.pgkeep(&["verify"]).run().expect(0);
    assert!(receiver.of("/webhook/").is_empty());
    let id = backup["backup_id"].as_str().unwrap();
    let file = told.shop.folder().join(format!("shop/{id}.sql.gz"));
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    receiver.forget();
    told.pgkeep(&["verify"]).run().expect(23);
    let notice = receiver.only("/webhook/").json();
    assert_eq!(
        (&notice["verb"], &notice["backup_id"]),
        (&json!("verify"), &json!(id))
    );
    assert!(
        notice["subject"]
            .as_str()
            .unwrap()
            .contains("verify found DAMAGE")
    );
    assert!(
        receiver.of("/ping/").is_empty(),
        "a ping hears of backups alone"
    );
}

#[test]
fn a_real_drill_and_a_real_restore_are_told() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    database.sql(
        "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 5)",
    );
    let receiver = Receiver::start();
    let hook = format!("{}/hook", receiver.address);
    let mut sandbox = Sandbox::new();
    sandbox.set("SHOP_URL", database.socket_url());
    let notify = json!([{"webhook": {"url": hook, "on": ["drill", "restore"]}}]);
    configure(&sandbox, &json!({"shop": {"url": "${SHOP_URL}"}}), &notify);
    sandbox.pgkeep(["backup"]).run().expect(0);
    assert!(receiver.of("/hook").is_empty());

    sandbox.pgkeep(["drill"]).run().expect(0);
    let notice = receiver.only("/hook").json();
    assert_eq!(
        (&notice["event"], &notice["database"]),
        (&json!("drill"), &json!("shop"))
    );
    assert_eq!((&notice["rows"], &notice["tables"]), (&json!(5), &json!(1)));

    receiver.forget();
    let database = server.database();
    let target = database.name();
    sandbox
        .pgkeep(["restore", "latest", "--into", target, "--allow-superuser"])
        .run()
        .expect(0);
    let notice = receiver.only("/hook").json();
    assert_eq!(
        (&notice["event"], &notice["outcome"]),
        (&json!("restore"), &json!("good"))
    );

    // One table of it, too.
    receiver.forget();
    let one = ["restore", "latest", "--into", target, "--table", "users"];
    let more = ["--allow-superuser", "--schema-map", "public=aside"];
    sandbox.pgkeep(one.iter().chain(&more)).run().expect(0);
    let notice = receiver.only("/hook").json();
    assert_eq!(
        (&notice["event"], &notice["rows"]),
        (&json!("restore"), &json!(5))
    );

    // The same again is refused, and that is told, too; a notice that does not arrive changes no other code.
    receiver.forget();
    sandbox
        .pgkeep(["restore", "latest", "--into", target, "--allow-superuser"])
        .run()
        .expect(25);
    assert_eq!(receiver.only("/hook").json()["exit_code"], 25);
    receiver.on("/hook", usize::MAX, Reply::Status(400, ""));
    sandbox
        .pgkeep(["restore", "latest", "--into", target, "--allow-superuser"])
        .run()
        .expect(25);
    let outcome = sandbox.pgkeep(["--json", "drill"]).run().expect(3);
    assert_eq!(outcome.summary()["passed"], true, "{outcome}");
}

#[test]
fn the_effective_config_shows_no_address() {
    let receiver = Receiver::start();
    let told = Told::new(&everybody(&receiver, &json!("failure")));
    let shown = told.pgkeep(&["config", "show"]).run().expect(0);
    assert!(
        shown
            .stdout()
            .contains(&format!("{}/***", receiver.address)),
        "{shown}"
    );
    let json = told
        .pgkeep(&["--json", "config", "show"])
        .run()
        .expect(0)
        .json();
    assert_eq!(
        json["notify"][2]["webhook"]["headers"]["Authorization"],
        "***"
    );
}
