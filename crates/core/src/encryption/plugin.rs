//! What a plugin of age may ask of the person at the terminal: to touch a key, and nothing else, because a run may have
//! no terminal.

use age::Callbacks;
use secrecy::SecretString;

#[derive(Clone, Copy, Debug)]
pub(super) struct Words;

impl Callbacks for Words {
    fn display_message(&self, message: &str) {
        tracing::warn!("{message}");
    }

    fn confirm(&self, message: &str, _: &str, _: Option<&str>) -> Option<bool> {
        tracing::warn!("{message}");
        None
    }

    fn request_public_string(&self, description: &str) -> Option<String> {
        tracing::warn!("{description}");
        None
    }

    fn request_passphrase(&self, description: &str) -> Option<SecretString> {
        tracing::warn!(
            "{description}: pgkeep asks for no PIN; a key that opens by touch alone works"
        );
        None
    }
}
