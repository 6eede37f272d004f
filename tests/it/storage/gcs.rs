//! A bucket of GCS as storage: the suite over a server that speaks its dialect, generations, tokens, and its own words.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use pgkeep_storage::{
    Answer, CredentialSource, Error, Gcs, GcsCredentials, GcsOptions, Lock, Period, Storage,
    Versions,
};
use secrecy::SecretString;
use std::sync::Arc;

use super::{LARGE, conforms, contests, eventually, keys, patience, pattern, read, store};
use crate::support::CANARY;
use crate::support::scripted_s3::{Fault, Rule, ScriptedGcs};

fn options(server: &ScriptedGcs) -> GcsOptions {
    GcsOptions {
        cloud: patience(&server.endpoint),
        credentials: GcsCredentials::Token("t0ken".into()),
    }
}

fn open(server: &ScriptedGcs) -> Gcs {
    Gcs::open(&server.bucket, "pg/prod", &options(server)).unwrap()
}

fn as_whom(server: &ScriptedGcs, credentials: GcsCredentials) -> Gcs {
    let options = GcsOptions {
        credentials,
        ..options(server)
    };
    Gcs::open(&server.bucket, "", &options).unwrap()
}

#[tokio::test]
async fn gcs_conforms_and_leaves_nothing() {
    let server = ScriptedGcs::start();
    let storage = open(&server);
    conforms(&storage).await;
    contests(&storage).await;
    assert_eq!(server.keys(), [""; 0]);
    assert!(eventually(|| server.unfinished() == 0).await);
    let ranges: BTreeSet<String> = server.log().into_iter().map(|seen| seen.range).collect();
    assert!(ranges.len() > 5, "{ranges:?}");
    for range in ranges.iter().filter(|range| !range.is_empty()) {
        let bounds = range
            .strip_prefix("bytes=")
            .unwrap()
            .split_once('-')
            .unwrap();
        assert!(!bounds.0.is_empty() && !bounds.1.is_empty(), "{range}");
    }
}

#[tokio::test]
async fn ten_thousand_keys_are_listed() {
    let server = ScriptedGcs::start();
    let folder = server.bucket_dir().join("pg/prod/shop");
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..10_000 {
        std::fs::write(folder.join(format!("{number:05}")), "x").unwrap();
    }
    let listed = keys(&open(&server), "shop/").await;
    let expected: Vec<_> = (0..10_000)
        .map(|number| format!("shop/{number:05}"))
        .collect();
    assert!(listed == expected, "{} keys", listed.len());
    assert_eq!(server.count("GET", "list-type"), 10);

    let page_7 = |fault| Rule::new("GET", fault).query("continuation-token").skip(5);
    server.on(page_7(Fault::status(500, "")).times(1));
    assert_eq!(open(&server).list("").await.unwrap().len(), 10_000);
    for fault in [
        Fault::status(403, "AccessDenied"),
        Fault::body("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"),
        Fault::CutAnswer(20),
    ] {
        server.behave();
        server.on(page_7(fault));
        open(&server).list("").await.unwrap_err();
    }
}

/// A lease is renewed by what GCS compares: the number of the write, and not the entity tag.
#[tokio::test]
async fn the_same_bytes_have_another_version() {
    let server = ScriptedGcs::start();
    let storage = open(&server);
    let first = storage.create("lease", "same".into()).await.unwrap();
    let second = storage
        .replace("lease", "same".into(), &first)
        .await
        .unwrap();
    assert_ne!(first, second);
    let late = storage.replace("lease", "same".into(), &first).await;
    // Ours by its bytes: an answer that got lost looks like this.
    assert_eq!(late.unwrap(), second);
    let late = storage.replace("lease", "other".into(), &first).await;
    assert!(matches!(late, Err(Error::Changed(_))), "{late:?}");
    assert_eq!(server.count("PUT", ""), 4);
}

#[tokio::test]
async fn an_answer_that_got_lost_is_ours() {
    let server = ScriptedGcs::start();
    let storage = open(&server);
    server.on(Rule::new("PUT", Fault::LoseAnswer).times(1));
    let first = storage.create("a", "1".into()).await.unwrap();
    server.behave();
    server.on(Rule::new("PUT", Fault::LoseAnswer).times(1));
    let second = storage.replace("a", "2".into(), &first).await.unwrap();
    let (bytes, version) = storage.get_versioned("a", 9).await.unwrap();
    assert_eq!((bytes, version), ("2".into(), second));
    for lost in [Fault::LoseAnswer, Fault::CutAnswer(10)] {
        let server = ScriptedGcs::start();
        server.on(Rule::new("POST", lost).query("uploadId=").times(1));
        let (storage, bytes) = (open(&server), pattern(LARGE));
        assert_eq!(store(&storage, "a", &bytes).await.unwrap(), LARGE as u64);
        assert!(read(&storage, "a", None).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn faults_of_the_network_and_the_store_pass() {
    let server = ScriptedGcs::start();
    let busy = Fault::status(503, "ServiceUnavailable").header("retry-after", "1");
    server.on(Rule::new("PUT", busy).query("partNumber=2").times(1));
    server.on(Rule::new("PUT", Fault::CutRequest(1_000_000))
        .query("partNumber=1")
        .times(1));
    // More than one write a second to one object.
    server.on(Rule::new("POST", Fault::status(429, "SlowDown"))
        .query("uploadId=")
        .times(1));
    let (storage, bytes, start) = (open(&server), pattern(LARGE), Instant::now());
    store(&storage, "a", &bytes).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    server.on(Rule::new("GET", Fault::CutAnswer(1_000_000)).times(2));
    assert!(read(&storage, "a", None).await.unwrap() == bytes);

    let mut impatient = options(&server);
    impatient.cloud.stall_timeout = Duration::from_millis(700);
    let impatient = Gcs::open(&server.bucket, "pg/prod", &impatient).unwrap();
    server.on(Rule::new("PUT", Fault::Hang).query("partNumber=1").times(1));
    store(&impatient, "b", &bytes).await.unwrap();

    server.behave();
    server.on(Rule::new("PUT", Fault::status(500, "InternalError")).query("partNumber=2"));
    let failed = store(&storage, "c", &bytes).await.unwrap_err();
    assert!(matches!(failed, Error::Failed { .. }), "{failed}");
    assert_eq!(server.keys(), ["pg/prod/a", "pg/prod/b"]);
    assert_eq!(server.unfinished(), 0);
}

#[tokio::test]
async fn refusals_are_told_with_what_to_do() {
    let server = ScriptedGcs::start();
    let storage = open(&server);
    storage.put("there", "x".into()).await.unwrap();
    for (status, code, words, hint) in [
        (
            403,
            "AccessDenied",
            "AccessDenied",
            "roles/storage.objectUser",
        ),
        (401, "AuthenticationRequired", "401", "new token"),
        (403, "RetentionPolicyNotMet", "it is retained", "retention"),
        (403, "ObjectUnderActiveHold", "it is retained", "hold"),
    ] {
        server.behave();
        server.on(Rule::new("DELETE", Fault::status(status, code)));
        let before = server.count("DELETE", "");
        let failed = storage.remove("there").await.unwrap_err();
        let is_retained = matches!(failed, Error::Retained { .. });
        assert_eq!(is_retained, words == "it is retained", "{failed:?}");
        assert!(failed.to_string().contains(words), "{failed}");
        assert!(failed.hint().unwrap().contains(hint), "{failed:?}");
        assert_eq!(server.count("DELETE", ""), before + 1);
    }
    server.behave();
    server.on(Rule::new("PUT", Fault::status(404, "NoSuchBucket")));
    let failed = storage.put("a", "x".into()).await.unwrap_err();
    assert!(matches!(failed, Error::Setup { .. }), "{failed}");
    // A lease that may not be overwritten was not changed by anybody.
    server.behave();
    server.on(Rule::new(
        "PUT",
        Fault::status(403, "RetentionPolicyNotMet"),
    ));
    let (_, version) = storage.get_versioned("there", 9).await.unwrap();
    let failed = storage
        .replace("there", "y".into(), &version)
        .await
        .unwrap_err();
    assert!(failed.to_string().contains("it is retained"), "{failed}");
    server.behave();
    for status in [409, 412] {
        server.on(Rule::new("PUT", Fault::status(status, "PreconditionFailed")).times(1));
        let put = storage.put("new", "x".into()).await;
        assert!(matches!(put, Err(Error::Exists(_))), "{put:?}");
    }
}

#[tokio::test]
async fn uploads_that_nobody_finished_are_swept() {
    let server = ScriptedGcs::start();
    let storage = open(&server);
    server.on(Rule::new("PUT", Fault::status(400, "Broken")).query("partNumber=2"));
    server.on(Rule::new("DELETE", Fault::status(400, "Broken")).query("uploadId="));
    store(&storage, "shop/a", &pattern(LARGE))
        .await
        .unwrap_err();
    assert_eq!(server.unfinished(), 1);
    server.behave();
    let log = server.log();
    let given_up = log.iter().find(|seen| seen.method == "DELETE").unwrap();
    let (_, id) = given_up.query.split_once("uploadId=").unwrap();
    // The server in the tests cannot list uploads, so the script does.
    let list = format!(
        "<?xml version='1.0' encoding='UTF-8'?><ListMultipartUploadsResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>\
         <Bucket>b</Bucket><Upload><Key>pg/prod/shop/a</Key><UploadId>{id}</UploadId><Initiated>2026-01-01T00:00:00.000Z\
         </Initiated></Upload><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"
    );
    server.on(Rule::new("GET", Fault::body(list)).query("uploads"));
    let limit: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let swept = storage.sweep("shop/", limit).await.unwrap();
    assert_eq!((swept.removed, swept.warnings), (1, Vec::new()));
    assert_eq!(server.unfinished(), 0);
}

#[derive(Debug)]
struct Printing(&'static str);

#[async_trait]
impl CredentialSource for Printing {
    async fn fetch(&self) -> Result<SecretString, String> {
        Ok(self.0.into())
    }
}

#[tokio::test]
async fn each_login_sends_its_token() {
    let server = ScriptedGcs::start();
    server.gcs.take_only("t0ken");
    let json = r#"{"access_token": "t0ken", "token_expiry": "2100-01-01T00:00:00Z"}"#;
    for credentials in [
        GcsCredentials::Token("t0ken".into()),
        GcsCredentials::Source(Arc::new(Printing("t0ken\n"))),
        GcsCredentials::Source(Arc::new(Printing(json))),
    ] {
        let storage = as_whom(&server, credentials);
        storage.put("a", "x".into()).await.unwrap();
        store(&storage, "b", &pattern(LARGE)).await.unwrap();
        assert_eq!(keys(&storage, "").await, ["a", "b"]);
        for key in ["a", "b"] {
            storage.remove(key).await.unwrap();
        }
    }
    let wrong = as_whom(
        &server,
        GcsCredentials::Token(CANARY.replace([' ', 'ö'], "").into()),
    );
    let failed = wrong.list("").await.unwrap_err();
    assert!(matches!(failed, Error::Denied { .. }), "{failed}");
    assert!(failed.hint().unwrap().contains("new token"), "{failed:?}");
    assert!(!format!("{failed:?}").contains("c4n@ry"), "{failed:?}");
}

/// A service account signs a token of its own, and nobody has to be asked for one.
#[tokio::test]
async fn a_service_account_signs() {
    let Some(key) = private_key() else {
        crate::support::skip("no openssl here");
        return;
    };
    let json = serde_json::json!({
        "type": "service_account", "client_email": "pgkeep@acme.iam.gserviceaccount.com",
        "private_key": key, "private_key_id": "k1",
    });
    let server = ScriptedGcs::start();
    let account = GcsCredentials::ServiceAccount(json.to_string().into());
    let storage = as_whom(&server, account);
    assert_eq!(
        storage.login(),
        Some(
            "the service account `pgkeep@acme.iam.gserviceaccount.com` in `service_account` of the configuration"
        )
    );
    storage.put("a", "x".into()).await.unwrap();
    assert_eq!(keys(&storage, "").await, ["a"]);
    let tokens = server.gcs.tokens();
    assert_eq!(tokens.len(), 1, "one token for all requests");
    assert_eq!(tokens[0].split('.').count(), 3, "{tokens:?}");
}

/// What object_store's own tests point at their emulator.
#[tokio::test]
async fn an_emulators_file_names_its_address() {
    let server = ScriptedGcs::start();
    let json = serde_json::json!({
        "gcs_base_url": server.endpoint, "disable_oauth": true, "client_email": "", "private_key": "",
        "private_key_id": "",
    });
    let mut options = options(&server);
    options.cloud.endpoint = None;
    options.cloud.allow_http = false;
    options.credentials = GcsCredentials::ServiceAccount(json.to_string().into());
    let storage = Gcs::open(&server.bucket, "", &options).unwrap();
    storage.put("a", "x".into()).await.unwrap();
    assert_eq!(
        (server.keys(), server.gcs.tokens()),
        (vec!["a".to_owned()], vec![String::new()])
    );
    options.credentials = GcsCredentials::Anonymous;
    options.cloud.endpoint = Some(server.endpoint.clone());
    Gcs::open(&server.bucket, "", &options).err().unwrap();
    options.cloud.allow_http = true;
    let nobody = Gcs::open(&server.bucket, "", &options).unwrap();
    assert_eq!(keys(&nobody, "").await, ["a"]);
}

#[tokio::test]
async fn buckets_differ_by_where_they_are() {
    let (one, two) = (ScriptedGcs::start(), ScriptedGcs::start());
    let id = |server: &ScriptedGcs, prefix: &str| {
        let storage = Gcs::open(&server.bucket, prefix, &options(server)).unwrap();
        (storage.label().to_owned(), storage.identity())
    };
    assert_eq!(id(&one, "pg"), id(&one, "/pg/"));
    assert_ne!(id(&one, "pg"), id(&one, "pg2"));
    assert_eq!(id(&one, "pg").0, id(&two, "pg").0);
    assert_ne!(id(&one, "pg").1, id(&two, "pg").1);
}

fn private_key() -> Option<String> {
    let made = std::process::Command::new("openssl")
        .args([
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ])
        .output()
        .ok()?;
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).ok()
}

#[tokio::test]
async fn a_bucket_tells_its_versions_and_its_lock() {
    let server = ScriptedGcs::start();
    let storage = open(&server);
    let found = storage.protection().await.unwrap();
    let Answer::Unknown(why) = found.versions else {
        panic!("{found:?}")
    };
    assert!(why.contains("403"), "{why}");
    server.gcs.is(
        r#"{"versioning": {"enabled": true}, "retentionPolicy": {"retentionPeriod": "86400", "isLocked": true}}"#,
    );
    let found = storage.protection().await.unwrap();
    assert_eq!(found.versions, Answer::Is(Versions::On));
    let lock = Lock::Default {
        period: Period::Days(1),
        can_be_lifted: false,
    };
    assert_eq!(found.lock, Answer::Is(lock));
    let asked = server.log();
    assert!(
        asked
            .iter()
            .any(|seen| seen.path == format!("/storage/v1/b/{}", server.bucket)),
        "{asked:?}"
    );
}
