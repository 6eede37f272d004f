//! Where requests to Azure go, worked out of options and environment.

use url::Url;

/// Where requests go.
pub(super) struct Target {
    /// Address of the account.
    pub(super) endpoint: Url,
    pub(super) account: String,
    /// Who hands out tokens, without a slash at its end.
    pub(super) authority_host: Option<String>,
    /// Whether the environment names an emulator, whose key everybody knows.
    pub(super) is_emulator: bool,
}
