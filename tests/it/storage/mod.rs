//! What every storage keeps, tested by one suite over all of them; what only one can break, in a module of its own.

mod azure;
mod folder;
mod gcs;
mod rclone;
mod s3;

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use pgkeep_storage::{CloudOptions, Error, Memory, Result, Storage, Upload, Version};

/// Longer than two parts of 5 MiB, and no multiple of anything.
const LARGE: usize = 11 * 1024 * 1024 + 7;

/// Patience of a test: enough for a few tries.
fn patience(endpoint: &str) -> CloudOptions {
    CloudOptions {
        endpoint: Some(endpoint.to_owned()),
        allow_http: true,
        part_size_bytes: Some(5 << 20),
        // A busy machine may stand still for a while.
        stall_timeout: Duration::from_secs(15),
        retry_budget: Duration::from_secs(1),
        ..CloudOptions::default()
    }
}

/// Makes bytes of which every 8 KiB differ, so that parts in the wrong order or place show.
fn pattern(size: usize) -> Bytes {
    let bytes = (0..size).map(|at| (at ^ (at >> 8) ^ (at >> 13) ^ (at >> 16)) as u8);
    bytes.collect::<Vec<_>>().into()
}

/// Starts an upload and hands it `bytes` in pieces of odd size.
async fn upload(storage: &dyn Storage, key: &str, bytes: &Bytes) -> Result<Box<dyn Upload>> {
    let expected = Some(bytes.len() as u64);
    let mut upload = storage.start_upload(key, expected).await?;
    for piece in bytes.chunks(777_777) {
        upload.write(Bytes::copy_from_slice(piece)).await?;
    }
    Ok(upload)
}

/// Uploads `bytes` to the end.
async fn store(storage: &dyn Storage, key: &str, bytes: &Bytes) -> Result<u64> {
    upload(storage, key, bytes).await?.finish().await
}

async fn read(
    storage: &dyn Storage,
    key: &str,
    range: Option<std::ops::Range<u64>>,
) -> Result<Vec<u8>> {
    let pieces: Vec<Bytes> = storage.stream(key, range).await?.try_collect().await?;
    Ok(pieces.concat())
}

async fn keys(storage: &dyn Storage, prefix: &str) -> Vec<String> {
    let objects = storage.list(prefix).await.unwrap();
    objects.into_iter().map(|object| object.key).collect()
}

/// Waits for what dropping something sets off.
async fn eventually(mut is_true: impl FnMut() -> bool) -> bool {
    for _ in 0..200 {
        if is_true() {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    false
}

/// The suite. `storage` is empty before and after.
async fn conforms(storage: &dyn Storage) {
    versions(storage).await;
    conforms_without_conditions(storage).await;
}

/// The suite of a storage whose writes know no conditions: of two writers at the same moment it promises nothing.
async fn conforms_without_conditions(storage: &dyn Storage) {
    small_objects(storage).await;
    foreign_keys(storage).await;
    ranges(storage).await;
    listings(storage).await;
    large_objects(storage).await;
    races(storage).await;
    given_up(storage).await;
    assert_eq!(keys(storage, "").await, [""; 0]);
}

async fn small_objects(storage: &dyn Storage) {
    let before = Timestamp::now();
    storage.put("shop/a.json", "first".into()).await.unwrap();
    let again = storage.put("shop/a.json", "second".into()).await;
    assert!(matches!(again, Err(Error::Exists(key)) if key == "shop/a.json"));
    let same = storage.put("shop/a.json", "first".into()).await;
    assert!(matches!(same, Err(Error::Exists(_))));
    assert_eq!(storage.get("shop/a.json", 5).await.unwrap(), "first");
    let larger = storage.get("shop/a.json", 4).await;
    assert!(matches!(larger, Err(Error::TooLarge { limit: 4, .. })));

    let object = storage.head("shop/a.json").await.unwrap();
    assert_eq!((object.key.as_str(), object.size_bytes), ("shop/a.json", 5));
    let age_s = object.modified_at.duration_since(before).as_secs();
    assert!((-2..60).contains(&age_s), "{age_s}");

    storage.put("empty", Bytes::new()).await.unwrap();
    assert_eq!(storage.get("empty", 0).await.unwrap(), "");
    assert_eq!(read(storage, "empty", None).await.unwrap(), b"");

    for key in ["shop/a.json", "empty", "never-there"] {
        storage.remove(key).await.unwrap();
        assert!(matches!(storage.head(key).await, Err(Error::NotFound(gone)) if gone == key));
        assert!(matches!(storage.get(key, 9).await, Err(Error::NotFound(_))));
        assert!(matches!(
            storage.stream(key, None).await,
            Err(Error::NotFound(_))
        ));
    }
}

async fn versions(storage: &dyn Storage) {
    let key = "shop/lease.json";
    let missing = storage.replace(key, "x".into(), &Version::never()).await;
    assert!(matches!(missing, Err(Error::Changed(gone)) if gone == key));
    let missing = storage.get_versioned(key, 9).await;
    assert!(matches!(missing, Err(Error::NotFound(_))));

    let first = storage.create(key, "first".into()).await.unwrap();
    let again = storage.create(key, "other".into()).await;
    assert!(matches!(again, Err(Error::Exists(taken)) if taken == key));
    let put = storage.put(key, "other".into()).await;
    assert!(matches!(put, Err(Error::Exists(_))));
    let (bytes, version) = storage.get_versioned(key, 5).await.unwrap();
    assert_eq!((bytes, &version), ("first".into(), &first));
    let larger = storage.get_versioned(key, 4).await;
    assert!(matches!(larger, Err(Error::TooLarge { limit: 4, .. })));

    let second = storage.replace(key, "second".into(), &first).await.unwrap();
    assert_ne!(second, first);
    for stale in [&first, &Version::never()] {
        let late = storage.replace(key, "late".into(), stale).await;
        assert!(matches!(late, Err(Error::Changed(_))), "{late:?}");
    }
    let (bytes, version) = storage.get_versioned(key, 9).await.unwrap();
    assert_eq!((bytes, &version), ("second".into(), &second));
    assert_eq!(keys(storage, "shop/").await, [key]);
    assert_eq!(storage.get(key, 9).await.unwrap(), "second");

    storage.remove(key).await.unwrap();
    let gone = storage.replace(key, "x".into(), &second).await;
    assert!(matches!(gone, Err(Error::Changed(_))), "{gone:?}");
    assert_eq!(keys(storage, "").await, [""; 0]);
    let put = storage.put(key, "by put".into()).await;
    put.unwrap();
    let (_, version) = storage.get_versioned(key, 9).await.unwrap();
    storage.replace(key, "x".into(), &version).await.unwrap();
    storage.remove(key).await.unwrap();
}

/// Of many who make the same object, one does; of many who replace the same version, one does. For storages that promise it; the S3 server of the tests looks first
/// and writes then, as no real one does.
async fn contests(storage: &dyn Storage) {
    for round in 0..5 {
        let all = (0..8).map(|who| async move {
            let bytes = format!("{round} {who}");
            storage.create("contest", bytes.into()).await
        });
        let ends = futures_util::future::join_all(all).await;
        let (made, late): (Vec<_>, Vec<_>) = ends.into_iter().partition(Result::is_ok);
        assert_eq!((made.len(), late.len()), (1, 7));
        for end in late {
            assert!(matches!(end, Err(Error::Exists(_))), "{end:?}");
        }
        storage.remove("contest").await.unwrap();
    }
    for round in 0..20 {
        let start = storage.create("contest", "start".into()).await.unwrap();
        let all = (0..8).map(|who| {
            let bytes = format!("{round} {who}");
            let start = &start;
            async move { storage.replace("contest", bytes.into(), start).await }
        });
        let ends = futures_util::future::join_all(all).await;
        let (won, lost): (Vec<_>, Vec<_>) = ends.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 7));
        for end in lost {
            assert!(matches!(end, Err(Error::Changed(_))), "{end:?}");
        }
        let (_, now) = storage.get_versioned("contest", 99).await.unwrap();
        assert_eq!(Some(now), won.into_iter().flatten().next());
        storage.remove("contest").await.unwrap();
    }
}

async fn foreign_keys(storage: &dyn Storage) {
    for key in [
        "", "/a", "../a", "a/../b", "a//b", ".hidden", "a/.b", "a b", "a\0b",
    ] {
        let put = storage.put(key, "x".into()).await;
        assert!(matches!(put, Err(Error::Setup { .. })), "{key:?}");
        let create = storage.create(key, "x".into()).await;
        assert!(matches!(create, Err(Error::Setup { .. })), "{key:?}");
        let replace = storage.replace(key, "x".into(), &Version::never()).await;
        assert!(matches!(replace, Err(Error::Setup { .. })), "{key:?}");
        let upload = storage.start_upload(key, None).await;
        assert!(matches!(upload, Err(Error::Setup { .. })), "{key:?}");
        let remove = storage.remove(key).await;
        assert!(matches!(remove, Err(Error::Setup { .. })), "{key:?}");
        assert!(matches!(storage.get(key, 9).await, Err(Error::NotFound(_))));
        assert!(matches!(storage.head(key).await, Err(Error::NotFound(_))));
    }
    assert!(matches!(
        storage.list("../").await,
        Err(Error::Setup { .. })
    ));
}

async fn ranges(storage: &dyn Storage) {
    let bytes = pattern(700_000);
    storage.put("ranges", bytes.clone()).await.unwrap();
    for range in [0..1, 699_999..700_000, 123_456..654_321, 0..700_000] {
        let expected = &bytes[range.start as usize..range.end as usize];
        assert_eq!(
            read(storage, "ranges", Some(range)).await.unwrap(),
            expected
        );
    }
    assert_eq!(read(storage, "ranges", Some(5..5)).await.unwrap(), b"");
    for range in [0..700_001, 700_000..700_001, 800_000..900_000] {
        assert!(read(storage, "ranges", Some(range)).await.is_err());
    }
    storage.remove("ranges").await.unwrap();
}

async fn listings(storage: &dyn Storage) {
    let all = ["shop/b", "shop-2/a", "shop/runs/r.json", "shop/a", "zoo"];
    for key in all {
        storage.put(key, key.into()).await.unwrap();
    }
    let sorted = ["shop-2/a", "shop/a", "shop/b", "shop/runs/r.json", "zoo"];
    assert_eq!(keys(storage, "").await, sorted);
    assert_eq!(keys(storage, "shop/").await, sorted[1..4]);
    assert_eq!(keys(storage, "shop/runs/").await, sorted[3..4]);
    assert_eq!(keys(storage, "shop").await, sorted[..4]);
    assert_eq!(keys(storage, "shop/a").await, sorted[1..2]);
    assert_eq!(keys(storage, "nothing/").await, [""; 0]);
    let objects = storage.list("zoo").await.unwrap();
    assert_eq!(objects[0].size_bytes, 3);
    let head = storage.head("zoo").await.unwrap();
    let apart = objects[0].modified_at.duration_since(head.modified_at);
    assert_eq!((head.size_bytes, apart.as_secs()), (3, 0));
    for key in all {
        storage.remove(key).await.unwrap();
    }
}

async fn large_objects(storage: &dyn Storage) {
    let bytes = pattern(LARGE);
    let upload = upload(storage, "shop/large", &bytes).await.unwrap();
    assert_eq!(keys(storage, "").await, [""; 0], "visible before its end");
    assert_eq!(upload.finish().await.unwrap(), LARGE as u64);
    assert_eq!(keys(storage, "").await, ["shop/large"]);
    assert!(read(storage, "shop/large", None).await.unwrap() == bytes);
    let range = 5_242_870..5_242_900;
    let part = read(storage, "shop/large", Some(range)).await.unwrap();
    assert_eq!(part, bytes[5_242_870..5_242_900]);

    let taken = store(storage, "shop/large", &"other".into()).await;
    assert!(matches!(taken, Err(Error::Exists(_))));
    for (key, bytes) in [("small", "few"), ("empty", "")] {
        let size = store(storage, key, &bytes.into()).await.unwrap();
        assert_eq!(size, bytes.len() as u64);
        assert_eq!(storage.get(key, 9).await.unwrap(), bytes);
    }
    for key in ["shop/large", "small", "empty"] {
        storage.remove(key).await.unwrap();
    }
}

async fn races(storage: &dyn Storage) {
    for size in [10, LARGE] {
        let (ours, theirs) = (pattern(size), Bytes::from(vec![7; size]));
        let first = upload(storage, "race", &ours).await.unwrap();
        let second = upload(storage, "race", &theirs).await.unwrap();
        first.finish().await.unwrap();
        let late = second.finish().await;
        assert!(matches!(late, Err(Error::Exists(_))), "{size}");
        assert!(read(storage, "race", None).await.unwrap() == ours);
        storage.remove("race").await.unwrap();
    }
}

async fn given_up(storage: &dyn Storage) {
    for size in [10, LARGE] {
        let bytes = pattern(size);
        let aborted = upload(storage, "aborted", &bytes).await.unwrap();
        aborted.abort().await.unwrap();
        drop(upload(storage, "dropped", &bytes).await.unwrap());
        assert_eq!(keys(storage, "").await, [""; 0], "{size}");
    }
}

#[tokio::test]
async fn memory_conforms() {
    let memory = Memory::new();
    conforms(&memory).await;
    contests(&memory).await;
    assert_eq!(memory.unfinished(), 0);
    let swept = memory.sweep("", Timestamp::now()).await.unwrap();
    assert_eq!(swept.removed, 0);
    assert_eq!(memory.free_bytes().await, None);
}
