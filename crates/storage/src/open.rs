//! From the URL in the configuration to a storage: the one place that chooses a backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use super::{
    Azure, AzureOptions, Error, Folder, Gcs, GcsOptions, Rclone, RcloneOptions, Result, S3,
    S3Options, Storage,
};

const SUPPORTED: &str = "use a folder (`./backups`, `file:///var/backups`) or a bucket (`s3://bucket/prefix`, \
                         `gs://bucket/prefix`, `az://container/prefix`), or what rclone reaches (`rclone:remote:path`)";

/// What is set about a storage beyond its URL, for every kind that there is; the URL chooses one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For `s3://`.
    pub s3: S3Options,
    /// For `gs://`.
    pub gcs: GcsOptions,
    /// For `az://`.
    pub azure: AzureOptions,
    /// For `rclone:`.
    pub rclone: RcloneOptions,
}

/// Opens the storage that `url` names: a path, `file://`, `s3://bucket/prefix`, `gs://bucket/prefix` or
/// `az://container/prefix`, or `rclone:remote:path`.
///
/// A leading `~/` is a path like any other: whoever knows the home expands it first.
pub fn open(url: &str, options: &Options) -> Result<Arc<dyn Storage>> {
    // A setting of a remote may be an address.
    if let Some(remote) = url.strip_prefix("rclone:") {
        return Ok(Arc::new(Rclone::open(remote, &options.rclone)?));
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Ok(Arc::new(Folder::open(Path::new(url))?));
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let bucket = || check_bucket(scheme, bucket);
    match scheme {
        "file" => Ok(Arc::new(Folder::open(&file_path(url)?)?)),
        "s3" => Ok(Arc::new(S3::open(bucket()?, prefix, &options.s3)?)),
        "gs" => Ok(Arc::new(Gcs::open(bucket()?, prefix, &options.gcs)?)),
        "az" => Ok(Arc::new(Azure::open(bucket()?, prefix, &options.azure)?)),
        _ => Err(Error::setup(
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
fn check_bucket<'u>(scheme: &str, bucket: &'u str) -> Result<&'u str> {
    let is_fine = bucket
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if is_fine {
        return Ok(bucket);
    }
    Err(Error::setup(
        "the storage's URL names a bucket that cannot exist",
        format!(
            "it looks like `{scheme}://bucket/prefix`; keys belong in the configuration or the environment"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(url: &str) -> Result<String> {
        let mut options = Options::default();
        options.azure.account = Some("acme".to_owned());
        open(url, &options).map(|storage| storage.label().to_owned())
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
        assert_eq!(label("gs://acme/pg/").unwrap(), "gs://acme/pg");
        assert_eq!(label("az://backups/pg").unwrap(), "az://backups/pg");
    }

    #[test]
    fn a_remote_of_rclone_is_opened_without_starting_it() {
        assert_eq!(label("rclone:nas:pg/").unwrap(), "rclone:nas:pg");
        let error = label("rclone::sftp,host=nas,pass=hunter2:pg").unwrap_err();
        assert!(matches!(error, Error::Setup { .. }) && !format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn refuses_what_it_does_not_know_and_repeats_no_secret() {
        for url in [
            "abfss://acme",
            "gs://",
            "gs://key:hunter2@acme/x",
            "az:///x",
            "az://acme.blob.core.windows.net@hunter2/x",
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
        let error = label("abfss://acme").unwrap_err();
        assert!(
            error.hint().unwrap().contains("az://container"),
            "{error:?}"
        );
    }
}
