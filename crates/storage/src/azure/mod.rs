//! A storage in a container of Azure Blob Storage: what `cloud` does, with options, credentials and listings of Azure.
//!
//! Parts are blocks, which nobody sees before their list is written, and which Azure itself removes a week later where it
//! never is. It never follows a redirect and keeps no data on disk.

mod credentials;
mod listing;
mod options;
mod protection;
mod store;
mod target;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::cloud;
use crate::cloud::client::{Client, check_prefix};
use crate::cloud::codes;
use crate::cloud::compared::Compared;
use crate::cloud::retry::Patience;
use crate::cloud::transport::Connector;
use crate::{Error, Object, Protection, Result, Swept};
pub use credentials::AzureCredentials;
pub use options::AzureOptions;
use pgkeep_model::part_sizes::Limits;
use store::AzureStore;

/// Keeps objects in a container, below a prefix. Clones share connections and credentials.
#[derive(Clone)]
pub struct Azure {
    client: Arc<Client<AzureStore>>,
}

impl Azure {
    /// Prepares a storage; nothing is sent until the first verb.
    ///
    /// `prefix` may be empty. [`Error::Setup`] if the options contradict each other, or no account is named.
    pub fn open(container: &str, prefix: &str, options: &AzureOptions) -> Result<Self> {
        if container.is_empty() {
            return Err(Error::setup(
                "the storage's URL names no container",
                "it looks like `az://container/prefix`",
            ));
        }
        let cloud = &options.cloud;
        let target = options.target()?;
        let login = options.credentials.resolve(&cloud.environment, &target)?;
        let connector =
            Connector::new(&target.endpoint, cloud.certificates()?, cloud.stall_timeout)?;
        let label = format!("az://{container}/{}", prefix.trim_matches('/'))
            .trim_end_matches('/')
            .to_owned();
        let words = login.words().to_owned();
        let store = AzureStore::open(container, &target, login, &connector)?;
        let client = Client {
            store,
            patience: Patience::new(cloud.retry_budget, &label),
            label,
            prefix: check_prefix(prefix)?,
            part_sizes: cloud.part_sizes()?,
            limits: Limits::AZURE,
            compared: Compared::ETag,
            dialect: &codes::AZURE,
            login: words,
        };
        Ok(Self {
            client: Arc::new(client),
        })
    }
}

#[async_trait]
impl cloud::Bucket for Azure {
    type Store = AzureStore;

    fn client(&self) -> &Arc<Client<AzureStore>> {
        &self.client
    }

    fn identity(&self) -> String {
        format!("az {} {}", self.client.store.url(), self.client.prefix)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        listing::list(&self.client, prefix).await
    }

    /// Blocks that no list names are in no listing, and Azure removes them.
    async fn sweep(&self, _: &str, _: Timestamp) -> Result<Swept> {
        Ok(Swept::default())
    }

    async fn protection(&self) -> Option<Protection> {
        Some(protection::of_container(self).await)
    }
}
