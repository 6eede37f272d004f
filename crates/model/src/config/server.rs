//! Entries of `server.tokens`.

use super::reader::{Field, Reader};
use super::setting::{Group, Item};
use super::shown::Shown;
use super::types::TokenConfig;

impl Item for TokenConfig {
    fn read(reader: &mut Reader, item: &Field) -> Option<Self> {
        let fields = reader.open(item)?;
        let token = Self::read_new(reader, &fields);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let is_good = !token.name.is_empty() && token.name.chars().all(is_plain);
        if fields.has("name") && !is_good {
            reader.refuse_key(
                &fields,
                "name",
                "has letters, digits, `_` and `-` only".to_owned(),
            );
        }
        Some(token)
    }

    fn show(&self) -> Shown {
        self.shown().into()
    }
}
