//! The life of a server: where it listens, how it ends, and what is told of runs that died with it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{OPERATE, READ, Serving, Shop, end_both};
use crate::support::postgres::free_port;
use crate::support::web::send;

#[test]
fn an_address_that_others_reach_needs_tokens() {
    let Some(shop) = Shop::with("", "") else {
        return;
    };
    let run = |flags: &[&str]| {
        shop.sandbox
            .pgkeep([&["--json", "serve"], flags].concat())
            .run()
    };
    let refused = run(&["--listen", "0.0.0.0:0"]).expect(2).exit_error();
    assert_eq!(refused["id"], "tokens_needed");
    let refused = run(&["--listen", "nowhere"]).expect(2).exit_error();
    assert_eq!(refused["id"], "bad_listen");
    for path in ["backups", "//evil.example", "/a//b"] {
        let refused = run(&["--base-path", path]).expect(2).exit_error();
        assert_eq!(refused["id"], "bad_base_path", "{path}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = run(&["--listen", &address]).expect(2).exit_error();
    assert_eq!(refused["id"], "cannot_listen");
    for short in [
        "tokens: [{name: a, token: zzzz}]",
        "cron: {secret: zzzz}",
        "view_key: zzzz",
    ] {
        shop.configure("", &format!("  {short}\n"));
        assert_eq!(
            run(&[]).expect(2).exit_error()["id"],
            "short_token",
            "{short}"
        );
    }
}

#[test]
fn a_base_path_is_before_every_address() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&["--base-path", "/backups/"]);
    serving.get("/backups/api/v1/databases").expect(200);
    serving.get("/backups/healthz").expect(200);
    assert_eq!(serving.get("/api/v1/databases").status, 404);
    serving.end().expect(0);
}

/// With twenty open streams and a run under way it ends in a few seconds, and the run has a record.
#[test]
fn it_ends_soon_with_streams_open_and_the_run_is_recorded() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&[]);
    let held = shop.hold_table();
    let id = serving.start("backups");
    let streams: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", serving.port)).unwrap();
            write!(
                stream,
                "GET /api/v1/runs/{id}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {READ}\r\n\r\n"
            )
            .unwrap();
            let mut first = [0; 15];
            stream.read_exact(&mut first).unwrap();
            assert_eq!(&first, b"HTTP/1.1 200 OK");
            stream
        })
        .collect();
    let began = Instant::now();
    let outcome = serving.end().expect(0);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?} {outcome}");
    drop((streams, held));
    let path = shop.sandbox.path(format!("backups/shop/runs/{id}.json"));
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(
        (&record["exit_code"], &record["by"]),
        (&json!(143), &json!("ci"))
    );
}

/// A client that sends its request a byte at a time, or never, is let go of, and others are answered meanwhile.
#[test]
fn slow_clients_are_let_go_of() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&[]);
    let open = |text: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", serving.port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let began = Instant::now();
    let head = open("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
    let waiting = |path: &str, more: &str| {
        open(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n{more}\r\nt"
        ))
    };
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let login = waiting("/login", form);
    // Nothing is read of who may not ask.
    let no_one = waiting("/api/v1/backups", "");
    let cron = waiting("/api/v1/cron/shop", "");
    let status = |mut stream: TcpStream| {
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer); // it may be reset behind its answer
        answer.split(' ').nth(1).unwrap_or("none").to_owned()
    };
    assert_eq!((status(no_one), status(cron)), ("401".into(), "401".into()));
    assert!(began.elapsed() < Duration::from_secs(5));
    serving.get("/healthz").expect(200);
    assert_eq!(status(login), "408");
    assert!(matches!(status(head).as_str(), "none" | "408"));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    serving.end().expect(0);
}

/// A run that died with its server is told as interrupted, by its lease, and then by a record; a manual one is never
/// made again.
#[test]
fn a_run_that_died_is_interrupted_and_never_running_for_ever() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&[]);
    let held = shop.hold_table();
    let asked = keyed(&serving, "deploy-8", 202);
    let id = asked["id"].as_str().unwrap();
    serving.wait_until(id, |run| {
        run["phase"] == "connecting" || run["phase"] == "dumping"
    });
    serving.kill();
    drop(held);
    let serving = shop.serve(&[]);
    // The same request starts nothing, be it known by now that its run died or not.
    assert_eq!(keyed(&serving, "deploy-8", 200)["id"], id);
    let run = serving.wait_until(id, |run| run["state"] == "interrupted");
    assert_eq!(run["by"], "ci");
    let again = keyed(&serving, "deploy-8", 200);
    assert_eq!(
        (&again["id"], &again["state"]),
        (&json!(id), &json!("interrupted"))
    );
    // The next run takes the lease over, and leaves the record of the one that died.
    let next = serving.start("backups");
    assert_ne!(next, id);
    assert_eq!(serving.wait_for(&next)["state"], "done");
    let path = shop.sandbox.path(format!("backups/shop/runs/{id}.json"));
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(record["failure_id"], "run_interrupted");
    assert_eq!(record["request_key"], "deploy-8");
    let run = serving.wait_until(id, |run| run["exit_code"] == 137);
    assert_eq!(run["state"], "interrupted");
    assert_eq!(keyed(&serving, "deploy-8", 200)["id"], id);
    serving.end().expect(0);
}

/// What another host does is shown by its lease, and joined.
#[test]
fn a_run_of_another_process_is_shown_and_joined() {
    let Some(shop) = Shop::new("") else { return };
    let one = shop.serve(&[]);
    let held = shop.hold_table();
    let asked = keyed(&one, "deploy-9", 202);
    let id = asked["id"].as_str().unwrap().to_owned();
    one.wait_until(&id, |run| {
        run["phase"] == "connecting" || run["phase"] == "dumping"
    });
    let other = shop.serve_on(free_port(), &[]);
    let run = other.wait_until(&id, |run| run["state"] == "running");
    assert!(
        run["phase"]
            .as_str()
            .unwrap()
            .starts_with("under way in process"),
        "{run:#}"
    );
    let body = r#"{"database": "shop"}"#;
    let joined = other
        .ask("POST", "/api/v1/backups", OPERATE, body)
        .expect(200)
        .json();
    assert_eq!(
        (&joined["id"], &joined["joined"]),
        (&json!(id), &json!(true))
    );
    assert_eq!(keyed(&other, "deploy-9", 200)["id"], json!(id));
    drop(held);
    assert_eq!(one.wait_for(&id)["state"], "done");
    end_both(one, other);
}

/// Asks for a backup under a key, and returns the answer.
fn keyed(serving: &Serving<'_>, key: &str, status: u16) -> Value {
    let bearer = format!("Bearer {OPERATE}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("idempotency-key", key),
    ];
    let body = r#"{"database": "shop"}"#;
    let answer = send(serving.port, "POST", "/api/v1/backups", &headers, body);
    answer.expect(status).json()
}

/// A drill whose lease another process took ends at once, as a backup does, and is not noted.
#[test]
fn a_drill_that_loses_its_lease_ends() {
    let keys = "    drill: {assertions: [{name: slow, sql: SELECT count(pg_sleep(60)), expect: at_least 1}]}\n";
    let Some(shop) = Shop::new(keys) else { return };
    let serving = shop.serve(&[]);
    serving.wait_for(&serving.start("backups"));
    let began = Instant::now();
    let id = serving.start("drills");
    serving.wait_until(&id, |run| run["phase"] == "comparing");
    let path = shop.sandbox.path("backups/shop/drill.lease.json");
    let mut lease: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    (lease["holder"], lease["host_name"]) = (json!("another"), json!("db9"));
    std::fs::write(&path, lease.to_string()).unwrap();
    let run = serving.wait_for(&id);
    assert_eq!(run["failure"]["id"], "lock_lost", "{run:#}");
    assert_eq!(
        (&run["state"], &run["exit_code"]),
        (&json!("failed"), &json!(11))
    );
    assert!(
        run["message"].as_str().unwrap().contains("on `db9`"),
        "{run:#}"
    );
    assert!(began.elapsed() < Duration::from_secs(50), "it went on");
    let notes = std::fs::read_dir(shop.sandbox.path("backups/shop")).unwrap();
    let names = notes.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.ends_with(".drill.json")));
    serving.end().expect(0);
}

/// A server whose storages do not answer begins all the same, and says that nothing is known.
#[test]
fn it_begins_without_its_storages() {
    let Some(shop) = Shop::new("") else { return };
    let text = format!(
        "databases:\n  shop: {{url: postgres://app@127.0.0.1:1/shop, max_age: 36h}}\n\
         storages:\n  far: {{url: s3://bucket/x, endpoint: 'http://127.0.0.1:1', region: x, access_key_id: a, \
         secret_access_key: b}}\nserver:\n{}",
        super::TOKENS
    );
    shop.sandbox.write_secret("pgkeep.yaml", text);
    let serving = shop.serve(&[]);
    serving.get("/healthz").expect(200);
    serving.get("/readyz").expect(503);
    let all = serving.get("/api/v1/databases").expect(200).json();
    assert_eq!(all["looked_at"], json!(null));
    assert_eq!(all["databases"][0]["freshness"], "not_judged");
    let page = serving.get("/").expect(200).text();
    assert!(page.contains("It is not known how the databases stand"));
    serving.end().expect(0);
}

/// What it knew of storages that do not answer any more is kept, and doubted on every page.
#[test]
fn it_goes_on_without_its_storages() {
    let Some(shop) = Shop::new("    max_age: 36h\n") else {
        return;
    };
    let serving = shop.serve(&[]);
    let until = |status: u16| {
        let began = Instant::now();
        while serving.get("/readyz").status != status {
            assert!(began.elapsed() < super::LIMIT, "it was never {status}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until(200);
    let id = serving.start("backups");
    assert_eq!(serving.wait_for(&id)["state"], "done");
    let began = Instant::now();
    let known = loop {
        let known = serving.get("/api/v1/databases/shop").expect(200).json();
        if known["status"]["newest_good"]["id"] == id.as_str() {
            break known;
        }
        assert!(began.elapsed() < super::LIMIT, "{known:#}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(
        (&known["failure"], &known["running"]),
        (&json!(null), &json!([]))
    );

    let folder = shop.sandbox.path("backups");
    std::fs::rename(&folder, shop.sandbox.path("away")).unwrap();
    std::fs::write(&folder, "no folder").unwrap();
    let lost = serving.start("backups");
    assert_eq!(serving.wait_for(&lost)["state"], "failed");
    until(503);
    let known = serving.get("/api/v1/databases/shop").expect(200).json();
    assert!(known["failure"]["message"].is_string(), "{known:#}");
    assert_eq!(known["status"]["newest_good"]["id"], id.as_str());
    let page = serving.get("/databases/shop").expect(200).text();
    assert!(page.contains("Not now: no storage answers."), "{page}");
    serving.end().expect(0);
}
