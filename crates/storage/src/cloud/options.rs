//! What can be set about the requests to any bucket, and the checks that need no network.

use std::path::{Path, PathBuf};
use std::time::Duration;

use object_store::RetryConfig;
use url::Url;

use super::environment::CloudEnvironment;
use crate::{Error, Result};
use pgkeep_model::part_sizes::{MAX_PART_BYTES, MIN_PART_BYTES, PartSizes};

/// Settings that every kind of bucket has.
#[derive(Clone, Debug)]
pub struct CloudOptions {
    /// What the environment says, for everything that is not set.
    pub environment: CloudEnvironment,
    /// Where the store answers; `None` means where the environment says, or else the cloud's own address.
    pub endpoint: Option<String>,
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

impl Default for CloudOptions {
    fn default() -> Self {
        Self {
            environment: CloudEnvironment::default(),
            endpoint: None,
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

impl CloudOptions {
    /// Returns the configured part sizes, checked.
    pub(crate) fn part_sizes(&self) -> Result<Option<PartSizes>> {
        let Some(part_bytes) = self.part_size_bytes else {
            return Ok(None);
        };
        match PartSizes::equal(part_bytes) {
            Some(sizes) => Ok(Some(sizes)),
            None => Err(Error::setup(
                format!("parts of {part_bytes} bytes are not possible"),
                format!("use {MIN_PART_BYTES} to {MAX_PART_BYTES} bytes, or leave `part_size` out"),
            )),
        }
    }

    /// Checks the address of a store. `way_out` is where one that is not encrypted may be written instead.
    pub(crate) fn check_endpoint(&self, endpoint: &str, way_out: &str) -> Result<Url> {
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
                format!(
                    "use `https://`, or write the endpoint into {way_out} where the network is trusted"
                ),
            )),
            scheme => Err(Error::setup(
                format!("the endpoint's scheme `{scheme}` is not known"),
                example,
            )),
        }
    }

    /// Reads the certificates to trust besides the system's.
    pub(crate) fn certificates(&self) -> Result<Vec<reqwest::Certificate>> {
        match &self.ca_certificate {
            Some(path) => load_certificates(path),
            None => Ok(Vec::new()),
        }
    }
}

/// Turns off object_store's own retries: they neither sign anew nor know `Retry-After`.
pub(crate) fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::ZERO,
        ..RetryConfig::default()
    }
}

fn load_certificates(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let refuse = |why: String| {
        Error::setup(
            format!(
                "the CA certificate `{}` cannot be used: {why}",
                path.display()
            ),
            "`ca_certificate` is the path of a PEM file",
        )
    };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let found =
        reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| refuse(error.to_string()))?;
    if found.is_empty() {
        return Err(refuse("it holds no certificate".to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_sizes_are_checked() {
        let options = |part_size_bytes| CloudOptions {
            part_size_bytes,
            ..CloudOptions::default()
        };
        assert_eq!(options(None).part_sizes().unwrap(), None);
        assert!(options(Some(5 << 20)).part_sizes().unwrap().is_some());
        assert!(options(Some(1)).part_sizes().is_err());
    }

    #[test]
    fn secrets_in_an_endpoint_are_refused_and_not_repeated() {
        for endpoint in [
            "https://key:hunter2@host",
            "https://host?token=hunter2",
            "s3",
            "ftp://x",
            "http://host/hunter",
        ] {
            let error = CloudOptions::default().check_endpoint(endpoint, "the configuration");
            assert!(!format!("{:?}", error.unwrap_err()).contains("hunter2"));
        }
    }
}
