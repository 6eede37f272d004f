//! Private keys that open backups.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::sync::{Mutex, PoisonError};

use age::secrecy::{ExposeSecret, SecretString};
use age::{DecryptError, Decryptor, Identity, IdentityFile, x25519};
use age_core::format::{FileKey, Stanza};
use thiserror::Error;

use super::Opened;
use super::plugin::Words;

/// Keys that are tried one after the other. The default has none.
#[derive(Default)]
pub struct Identities {
    keys: Vec<Box<dyn Identity + Send + Sync>>,
    /// The recipients that belong to the keys, where that is known without a plugin.
    recipients: Vec<String>,
    /// Why files that should have held keys gave none.
    missing: Vec<String>,
    /// The same of files that are not there, which is as it should be on a host that makes backups.
    absent: Vec<String>,
    /// Keys of files that were opened: one that hardware holds is asked once for each file.
    opened: Mutex<HashMap<Vec<u8>, FileKey>>,
}

/// Why a file of identities cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadIdentity {
    /// A line is no identity.
    #[error("line {line} {why}")]
    Line {
        /// Its number.
        line: usize,
        /// What it is instead, to stand behind "line N".
        why: &'static str,
    },
    /// It holds none.
    #[error("it holds no private key; `age-keygen -o FILE` or `pgkeep keys generate` makes one")]
    Empty,
    /// It is encrypted.
    #[error(
        "it is encrypted with a passphrase itself; `age -d -o OTHER FILE` opens it, on a host that may hold it"
    )]
    Encrypted,
    /// It is no text at all.
    #[error("{0}")]
    NoText(&'static str),
    /// A plugin is missing.
    #[error("it needs a plugin of age that is not in PATH: {0}")]
    Plugin(String),
}

/// Why an age file cannot be opened.
#[derive(Debug, Error)]
pub enum CannotOpen {
    /// No key was given.
    #[error("no identity was given")]
    NoIdentity,
    /// None of the keys is one of its recipients'.
    #[error("none of the identities that were given opens it")]
    WrongIdentity,
    /// It is none, or its header was changed.
    #[error("{0}")]
    Damaged(String),
    /// It is encrypted with a passphrase.
    #[error("it is encrypted with a passphrase, which is not asked for: `age -d FILE` opens it")]
    Passphrase,
    /// A key, or the plugin that holds it, failed.
    #[error("a key failed: {0}")]
    Plugin(String),
}

impl CannotOpen {
    /// Returns the id of the failure of a key that is missing or wrong; none where the file is at fault.
    pub(crate) fn id(&self) -> Option<&'static str> {
        match self {
            Self::NoIdentity => Some("no_identity"),
            Self::WrongIdentity | Self::Passphrase | Self::Plugin(_) => Some("wrong_identity"),
            Self::Damaged(_) => None,
        }
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities")
            .field("recipients", &self.recipients)
            .finish_non_exhaustive()
    }
}

impl Identities {
    /// Adds the keys of a file's text.
    pub fn add(&mut self, text: &SecretString) -> Result<(), BadIdentity> {
        let whole = text.expose_secret();
        let text = whole.strip_prefix('\u{feff}').unwrap_or(whole);
        if text.starts_with("age-encryption.org/") || text.starts_with("-----BEGIN AGE") {
            return Err(BadIdentity::Encrypted);
        }
        let count = self.keys.len();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.add_line(at + 1, line)?;
            }
        }
        if self.keys.len() == count {
            return Err(BadIdentity::Empty);
        }
        Ok(())
    }

    fn add_line(&mut self, number: usize, line: &str) -> Result<(), BadIdentity> {
        if let Ok(key) = line.parse::<x25519::Identity>() {
            self.recipients.push(key.to_public().to_string());
            self.keys.push(Box::new(key));
            return Ok(());
        }
        let read = IdentityFile::from_buffer(line.as_bytes());
        let file = read.map_err(|_| BadIdentity::Line {
            line: number,
            why: what_instead(line),
        })?;
        match file.with_callbacks(Words).into_identities() {
            Ok(keys) => self.keys.extend(keys),
            Err(error) => return Err(BadIdentity::Plugin(error.to_string())),
        }
        Ok(())
    }

    /// Remembers why a file gave no key, for whoever finds that one is lacking.
    pub fn note_missing(&mut self, why: String) {
        self.missing.push(why);
    }

    /// The same of a file that is not there.
    pub fn note_absent(&mut self, why: String) {
        self.absent.push(why);
    }

    /// Returns why files that are there gave no key.
    pub fn unusable(&self) -> &[String] {
        &self.missing
    }

    /// Returns why files gave no key, those that are not there among them.
    pub fn missing(&self) -> Vec<String> {
        [&self.missing[..], &self.absent].concat()
    }

    /// Tells whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the recipients whose private keys are here, as far as they are known.
    pub fn recipients(&self) -> &[String] {
        &self.recipients
    }

    /// Opens an age file: reads its header and finds the key.
    pub(crate) fn open<R: Read>(&self, input: R) -> Result<Opened<R>, CannotOpen> {
        if self.keys.is_empty() {
            return Err(CannotOpen::NoIdentity);
        }
        self.decrypt(Decryptor::new(input))
    }

    /// The same for an input that holds more than what is asked for, which is faster.
    pub(crate) fn open_buffered<R: BufRead>(&self, input: R) -> Result<Opened<R>, CannotOpen> {
        if self.keys.is_empty() {
            return Err(CannotOpen::NoIdentity);
        }
        self.decrypt(Decryptor::new_buffered(input))
    }

    fn decrypt<R: Read>(
        &self,
        read: Result<Decryptor<R>, DecryptError>,
    ) -> Result<Opened<R>, CannotOpen> {
        let decryptor = read.map_err(|error| bad_header(&error))?;
        if decryptor.is_scrypt() {
            return Err(CannotOpen::Passphrase);
        }
        let all = Remembering(self);
        let keys = std::iter::once(&all as &dyn Identity);
        decryptor.decrypt(keys).map_err(|error| match error {
            DecryptError::NoMatchingKeys => CannotOpen::WrongIdentity,
            DecryptError::InvalidMac => CannotOpen::Damaged(
                "its header was changed: its checksum does not match".to_owned(),
            ),
            // A line for a recipient is read only when a key looks at it.
            error @ DecryptError::InvalidHeader => bad_header(&error),
            // Whatever else fails now is a key, or the program that holds it.
            error => CannotOpen::Plugin(first_line(&error.to_string())),
        })
    }

    /// Tries every key. One that fails does not hide a good one behind it.
    fn unwrap(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        let mut failed = None;
        for key in &self.keys {
            match key.unwrap_stanzas(stanzas) {
                Some(Ok(key)) => return Some(Ok(key)),
                Some(Err(error)) => failed = failed.or(Some(Err(error))),
                None => {}
            }
        }
        failed
    }
}

/// Says what is wrong with a header.
fn bad_header(error: &DecryptError) -> CannotOpen {
    CannotOpen::Damaged(match error {
        DecryptError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it ends within its header".to_owned()
        }
        DecryptError::Io(error) => format!("its header cannot be read: {error}"),
        DecryptError::UnknownFormat => {
            "it is no age file, or one of a version that is not known".to_owned()
        }
        _ => "its header is damaged".to_owned(),
    })
}

/// A plugin's words without the marks around its name, and without advice that is about age's own program.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars()
        .filter(|c| !c.is_control() && !('\u{2066}'..='\u{2069}').contains(c))
        .collect()
}

/// Tells what somebody may have taken for an identity.
fn what_instead(line: &str) -> &'static str {
    let lower = line.to_ascii_lowercase();
    if lower.starts_with("age1") {
        "is a recipient, the public half; a private key begins with `AGE-SECRET-KEY-1`"
    } else if lower.starts_with("age-secret-key-") || lower.starts_with("age-plugin-") {
        "is a private key that was cut or mistyped, or has something behind it"
    } else if lower.starts_with("-----begin openssh") || lower.starts_with("ssh-") {
        "is of SSH; `ssh-to-age -private-key` turns an ed25519 key into an identity"
    } else {
        "is no identity of age; one begins with `AGE-SECRET-KEY-1` or `AGE-PLUGIN-`"
    }
}

/// All keys as one, which remembers what they found.
struct Remembering<'a>(&'a Identities);

impl Identity for Remembering<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.unwrap_stanzas(std::slice::from_ref(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        let name = name_of(stanzas);
        let mut opened = self.0.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = opened.get(&name) {
            return Some(Ok(copy(known)));
        }
        let found = self.0.unwrap(stanzas);
        if let Some(Ok(key)) = &found {
            opened.insert(name, copy(key));
        }
        found
    }
}

fn copy(key: &FileKey) -> FileKey {
    FileKey::init_with_mut(|bytes| bytes.copy_from_slice(key.expose_secret()))
}

/// What of a header tells its file from all others: the wrapped keys.
fn name_of(stanzas: &[Stanza]) -> Vec<u8> {
    let mut name = Vec::new();
    for stanza in stanzas {
        let words = std::iter::once(&stanza.tag).chain(&stanza.args);
        for word in words {
            name.extend_from_slice(word.as_bytes());
            name.push(b' ');
        }
        name.extend_from_slice(&stanza.body);
        name.push(b'\n');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::super::Recipients;
    use super::*;

    fn key() -> (x25519::Identity, String) {
        let key = x25519::Identity::generate();
        let recipient = key.to_public().to_string();
        (key, recipient)
    }

    fn file(keys: &[&x25519::Identity]) -> Identities {
        let mut identities = Identities::default();
        for key in keys {
            identities.add(&key.to_string()).unwrap();
        }
        identities
    }

    fn sealed(recipient: &str) -> Vec<u8> {
        let recipients = Recipients::parse(&[recipient.to_owned()]).unwrap();
        recipients.seal_all(b"a text").unwrap()
    }

    #[test]
    fn keys_are_tried_in_turn_and_a_wrong_one_is_told_from_damage() {
        let ((a, to_a), (b, _)) = (key(), key());
        let sealed = sealed(&to_a);
        let mut text = String::new();
        let mut opened = file(&[&b, &a]).open(&sealed[..]).unwrap();
        opened.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a text");
        let error = |identities: &Identities, bytes: &[u8]| identities.open(bytes).err();
        assert!(matches!(
            error(&file(&[&b]), &sealed),
            Some(CannotOpen::WrongIdentity)
        ));
        assert!(matches!(
            error(&Identities::default(), &sealed),
            Some(CannotOpen::NoIdentity)
        ));
        let mut changed = sealed.clone();
        let mac = changed.windows(4).position(|four| four == b"--- ").unwrap();
        changed[mac + 5] ^= 1;
        let mut unreadable = sealed.clone();
        unreadable[60] = b'@';
        for bytes in [
            &changed[..],
            &unreadable,
            &sealed[..100],
            b"",
            b"age-encryption.org/v9\n",
        ] {
            assert!(matches!(
                error(&file(&[&a]), bytes),
                Some(CannotOpen::Damaged(_))
            ));
        }
    }

    #[test]
    fn a_file_that_was_opened_once_asks_no_key_again() {
        let (a, to_a) = key();
        let sealed = sealed(&to_a);
        let mut identities = file(&[&a]);
        identities.open(&sealed[..]).unwrap();
        identities.keys.clear();
        identities.keys.push(Box::new(key().0));
        identities.open(&sealed[..]).unwrap();
        assert!(identities.open(&self::sealed(&to_a)[..]).is_err());
    }

    /// As a plugin does whose hardware is not there.
    struct Failing;

    impl Identity for Failing {
        fn unwrap_stanza(&self, _: &Stanza) -> Option<Result<FileKey, DecryptError>> {
            let error = io::Error::new(io::ErrorKind::BrokenPipe, "it died");
            Some(Err(DecryptError::Io(error)))
        }
    }

    #[test]
    fn a_key_that_fails_hides_no_good_one_and_damages_no_file() {
        let (a, to_a) = key();
        let sealed = sealed(&to_a);
        let mut identities = Identities::default();
        identities.keys.push(Box::new(Failing));
        let error = identities.open(&sealed[..]).err();
        assert!(matches!(error, Some(CannotOpen::Plugin(why)) if why.contains("it died")));
        identities.add(&a.to_string()).unwrap();
        identities.open(&sealed[..]).unwrap();
    }

    #[test]
    fn a_passphrase_is_told_from_a_wrong_key() {
        let encryptor = age::Encryptor::with_user_passphrase("hunter2".to_owned().into());
        let sealed = encryptor.wrap_output(Vec::new()).unwrap().finish().unwrap();
        let error = file(&[&key().0]).open(&sealed[..]).err();
        assert!(matches!(error, Some(CannotOpen::Passphrase)));
    }

    #[test]
    fn files_come_with_comments_and_any_line_ends() {
        let (a, to_a) = key();
        let text = format!(
            "\u{feff}# created\r\n# public key: {to_a}\r\n\r\n{}\r\n",
            a.to_string().expose_secret()
        );
        let mut identities = Identities::default();
        identities.add(&text.into()).unwrap();
        assert_eq!(identities.recipients(), std::slice::from_ref(&to_a));
        for (text, why) in [
            (String::new(), "no private key"),
            ("# nothing\n".to_owned(), "no private key"),
            (format!("#\n{to_a}\n"), "line 2 is a recipient"),
            ("hunter2".to_owned(), "line 1 is no identity"),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(),
                "ssh-to-age",
            ),
            (
                "age-encryption.org/v1\n-> scrypt".to_owned(),
                "encrypted with a passphrase",
            ),
        ] {
            let said = Identities::default()
                .add(&text.clone().into())
                .unwrap_err()
                .to_string();
            assert!(said.contains(why) && !said.contains("hunter2"), "{said}");
        }
    }
}
