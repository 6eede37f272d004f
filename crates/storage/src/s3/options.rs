//! What can be set about a bucket, and the checks that need no network.

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use url::Url;

use super::credentials::Credentials;
use crate::cloud::environment::CloudEnvironment;
use crate::cloud::options::CloudOptions;
use crate::{Error, Result};

/// Region that AWS takes where none is named; other stores mostly do not care.
const DEFAULT_REGION: &str = "us-east-1";

/// Starts a client's settings with what the variables say; one that object_store does not know means nothing here.
pub(super) fn builder_of(environment: &CloudEnvironment) -> AmazonS3Builder {
    let known = environment.with_prefix("AWS_").filter_map(|(name, value)| {
        let key: AmazonS3ConfigKey = name.to_ascii_lowercase().parse().ok()?;
        Some((key, value))
    });
    known.fold(AmazonS3Builder::new(), |builder, (key, value)| {
        builder.with_config(key, value)
    })
}

/// Settings of an S3 storage beyond its URL.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// What every bucket has. No endpoint means `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or else AWS itself.
    pub cloud: CloudOptions,
    /// The bucket's region; `None` means `AWS_REGION`, `AWS_DEFAULT_REGION` or else `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket stands in the path instead of the host name; `None` means yes where an endpoint is given.
    pub path_style: Option<bool>,
    /// Who signs the requests.
    pub credentials: Credentials,
}

/// Where requests go.
pub(super) struct Target {
    /// URL of the bucket.
    pub(super) bucket_url: Url,
    pub(super) region: String,
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
        let endpoint = (self.cloud.endpoint.clone())
            .or_else(|| from_env(AmazonS3ConfigKey::S3Endpoint))
            .or_else(|| from_env(AmazonS3ConfigKey::Endpoint));
        // Certificates of `*.s3.<region>.amazonaws.com` do not cover bucket names with dots.
        let is_path_style = (self.path_style).unwrap_or(endpoint.is_some() || bucket.contains('.'));
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let way_out = "the configuration or `--s3-endpoint`";
        let url = self.cloud.check_endpoint(&endpoint, way_out)?;
        let is_aws = (url.host_str()).is_some_and(|host| host.ends_with(".amazonaws.com"));
        Ok(Target {
            bucket_url: bucket_url(&url, bucket, is_path_style)?,
            region,
            is_aws,
        })
    }
}

fn bucket_url(endpoint: &Url, bucket: &str, is_path_style: bool) -> Result<Url> {
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
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_of(options: &S3Options, bucket: &str) -> Result<String> {
        let target = options.target(bucket, &AmazonS3Builder::new())?;
        Ok(target.bucket_url.as_str().trim_end_matches('/').to_owned())
    }

    fn at(endpoint: &str) -> S3Options {
        let cloud = CloudOptions {
            endpoint: Some(endpoint.to_owned()),
            ..CloudOptions::default()
        };
        S3Options {
            cloud,
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
    fn plain_http_must_be_permitted() {
        let mut plain = at("http://127.0.0.1:9000");
        let error = url_of(&plain, "acme").unwrap_err();
        assert!(error.hint().unwrap().contains("s3-endpoint"));
        plain.cloud.allow_http = true;
        assert_eq!(
            url_of(&plain, "acme").unwrap(),
            "http://127.0.0.1:9000/acme"
        );
    }

    #[test]
    fn the_environment_fills_in_what_is_not_set() {
        let variables = [
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ENDPOINT_URL_S3", "https://s3.example.com"),
            ("AWS_NOBODY_KNOWS", "x"),
        ];
        let cloud = CloudOptions {
            environment: CloudEnvironment::new(
                variables.map(|(name, value)| (name.into(), value.into())),
            ),
            ..CloudOptions::default()
        };
        let mut options = S3Options {
            cloud,
            ..S3Options::default()
        };
        let target = |options: &S3Options| {
            let builder = builder_of(&options.cloud.environment);
            let target = options.target("acme", &builder).unwrap();
            (target.bucket_url, target.region)
        };
        let (url, region) = target(&options);
        assert_eq!(url.as_str(), "https://s3.example.com/acme");
        assert_eq!(region, "eu-west-1");
        options.region = Some("here".to_owned());
        assert_eq!(target(&options).1, "here");
    }
}
