//! A container of Azure as storage: the suite over a real Azurite, then what only Azure can break.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use pgkeep_storage::{
    Answer, Azure, AzureCredentials, AzureOptions, Error, Lock, Result, Storage, Versions,
};

use super::{LARGE, conforms, contests, keys, patience, pattern, read, store, upload};
use crate::support::azurite::{ACCOUNT, Container, account_key, azurite};
use crate::support::scripted_s3::{Fault, Rule, ScriptedProxy};

fn options(endpoint: &str) -> AzureOptions {
    AzureOptions {
        cloud: patience(endpoint),
        account: Some(ACCOUNT.to_owned()),
        authority_host: None,
        credentials: AzureCredentials::Key(account_key().into()),
    }
}

/// A container behind a script.
struct Scripted {
    proxy: ScriptedProxy,
    container: Container,
}

impl Scripted {
    /// Makes one; none after telling why.
    fn start() -> Option<Self> {
        let server = azurite()?;
        Some(Self {
            proxy: ScriptedProxy::start(server.address),
            container: Container::make(server),
        })
    }

    fn options(&self) -> AzureOptions {
        options(&format!("http://{}/{ACCOUNT}", self.proxy.address))
    }

    fn open_with(&self, options: &AzureOptions) -> Azure {
        Azure::open(&self.container.name, "pg/prod", options).unwrap()
    }

    fn open(&self) -> Azure {
        self.open_with(&self.options())
    }

    fn on(&self, rule: Rule) {
        self.proxy.on(rule);
    }
}

/// Azure's refusal: its code is in the document and in a header.
fn refusal(status: u16, code: &str) -> Fault {
    let body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>No.\nRequestId:1\nTime:2026</Message></Error>"
    );
    let headers = vec![("x-ms-error-code", code.to_owned())];
    Fault::Answer {
        status,
        headers,
        body,
    }
}

#[tokio::test]
async fn azure_conforms_and_leaves_nothing() {
    let Some(scripted) = Scripted::start() else {
        return;
    };
    let storage = scripted.open();
    conforms(&storage).await;
    contests(&storage).await;
    let log = scripted.proxy.log();
    let ranges: BTreeSet<_> = log.iter().map(|seen| seen.range.as_str()).collect();
    assert!(ranges.len() > 5, "{ranges:?}");
    for range in ranges.iter().filter(|range| !range.is_empty()) {
        let bounds = range
            .strip_prefix("bytes=")
            .unwrap()
            .split_once('-')
            .unwrap();
        assert!(!bounds.0.is_empty() && !bounds.1.is_empty(), "{range}");
    }
    // Of what was given up no trace is left, and nothing has to be swept.
    let swept = storage.sweep("", Timestamp::now()).await.unwrap();
    assert_eq!((swept.removed, swept.warnings.len()), (0, 0));
    assert_eq!(scripted.proxy.count("POST", ""), 0, "no batches");
}

#[tokio::test]
async fn ten_thousand_keys_are_listed() {
    let Some(scripted) = Scripted::start() else {
        return;
    };
    let storage = scripted.open();
    // Past the proxy, which connects anew for each request.
    let server = azurite().expect("it runs").endpoint();
    let opened = Azure::open(&scripted.container.name, "pg/prod", &options(&server));
    let direct = Arc::new(opened.unwrap());
    let all: Vec<String> = (0..10_000)
        .map(|number| format!("shop/{number:05}"))
        .collect();
    let writers = all.chunks(1_250).map(|keys| {
        let (storage, keys) = (Arc::clone(&direct), keys.to_vec());
        tokio::spawn(async move {
            for key in keys {
                storage.create(&key, "x".into()).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let listed = keys(&storage, "shop/").await;
    assert!(listed == all, "{} keys", listed.len());
    assert_eq!(scripted.proxy.count("GET", "comp=list"), 2);

    let page_2 = |fault| Rule::new("GET", fault).query("marker=");
    scripted.on(page_2(refusal(500, "InternalError")).times(1));
    assert_eq!(storage.list("").await.unwrap().len(), 10_000);
    // Neither a page without an end nor one that is its own next is the last.
    let page = |marker: &str| {
        Fault::body(format!(
            "<EnumerationResults><Blobs/>{marker}</EnumerationResults>"
        ))
    };
    scripted.proxy.behave();
    scripted.on(Rule::new("GET", page("<NextMarker>m</NextMarker>")).query("comp=list"));
    let endless = storage.list("").await.unwrap_err();
    assert!(endless.to_string().contains("not where"), "{endless}");
    for fault in [
        refusal(403, "AuthorizationPermissionMismatch"),
        refusal(404, "ContainerNotFound"),
        page(""),
        Fault::body("<html>sign in</html>"),
        Fault::body(""),
        Fault::CutAnswer(20),
    ] {
        scripted.proxy.behave();
        scripted.on(page_2(fault.clone()));
        let error = storage.list("").await.unwrap_err().to_string();
        assert!(error.starts_with("listing in `az://"), "{fault:?}: {error}");
    }
    // A short page is not the last one by that.
    scripted.proxy.behave();
    scripted.on(Rule::new("GET", page("<NextMarker>m</NextMarker>"))
        .query("comp=list")
        .times(1));
    scripted.on(Rule::new("GET", page("<NextMarker/>"))
        .query("marker=m")
        .times(1));
    assert_eq!(storage.list("").await.unwrap(), []);
}

/// Accounts with a hierarchical namespace list their folders as blobs.
#[tokio::test]
async fn folders_are_no_objects() {
    let Some(server) = azurite() else { return };
    let container = Container::make(server);
    let storage = Azure::open(&container.name, "pg/prod", &options(&server.endpoint())).unwrap();
    for folder in ["pg", "pg/prod", "pg/prod/shop", "pg/prod/empty"] {
        container.put(folder, &[("x-ms-meta-hdi_isfolder", "true")]);
    }
    container.put("pg/prod/old", &[]);
    storage.put("shop/a", "x".into()).await.unwrap();
    storage.put("old/b", "x".into()).await.unwrap();
    container.put("pg/prod/not%20ours", &[]);
    assert_eq!(keys(&storage, "").await, ["old/b", "shop/a"]);
    assert_eq!(keys(&storage, "shop").await, ["shop/a"]);
    // One without others below it may be anything, and is listed.
    storage.remove("old/b").await.unwrap();
    assert_eq!(keys(&storage, "").await, ["old", "shop/a"]);
}

#[tokio::test]
async fn faults_of_the_network_and_the_store_pass() {
    let Some(scripted) = Scripted::start() else {
        return;
    };
    let busy = refusal(503, "ServerBusy").header("retry-after", "1");
    let block = |fault| Rule::new("PUT", fault).query("comp=block&");
    scripted.on(block(busy).skip(1).times(1));
    scripted.on(block(Fault::CutRequest(1_000_000)).skip(1).times(1));
    scripted.on(Rule::new("PUT", refusal(500, "OperationTimedOut"))
        .query("comp=blocklist")
        .times(1));
    let (storage, bytes, start) = (scripted.open(), pattern(LARGE), Instant::now());
    store(&storage, "a", &bytes).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    scripted.on(Rule::new("GET", Fault::CutAnswer(1_000_000)).times(2));
    assert!(read(&storage, "a", None).await.unwrap() == bytes);

    let mut impatient = scripted.options();
    impatient.cloud.stall_timeout = Duration::from_millis(700);
    scripted.on(block(Fault::Hang).times(1));
    store(&scripted.open_with(&impatient), "b", &bytes)
        .await
        .unwrap();
    assert!(read(&storage, "b", None).await.unwrap() == bytes);

    scripted.proxy.behave();
    scripted.on(block(refusal(500, "InternalError")).skip(1));
    let failed = store(&storage, "c", &bytes).await.unwrap_err();
    assert!(matches!(failed, Error::Failed { .. }), "{failed}");
    assert!(
        failed.to_string().contains("500 InternalError: No."),
        "{failed}"
    );
    assert_eq!(keys(&storage, "").await, ["a", "b"]);
}

#[tokio::test]
async fn an_answer_that_got_lost_is_ours() {
    let Some(scripted) = Scripted::start() else {
        return;
    };
    let storage = scripted.open();
    let lose = |query| Rule::new("PUT", Fault::LoseAnswer).query(query).times(1);
    scripted.on(lose(""));
    let first = storage.create("lease", "1".into()).await.unwrap();
    scripted.on(lose(""));
    let second = storage.replace("lease", "2".into(), &first).await.unwrap();
    let (bytes, version) = storage.get_versioned("lease", 9).await.unwrap();
    assert_eq!((bytes, version), ("2".into(), second));
    scripted.on(lose(""));
    storage.put("small", "x".into()).await.unwrap();
    scripted.on(lose("comp=blocklist"));
    let bytes = pattern(LARGE);
    assert_eq!(
        store(&storage, "large", &bytes).await.unwrap(),
        LARGE as u64
    );
    assert!(read(&storage, "large", None).await.unwrap() == bytes);
}

#[tokio::test]
async fn what_arrived_wrong_is_found_and_taken_away() {
    let Some(scripted) = Scripted::start() else {
        return;
    };
    let storage = scripted.open();
    scripted.on(Rule::new("HEAD", Fault::ClaimSize(3)).skip(1));
    let failed = store(&storage, "a", &"four".into()).await.unwrap_err();
    assert!(
        failed
            .to_string()
            .contains("4 bytes were sent and 3 are stored"),
        "{failed}"
    );
    scripted.proxy.behave();
    assert_eq!(keys(&storage, "").await, [""; 0]);
}

#[tokio::test]
async fn refusals_are_told_with_what_to_do() {
    let Some(scripted) = Scripted::start() else {
        return;
    };
    let storage = scripted.open();
    storage.put("there", "x".into()).await.unwrap();
    for (status, code, words, hint) in [
        (
            403,
            "AuthorizationPermissionMismatch",
            "403",
            "Storage Blob Data Contributor",
        ),
        (403, "AuthorizationFailure", "403", "network rules"),
        (
            403,
            "KeyBasedAuthenticationNotPermitted",
            "403",
            "takes no keys",
        ),
        (401, "InvalidAuthenticationInfo", "401", "token"),
        (
            409,
            "BlobImmutableDueToPolicy",
            "it is retained",
            "retention",
        ),
        (409, "BlobImmutableDueToLegalHold", "it is retained", "hold"),
    ] {
        scripted.proxy.behave();
        scripted.on(Rule::new("DELETE", refusal(status, code)));
        let before = scripted.proxy.count("DELETE", "");
        let failed = storage.remove("there").await.unwrap_err();
        let is_retained = matches!(failed, Error::Retained { .. });
        assert_eq!(is_retained, words == "it is retained", "{failed:?}");
        assert!(failed.to_string().contains(words), "{failed}");
        assert!(failed.to_string().ends_with("No."), "{failed}");
        assert!(failed.hint().unwrap().contains(hint), "{failed:?}");
        assert_eq!(scripted.proxy.count("DELETE", ""), before + 1);
    }
    // A lease that may not be overwritten was not changed by anybody.
    scripted.proxy.behave();
    scripted.on(Rule::new("PUT", refusal(409, "BlobImmutableDueToPolicy")));
    let (_, version) = storage.get_versioned("there", 9).await.unwrap();
    let failed = storage
        .replace("there", "y".into(), &version)
        .await
        .unwrap_err();
    assert!(failed.to_string().contains("it is retained"), "{failed}");
    for (status, code) in [
        (409, "BlobAlreadyExists"),
        (412, "ConditionNotMet"),
        (403, "UnauthorizedBlobOverwrite"),
    ] {
        scripted.proxy.behave();
        scripted.on(Rule::new("PUT", refusal(status, code)));
        let put = storage.put("new", "x".into()).await;
        assert!(matches!(put, Err(Error::Exists(_))), "{code}: {put:?}");
        let replaced = storage.replace("there", "y".into(), &version).await;
        assert!(
            matches!(replaced, Err(Error::Changed(_))),
            "{code}: {replaced:?}"
        );
    }
}

/// Azure calls a wrong clock a wrong key.
#[tokio::test]
async fn a_wrong_clock_is_named() {
    let Some(scripted) = Scripted::start() else {
        return;
    };
    let there = Timestamp::now() - SignedDuration::from_mins(125);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&there)
        .unwrap();
    scripted.on(Rule::new(
        "PUT",
        refusal(403, "AuthenticationFailed").header("date", date),
    )
    .times(1));
    scripted.on(Rule::new("PUT", refusal(403, "AuthenticationFailed")));
    let storage = scripted.open();
    let failed = storage.put("a", "x".into()).await.unwrap_err();
    let text = failed.to_string();
    assert!(
        text.contains("clock is 2h 5m") && text.contains("ahead of"),
        "{text}"
    );
    assert!(failed.hint().unwrap().contains("NTP"), "{failed:?}");
    let failed = storage.put("a", "x".into()).await.unwrap_err();
    assert!(failed.hint().unwrap().contains("key"), "{failed:?}");
}

#[tokio::test]
async fn a_missing_container_or_account_is_a_matter_of_set_up() {
    let Some(server) = azurite() else { return };
    let container = Container::make(server);
    let storage = Azure::open(&container.name, "", &options(&server.endpoint())).unwrap();
    container.remove();
    let failures: [Result<()>; 3] = [
        storage.put("a", "x".into()).await,
        storage.list("").await.map(drop),
        storage.get("a", 9).await.map(drop),
    ];
    for failed in failures {
        let failed = failed.unwrap_err();
        assert!(matches!(failed, Error::Setup { .. }), "{failed}");
        assert!(
            failed.to_string().contains("the container does not exist"),
            "{failed}"
        );
        assert!(failed.hint().unwrap().contains("`account`"), "{failed:?}");
    }
    let mut nobody = options("https://acmebackups.invalid");
    nobody.cloud.retry_budget = Duration::ZERO;
    let storage = Azure::open("c", "", &nobody).unwrap();
    let failed = storage.list("").await.unwrap_err();
    assert!(failed.hint().unwrap().contains("`account`"), "{failed:?}");
}

#[tokio::test]
async fn a_wrong_key_is_denied_and_not_repeated() {
    let Some(server) = azurite() else { return };
    let container = Container::make(server);
    let mut wrong = options(&server.endpoint());
    wrong.credentials = AzureCredentials::Key("Y2FuYXJ5LXdyb25n".into());
    let storage = Azure::open(&container.name, "", &wrong).unwrap();
    for failed in [
        storage.list("").await.unwrap_err(),
        storage.put("a", "x".into()).await.unwrap_err(),
        storage.remove("a").await.unwrap_err(),
    ] {
        assert!(matches!(failed, Error::Denied { .. }), "{failed}");
        assert!(
            failed.hint().unwrap().contains("of this account"),
            "{failed:?}"
        );
        let text = format!("{failed:?} {wrong:?}");
        assert!(
            !text.contains("Y2FuYXJ5") && !text.contains("canary"),
            "{text}"
        );
    }
}

/// A host that stores backups needs no right to remove them.
#[tokio::test]
async fn a_sas_token_does_what_it_may() {
    let Some(server) = azurite() else { return };
    let container = Container::make(server);
    let open = |token: String| {
        let mut options = options(&server.endpoint());
        options.credentials = AzureCredentials::Sas(token.into());
        Azure::open(&container.name, "pg", &options).unwrap()
    };
    let later = "2100-01-01T00:00:00Z";
    conforms(&open(container.sas("racwdl", later))).await;
    let writer = open(format!("?{}", container.sas("racwl", later)));
    let first = writer.create("lease", "1".into()).await.unwrap();
    writer.replace("lease", "2".into(), &first).await.unwrap();
    store(&writer, "large", &pattern(LARGE)).await.unwrap();
    assert_eq!(keys(&writer, "").await, ["large", "lease"]);
    let reader = open(container.sas("rl", later));
    let late = open(container.sas("racwdl", "2020-01-01T00:00:00Z"));
    for failed in [
        writer.remove("large").await.unwrap_err(),
        reader.put("b", "x".into()).await.unwrap_err(),
        late.list("").await.unwrap_err(),
    ] {
        assert!(matches!(failed, Error::Denied { .. }), "{failed}");
        assert!(!format!("{failed:?}").contains("sig="), "{failed:?}");
    }
    assert_eq!(read(&reader, "lease", None).await.unwrap(), b"2");
}

/// Writers of one key share the blocks that were not named yet; the one that is late finds the key taken.
#[tokio::test]
async fn of_two_uploads_to_one_key_one_is_stored_whole() {
    let Some(server) = azurite() else { return };
    let container = Container::make(server);
    let storage = Azure::open(&container.name, "", &options(&server.endpoint())).unwrap();
    let (ours, theirs) = (pattern(LARGE), bytes::Bytes::from(vec![7; LARGE]));
    let first = upload(&storage, "k", &ours).await.unwrap();
    let second = upload(&storage, "k", &theirs).await.unwrap();
    let (first, second) = tokio::join!(first.finish(), second.finish());
    let ended: Vec<_> = [&first, &second]
        .into_iter()
        .filter(|end| end.is_ok())
        .collect();
    assert!(!ended.is_empty(), "{first:?} {second:?}");
    let stored = read(&storage, "k", None).await.unwrap();
    assert!(stored == ours || stored == theirs);
}

#[tokio::test]
async fn a_container_tells_its_policy_and_the_accounts_soft_delete() {
    let Some(server) = azurite() else { return };
    let container = Container::make(server);
    let storage = Azure::open(&container.name, "", &options(&server.endpoint())).unwrap();
    let found = storage.protection().await.unwrap();
    assert_eq!(found.versions, Answer::Is(Versions::Off));
    assert_eq!(found.lock, Answer::Is(Lock::Off));
    container.remove();
    let found = storage.protection().await.unwrap();
    assert!(found.lock.known().is_none(), "{found:?}");
}
