//! From the URL in the configuration to a storage: the one place that chooses a backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use super::{Error, Folder, Result, S3, S3Options, Storage};

const SUPPORTED: &str =
    "use a folder (`./backups`, `file:///var/backups`) or a bucket (`s3://bucket/prefix`)";

/// Opens the storage that `url` names: a path, `file://` or `s3://bucket/prefix`.
///
/// `s3` is used for buckets only. A leading `~/` is a path like any other: whoever knows the home expands it first.
pub fn open(url: &str, s3: &S3Options) -> Result<Arc<dyn Storage>> {
    match url.split_once("://") {
        None => Ok(Arc::new(Folder::open(Path::new(url))?)),
        Some(("file", _)) => Ok(Arc::new(Folder::open(&file_path(url)?)?)),
        Some(("s3", rest)) => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            Ok(Arc::new(S3::open(check_bucket(bucket)?, prefix, s3)?))
        }
        Some((scheme, _)) => Err(Error::setup(
            format!(
                "storages with `{}://` are not supported",
                scheme.escape_debug()
            ),
            SUPPORTED,
        )),
    }
}

fn file_path(url: &str) -> Result<PathBuf> {
    let parsed = Url::parse(url).ok();
    parsed
        .and_then(|url| url.to_file_path().ok())
        .ok_or_else(|| Error::setup(format!("`{url}` is not a folder on this host"), SUPPORTED))
}

/// Checks a bucket's name, so that nothing else (a login, a port) can hide in its place.
fn check_bucket(bucket: &str) -> Result<&str> {
    let is_fine = bucket
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if is_fine {
        return Ok(bucket);
    }
    Err(Error::setup(
        "the storage's URL names a bucket that cannot exist",
        "it looks like `s3://bucket/prefix`; keys belong in the configuration or the environment",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(url: &str) -> Result<String> {
        open(url, &S3Options::default()).map(|storage| storage.label().to_owned())
    }

    #[test]
    fn a_path_and_a_file_url_are_folders() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("with space").display().to_string();
        assert_eq!(label(&path).unwrap(), path);
        let url = format!("file://{}", path.replace(' ', "%20"));
        assert_eq!(label(&url).unwrap(), path);
    }

    #[test]
    fn a_bucket_has_its_prefix_in_the_label() {
        assert_eq!(label("s3://acme/pg/").unwrap(), "s3://acme/pg");
        assert_eq!(label("s3://acme").unwrap(), "s3://acme");
    }

    #[test]
    fn refuses_what_it_does_not_know_and_repeats_no_secret() {
        for url in [
            "gs://acme",
            "az://acme",
            "ftp://x/y",
            "s3://",
            "s3:///x",
            "s3://key:hunter2@acme/x",
            "s3://acme/../x",
            "file://elsewhere/x",
        ] {
            let error = label(url).unwrap_err();
            assert!(matches!(error, Error::Setup { .. }), "{url}: {error}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        let error = label("gs://acme").unwrap_err();
        assert!(error.hint().unwrap().contains("s3://bucket"), "{error:?}");
    }
}
