//! A bucket as storage: the suite over a real server, then every fault of the network and the store that it can script.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use pgkeep_storage::{CredentialSource, Credentials, Error, S3, S3Options, Storage};
use secrecy::SecretString;

use super::{LARGE, conforms, eventually, keys, patience, pattern, read, store, upload};
use crate::support::s3::S3Server;
use crate::support::scripted_s3::{Fault, Rule, ScriptedS3};

fn options(server: &S3Server) -> S3Options {
    S3Options {
        cloud: patience(&server.endpoint),
        region: Some("eu-west-1".to_owned()),
        credentials: Credentials::Keys {
            access_key_id: server.access_key.clone(),
            secret_access_key: server.secret_key.clone().into(),
            session_token: None,
        },
        ..S3Options::default()
    }
}

fn open(server: &S3Server) -> S3 {
    S3::open(&server.bucket, "pg/prod", &options(server)).unwrap()
}

/// Opens a storage that takes less than a second's silence for a stall.
fn open_impatient(server: &S3Server) -> S3 {
    let mut options = options(server);
    options.cloud.stall_timeout = Duration::from_millis(700);
    S3::open(&server.bucket, "pg/prod", &options).unwrap()
}

/// Asserts that nothing is visible and nobody pays for parts.
fn assert_clean(server: &S3Server) {
    assert_eq!(server.keys(), [""; 0]);
    assert_eq!(server.unfinished(), 0);
}

#[tokio::test]
async fn s3_conforms_and_leaves_nothing() {
    let server = S3Server::start();
    conforms(&open(&server)).await;
    assert_eq!(server.keys(), [""; 0]);
    assert!(eventually(|| server.unfinished() == 0).await);
}

#[tokio::test]
async fn keys_lie_under_the_prefix() {
    let server = S3Server::start();
    let storage = open(&server);
    storage.put("shop/a", "x".into()).await.unwrap();
    assert_eq!(server.keys(), ["pg/prod/shop/a"]);
    std::fs::write(server.bucket_dir().join("pg/prod/shop/not ours"), "x").unwrap();
    std::fs::write(server.bucket_dir().join("pg/elsewhere"), "x").unwrap();
    assert_eq!(keys(&storage, "").await, ["shop/a"]);

    let whole = S3::open(&server.bucket, "", &options(&server)).unwrap();
    assert_eq!(keys(&whole, "").await, ["pg/elsewhere", "pg/prod/shop/a"]);
}

#[tokio::test]
async fn more_keys_than_a_page_holds_are_listed() {
    let server = ScriptedS3::start();
    let folder = server.bucket_dir().join("pg/prod/shop");
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..2_500 {
        std::fs::write(folder.join(format!("{number:04}")), "x").unwrap();
    }
    let listed = keys(&open(&server), "shop/").await;
    let expected: Vec<_> = (0..2_500)
        .map(|number| format!("shop/{number:04}"))
        .collect();
    assert_eq!(listed, expected);
    assert_eq!(server.count("GET", "list-type"), 3);
}

#[tokio::test]
async fn objects_below_one_part_are_one_put() {
    let server = ScriptedS3::start();
    store(&open(&server), "a", &pattern(1000)).await.unwrap();
    assert_eq!(server.count("PUT", ""), 1);
    assert_eq!(server.count("POST", ""), 0);
}

#[tokio::test]
async fn parts_are_equal_where_the_size_was_right() {
    let server = ScriptedS3::start();
    let mut automatic = options(&server);
    automatic.cloud.part_size_bytes = None;
    // A slow machine may send a part twice; what counts is how many there are.
    let parts = || {
        let log = server.log();
        let queries = log
            .iter()
            .map(|seen| seen.query.clone())
            .filter(|query| query.contains("partNumber="));
        queries.collect::<std::collections::BTreeSet<_>>().len()
    };
    let storage = S3::open(&server.bucket, "", &automatic).unwrap();
    store(&storage, "a", &pattern(LARGE)).await.unwrap();
    assert_eq!(parts(), 2, "7 MiB and the rest");
    let fixed = open(&server);
    store(&fixed, "a", &pattern(LARGE)).await.unwrap();
    assert_eq!(parts(), 2 + 3, "5, 5 and the rest");
}

#[tokio::test]
async fn p7_a_busy_store_is_given_the_time_it_asks_for() {
    let server = ScriptedS3::start();
    let busy = Fault::status(503, "SlowDown").header("retry-after", "1");
    server.on(Rule::new("PUT", busy).query("partNumber=2").times(2));
    let (storage, bytes, start) = (open(&server), pattern(LARGE), Instant::now());
    store(&storage, "a", &bytes).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(server.count("PUT", "partNumber=2"), 3);
    assert!(read(&storage, "a", None).await.unwrap() == bytes);
}

#[tokio::test]
async fn p7_patience_ends_and_nothing_is_left() {
    for (status, code) in [
        (500, "InternalError"),
        (502, ""),
        (503, "SlowDown"),
        (429, ""),
    ] {
        let server = ScriptedS3::start();
        server.on(Rule::new("PUT", Fault::status(status, code)).query("partNumber=2"));
        let storage = open(&server);
        let failed = store(&storage, "a", &pattern(LARGE)).await.unwrap_err();
        assert!(matches!(failed, Error::Failed { .. }), "{failed}");
        assert!(failed.to_string().contains(&status.to_string()), "{failed}");
        assert!(server.count("PUT", "partNumber=2") >= 3);
        assert_clean(&server);
    }
}

#[tokio::test]
async fn p7_every_verb_survives_one_refusal() {
    let server = ScriptedS3::start();
    let storage = open(&server);
    let once = |method| server.on(Rule::new(method, Fault::status(500, "")).times(1));
    once("HEAD");
    once("PUT");
    storage.put("a", "x".into()).await.unwrap();
    once("GET");
    assert_eq!(storage.get("a", 9).await.unwrap(), "x");
    once("GET");
    assert_eq!(keys(&storage, "").await, ["a"]);
    once("POST");
    store(&storage, "b", &pattern(LARGE)).await.unwrap();
    once("DELETE");
    storage.remove("a").await.unwrap();
    assert_eq!(server.keys(), ["pg/prod/b"]);
}

#[tokio::test]
async fn p8_a_hung_request_is_ended_and_sent_again() {
    let server = ScriptedS3::start();
    server.on(Rule::new("PUT", Fault::Hang).query("partNumber=1").times(1));
    let (storage, bytes) = (open_impatient(&server), pattern(LARGE));
    store(&storage, "a", &bytes).await.unwrap();
    assert_eq!(server.count("PUT", "partNumber=1"), 2);
    assert!(read(&storage, "a", None).await.unwrap() == bytes);
}

#[tokio::test]
async fn p8_a_trickling_answer_is_no_progress() {
    let server = ScriptedS3::start();
    let (storage, bytes) = (open_impatient(&server), pattern(100_000));
    storage.put("a", bytes.clone()).await.unwrap();
    server.on(Rule::new("GET", Fault::SlowAnswer(50)).times(1));
    let start = Instant::now();
    assert!(read(&storage, "a", None).await.unwrap() == bytes);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(server.count("GET", ""), 2);

    server.behave();
    server.on(Rule::new("GET", Fault::Hang));
    let failed = storage.get("a", 1 << 20).await.unwrap_err();
    assert!(failed.to_string().contains("no progress"), "{failed}");
}

#[tokio::test]
async fn p8_a_store_that_puts_parts_together_slowly_is_asked_once() {
    let server = ScriptedS3::start();
    let slow = Fault::SlowAnswer(100);
    server.on(Rule::new("POST", slow).query("uploadId=").times(1));
    let (storage, bytes) = (open_impatient(&server), pattern(LARGE));
    let start = Instant::now();
    store(&storage, "a", &bytes).await.unwrap();
    assert!(
        start.elapsed() > Duration::from_millis(700),
        "it was not slow"
    );
    assert_eq!(server.count("POST", "uploadId="), 1);
}

#[tokio::test]
async fn p9_a_cut_part_is_sent_again_whole() {
    let server = ScriptedS3::start();
    let cut = Fault::CutRequest(1_000_000);
    server.on(Rule::new("PUT", cut).query("partNumber=2").times(2));
    let (storage, bytes) = (open(&server), pattern(LARGE));
    store(&storage, "a", &bytes).await.unwrap();
    assert_eq!(server.count("PUT", "partNumber=2"), 3);
    assert!(read(&storage, "a", None).await.unwrap() == bytes);
}

#[tokio::test]
async fn p9_a_cut_download_goes_on_where_it_stopped() {
    let server = ScriptedS3::start();
    let (storage, bytes) = (open(&server), pattern(3_000_000));
    storage.put("a", bytes.clone()).await.unwrap();
    server.on(Rule::new("GET", Fault::CutAnswer(1_000_000)).times(2));
    assert!(read(&storage, "a", None).await.unwrap() == bytes);
    assert_eq!(server.count("GET", ""), 3);

    server.on(Rule::new("GET", Fault::CutAnswer(0)));
    assert!(read(&storage, "a", Some(10..2_000_000)).await.is_err());
}

#[tokio::test]
async fn p10_an_error_in_a_successful_completion_is_an_error() {
    let server = ScriptedS3::start();
    let masked = |code: &str| match Fault::status(200, code) {
        Fault::Answer { body, .. } => Fault::body(body),
        other => other,
    };
    let complete = |code| Rule::new("POST", masked(code)).query("uploadId=");
    server.on(complete("InternalError").times(2));
    let storage = open(&server);
    store(&storage, "a", &pattern(LARGE)).await.unwrap();
    assert_eq!(server.count("POST", "uploadId="), 3);

    server.on(complete("InvalidPart"));
    let failed = store(&storage, "b", &pattern(LARGE)).await.unwrap_err();
    assert!(failed.to_string().contains("InvalidPart"), "{failed}");
    assert_eq!(server.keys(), ["pg/prod/a"]);
    assert_eq!(server.unfinished(), 0);
}

#[tokio::test]
async fn p10_a_completion_whose_answer_got_lost_is_done() {
    for lost in [Fault::LoseAnswer, Fault::CutAnswer(10)] {
        let server = ScriptedS3::start();
        server.on(Rule::new("POST", lost).query("uploadId=").times(1));
        let (storage, bytes) = (open(&server), pattern(LARGE));
        assert_eq!(store(&storage, "a", &bytes).await.unwrap(), LARGE as u64);
        assert!(read(&storage, "a", None).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn a_put_whose_answer_got_lost_is_done() {
    let server = ScriptedS3::start();
    server.on(Rule::new("PUT", Fault::LoseAnswer).times(1));
    open(&server).put("a", "x".into()).await.unwrap();
    assert_eq!(server.count("PUT", ""), 2);
    assert_eq!(server.keys(), ["pg/prod/a"]);
}

#[tokio::test]
async fn p11_what_could_not_be_given_up_is_swept_later() {
    let server = ScriptedS3::start();
    server.on(Rule::new("PUT", Fault::status(400, "Broken")).query("partNumber=2"));
    server.on(Rule::new("DELETE", Fault::status(400, "Broken")).query("uploadId="));
    let storage = open(&server);
    let failed = store(&storage, "shop/a", &pattern(LARGE))
        .await
        .unwrap_err();
    assert!(failed.to_string().contains("writing `shop/a`"), "{failed}");
    assert_eq!(server.keys(), [""; 0]);
    assert_eq!(server.unfinished(), 1);
    server.behave();

    let log = server.log();
    let query = &log
        .iter()
        .find(|seen| seen.method == "DELETE")
        .unwrap()
        .query;
    let id = query
        .split_once("uploadId=")
        .unwrap()
        .1
        .split('&')
        .next()
        .unwrap();
    // The server in the tests cannot list uploads, so the script does; the second is too young, the third foreign.
    let entry = |key: &str, id: &str, at: &str| {
        format!(
            "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{at}</Initiated></Upload>"
        )
    };
    let page = |uploads: &str, more: &str| {
        Fault::body(format!(
            "<?xml version=\"1.0\"?><ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             {more}{uploads}</ListMultipartUploadsResult>"
        ))
    };
    let more = "<IsTruncated>true</IsTruncated><NextKeyMarker>pg/prod/shop/a</NextKeyMarker>\
                <NextUploadIdMarker>m</NextUploadIdMarker>";
    let young = entry("pg/prod/shop/b", "young", "2026-01-02T00:00:00.000Z");
    let foreign = entry("pg/prod/shop/.x", "foreign", "2025-01-01T00:00:00.000Z");
    let first = page(&format!("{young}{foreign}"), more);
    server.on(Rule::new("GET", first).query("uploads").times(1));
    let old = entry("pg/prod/shop/a", id, "2026-01-01T00:00:00.000Z");
    let second = page(&old, "<IsTruncated>false</IsTruncated>");
    server.on(Rule::new("GET", second).query("key-marker=pg%2Fprod%2Fshop%2Fa"));

    let limit: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let swept = storage.sweep("shop/", limit).await.unwrap();
    assert_eq!((swept.removed, swept.warnings), (1, Vec::new()));
    assert_clean(&server);
}

#[tokio::test]
async fn p11_a_store_that_cannot_list_uploads_is_fine() {
    let server = ScriptedS3::start();
    let storage = open(&server);
    let swept = storage.sweep("", Timestamp::now()).await.unwrap();
    assert_eq!((swept.removed, swept.warnings.len()), (0, 0));
    for (status, code, warnings) in [
        (405, "MethodNotAllowed", 0),
        (404, "", 0),
        (501, "NotImplemented", 0),
        (403, "AccessDenied", 1),
    ] {
        server.behave();
        server.on(Rule::new("GET", Fault::status(status, code)).query("uploads"));
        let swept = storage.sweep("", Timestamp::now()).await.unwrap();
        assert_eq!(
            (swept.removed, swept.warnings.len()),
            (0, warnings),
            "{status}"
        );
    }
    server.behave();
    server.on(Rule::new("GET", Fault::status(404, "NoSuchBucket")).query("list-type"));
    assert!(matches!(storage.list("").await, Err(Error::Setup { .. })));
}

#[tokio::test]
async fn p12_a_refusal_is_told_at_once() {
    let server = ScriptedS3::start();
    let storage = open(&server);
    storage.put("there", "x".into()).await.unwrap();
    for method in ["PUT", "GET", "DELETE"] {
        server.behave();
        let before = server.count(method, "");
        server.on(Rule::new(method, Fault::status(403, "AccessDenied")));
        let failed = match method {
            "PUT" => storage.put("new", "x".into()).await.unwrap_err(),
            "GET" => storage.list("").await.unwrap_err(),
            _ => storage.remove("there").await.unwrap_err(),
        };
        assert!(matches!(failed, Error::Denied { .. }), "{method}: {failed}");
        assert!(failed.to_string().contains("AccessDenied"), "{failed}");
        assert_eq!(server.count(method, ""), before + 1, "{method}");
    }
    assert_eq!(server.keys(), ["pg/prod/there"]);
}

#[tokio::test]
async fn p12_who_may_only_write_is_not_stopped_by_the_look_up() {
    let server = ScriptedS3::start();
    server.on(Rule::new("HEAD", Fault::status(403, "")));
    open(&server).put("a", "x".into()).await.unwrap();
    assert_eq!(server.keys(), ["pg/prod/a"]);
}

#[tokio::test]
async fn p13_a_listing_is_whole_or_an_error() {
    let server = ScriptedS3::start();
    let folder = server.bucket_dir().join("pg/prod");
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..1_001 {
        std::fs::write(folder.join(format!("{number:04}")), "x").unwrap();
    }
    let storage = open(&server);
    let page_2 = |fault| Rule::new("GET", fault).query("continuation-token");
    server.on(page_2(Fault::status(500, "")).times(1));
    assert_eq!(storage.list("").await.unwrap().len(), 1_001);

    let empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    let lost = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
    let endless = "<ListBucketResult><IsTruncated>true</IsTruncated>\
                   <NextContinuationToken>t</NextContinuationToken></ListBucketResult>";
    for fault in [
        Fault::status(403, "AccessDenied"),
        Fault::status(500, ""),
        Fault::status(404, ""),
        Fault::status(200, "InternalError"),
        Fault::body(lost),
        Fault::body(endless),
        Fault::body("<html>sign in</html>"),
        Fault::body(""),
        Fault::CutAnswer(20),
    ] {
        server.behave();
        server.on(page_2(fault.clone()));
        let error = storage.list("").await.unwrap_err().to_string();
        assert!(error.starts_with("listing in `s3://"), "{fault:?}: {error}");
    }
    server.behave();
    server.on(page_2(Fault::body(empty)));
    assert_eq!(storage.list("").await.unwrap().len(), 1_000);
}

#[tokio::test]
async fn p14_a_wrong_clock_is_named() {
    let server = ScriptedS3::start();
    let there = Timestamp::now() - SignedDuration::from_mins(125);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&there)
        .unwrap();
    let skewed = Fault::status(403, "RequestTimeTooSkewed").header("date", date);
    server.on(Rule::new("PUT", skewed));
    let failed = open(&server).put("a", "x".into()).await.unwrap_err();
    assert!(matches!(failed, Error::Failed { .. }));
    let text = failed.to_string();
    assert!(
        text.contains("clock is 2h 5m") && text.contains("ahead of"),
        "{text}"
    );
    assert_eq!(server.count("PUT", ""), 1);
    assert_clean(&server);
}

#[tokio::test]
async fn p15_a_truncated_object_is_found_and_taken_away() {
    let server = ScriptedS3::start();
    let truncate = || Fault::Truncate(1_000);
    server.on(Rule::new("POST", truncate()).query("uploadId="));
    server.on(Rule::new("PUT", truncate()).path("small"));
    let storage = open(&server);
    for (key, size) in [("large", LARGE), ("small", 2_000)] {
        let failed = store(&storage, key, &pattern(size)).await.unwrap_err();
        let text = failed.to_string();
        assert!(
            text.contains(&format!("{size} bytes were sent and 1000 are stored")),
            "{text}"
        );
        assert_clean(&server);
    }
    server.behave();
    server.on(Rule::new("HEAD", Fault::ClaimSize(3)).skip(1));
    assert!(store(&storage, "a", &"four".into()).await.is_err());
    assert_clean(&server);
}

#[tokio::test]
async fn p19_a_store_that_ignores_conditions_overwrites_nothing() {
    let server = ScriptedS3::start();
    server.ignore_conditions();
    let storage = open(&server);
    storage.put("a", "first".into()).await.unwrap();
    let again = storage.put("a", "second".into()).await;
    assert!(matches!(again, Err(Error::Exists(_))));
    assert!(matches!(
        store(&storage, "a", &"third".into()).await,
        Err(Error::Exists(_))
    ));
    assert_eq!(storage.get("a", 9).await.unwrap(), "first");
}

#[tokio::test]
async fn p19_a_conflict_is_an_existing_key() {
    for status in [409, 412] {
        let server = ScriptedS3::start();
        server.on(Rule::new("PUT", Fault::status(status, "Conflict")));
        let put = open(&server).put("a", "x".into()).await;
        assert!(matches!(put, Err(Error::Exists(_))), "{put:?}");
        assert_eq!(server.count("PUT", ""), 1);
    }
}

#[tokio::test]
async fn p22_a_store_decides_by_itself_about_versions() {
    let server = ScriptedS3::start();
    let storage = open(&server);
    // One request each, with nothing looked up before.
    let first = storage.create("a", "1".into()).await.unwrap();
    storage.replace("a", "2".into(), &first).await.unwrap();
    assert_eq!((server.count("PUT", ""), server.log().len()), (2, 2));
    for (status, code) in [(501, "NotImplemented"), (405, "MethodNotAllowed")] {
        server.behave();
        server.on(Rule::new("PUT", Fault::status(status, code)));
        let made = storage.create("b", "x".into()).await;
        assert!(matches!(made, Err(Error::Unconditional(_))), "{made:?}");
        let replaced = storage.replace("a", "x".into(), &first).await;
        assert!(matches!(replaced, Err(Error::Unconditional(_))));
    }
    for (status, code) in [
        (404, "NoSuchKey"),
        (409, "ConditionalRequestConflict"),
        (412, "PreconditionFailed"),
    ] {
        server.behave();
        server.on(Rule::new("PUT", Fault::status(status, code)));
        let replaced = storage.replace("a", "x".into(), &first).await;
        assert!(matches!(replaced, Err(Error::Changed(_))), "{replaced:?}");
    }
    server.behave();
    server.on(Rule::new("PUT", Fault::status(403, "AccessDenied")));
    let denied = storage.replace("a", "x".into(), &first).await;
    assert!(matches!(denied, Err(Error::Denied { .. })), "{denied:?}");
    assert_eq!(storage.get("a", 9).await.unwrap(), "2");
}

#[tokio::test]
async fn a_version_whose_answer_got_lost_is_ours() {
    let server = ScriptedS3::start();
    let storage = open(&server);
    server.on(Rule::new("PUT", Fault::LoseAnswer).times(1));
    let first = storage.create("a", "1".into()).await.unwrap();
    server.behave();
    server.on(Rule::new("PUT", Fault::LoseAnswer).times(1));
    let second = storage.replace("a", "2".into(), &first).await.unwrap();
    let (bytes, version) = storage.get_versioned("a", 9).await.unwrap();
    assert_eq!((bytes, version), ("2".into(), second));
    assert_eq!(server.count("PUT", ""), 4, "each of them twice");
}

#[tokio::test]
async fn buckets_differ_by_where_they_are() {
    let (one, two) = (S3Server::start(), S3Server::start());
    let id = |server: &S3Server, prefix: &str| {
        let storage = S3::open(&server.bucket, prefix, &options(server)).unwrap();
        (storage.label().to_owned(), storage.identity())
    };
    assert_eq!(id(&one, "pg"), id(&one, "/pg/"));
    assert_ne!(id(&one, "pg"), id(&one, "pg2"));
    // The same label, and another store.
    assert_eq!(id(&one, "pg").0, id(&two, "pg").0);
    assert_ne!(id(&one, "pg").1, id(&two, "pg").1);
}

#[tokio::test]
async fn p22_a_store_without_conditional_puts_can_be_used() {
    let server = ScriptedS3::start();
    server.on(Rule::new("PUT", Fault::status(501, "NotImplemented")).times(1));
    open(&server).put("a", "x".into()).await.unwrap();
    assert_eq!(server.keys(), ["pg/prod/a"]);
}

#[tokio::test]
async fn p21_redirects_are_not_followed() {
    let elsewhere = ScriptedS3::start();
    let server = ScriptedS3::start();
    let moved = Fault::status(301, "PermanentRedirect")
        .header("location", format!("{}/x", elsewhere.endpoint))
        .header("x-amz-bucket-region", "ap-south-1");
    server.on(Rule::new("PUT", moved.clone()));
    server.on(Rule::new("GET", moved));
    let storage = open(&server);
    for failed in [
        storage.put("a", "x".into()).await.unwrap_err(),
        storage.list("").await.unwrap_err(),
    ] {
        assert!(matches!(failed, Error::Failed { .. }), "{failed}");
        assert!(failed.hint().unwrap().contains("ap-south-1"), "{failed:?}");
    }
    assert_eq!(elsewhere.log(), []);
}

#[tokio::test]
async fn p21_encryption_that_fails_is_not_given_up() {
    let server = ScriptedS3::start();
    let mut encrypted = options(&server);
    encrypted.cloud.endpoint = Some(server.endpoint.replace("http://", "https://"));
    let storage = S3::open(&server.bucket, "", &encrypted).unwrap();
    let failed = storage.put("a", "x".into()).await.unwrap_err();
    let text = failed.to_string();
    assert!(text.contains("plain HTTP was not tried"), "{failed:?}");
    assert_eq!(server.log(), []);

    let mut plain = options(&server);
    plain.cloud.allow_http = false;
    let refused = S3::open(&server.bucket, "", &plain).err().unwrap();
    assert!(matches!(refused, Error::Setup { .. }));
}

#[tokio::test]
async fn p21_an_unknown_authority_is_refused_until_it_is_configured() {
    let Some(server) = TlsServer::start() else {
        crate::support::skip("no openssl here");
        return;
    };
    let anywhere = S3Server::start();
    let mut unknown = options(&anywhere);
    unknown.cloud.allow_http = false;
    unknown.cloud.endpoint = Some(server.endpoint.clone());
    let storage = S3::open("acme", "", &unknown).unwrap();
    let failed = storage.list("").await.unwrap_err();
    assert!(
        failed.to_string().contains("no encrypted connection"),
        "{failed:?}"
    );
    assert!(
        failed.hint().unwrap().contains("ca_certificate"),
        "{failed:?}"
    );

    // It answers with a page of its own, which is no list, but it is trusted enough to be asked.
    let mut known = unknown;
    known.cloud.ca_certificate = Some(server.files.path().join("ca.pem"));
    let storage = S3::open("acme", "", &known).unwrap();
    let failed = storage.list("").await.unwrap_err();
    assert!(failed.to_string().contains("not a list"), "{failed:?}");

    known.cloud.ca_certificate = Some(server.files.path().join("missing.pem"));
    let refused = S3::open("acme", "", &known).err().unwrap();
    assert!(matches!(refused, Error::Setup { .. }), "{refused}");
}

/// An HTTPS server whose certificate is signed by an authority that nobody knows.
struct TlsServer {
    endpoint: String,
    files: tempfile::TempDir,
    child: Child,
}

impl TlsServer {
    /// Starts a server; `None` where openssl is missing.
    fn start() -> Option<Self> {
        let files = tempfile::tempdir().unwrap();
        let openssl = |args: &str| {
            let mut command = Command::new("openssl");
            command.args(args.split(' ')).current_dir(files.path());
            command.stdin(Stdio::null()).stderr(Stdio::null());
            command
        };
        let name = "-newkey rsa:2048 -nodes -batch";
        for step in [
            format!("req -x509 {name} -subj /CN=ca -keyout ca.key -out ca.pem -days 2"),
            format!(
                "req -x509 {name} -subj /CN=leaf -CA ca.pem -CAkey ca.key -keyout leaf.key -out leaf.pem -days 2 \
                 -addext basicConstraints=critical,CA:false -addext subjectAltName=IP:127.0.0.1"
            ),
        ] {
            let status = openssl(&step).status().ok()?;
            assert!(status.success(), "{step}");
        }
        let mut child = openssl("s_server -accept 127.0.0.1:0 -cert leaf.pem -key leaf.key -www")
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        // It says `ACCEPT 127.0.0.1:<port>` once it listens.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut words = lines.map_while(Result::ok);
        let address = words.find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned))?;
        // Its later words go nowhere, but must go.
        std::thread::spawn(move || words.for_each(drop));
        Some(Self {
            endpoint: format!("https://{address}"),
            files,
            child,
        })
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn nobody_there_is_told_with_its_reason() {
    let gone = options(&S3Server::start());
    let storage = S3::open("acme", "", &gone).unwrap();
    let failed = storage.list("").await.unwrap_err();
    assert!(failed.to_string().contains("cannot be reached"), "{failed}");
    assert!(
        failed.to_string().to_lowercase().contains("refused"),
        "{failed}"
    );
}

#[tokio::test]
async fn a_missing_bucket_is_a_matter_of_set_up() {
    let server = ScriptedS3::start();
    server.on(Rule::new("PUT", Fault::status(404, "NoSuchBucket")));
    let failed = open(&server).put("a", "x".into()).await.unwrap_err();
    assert!(matches!(failed, Error::Setup { .. }), "{failed}");
    assert!(failed.to_string().contains("bucket does not exist"));
}

#[tokio::test]
async fn wrong_keys_are_denied_and_not_repeated() {
    let server = S3Server::start();
    let mut wrong = options(&server);
    wrong.credentials = Credentials::Keys {
        access_key_id: server.access_key.clone(),
        secret_access_key: "canary-wrong-secret".into(),
        session_token: None,
    };
    let storage = S3::open(&server.bucket, "", &wrong).unwrap();
    let failed = storage.list("").await.unwrap_err();
    assert!(matches!(failed, Error::Denied { .. }), "{failed}");
    let text = format!("{failed} {failed:?} {wrong:?}");
    assert!(!text.contains("canary"), "{text}");
}

#[derive(Debug)]
struct Printing(Result<String, String>);

#[async_trait]
impl CredentialSource for Printing {
    async fn fetch(&self) -> Result<SecretString, String> {
        self.0.clone().map(SecretString::from)
    }
}

#[tokio::test]
async fn a_credential_command_signs() {
    let server = S3Server::start();
    let storage = |printed| {
        let mut options = options(&server);
        options.credentials = Credentials::Source(Arc::new(Printing(printed)));
        S3::open(&server.bucket, "", &options).unwrap()
    };
    let keys_of = serde_json::json!({
        "Version": 1, "AccessKeyId": server.access_key, "SecretAccessKey": server.secret_key,
    });
    let json = keys_of.to_string();
    let good = storage(Ok(json));
    good.put("a", "x".into()).await.unwrap();
    assert_eq!(keys(&good, "").await, ["a"]);

    let bad = storage(Err("it exited with status 3".to_owned()));
    let failed = bad.put("b", "x".into()).await.unwrap_err();
    assert!(matches!(failed, Error::Denied { .. }), "{failed}");
    assert!(failed.to_string().contains("status 3"), "{failed}");
}

#[tokio::test]
async fn an_upload_dropped_half_way_is_given_up() {
    let server = ScriptedS3::start();
    let dropped = upload(&open(&server), "a", &pattern(LARGE)).await.unwrap();
    assert_eq!(server.unfinished(), 1);
    drop(dropped);
    assert!(eventually(|| server.unfinished() == 0).await);
    assert_clean(&server);
}

#[tokio::test]
async fn p12_an_upload_that_may_not_start_is_denied() {
    let server = ScriptedS3::start();
    server.on(Rule::new("POST", Fault::status(403, "AccessDenied")).query("uploads"));
    let failed = store(&open(&server), "a", &pattern(LARGE)).await;
    assert!(matches!(failed, Err(Error::Denied { .. })));
    assert_eq!(server.count("POST", ""), 1);
    assert_clean(&server);
}
