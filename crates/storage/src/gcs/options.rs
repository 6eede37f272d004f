//! What can be set about a bucket of GCS, and where its requests go.

use url::Url;

use super::credentials::{GcsCredentials, Login};
use crate::Result;
use crate::cloud::options::CloudOptions;

/// Google's own address.
const GOOGLE: &str = "https://storage.googleapis.com";

/// Settings of a GCS storage beyond its URL.
#[derive(Clone, Debug, Default)]
pub struct GcsOptions {
    /// What every bucket has. No endpoint means Google's, or `gcs_base_url` of a service account's file.
    pub cloud: CloudOptions,
    /// Who signs the requests.
    pub credentials: GcsCredentials,
}

impl GcsOptions {
    /// Works out where requests go.
    pub(super) fn endpoint(&self, login: &Login) -> Result<Url> {
        let named = self.cloud.endpoint.as_deref();
        let told = login.emulator();
        let mut cloud = self.cloud.clone();
        // Whoever writes a file for an emulator sends it no secret.
        cloud.allow_http |= named.is_none() && told.is_some();
        cloud.check_endpoint(named.or(told).unwrap_or(GOOGLE), "the configuration")
    }
}
