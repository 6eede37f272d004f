//! What is reported, to whom, and that no name in it reaches further than its own place.

use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::Value;

use super::*;

fn at() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn failed(message: &str, details: &[&str]) -> Notice {
    let mut notice = Notice::new(Event::Failure, Outcome::Failed, "backup", "shop", at());
    notice.exit_code = 20;
    notice.verdict = "FAILED".into();
    notice.stage = Some("dump".into());
    notice.safe = "nothing was stored; earlier backups are unchanged".into();
    notice.next = vec!["install the PostgreSQL 17 client programs".into()];
    notice.failure = Some(Trouble {
        id: "dump_failed".into(),
        message: message.into(),
        details: details.iter().map(|text| (*text).to_owned()).collect(),
        causes: vec!["no such file".into()],
    });
    notice.with_subject(&format!("backup FAILED: {message}"))
}

fn good() -> Notice {
    let mut notice = Notice::new(Event::Success, Outcome::Good, "backup", "shop", at());
    notice.verdict = "stored and proven".into();
    notice.size_bytes = Some(2048);
    notice.dump_bytes = Some(10_240);
    notice.rows = Some(1234);
    notice.tables = Some(7);
    notice.took_ms = Some(61_000);
    notice.storages = vec![Copy {
        name: "local".into(),
        url: "/srv/backups".into(),
        stored: true,
    }];
    notice.with_subject("backup good: 7 tables, 1,234 rows")
}

fn notifier(on: &[Event], databases: &[&str]) -> NotifierConfig {
    NotifierConfig {
        channel: Channel::Slack(HookConfig {
            url: "https://hooks.example/x".into(),
        }),
        on: on.to_vec(),
        databases: databases.iter().map(|name| (*name).to_owned()).collect(),
        ca_certificate: None,
    }
}

#[test]
fn everybody_hears_what_they_asked_for() {
    use Event::{Drill, Failure, Restore, Stale, Success};
    let of = |event, outcome, verb| Notice::new(event, outcome, verb, "shop", at());
    let (bad, but) = (Outcome::Failed, Outcome::GoodBut);
    for (on, notice, is_told) in [
        (Failure, of(Failure, bad, "backup"), true),
        (Failure, of(Failure, but, "backup"), true),
        (Failure, of(Success, Outcome::Good, "backup"), false),
        (Failure, of(Restore, bad, "restore"), true),
        (Failure, of(Drill, bad, "drill"), true),
        (Failure, of(Failure, bad, "verify"), true),
        (Failure, of(Stale, bad, "status"), false),
        (Success, of(Success, Outcome::Good, "backup"), true),
        (Success, of(Failure, but, "backup"), true),
        (Success, of(Failure, bad, "backup"), false),
        (Success, of(Restore, Outcome::Good, "restore"), false),
        (Restore, of(Restore, Outcome::Good, "restore"), true),
        (Restore, of(Restore, bad, "restore"), true),
        (Drill, of(Drill, Outcome::Good, "drill"), true),
        (Stale, of(Stale, bad, "status"), true),
    ] {
        let shown = format!("{on:?} of {notice:?}");
        assert_eq!(notifier(&[on], &[]).wants(&notice), is_told, "{shown}");
        let also_named = notifier(&[on], &["crm", "shop"]).wants(&notice);
        assert_eq!(also_named, is_told, "{shown}");
        assert!(!notifier(&[on], &["crm"]).wants(&notice), "{shown}");
    }
}

#[test]
fn a_ping_hears_of_whole_backups_alone() {
    let mut ping = notifier(&[], &[]);
    ping.channel = Channel::Ping(PingConfig {
        url: "https://hc.example/x".into(),
        style: PingStyle::default(),
        start_url: None,
        failure_url: None,
    });
    assert!(ping.wants(&good()) && ping.wants(&failed("x", &[])));
    let mut partial = good();
    partial.is_partial = true;
    assert!(!ping.wants(&partial));
    let drill = Notice::new(Event::Drill, Outcome::Failed, "drill", "shop", at());
    assert!(!ping.wants(&drill));
    assert_eq!(PingKind::from(&good()), PingKind::Success);
    assert_eq!(PingKind::from(&failed("x", &[])), PingKind::Failure);
    assert_eq!(PingKind::from(&Notice::test(at())), PingKind::Log);
}

#[test]
fn text_tells_all() {
    let text = failed(
        "`pg_dump` exited with status 1",
        &["pg_dump: error: x\nand y"],
    )
    .text();
    let expected = "verdict    FAILED (exit code 20)\ndatabase   shop\nstage      dump\n\
                    at         2026-01-02T03:04:05Z\n\n\
                    why:\n  `pg_dump` exited with status 1\n    pg_dump: error: x\n    and y\n  \
                    caused by: no such file\n\n\
                    safe:\n  nothing was stored; earlier backups are unchanged\n\n\
                    next:\n  install the PostgreSQL 17 client programs\n";
    assert_eq!(text, expected);
    let text = good().text();
    for line in [
        "size       2.0 KiB (10.0 KiB of SQL)",
        "rows       1,234",
        "took       1 min 1 s",
        "stored in  local (/srv/backups)",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(
        good().subject,
        "pgkeep: shop: backup good: 7 tables, 1,234 rows"
    );
}

#[test]
fn names_stay_text() {
    let evil = "`x` ``` @everyone <!channel> <@U1> *b* _i_ [a](http://b) \r\nBcc: a@b.example";
    let notice = failed(evil, &[evil]);
    assert!(!notice.subject.contains(['\r', '\n']), "{}", notice.subject);

    let slack = notice.slack().to_string();
    assert!(!slack.contains('<'), "{slack}");
    assert!(slack.contains("&lt;!channel&gt;"), "{slack}");

    let discord = notice.discord();
    assert_eq!(discord["allowed_mentions"]["parse"], serde_json::json!([]));
    let content = discord["content"].as_str().unwrap();
    assert!(content.contains("\\@everyone \\<!channel\\>"), "{content}");
    let description = discord["embeds"][0]["description"].as_str().unwrap();
    assert_eq!(description.matches("```").count(), 2, "{description}");

    let html = notice.html();
    assert!(
        html.contains("&lt;!channel&gt;") && !html.contains("<!channel"),
        "{html}"
    );
}

#[test]
fn secrets_go_from_every_place() {
    let secret = SecretString::from("hunter2hunter2");
    let told = "x hunter2hunter2 y";
    let mut notice = failed(told, &[told]);
    notice.target = Some(told.into());
    notice.warnings = vec![told.into()];
    notice.next = vec![told.into()];
    notice.storages = vec![Copy {
        name: "s".into(),
        url: told.into(),
        stored: false,
    }];
    notice.failure.as_mut().unwrap().causes = vec![told.into()];
    let notice = notice.redacted(&Redactor::new([&secret]));
    let whole = [
        serde_json::to_string(&notice).unwrap(),
        notice.text(),
        notice.html(),
        notice.slack().to_string(),
        notice.discord().to_string(),
        ping_body(&notice),
    ]
    .concat();
    assert!(!whole.contains("hunter2"), "{whole}");
    assert!(whole.contains("***"));
}

/// Every text of a message with where it stands.
fn texts(value: &Value, path: &str, out: &mut Vec<(String, usize)>) {
    match value {
        Value::String(text) => out.push((path.to_owned(), cut::length(text))),
        Value::Array(items) => items.iter().for_each(|item| texts(item, path, out)),
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| texts(value, &format!("{path}/{key}"), out)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A service refuses a whole message for one part that is too long.
    #[test]
    fn messages_fit_whatever_is_in_them(
        piece in "[a`<&\\\\*@ é😀\n]{1,12}",
        times in 1usize..1500,
        storages in 0usize..40,
    ) {
        let long = piece.repeat(times);
        let mut notice = failed(&long, &[&long, &long]);
        notice.safe.clone_from(&long);
        notice.next = vec![long.clone(), long.clone()];
        notice.warnings = vec![long.clone()];
        notice.target = Some(long.clone());
        notice.storages = (0..storages)
            .map(|n| Copy { name: format!("s{n}"), url: long.clone(), stored: true })
            .collect();
        let notice = notice.with_subject(&long);

        let slack = notice.slack();
        let mut found = Vec::new();
        texts(&slack, "", &mut found);
        for (path, length) in &found {
            let max = if path.ends_with("fields/text") { 2000 } else { 3000 };
            prop_assert!(*length <= max, "{} {}", path, length);
        }
        prop_assert!(slack["blocks"][1]["fields"].as_array().unwrap().len() <= 10);
        prop_assert!(slack["blocks"].as_array().unwrap().len() <= 50);

        let discord = notice.discord();
        let mut found = Vec::new();
        texts(&discord["embeds"], "", &mut found);
        prop_assert!(found.iter().map(|(_, length)| length).sum::<usize>() <= 6000);
        for (path, length) in &found {
            let max = match path.as_str() {
                "/description" => 4096,
                "/fields/name" => 256,
                _ => 1024,
            };
            prop_assert!(*length <= max, "{} {}", path, length);
        }
        prop_assert!(discord["embeds"][0]["fields"].as_array().unwrap().len() <= 25);
        prop_assert!(cut::length(discord["content"].as_str().unwrap()) <= 2000);
        prop_assert!(ping_body(&notice).len() <= 100_000);
        prop_assert!(cut::length(&notice.subject) <= 200);
    }
}
