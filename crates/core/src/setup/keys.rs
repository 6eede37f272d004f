//! Files of keys: recipients that backups are encrypted to, and identities that open them.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;

use super::Setup;
use super::databases::database_config;
use crate::copies::listing::NamedStorage;
use crate::encryption::{BadIdentity, Identities, Recipients};
use pgkeep_model::config::{Config, Encryption};
use pgkeep_model::encryption::lines_of_recipients;
use pgkeep_model::failure::{Failure, Kind, Result};

/// Names a file of private keys, where no flag does.
const IDENTITY_VARIABLE: &str = "PGKEEP_IDENTITY_FILE";

impl Setup {
    /// Returns the private keys of these files, all of which must be of use, or of the file that the environment names.
    pub fn identities_of(&self, named: &[PathBuf]) -> Result<Arc<Identities>> {
        let mut identities = Identities::default();
        for path in named {
            self.add_identities(&mut identities, path)?;
        }
        if named.is_empty() {
            let variable = self.var(IDENTITY_VARIABLE).map(PathBuf::from);
            self.add_what_is_there(&mut identities, variable.as_deref());
        }
        Ok(Arc::new(identities))
    }

    /// Returns the private keys of these files or, where none is named, of the file that the environment names and of
    /// those of the configuration: of the database that is meant, or of all of them.
    ///
    /// What nobody named for this run need not be there: a host that only makes backups may share its configuration
    /// with the one that restores.
    pub fn identities(&self, named: &[PathBuf]) -> Result<Arc<Identities>> {
        if !named.is_empty() {
            return self.identities_of(named);
        }
        let mut identities = Identities::default();
        let variable = self.var(IDENTITY_VARIABLE).map(PathBuf::from);
        self.add_what_is_there(&mut identities, variable.as_deref());
        // Anyone who restores a file needs no configuration, and a bad one must not stop them.
        if let Ok(Some(config)) = self.config() {
            self.add_what_is_there(&mut identities, self.configured_identities(config));
        }
        Ok(Arc::new(identities))
    }

    /// Returns the private keys that must open what is written for a database: those of these files, or those that its
    /// own configuration names. What the environment names may be there for other databases.
    pub(super) fn probe_keys(
        &self,
        named: &[PathBuf],
        configured: Option<&Encryption>,
    ) -> Result<Arc<Identities>> {
        if !named.is_empty() {
            return self.identities_of(named);
        }
        let mut identities = Identities::default();
        let own = configured
            .into_iter()
            .flat_map(|encryption| &encryption.identity_file);
        self.add_what_is_there(&mut identities, own.map(PathBuf::as_path));
        Ok(Arc::new(identities))
    }

    fn add_what_is_there<'a>(
        &self,
        identities: &mut Identities,
        paths: impl IntoIterator<Item = &'a Path>,
    ) {
        for path in paths {
            let is_there = self.expand_home(path).exists();
            match self.add_identities(identities, path) {
                Ok(()) => {}
                Err(failure) if is_there => identities.note_missing(failure.message),
                Err(failure) => identities.note_absent(failure.message),
            }
        }
    }

    /// Each once, in the order of the file.
    fn configured_identities<'a>(&self, config: &'a Config) -> Vec<&'a Path> {
        let meant = self.database.as_deref();
        let database = meant.and_then(|name| database_config(config, name).ok());
        let all = config.databases.iter().map(|(_, database)| database);
        let databases: Vec<_> = match database {
            Some(database) => vec![database],
            None => all.collect(),
        };
        let encryptions = databases
            .into_iter()
            .filter_map(|database| database.encryption.as_ref());
        let mut paths: Vec<&Path> = Vec::new();
        for path in encryptions.flat_map(|encryption| &encryption.identity_file) {
            if !paths.contains(&path.as_path()) {
                paths.push(path);
            }
        }
        paths
    }

    fn add_identities(&self, identities: &mut Identities, path: &Path) -> Result<()> {
        let name = path.display();
        let bad = |id, why: String| {
            let message = format!("cannot use the identity file `{name}`: {why}");
            Failure::new(Kind::Usage, id, message)
        };
        let path = &self.expand_home(path);
        // Asked before it is read: what others can read is no secret any more.
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
        let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        if is_file && mode & 0o004 != 0 {
            let why = format!(
                "every user of this host can read it (mode {:03o})",
                mode & 0o777
            );
            let hint =
                format!("`chmod 600 {name}`; for a secret of Kubernetes, `defaultMode: 0400`");
            return Err(bad("identity_open_to_all", why).hint(hint));
        }
        let text = self.read_text(path).map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                return bad("bad_identity", what_instead(path).to_string());
            }
            let message = format!("cannot read the identity file `{name}`: {error}");
            self.unread("cannot_read_identity", message)
        })?;
        let bare = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let keys = bare.lines().map(str::trim);
        for key in keys.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            self.hide(Some(&key.into()));
        }
        let text = SecretString::from(text);
        let added = identities.add(&text);
        added.map_err(|why| bad("bad_identity", why.to_string()))
    }

    /// Gives storages what opens encrypted backups in them.
    pub(super) fn with_identities(
        &self,
        storages: Vec<NamedStorage>,
        named: &[PathBuf],
    ) -> Result<Vec<NamedStorage>> {
        let identities = self.identities(named)?;
        let storages = storages.into_iter().map(|named| NamedStorage {
            identities: Arc::clone(&identities),
            ..named
        });
        Ok(storages.collect())
    }

    /// Returns who can open the backups of a database; none where they are not encrypted. Flags replace what the
    /// configuration says.
    pub(super) fn recipients(
        &self,
        flags: &[String],
        configured: Option<&Encryption>,
    ) -> Result<Option<Arc<Recipients>>> {
        if !flags.is_empty() {
            let named = flags
                .iter()
                .map(|text| ("`--recipient`".to_owned(), text.clone()));
            return parsed(named.collect()).map(Some);
        }
        let Some(encryption) = configured else {
            return Ok(None);
        };
        let mut found: Vec<(String, String)> = encryption
            .recipients
            .iter()
            .enumerate()
            .map(|(at, text)| {
                (
                    format!("entry {} of `encryption.recipients`", at + 1),
                    text.clone(),
                )
            })
            .collect();
        if let Some(path) = &encryption.recipients_file {
            found.extend(self.recipients_of_file(path)?);
        }
        parsed(found).map(Some)
    }

    /// Each with words for where it stands.
    fn recipients_of_file(&self, path: &Path) -> Result<Vec<(String, String)>> {
        let name = path.display();
        let text = self.read_text(&self.expand_home(path)).map_err(|error| {
            let message = format!("cannot read the recipients file `{name}`: {error}");
            self.unread("cannot_read_recipients", message)
        })?;
        let lines = lines_of_recipients(&text);
        if lines.is_empty() {
            let message = format!("the recipients file `{name}` names nobody");
            return Err(Failure::new(Kind::Usage, "bad_recipient", message)
                .hint("one public key of age a line, such as `age1…`"));
        }
        let of = |(line, text): (usize, &str)| {
            (
                format!("line {line} of the recipients file `{name}`"),
                text.to_owned(),
            )
        };
        Ok(lines.into_iter().map(of).collect())
    }
}

/// Tells what a file is that is no text.
fn what_instead(path: &Path) -> BadIdentity {
    let mut head = [0; 32];
    let read = fs::File::open(path).and_then(|mut file| file.read(&mut head));
    match &head[..read.unwrap_or(0)] {
        head if head.starts_with(b"age-encryption.org/") => BadIdentity::Encrypted,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            BadIdentity::NoText("it is text in UTF-16: save it as UTF-8")
        }
        _ => BadIdentity::NoText("it is no text"),
    }
}

/// Reads recipients, each with words for where it stands.
fn parsed(found: Vec<(String, String)>) -> Result<Arc<Recipients>> {
    let (places, texts): (Vec<String>, Vec<String>) = found.into_iter().unzip();
    let parsed = Recipients::parse(&texts).map_err(|bad| {
        let message = format!("{} {bad}", places[bad.at]);
        Failure::new(Kind::Usage, "bad_recipient", message)
    });
    parsed.map(Arc::new)
}
