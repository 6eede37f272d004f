//! Public keys that a backup is encrypted to.

use std::fmt;
use std::io::{self, Write};

use age::plugin::RecipientPluginV1;
use age::{Encryptor, Recipient, plugin, tag, tagpq, x25519};
use thiserror::Error;

use super::plugin::Words;
use super::{CannotOpen, Identities, Sealed};
use pgkeep_model::encryption::{MAX_HEADER_BYTES, RecipientKind, recipient_kind};

/// What is encrypted and opened before anything is relied on.
const PROBE: &[u8] = b"pgkeep";

/// Everyone who can open what is encrypted.
pub struct Recipients {
    texts: Vec<String>,
    parsed: Vec<Box<dyn Recipient + Send + Sync>>,
}

/// A text that is no recipient. The text itself is never repeated: it may be a private key.
#[derive(Debug, Error)]
pub struct BadRecipient {
    /// Its position in the list.
    pub at: usize,
    why: String,
}

impl fmt::Display for BadRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recipients").field(&self.texts).finish()
    }
}

impl Recipients {
    /// Reads recipients; the same one twice counts once. None at all is no error here, and encrypts nothing.
    pub fn parse(texts: &[String]) -> Result<Self, BadRecipient> {
        let mut all = Self {
            texts: Vec::new(),
            parsed: Vec::new(),
        };
        for (at, written) in texts.iter().enumerate() {
            // Capitals are another way to write the same key.
            let is_upper = !written.bytes().any(|b| b.is_ascii_lowercase());
            let text = if is_upper {
                &written.to_ascii_lowercase()
            } else {
                written
            };
            if all.texts.contains(text) {
                continue;
            }
            let parsed = parse(text).map_err(|why| BadRecipient { at, why })?;
            all.texts.push(text.clone());
            all.parsed.push(parsed);
        }
        Ok(all)
    }

    /// Returns the recipients as they were written.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Starts an age file in `output`: header and nonce are written at once.
    pub(crate) fn seal<W: Write>(&self, output: W) -> io::Result<Sealed<W>> {
        let recipients = self.parsed.iter().map(|one| one.as_ref() as &dyn Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        encryptor.wrap_output(output)
    }

    /// Encrypts a small text that is held in memory.
    pub(crate) fn seal_all(&self, text: &[u8]) -> io::Result<Vec<u8>> {
        let mut sealed = self.seal(Vec::new())?;
        sealed.write_all(text)?;
        sealed.finish()
    }

    /// Encrypts a probe and, with identities, opens it again. Says why that fails.
    pub(crate) fn prove(&self, identities: &Identities) -> Result<(), CannotUse> {
        let probe = self
            .seal_all(PROBE)
            .map_err(|error| CannotUse::Sealing(error.to_string()))?;
        if probe.len() as u64 > MAX_HEADER_BYTES {
            let why = "there are so many that the header gets too long".to_owned();
            return Err(CannotUse::Sealing(why));
        }
        if identities.is_empty() {
            return Ok(());
        }
        let mut opened = identities.open(&probe[..]).map_err(CannotUse::Opening)?;
        let mut text = Vec::new();
        match io::Read::read_to_end(&mut opened, &mut text) {
            Ok(_) if text == PROBE => Ok(()),
            Ok(_) => Err(CannotUse::Sealing("the probe came back changed".to_owned())),
            Err(error) => Err(CannotUse::Sealing(error.to_string())),
        }
    }
}

/// Why recipients are of no use.
#[derive(Debug)]
pub(crate) enum CannotUse {
    /// Nothing can be encrypted to them.
    Sealing(String),
    /// The identities at hand do not open what is encrypted to them.
    Opening(CannotOpen),
}

fn parse(text: &str) -> Result<Box<dyn Recipient + Send + Sync>, String> {
    let kind = recipient_kind(text).map_err(|why| why.to_string())?;
    // What age says of it is about its letters, and shows none of them.
    let bad = |why: &str| format!("is no valid recipient: {why}");
    match kind {
        RecipientKind::X25519 => boxed(text.parse::<x25519::Recipient>().map_err(bad)),
        RecipientKind::Tag => boxed(text.parse::<tag::Recipient>().map_err(bad)),
        RecipientKind::TagPq => boxed(text.parse::<tagpq::Recipient>().map_err(bad)),
        RecipientKind::Plugin => {
            let recipient: plugin::Recipient = text.parse().map_err(bad)?;
            let name = recipient.plugin().to_owned();
            let plugin = RecipientPluginV1::new(&name, &[recipient], &[], Words);
            boxed(plugin.map_err(|_| {
                format!(
                    "is a recipient of a plugin, and the program `age-plugin-{name}` is not in PATH; \
                     hardware keys have a recipient that begins with `age1tag1` and needs no plugin here"
                )
            }))
        }
    }
}

fn boxed<R: Recipient + Send + Sync + 'static>(
    parsed: Result<R, String>,
) -> Result<Box<dyn Recipient + Send + Sync>, String> {
    parsed.map(|recipient| Box::new(recipient) as Box<dyn Recipient + Send + Sync>)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z";
    const TAG: &str = "age1tag1qwe0kafsjrar4txm6heqnhpfuggzr0gvznz7fvygxrlq90u5mq2pysxtw6h";

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn hardware_keys_need_no_plugin_to_encrypt_to() {
        let capitals = ONE.to_ascii_uppercase();
        let recipients = Recipients::parse(&owned(&[ONE, TAG, ONE, &capitals])).unwrap();
        assert_eq!(recipients.texts(), [ONE, TAG]);
        recipients.prove(&Identities::default()).unwrap();
        let text = String::from_utf8_lossy(&recipients.seal_all(b"x").unwrap()).into_owned();
        assert!(
            text.starts_with("age-encryption.org/v1\n-> X25519 "),
            "{text}"
        );
        assert!(text.contains("-> p256tag "), "{text}");
    }

    #[test]
    fn what_is_none_is_told_by_its_place_and_never_shown() {
        for (bad, why) in [
            (&ONE[..60], "no valid recipient"),
            (
                "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33",
                "private key",
            ),
            ("ssh-ed25519 AAAA", "ssh-to-age"),
            ("correct horse", "no recipient of age"),
        ] {
            let error = Recipients::parse(&owned(&[ONE, bad])).unwrap_err();
            assert_eq!(error.at, 1);
            let said = error.to_string();
            assert!(said.contains(why) && !said.contains(bad), "{said}");
        }
        let yubikey = "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t";
        let said = Recipients::parse(&owned(&[yubikey]))
            .unwrap_err()
            .to_string();
        assert!(said.contains("age-plugin-yubikey"), "{said}");
    }

    #[test]
    fn recipients_of_which_no_file_can_be_made_are_refused() {
        let none = Recipients::parse(&[]).unwrap();
        assert!(matches!(
            none.prove(&Identities::default()),
            Err(CannotUse::Sealing(_))
        ));
    }
}
