//! Relative paths of a config, which start in the folder that the file is in: a run means the same wherever it starts.

use std::path::{Path, PathBuf};

use super::{Config, DatabaseConfig, StorageUrl};

/// What `sslrootcert` may say instead of a path (libpq 16 and later).
const SYSTEM_CERTIFICATES: &str = "system";

impl Config {
    /// Returns the same config with every relative path below `folder`.
    pub fn placed_in(mut self, folder: &Path) -> Self {
        let place = |path: &mut PathBuf| *path = placed(path, folder);
        let place_some = |path: &mut Option<PathBuf>| path.iter_mut().for_each(place);
        for (_, storage) in &mut self.storages {
            if let StorageUrl::Folder(path) = &mut storage.url {
                place(path);
            }
            place_some(&mut storage.ca_certificate);
            place_some(&mut storage.federated_token_file);
        }
        let place_database = |database: &mut DatabaseConfig| {
            let connection = &mut database.connection;
            place_some(&mut connection.passfile);
            place_some(&mut connection.sslrootcert);
            if let Some(encryption) = &mut database.encryption {
                place_some(&mut encryption.recipients_file);
                encryption.identity_file.iter_mut().for_each(place);
            }
        };
        place_database(&mut self.defaults);
        for (_, database) in &mut self.databases {
            place_database(database);
        }
        for notifier in &mut self.notify {
            place_some(&mut notifier.ca_certificate);
        }
        place_some(&mut self.postgres.bin_dir);
        place_some(&mut self.log.file);
        self
    }
}

/// Returns where a path leads from `folder`, without the `.` at its beginning.
pub fn placed(path: &Path, folder: &Path) -> PathBuf {
    let is_elsewhere = path.is_absolute()
        || path.as_os_str().is_empty()
        || path.as_os_str() == SYSTEM_CERTIFICATES;
    if is_elsewhere {
        return path.to_owned();
    }
    folder.join(path).components().collect()
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::super::tests::Fake;
    use super::*;

    #[test]
    fn relative_paths_start_at_the_file() {
        let text = "databases:\n  shop: {url: 'postgres://h/d', passfile: ./pgpass, sslrootcert: system}\n\
                    storages:\n  here: {url: ./backups}\n  up: {url: ../up}\n  there: {url: /srv/b}\n  \
                    far: {url: 's3://a/b', ca_certificate: ca.pem}\n\
                    postgres: {bin_dir: bin}\nlog: {file: a/b.log}\n\
                    notify:\n  - slack: {url: 'https://x.example/y', ca_certificate: chat.pem}\n";
        let written = parse(text, &Fake::default()).unwrap();
        let config = written.placed_in(Path::new("/etc/pgkeep"));
        let folder = |name: &str| config.storage(name).unwrap().url.to_string();
        assert_eq!(folder("here"), "/etc/pgkeep/backups");
        assert_eq!(folder("up"), "/etc/pgkeep/../up");
        assert_eq!(folder("there"), "/srv/b");
        assert_eq!(folder("far"), "s3://a/b");
        let connection = &config.database("shop").unwrap().connection;
        let path = |path: &str| Some(PathBuf::from(path));
        assert_eq!(connection.passfile, path("/etc/pgkeep/pgpass"));
        assert_eq!(connection.sslrootcert, path("system"));
        let far = config.storage("far").unwrap();
        assert_eq!(far.ca_certificate, path("/etc/pgkeep/ca.pem"));
        assert_eq!(
            config.notify[0].ca_certificate,
            path("/etc/pgkeep/chat.pem")
        );
        assert_eq!(config.postgres.bin_dir, path("/etc/pgkeep/bin"));
        assert_eq!(config.log.file, path("/etc/pgkeep/a/b.log"));
    }
}
