//! What can be set about a bucket, and the checks that need no network.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::credentials::Credentials;
use crate::{Error, Result};
use pgkeep_model::part_sizes::{MAX_PART_BYTES, MIN_PART_BYTES, PartSizes};

/// Region that AWS takes where none is named; other stores mostly do not care.
const DEFAULT_REGION: &str = "us-east-1";

/// What the environment says about S3, in the variables that AWS's own tools read. Its `Debug` shows names only.
#[derive(Clone, Default)]
pub struct S3Environment {
    variables: Vec<(String, SecretString)>,
}

impl S3Environment {
    /// Picks the `AWS_` variables out of an environment, which the caller hands in.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let pick = |(name, value): (OsString, OsString)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            name.starts_with("AWS_").then(|| (name, value.into()))
        };
        let mut variables: Vec<_> = variables.into_iter().filter_map(pick).collect();
        // Some have two names; the same one must win each time.
        variables.sort_by(|(a, _): &(String, SecretString), (b, _)| a.cmp(b));
        Self { variables }
    }

    /// Starts a client's settings with what the variables say; one that object_store does not know means nothing here.
    pub(super) fn builder(&self) -> AmazonS3Builder {
        let known = self.variables.iter().filter_map(|(name, value)| {
            let key: AmazonS3ConfigKey = name.to_ascii_lowercase().parse().ok()?;
            Some((key, value.expose_secret()))
        });
        known.fold(AmazonS3Builder::new(), |builder, (key, value)| {
            builder.with_config(key, value)
        })
    }
}

impl fmt::Debug for S3Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.variables.iter().map(|(name, _)| name);
        f.debug_set().entries(names).finish()
    }
}

/// Settings of an S3 storage beyond its URL.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// What the environment says, for everything that is not set here.
    pub environment: S3Environment,
    /// Where the store answers, such as `https://<account>.r2.cloudflarestorage.com`; `None` means
    /// `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or else AWS itself.
    pub endpoint: Option<String>,
    /// The bucket's region; `None` means `AWS_REGION`, `AWS_DEFAULT_REGION` or else `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket stands in the path instead of the host name; `None` means yes where an endpoint is given.
    pub path_style: Option<bool>,
    /// Who signs the requests.
    pub credentials: Credentials,
    /// Makes all parts of an upload this long; `None` lets them follow the size of the object.
    pub part_size_bytes: Option<u64>,
    /// Permits an endpoint that says `http://`. It never turns `https://` into `http://`.
    pub allow_http: bool,
    /// PEM file of a certificate authority to trust besides the system's.
    pub ca_certificate: Option<PathBuf>,
    /// A request that moves less than a KiB in this time is given up and tried again. There is no limit on a
    /// request's whole length, because a slow link is not a broken one.
    pub stall_timeout: Duration,
    /// How long after the first failure a request is still tried again.
    pub retry_budget: Duration,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            environment: S3Environment::default(),
            endpoint: None,
            region: None,
            path_style: None,
            credentials: Credentials::default(),
            part_size_bytes: None,
            allow_http: false,
            ca_certificate: None,
            // Two minutes, because some stores stay silent that long while they put many parts together.
            stall_timeout: Duration::from_secs(120),
            // Signatures are made anew for every try, so only patience sets this.
            retry_budget: Duration::from_secs(180),
        }
    }
}

/// Where requests go.
pub(super) struct Target {
    /// URL of the bucket, without a slash at its end.
    pub(super) bucket_url: String,
    pub(super) region: String,
    /// Whether the endpoint says `http://` and may.
    pub(super) is_plain_http: bool,
    /// Whether this is AWS, which stores checksums of objects.
    pub(super) is_aws: bool,
}

impl S3Options {
    /// Works out where requests go, with `environment` filling in what is not set.
    pub(super) fn target(&self, bucket: &str, environment: &AmazonS3Builder) -> Result<Target> {
        let from_env = |key| environment.get_config_value(&key);
        let region = (self.region.clone())
            .or_else(|| from_env(AmazonS3ConfigKey::Region))
            .or_else(|| from_env(AmazonS3ConfigKey::DefaultRegion))
            .unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let endpoint = (self.endpoint.clone())
            .or_else(|| from_env(AmazonS3ConfigKey::S3Endpoint))
            .or_else(|| from_env(AmazonS3ConfigKey::Endpoint));
        let is_aws = endpoint.is_none();
        // Certificates of `*.s3.<region>.amazonaws.com` do not cover bucket names with dots.
        let is_path_style = self.path_style.unwrap_or(!is_aws || bucket.contains('.'));
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let url = self.check_endpoint(&endpoint)?;
        Ok(Target {
            bucket_url: bucket_url(&url, bucket, is_path_style)?,
            region,
            is_plain_http: url.scheme() == "http",
            is_aws,
        })
    }

    /// Returns the configured part sizes, checked.
    pub(super) fn part_sizes(&self) -> Result<Option<PartSizes>> {
        let Some(part_bytes) = self.part_size_bytes else {
            return Ok(None);
        };
        match PartSizes::equal(part_bytes) {
            Some(sizes) => Ok(Some(sizes)),
            None => Err(Error::setup(
                format!("parts of {part_bytes} bytes are not possible with S3"),
                format!("use {MIN_PART_BYTES} to {MAX_PART_BYTES} bytes, or leave `part_size` out"),
            )),
        }
    }

    fn check_endpoint(&self, endpoint: &str) -> Result<Url> {
        let example = "an endpoint looks like `https://s3.example.com`";
        let url =
            Url::parse(endpoint).map_err(|_| Error::setup("the endpoint is not a URL", example))?;
        let has_secret = !url.username().is_empty() || url.password().is_some();
        if has_secret || url.query().is_some() || url.host_str().is_none() {
            return Err(Error::setup(
                "the endpoint may hold a scheme, a host, a port and a path only",
                example,
            ));
        }
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.allow_http => Ok(url),
            "http" => Err(Error::setup(
                format!("the endpoint `{url}` is not encrypted"),
                "use `https://`, or write the endpoint into the configuration or `--s3-endpoint` where the network is trusted",
            )),
            scheme => Err(Error::setup(
                format!("the endpoint's scheme `{scheme}` is not known"),
                example,
            )),
        }
    }
}

fn bucket_url(endpoint: &Url, bucket: &str, is_path_style: bool) -> Result<String> {
    let mut url = endpoint.clone();
    if is_path_style {
        let path = format!("{}/{bucket}", endpoint.path().trim_end_matches('/'));
        url.set_path(&path);
    } else {
        let host = endpoint.host_str().unwrap_or_default();
        url.set_host(Some(&format!("{bucket}.{host}")))
            .map_err(|_| {
                Error::setup(
                    format!("`{bucket}` cannot stand before `{host}` in a host name"),
                    "set `path_style: true`",
                )
            })?;
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_of(options: &S3Options, bucket: &str) -> Result<String> {
        let target = options.target(bucket, &AmazonS3Builder::new())?;
        Ok(target.bucket_url)
    }

    fn at(endpoint: &str) -> S3Options {
        S3Options {
            endpoint: Some(endpoint.to_owned()),
            ..S3Options::default()
        }
    }

    #[test]
    fn aws_is_asked_at_the_buckets_host() {
        let mut options = S3Options::default();
        let url = url_of(&options, "acme").unwrap();
        assert_eq!(url, "https://acme.s3.us-east-1.amazonaws.com");
        options.region = Some("eu-west-1".to_owned());
        let url = url_of(&options, "acme.backups").unwrap();
        assert_eq!(url, "https://s3.eu-west-1.amazonaws.com/acme.backups");
    }

    #[test]
    fn an_endpoint_has_the_bucket_in_its_path_unless_told_otherwise() {
        let mut options = at("https://s3.example.com/");
        assert_eq!(
            url_of(&options, "acme").unwrap(),
            "https://s3.example.com/acme"
        );
        options.path_style = Some(false);
        assert_eq!(
            url_of(&options, "acme").unwrap(),
            "https://acme.s3.example.com"
        );
        let supabase = at("https://x.supabase.co/storage/v1/s3");
        assert_eq!(
            url_of(&supabase, "acme").unwrap(),
            "https://x.supabase.co/storage/v1/s3/acme"
        );
    }

    #[test]
    fn plain_http_must_be_permitted_and_secrets_are_refused() {
        let mut plain = at("http://127.0.0.1:9000");
        let error = url_of(&plain, "acme").unwrap_err();
        assert!(error.hint().unwrap().contains("s3-endpoint"));
        plain.allow_http = true;
        assert_eq!(
            url_of(&plain, "acme").unwrap(),
            "http://127.0.0.1:9000/acme"
        );
        for endpoint in [
            "https://key:hunter2@host",
            "https://host?token=hunter2",
            "s3",
            "ftp://x",
        ] {
            let error = url_of(&at(endpoint), "acme").unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn the_environment_fills_in_what_is_not_set() {
        let variables = [
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ENDPOINT_URL_S3", "https://s3.example.com"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AWS_NOBODY_KNOWS", "x"),
            ("PATH", "/bin"),
        ];
        let environment =
            S3Environment::new(variables.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(environment.variables.len(), 4);
        assert!(!format!("{environment:?}").contains("hunter2"));
        let mut options = S3Options {
            environment,
            ..S3Options::default()
        };
        let target = |options: &S3Options| {
            let builder = options.environment.builder();
            let target = options.target("acme", &builder).unwrap();
            (target.bucket_url, target.region)
        };
        let (url, region) = target(&options);
        assert_eq!(url, "https://s3.example.com/acme");
        assert_eq!(region, "eu-west-1");
        options.region = Some("here".to_owned());
        assert_eq!(target(&options).1, "here");
    }

    #[test]
    fn part_sizes_are_checked() {
        let options = |part_size_bytes| S3Options {
            part_size_bytes,
            ..S3Options::default()
        };
        assert_eq!(options(None).part_sizes().unwrap(), None);
        assert!(options(Some(5 << 20)).part_sizes().unwrap().is_some());
        assert!(options(Some(1)).part_sizes().is_err());
    }
}
