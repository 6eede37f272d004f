//! The page without a browser: who sees it, what its forms do, and that no other site can send them.

use super::{OPERATE, RESTORE, Serving, Shop};
use crate::support::web::{Answer, send};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Signs in with a token, and returns the cookie.
#[track_caller]
fn sign_in(serving: &Serving<'_>, token: &str) -> String {
    let body = format!("token={token}");
    let answer = send(serving.port, "POST", "/login", &[FORM], body).expect(303);
    let cookie = answer.headers["set-cookie"].clone();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    cookie.split(';').next().unwrap().to_owned()
}

fn post(serving: &Serving<'_>, cookie: &str, path: &str, body: &str) -> Answer {
    let headers = [FORM, ("cookie", cookie), ("sec-fetch-site", "same-origin")];
    send(serving.port, "POST", path, &headers, body)
}

#[test]
fn every_page_wants_a_sign_in_and_every_form_its_own_site() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&[]);
    let id = "shop-20260102T030405Z-7f3a";
    // Anyone may sign in and out, and load a style sheet.
    let is_open = |path: &str| matches!(path, "/login" | "/logout" | "/assets/{name}");
    let of = |method: &'static str| {
        let all = pgkeep_serve::PAGE_ROUTES.iter();
        let closed = all.filter(move |(its, path)| *its == method && !is_open(path));
        closed.map(|(_, path)| {
            path.replace("{database}", "shop")
                .replace("{id}", id)
                .replace("{table}", "users")
                .replace("{name}", "shop.svg")
        })
    };
    let more = [
        format!("/diff?a={id}&b={id}"),
        "/wall?key=wrong".to_owned(),
        "/nowhere".to_owned(),
    ];
    let pages: Vec<String> = of("get").chain(more).collect();
    assert!(pages.len() > 14, "{pages:?}");
    for path in &pages {
        let answer = send(serving.port, "GET", path, &[], "");
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.headers["content-security-policy"].starts_with("default-src 'none'"));
    }
    for path in [
        "/wall?key=wall-view-key-of-16",
        "/badge/shop.svg?key=wall-view-key-of-16",
        "/login",
    ] {
        send(serving.port, "GET", path, &[], "").expect(200);
    }
    let forms: Vec<String> = of("post").collect();
    assert!(forms.len() > 6, "{forms:?}");
    let me = sign_in(&serving, RESTORE);
    let wall = sign_in(&serving, super::READ);
    for path in &forms {
        let body = "reason=x&mode=upsert";
        assert_eq!(
            send(serving.port, "POST", path, &[FORM], body).status,
            401,
            "{path}"
        );
        let cross = [
            FORM,
            ("cookie", me.as_str()),
            ("sec-fetch-site", "cross-site"),
        ];
        assert_eq!(
            send(serving.port, "POST", path, &cross, body).status,
            403,
            "{path}"
        );
        assert_eq!(post(&serving, &wall, path, body).status, 403, "{path}");
    }
    let ci = sign_in(&serving, OPERATE);
    for path in &forms {
        let is_restorers = path.ends_with("/accept") || path.ends_with("/restore");
        if is_restorers {
            let refused = post(&serving, &ci, path, "reason=x&mode=upsert");
            assert_eq!(refused.status, 403, "{path}");
        }
    }
    let wrong = send(
        serving.port,
        "POST",
        "/login",
        &[FORM],
        "token=wrong-wrong-wrong",
    );
    assert_eq!(wrong.status, 401);
    for next in [
        "//evil.example/",
        "%2F%09%2Fevil.example",
        "/%5Cevil.example",
    ] {
        let elsewhere = format!("token={RESTORE}&next={next}");
        let sent = send(serving.port, "POST", "/login", &[FORM], elsewhere).expect(303);
        assert_eq!(sent.headers["location"], "/", "{next}");
    }
    let back = format!("token={RESTORE}&next=/databases/shop");
    let sent = send(serving.port, "POST", "/login", &[FORM], back).expect(303);
    assert_eq!(sent.headers["location"], "/databases/shop");
    serving.end().expect(0);
}

/// The key of badges and of the wall view cannot be guessed for long, and the log tells of it without the key.
#[test]
fn guesses_of_the_view_key_are_slowed_down() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&[]);
    let status = |target: &str| send(serving.port, "GET", target, &[], "").status;
    for _ in 0..5 {
        assert_eq!(status("/wall?key=guess-guess-guess"), 401);
        assert_eq!(status("/badge/shop.svg?key=guess-guess-guess"), 401);
    }
    assert_eq!(status("/wall?key=guess-guess-guess"), 429);
    assert_eq!(status("/badge/shop.svg?key=guess-guess-guess"), 429);
    assert_eq!(status("/wall"), 401, "without a key nothing is guessed");
    assert_eq!(status("/wall?key=wall-view-key-of-16"), 200);
    let outcome = serving.end().expect(0);
    let log = outcome.stderr();
    assert!(
        log.contains("127.0.0.1") && log.contains("10 within a minute"),
        "{log}"
    );
    assert!(!log.contains("guess-guess"), "{log}");
}

/// Rows that were lost come back: first it is told how many, and nothing is changed; then they are there, and who did it
/// stands in the record.
#[test]
fn rows_of_a_table_are_put_back_after_a_try() {
    let Some(shop) = Shop::new("") else { return };
    let serving = shop.serve(&[]);
    let id = serving.start("backups");
    serving.wait_for(&id);
    shop.database
        .sql("DELETE FROM users WHERE id <= 100; UPDATE users SET name = 'changed' WHERE id = 500");
    let me = sign_in(&serving, RESTORE);
    let path = format!("/backups/{id}/tables/public.users/restore");
    for mode in ["", "replace", "Append"] {
        let refused = post(&serving, &me, &path, &format!("mode={mode}&confirm=yes"));
        assert!(refused.expect(400).text().contains("append or upsert"));
    }
    let tried = post(&serving, &me, &path, "mode=upsert").expect(200).text();
    let plain: String = tried
        .split('<')
        .filter_map(|part| part.split_once('>'))
        .map(|(_, text)| text)
        .collect();
    assert!(
        plain.contains("rows to add100") && plain.contains("rows to change1"),
        "{plain}"
    );
    assert_eq!(
        shop.database.sql("SELECT count(*) FROM users").trim(),
        "900",
        "it was rolled back"
    );
    let done = post(&serving, &me, &path, "mode=upsert&confirm=yes").expect(303);
    let place = done.headers["location"]
        .rsplit('/')
        .next()
        .unwrap()
        .to_owned();
    let run = serving.wait_for(&place);
    assert_eq!(
        (run["state"].as_str(), run["verb"].as_str()),
        (Some("done"), Some("restore")),
        "{run:#}"
    );
    let found = shop
        .database
        .sql("SELECT count(*), min(name) FROM users WHERE id <= 100 OR id = 500");
    assert_eq!(found.trim(), "101|user 1");
    let path = shop.sandbox.path(format!(
        "backups/shop/runs/{}.json",
        run["id"].as_str().unwrap()
    ));
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(
        (record["by"].as_str(), record["backup_id"].as_str()),
        (Some("me"), Some(id.as_str()))
    );
    serving.end().expect(0);
}
