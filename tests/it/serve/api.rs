//! The API: who may do what, runs and their events, what is stored and taken away.

use serde_json::{Value, json};

use super::{CRON, OPERATE, READ, RESTORE, Shop, TOKENS};
use crate::support::web::send;

/// Each route of the document wants a token, and each that changes something a role: none is missing in this test.
#[test]
fn every_route_wants_a_token_and_each_change_a_role() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&[]);
    let document = serving.get("/api/v1/openapi.json").expect(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut count = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let target = path
            .replace("{database}", "shop")
            .replace("{id}", "shop-20260102T030405Z-7f3a")
            .replace("{table}", "users");
        for method in item.as_object().unwrap().keys() {
            if matches!(method.as_str(), "parameters" | "summary") {
                continue;
            }
            let method = method.to_uppercase();
            let asked = send(serving.port, &method, &target, &[], "");
            if matches!(path.as_str(), "/healthz" | "/readyz") {
                assert_eq!(asked.status, 200, "{method} {path}");
                assert!(asked.text().len() < 10);
                continue;
            }
            count += 1;
            assert_eq!(asked.status, 401, "{method} {path}");
            assert_eq!(asked.headers["www-authenticate"], "Bearer");
            assert_eq!(asked.json()["id"], "token_needed", "{method} {path}");
            let is_change = method != "GET" || path.contains("cron");
            if is_change {
                let refused = serving.ask(&method, &target, READ, "{}");
                assert_eq!(refused.status, 403, "{method} {path}: {}", refused.text());
            }
        }
    }
    assert!(count > 20, "{count} routes");
    for target in [
        "/api/v1/backups/shop-20260102T030405Z-7f3a/download",
        "/api/v1/backups/shop-20260102T030405Z-7f3a/tables/users",
    ] {
        assert_eq!(
            serving.ask("GET", target, OPERATE, "").status,
            403,
            "{target}"
        );
        assert_eq!(
            serving.ask("GET", target, RESTORE, "").status,
            404,
            "{target}"
        );
    }
    let wrong = serving.ask("GET", "/api/v1/databases", "read-read-read-reax", "");
    assert_eq!(wrong.status, 401);
    serving.end().expect(0);
}

/// Guessing ends in 429, and never locks out whoever has the right token.
#[test]
fn guesses_are_slowed_down_and_the_right_token_is_taken() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&[]);
    let guess = || {
        serving
            .ask("GET", "/api/v1/databases", "guess-guess-guess", "")
            .status
    };
    let answers: Vec<u16> = (0..12).map(|_| guess()).collect();
    assert_eq!(answers[..10], [401; 10]);
    assert_eq!(answers[10..], [429; 2]);
    serving.get("/api/v1/databases").expect(200);
    serving.end().expect(0);
}

#[test]
fn a_backup_is_made_told_verified_drilled_pinned_and_taken_away() {
    let Some(shop) = Shop::new("    max_age: 36h\n    retention: {keep_last: 5}\n") else {
        return;
    };
    let serving = shop.serve(&[]);
    let before = serving.get("/api/v1/databases").expect(200).json();
    assert_eq!(before["databases"][0]["freshness"], "stale");
    let id = serving.start("backups");
    let run = serving.wait_for(&id);
    assert_eq!(run["state"], "done", "{run:#}");
    assert_eq!(run["by"], "ci");
    assert_eq!(run["backup_id"], id.as_str());
    assert_eq!(run["report"]["rows"], 1001);
    // What the record tells is the same run, also behind a restart.
    let run = serving.wait_until(&id, |_| {
        let runs = serving.get("/api/v1/runs?database=shop").json();
        runs["runs"][0]["id"] == id.as_str() && runs["runs"][0]["exit_code"] == 0
    });
    assert_eq!(run["exit_code"], 0);
    let began = std::time::Instant::now();
    let listed = loop {
        let listed = serving.get("/api/v1/backups").expect(200);
        if listed.json()["backups"].as_array().unwrap().len() == 1 {
            break listed;
        }
        assert!(began.elapsed() < super::LIMIT, "{}", listed.text());
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let tag = listed.headers["etag"].clone();
    let bearer = format!("Bearer {READ}");
    let headers = [("authorization", bearer.as_str()), ("if-none-match", &tag)];
    let again = send(serving.port, "GET", "/api/v1/backups", &headers, "");
    assert_eq!((again.status, again.body.len()), (304, 0));

    let shown = serving
        .get(&format!("/api/v1/backups/{id}"))
        .expect(200)
        .json();
    assert_eq!(shown["manifest"]["id"], id.as_str());
    let pin = format!("/api/v1/backups/{id}/pin");
    let pinned = serving.ask(
        "PUT",
        &pin,
        OPERATE,
        r#"{"reason": "before <b>the</b> move"}"#,
    );
    assert_eq!(pinned.expect(200).json()["pinned"], true);
    let empty = serving
        .ask("PUT", &pin, OPERATE, r#"{"reason": " "}"#)
        .expect(400);
    assert_eq!(empty.headers["content-type"], "application/problem+json");
    assert_eq!(empty.json()["type"], "urn:pgkeep:reason_needed");
    serving.ask("DELETE", &pin, OPERATE, "").expect(200);

    let asked = serving.ask(
        "GET",
        &format!("/api/v1/backups/{id}/download"),
        RESTORE,
        "",
    );
    let download = asked.expect(200);
    let folder = shop.sandbox.path("backups/shop");
    let stored = std::fs::read(folder.join(format!("{id}.sql.gz"))).unwrap();
    assert!(download.body == stored && !download.is_broken);
    assert_eq!(download.headers["content-length"], stored.len().to_string());
    let target = format!("/api/v1/backups/{id}/download");
    let bearer = format!("Bearer {RESTORE}");
    let tag = download.headers["etag"].as_str();
    let part = |range: &str, if_range: &str| {
        let headers = [
            ("authorization", bearer.as_str()),
            ("range", range),
            ("if-range", if_range),
        ];
        send(serving.port, "GET", &target, &headers, "")
    };
    let size = stored.len();
    for (range, expected) in [
        ("bytes=0-9", 0..10),
        ("bytes=100-", 100..size),
        ("bytes=-5", size - 5..size),
    ] {
        let answer = part(range, tag).expect(206);
        assert!(answer.body == stored[expected.clone()] && !answer.is_broken);
        let said = format!("bytes {}-{}/{size}", expected.start, expected.end - 1);
        assert_eq!(answer.headers["content-range"], said);
    }
    let beyond = part(&format!("bytes={size}-"), tag).expect(416);
    assert_eq!(beyond.headers["content-range"], format!("bytes */{size}"));
    assert_eq!(part("bytes=1-", "\"another\"").expect(200).body, stored);
    let table = format!("/api/v1/backups/{id}/tables/users?format=csv");
    let rows = serving.ask("GET", &table, RESTORE, "").expect(200);
    assert!(
        rows.text().starts_with("id,name\r\n1,user 1\r\n"),
        "{}",
        &rows.text()[..40]
    );
    assert_eq!(rows.text().lines().count(), 1001);
    assert_eq!(
        serving
            .ask("GET", &table.replace("csv", "xls"), RESTORE, "")
            .status,
        400
    );

    let verified = serving.wait_for(&serving.start("verifications"));
    assert_eq!(verified["state"], "done", "{verified:#}");
    let drilled = serving.wait_for(&serving.start("drills"));
    assert_eq!(drilled["state"], "done", "{drilled:#}");
    let plan = serving
        .ask("GET", "/api/v1/databases/shop/prune", OPERATE, "")
        .expect(200);
    assert_eq!(
        plan.json()["databases"][0]["dry_run"],
        true,
        "{}",
        plan.text()
    );
    let sizes = serving
        .get("/api/v1/databases/shop/sizes")
        .expect(200)
        .json();
    assert_eq!(sizes[0]["rows"], 1001);
    serving.get("/api/v1/databases/blog").expect(404);

    let metrics = serving.get("/metrics").expect(200).text();
    for line in [
        r#"pgkeep_fresh{database="shop"} 1.0"#,
        r#"pgkeep_backup_rows{database="shop"} 1001.0"#,
        r#"pgkeep_backup_last_exit_code{database="shop"} 0.0"#,
        r#"pgkeep_backups{database="shop",storage="local"} 1.0"#,
        r#"pgkeep_storage_up{storage="local"} 1.0"#,
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line}\n{metrics}"
        );
    }
    assert!(!metrics.contains(&id), "a series for each backup");
    serving.end().expect(0);

    // Who did it stands in the record; another process tells all of it again.
    let bytes = std::fs::read(folder.join(format!("runs/{id}.json"))).unwrap();
    let record: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        (&record["by"], &record["trigger"]),
        (&json!("ci"), &json!("manual"))
    );
    let serving = shop.serve(&["--watch"]);
    let run = serving
        .get(&format!("/api/v1/runs/{id}"))
        .expect(200)
        .json();
    assert_eq!((&run["state"], &run["by"]), (&json!("done"), &json!("ci")));
    let refused = serving.ask(
        "POST",
        "/api/v1/backups",
        OPERATE,
        r#"{"database": "shop"}"#,
    );
    assert_eq!(refused.status, 403, "it only watches");
    serving.end().expect(0);
}

/// A damaged copy breaks the connection off before its last bytes.
#[test]
fn a_damaged_download_has_no_clean_end() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&[]);
    let id = serving.start("backups");
    serving.wait_for(&id);
    let path = shop.sandbox.path(format!("backups/shop/{id}.sql.gz"));
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let download = serving.ask(
        "GET",
        &format!("/api/v1/backups/{id}/download"),
        RESTORE,
        "",
    );
    assert!(download.is_broken || download.status >= 400, "{download:?}");
    assert!(download.body.len() < bytes.len());
    serving.end().expect(0);
}

/// Events replay the present state, tell of the steps, and end with `done`.
#[test]
fn events_tell_of_a_run_to_its_end() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&[]);
    let id = serving.start("backups");
    let events = serving
        .get(&format!("/api/v1/runs/{id}/events"))
        .expect(200);
    assert_eq!(events.headers["content-type"], "text/event-stream");
    assert_eq!(events.headers["x-accel-buffering"], "no");
    let text = events.text();
    let data = text
        .lines()
        .find_map(|line| line.strip_prefix("data: "))
        .unwrap();
    let first: Value = serde_json::from_str(data).unwrap();
    assert_eq!(first["id"], id.as_str());
    assert!(
        text.contains("event: progress") && text.contains("retry: "),
        "{text}"
    );
    let last = text.trim().rsplit("\n\n").next().unwrap();
    assert!(
        last.contains("event: done") && last.contains(r#""state":"done""#),
        "{last}"
    );
    serving
        .get("/api/v1/runs/shop-20260102T030405Z-7f3a/events")
        .expect(404);
    serving.end().expect(0);
}

/// Ten calls at once are one run, and a key is the same request also behind a restart. `HEAD` starts nothing.
#[test]
fn what_is_asked_twice_is_done_once() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&[]);
    let bearer = format!("Bearer {CRON}");
    let headers = [("authorization", bearer.as_str())];
    let port = serving.port;
    let head = send(port, "HEAD", "/api/v1/cron/shop", &headers, "");
    assert_eq!(head.status, 204);
    assert_eq!(serving.get("/api/v1/runs").json()["runs"], json!([]));
    let calls: Vec<_> = (0..10)
        .map(|at| {
            let (bearer, method) = (bearer.clone(), if at % 2 == 0 { "GET" } else { "POST" });
            std::thread::spawn(move || {
                let headers = [("authorization", bearer.as_str())];
                let body = if method == "GET" { "" } else { "{\"x\": 1}" };
                let answer = send(port, method, "/api/v1/cron/shop", &headers, body);
                assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
                answer.json()["id"].as_str().unwrap().to_owned()
            })
        })
        .collect();
    let mut ids: Vec<String> = calls.into_iter().map(|call| call.join().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    serving.wait_for(&ids[0]);
    // Within `min_interval` the last one is told.
    let again = send(port, "GET", "/api/v1/cron/shop", &headers, "").expect(200);
    assert_eq!(again.json()["id"], ids[0].as_str());
    for (target, body) in [
        (format!("/api/v1/cron/shop?secret={CRON}"), String::new()),
        (
            "/api/v1/cron/shop".to_owned(),
            format!(r#"{{"secret": "{CRON}"}}"#),
        ),
    ] {
        assert_eq!(
            send(port, "POST", &target, &[], body).status,
            401,
            "not allowed to stand there"
        );
    }

    let bearer = format!("Bearer {OPERATE}");
    let keyed = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("idempotency-key", "deploy-7"),
        ("x-request-id", "deploy-7"),
    ];
    let body = r#"{"database": "shop"}"#;
    // Who waits is told the end.
    let answer = send(port, "POST", "/api/v1/backups?wait=60s", &keyed, body).expect(202);
    assert_eq!(answer.headers["x-request-id"], "deploy-7");
    let first = answer.json();
    assert_eq!(first["state"], "done");
    let second = send(port, "POST", "/api/v1/backups", &keyed, body)
        .expect(200)
        .json();
    assert_eq!(first["id"], second["id"]);
    // A verification of another backup is another one, and a key stands for one request.
    let target = "/api/v1/verifications?wait=60s";
    let latest = send(port, "POST", target, &keyed, body).expect(202).json();
    assert_eq!(latest["state"], "done");
    let other = format!(r#"{{"database": "shop", "backup": "{}"}}"#, ids[0]);
    let reused = send(port, "POST", target, &keyed, &*other).expect(422);
    assert_eq!(reused.json()["id"], "request_key_reused");
    serving.end().expect(0);
    let serving = shop.serve(&[]);
    for bad in ["", "d\u{e9}ploy"] {
        let keyed = [&keyed[..2], &[("idempotency-key", bad)]].concat();
        let refused = send(port, "POST", "/api/v1/backups", &keyed, body).expect(400);
        assert!(refused.text().contains("Idempotency-Key"));
    }
    let third = send(port, "POST", "/api/v1/backups", &keyed, body)
        .expect(200)
        .json();
    assert_eq!(first["id"], third["id"]);
    assert_eq!(
        serving.get("/api/v1/runs").json()["runs"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    serving.end().expect(0);
}

/// The secret stands in the address or the body where somebody allowed that, and in no log line.
#[test]
fn a_secret_in_the_address_is_allowed_by_name_and_never_logged() {
    let allowed = TOKENS.replace(
        "min_interval: 1h",
        "allow_query_secret: true, allow_body_secret: true",
    );
    let Some(shop) = Shop::with("", &allowed) else {
        return;
    };
    let serving = shop.serve(&["-vvv"]);
    let target = format!("/api/v1/cron/shop?secret={CRON}");
    let id = send(serving.port, "GET", &target, &[], "")
        .expect(202)
        .json()["id"]
        .clone();
    serving.wait_for(id.as_str().unwrap());
    let body = format!(r#"{{"secret": "{CRON}", "action": "list"}}"#);
    send(serving.port, "POST", "/api/v1/cron/shop", &[], body).expect(200);
    send(
        serving.port,
        "GET",
        "/api/v1/cron/shop?secret=wrong",
        &[],
        "",
    )
    .expect(401);
    let outcome = serving.end().expect(0);
    for secret in [CRON, READ, OPERATE, RESTORE] {
        assert!(!outcome.stderr().contains(secret), "{secret} is in the log");
    }
}

/// A browser sends cookies and other headers along by itself: the cron route takes a token or the secret alone.
#[test]
fn the_cron_route_takes_no_session_and_no_other_header() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&[]);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let body = format!("token={OPERATE}");
    let signed_in = send(serving.port, "POST", "/login", &[form], body).expect(303);
    let cookie = signed_in.headers["set-cookie"].split(';').next().unwrap();
    let basic = format!("Basic {OPERATE}");
    let wrong = "Bearer operate-operate-operatf";
    for method in ["GET", "POST"] {
        for authorization in [None, Some(basic.as_str()), Some(wrong)] {
            let mut headers = vec![("cookie", cookie), ("sec-fetch-site", "cross-site")];
            headers.extend(authorization.map(|value| ("authorization", value)));
            let answer = send(serving.port, method, "/api/v1/cron/shop", &headers, "");
            assert_eq!(answer.status, 401, "{method} {authorization:?}");
        }
    }
    assert_eq!(serving.get("/api/v1/runs").json()["runs"], json!([]));
    // Wrong secrets count as wrong tokens do: two were sent.
    let guess = || serving.ask("GET", "/api/v1/cron/shop", "guess-guess-guess", "");
    let answers: Vec<u16> = (0..9).map(|_| guess().status).collect();
    assert_eq!((answers[7], answers[8]), (401, 429), "{answers:?}");
    serving
        .ask("HEAD", "/api/v1/cron/shop", OPERATE, "")
        .expect(204);
    let outcome = serving.end().expect(0);
    let log = outcome.stderr();
    assert!(
        !log.contains("guess-guess") && !log.contains("operatf"),
        "{log}"
    );
}

/// A page of somebody else's cannot make a browser ask, by a cookie or by a name that points here.
#[test]
fn another_site_makes_nobody_ask() {
    let Some(shop) = Shop::with("", "") else {
        return;
    };
    let serving = shop.serve(&[]);
    let json = ("content-type", "application/json");
    let body = r#"{"database": "shop"}"#;
    let post = |headers: &[(&str, &str)]| {
        send(
            serving.port,
            "POST",
            "/api/v1/backups",
            &[&[json], headers].concat(),
            body,
        )
        .status
    };
    assert_eq!(post(&[("sec-fetch-site", "cross-site")]), 403);
    assert_eq!(post(&[("origin", "https://evil.example")]), 403);
    assert_eq!(post(&[("host", "evil.example")]), 403);
    assert_eq!(
        post(&[("sec-fetch-site", "same-origin")]),
        202,
        "without tokens, this machine may"
    );
    let denied = send(
        serving.port,
        "GET",
        "/api/v1/backups/shop-20260102T030405Z-7f3a/download",
        &[],
        "",
    );
    assert_eq!(denied.status, 403, "without tokens nobody takes data away");
    for headers in [
        &[][..],
        &[("authorization", "Basic abc")],
        &[("authorization", "Bearer abc")],
    ] {
        for method in ["GET", "POST"] {
            let answer = send(serving.port, method, "/api/v1/cron/shop", headers, "");
            assert_eq!(answer.status, 401, "{method} {headers:?}");
        }
    }
    serving.end().expect(0);
}
