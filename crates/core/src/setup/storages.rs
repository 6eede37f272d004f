//! Storages of the configuration and of overrides, opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Setup;
use super::databases::database_config;
use crate::copies::listing::{NamedStorage, storage_failure};
use pgkeep_model::config::{Config, StorageConfig, StorageUrl};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::id::DatabaseName;
use pgkeep_storage::{Absent, AppendOnly, Storage};

/// Storages that somebody names for one run.
#[derive(Clone, Debug, Default)]
pub struct StorageOverrides {
    /// Folders, buckets (`s3://`, `gs://`, `az://`) or remotes (`rclone:`); none at all means those of the configuration.
    pub storages: Vec<String>,
    /// Endpoint of an S3-compatible service.
    pub s3_endpoint: Option<String>,
    /// Region of the bucket.
    pub s3_region: Option<String>,
    /// Files of private keys that open encrypted backups.
    pub identities: Vec<PathBuf>,
}

impl Setup {
    /// Returns the folders of storages that are not there yet: opening one makes it.
    pub fn missing_folders(&self, places: &StorageOverrides) -> Result<Vec<PathBuf>> {
        let config = self.config()?;
        let configured = config
            .iter()
            .flat_map(|config| &config.storages)
            .map(|(_, storage)| storage.url.clone());
        let named = places.storages.iter().filter_map(|url| url.parse().ok());
        let folders = named.chain(configured).filter_map(|url| match url {
            StorageUrl::Folder(path) => Some(self.expand_home(&path)),
            _ => None,
        });
        Ok(folders.filter(|path| !path.exists()).collect())
    }

    /// Opens the storages that `places` name, or those of the configuration; `-d` narrows the latter.
    pub fn storages(&self, places: &StorageOverrides) -> Result<Vec<NamedStorage>> {
        if !places.storages.is_empty() {
            let opened: Result<Vec<Opened>> = places
                .storages
                .iter()
                .map(|url| self.open_flag(url, places))
                .collect();
            return self.with_identities(self.usable(opened?)?, &places.identities);
        }
        let config = self.config()?.ok_or_else(no_storage)?;
        let names: Vec<String> = match &self.database {
            Some(database) => database_config(config, database)?.storages.clone(),
            None => config
                .storages
                .iter()
                .map(|(name, _)| name.clone())
                .collect(),
        };
        self.with_identities(self.open_named(config, &names)?, &places.identities)
    }

    /// Opens storages to read from: a folder that is not there is not made.
    pub fn storages_to_read(&self, places: &StorageOverrides) -> Result<Vec<NamedStorage>> {
        let is_folder = |url: &&String| !url.contains("://") && !url.starts_with("rclone:");
        for folder in places.storages.iter().filter(is_folder) {
            let path = self.expand_home(Path::new(folder));
            if places.storages.len() == 1 && !path.exists() {
                let message = format!("there is no folder `{}`", path.display());
                return Err(Failure::new(Kind::NotFound, "no_such_storage", message));
            }
        }
        self.storages(places)
    }

    /// Tells whether the configuration has storages of this database beside these. One that cannot be opened is one, and
    /// a configuration that cannot be read may have some.
    pub(super) fn knows_more_storages(
        &self,
        database: &DatabaseName,
        named: &[NamedStorage],
    ) -> bool {
        let config = match self.config() {
            Ok(Some(config)) => config,
            Ok(None) => return false,
            Err(_) => return true,
        };
        let Some(section) = config.database(database.as_str()) else {
            return false;
        };
        let given: Vec<String> = named.iter().map(|one| one.storage.identity()).collect();
        match self.open_named(config, &section.storages) {
            Ok(all) => all
                .iter()
                .any(|one| !given.contains(&one.storage.identity())),
            Err(_) => true,
        }
    }

    /// Opens storages of the configuration by their names; at least one must be usable.
    pub fn open_named(&self, config: &Config, names: &[String]) -> Result<Vec<NamedStorage>> {
        if names.is_empty() {
            return Err(no_storage());
        }
        self.usable(self.opened(config, names)?)
    }

    /// Opens storages for one database of several: where none is usable, its own run says so, and the others go on.
    pub fn open_for_one_of_several(
        &self,
        config: &Config,
        names: &[String],
    ) -> Result<Vec<NamedStorage>> {
        let opened = self.opened(config, names)?;
        Ok(opened.into_iter().map(Opened::or_absent).collect())
    }

    /// Opens one storage of the configuration; one that cannot be used says why whenever it is asked.
    pub(super) fn open_one(&self, config: &Config, name: &str) -> Result<NamedStorage> {
        let opened = self.opened(config, &[name.to_owned()])?.pop();
        Ok(opened.expect("one name, one storage").or_absent())
    }

    fn opened(&self, config: &Config, names: &[String]) -> Result<Vec<Opened>> {
        let find = |name: &String| {
            let storage = config
                .storage(name)
                .expect("the configuration was checked for unknown storages");
            self.open(name, storage)
        };
        names.iter().map(find).collect()
    }

    /// One storage that cannot be used does not stop the others: it says why whenever it is asked. None at all is a
    /// failure.
    fn usable(&self, opened: Vec<Opened>) -> Result<Vec<NamedStorage>> {
        let is_any = self.is_check || opened.iter().any(|one| one.opened.is_ok());
        let bad = opened
            .iter()
            .find_map(|one| Some((&one.name, one.opened.as_ref().err()?)));
        match bad {
            Some((name, error)) if !is_any => Err(storage_failure(
                &format!("cannot use the storage `{name}`"),
                error,
            )),
            _ => Ok(opened.into_iter().map(Opened::or_absent).collect()),
        }
    }

    fn open_flag(&self, url: &str, places: &StorageOverrides) -> Result<Opened> {
        let bad = |error| {
            Failure::new(
                Kind::Usage,
                "bad_storage",
                format!("cannot use `--storage`: {error}"),
            )
        };
        let mut storage = StorageConfig::new(url.parse::<StorageUrl>().map_err(bad)?);
        storage.endpoint.clone_from(&places.s3_endpoint);
        storage.region.clone_from(&places.s3_region);
        let label = storage.url.to_string();
        self.open(&label, &storage)
    }

    fn open(&self, name: &str, config: &StorageConfig) -> Result<Opened> {
        let url = match &config.url {
            // Said in messages and in lines to paste, which are read elsewhere.
            StorageUrl::Folder(path) => absolute(&self.expand_home(path)).display().to_string(),
            bucket => bucket.to_string(),
        };
        let kept = |storage| -> Arc<dyn Storage> {
            if config.append_only {
                Arc::new(AppendOnly::new(storage))
            } else {
                storage
            }
        };
        let opened = pgkeep_storage::open(&url, &self.bucket_options(config)).map(kept);
        Ok(Opened {
            name: name.to_owned(),
            url,
            opened,
        })
    }

    pub(super) fn expand_home(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), self.var("HOME")) {
            (Ok(rest), Some(home)) => Path::new(&home).join(rest),
            _ => path.to_owned(),
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.components().collect()
}

/// A storage as it was opened.
struct Opened {
    name: String,
    url: String,
    opened: pgkeep_storage::Result<Arc<dyn Storage>>,
}

impl Opened {
    fn or_absent(self) -> NamedStorage {
        let Self { name, url, opened } = self;
        let storage = opened.unwrap_or_else(|error| Arc::new(Absent::new(url, &error)));
        NamedStorage {
            name,
            storage,
            identities: Arc::default(),
        }
    }
}

fn no_storage() -> Failure {
    Failure::new(Kind::Usage, "no_storage", "no storage was given")
        .hint("`--storage ./backups` or `--storage s3://bucket/prefix`, or a configuration (`pgkeep config init`)")
}
