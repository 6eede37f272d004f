//! The meaning of `server` and of what runs by itself: groups under keys of their own, and what they demand.

use super::check;
use super::keys::Key;
use super::reader::{Field, Fields, Reader};
use super::setting::{Group, Item, Setting};
use super::shown::{Keys, Shown};
use super::types::{CronConfig, ServerConfig, TokenConfig, VerifyConfig};
use super::values::{put_nested, read_nested};

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

macro_rules! nested {
    ($($group:ident: $check:path;)*) => {$(
        impl Setting for $group {
            fn unset(_: &Key) -> Self {
                Group::unset()
            }

            fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
                read_nested(reader, fields.find(name)?, $check)
            }

            fn put(&self, keys: &mut Keys, key: &Key) {
                put_nested(self, keys, key);
            }
        }
    )*};
}

nested! {
    VerifyConfig: check::nothing;
    CronConfig: check::nothing;
    ServerConfig: tokens;
}

/// Who did something is told by the token's name, so each has its own.
fn tokens(server: &mut ServerConfig, reader: &mut Reader, fields: &Fields) {
    let Some(field) = fields.find("tokens") else {
        return;
    };
    for (at, token) in server.tokens.iter().enumerate() {
        let before = &server.tokens[..at];
        if before.iter().any(|other| other.name == token.name) {
            let why = format!("holds two tokens that are called `{}`", token.name);
            reader.refuse(field, why);
        }
    }
}
