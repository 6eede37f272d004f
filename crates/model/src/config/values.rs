//! What the configuration's own types are read from and shown as: choices, groups in groups, required tables.

use super::check;
use super::keys::{Key, Kind};
use super::reader::{Field, Fields, Reader, choose, parse_count, parse_span};
use super::setting::{Blank, Group, Item, Scalar, Setting};
use super::shown::{Keys, Shown};
use super::tree::Value;
use super::types::{
    Compression, CompressionMethod, CronConfig, DrillConfig, Encryption, KeepPreDeploy, LockConfig,
    LogConfig, PostgresConfig, Preset, RequiredTable, Retention, Retries, SentryConfig,
    ServerConfig, VerifyConfig,
};
use crate::notice::{MailTls, PingStyle};

/// Choices by their names, the usual one first.
macro_rules! choice {
    ($($type:ty: $first:expr $(, $other:expr)*;)*) => {$(
        impl Scalar for $type {
            fn parse(text: &str, _: Kind) -> Result<Self, String> {
                choose(text, &[$first $(, $other)*], Self::as_str)
            }
            fn show(&self, _: Kind) -> Shown {
                self.as_str().to_owned().into()
            }
        }

        impl Blank for $type {
            fn blank() -> Self {
                $first
            }
        }
    )*};
}

choice! {
    Preset: Preset::Supabase;
    CompressionMethod: CompressionMethod::Gzip, CompressionMethod::Zstd, CompressionMethod::None;
    MailTls: MailTls::StartTls, MailTls::Implicit, MailTls::None;
    PingStyle: PingStyle::Healthchecks, PingStyle::Plain;
}

impl Scalar for KeepPreDeploy {
    fn parse(text: &str, kind: Kind) -> Result<Self, String> {
        if text.parse::<i128>().is_ok() {
            return parse_count(text, kind).map(Self::Last);
        }
        let wrong = "must be a whole number or an age such as `30d`";
        parse_span(text)
            .map(Self::Within)
            .map_err(|_| wrong.to_owned())
    }

    fn show(&self, kind: Kind) -> Shown {
        match self {
            Self::Last(count) => count.show(kind),
            Self::Within(span) => span.show(kind),
        }
    }
}

// Groups under a key of their own.

/// Reads a whole group; one that is given replaces the whole of what stood there.
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
    Retries: check::retries;
    DrillConfig: check::nothing;
    PostgresConfig: check::nothing;
    LogConfig: check::nothing;
    LockConfig: check::lock;
    VerifyConfig: check::nothing;
    CronConfig: check::nothing;
    ServerConfig: check::server;
    SentryConfig: check::nothing;
}

pub(super) fn read_nested<T: Group>(
    reader: &mut Reader,
    field: &Field,
    check: impl Fn(&mut T, &mut Reader, &Fields),
) -> Option<T> {
    let fields = reader.open(field)?;
    let mut group = T::read_new(reader, &fields);
    check(&mut group, reader, &fields);
    Some(group)
}

pub(super) fn put_nested(group: &impl Group, keys: &mut Keys, key: &Key) {
    let shown = group.shown();
    keys.put_some(key.name, (!shown.is_empty()).then_some(shown));
}

impl Setting for Option<Retention> {
    fn unset(_: &Key) -> Self {
        None
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        read_nested(reader, fields.find(name)?, check::retention).map(Some)
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        if let Some(retention) = self {
            put_nested(retention, keys, key);
        }
    }
}

/// Switched off, or who can open the backups.
impl Setting for Option<Encryption> {
    fn unset(_: &Key) -> Self {
        None
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        let field = fields.find(name)?;
        if !matches!(field.node.value, Value::Text(_)) {
            return read_nested(reader, field, check::encryption).map(Some);
        }
        let off = |text: &str| match text {
            "off" => Ok(None),
            _ => Err("must hold `recipients`, or be `off`".to_owned()),
        };
        reader.scalar(field, off)
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        if let Some(encryption) = self {
            put_nested(encryption, keys, key);
        }
    }
}

/// A method alone, or a method and a level.
impl Setting for Compression {
    fn unset(_: &Key) -> Self {
        Group::unset()
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        let field = fields.find(name)?;
        if !matches!(field.node.value, Value::Text(_)) {
            return read_nested(reader, field, check::level);
        }
        let method = reader.scalar(field, |text| Scalar::parse(text, field.key.kind))?;
        Some(Self {
            method,
            level: None,
        })
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        let level = self.level_in_force();
        put_nested(&Self { level, ..*self }, keys, key);
    }
}

impl Item for RequiredTable {
    fn read(reader: &mut Reader, item: &Field) -> Option<Self> {
        if !matches!(item.node.value, Value::Map(_)) {
            return reader.table(item).map(Self::new);
        }
        let fields = reader.open(item)?;
        let min_rows = fields.find("min_rows").and_then(|field| {
            let kind = field.key.kind;
            reader.scalar(field, |text| parse_count(text, kind))
        });
        let Some(name) = fields.find("name") else {
            reader.note_missing(&fields, "name");
            return None;
        };
        let table = reader.table(name)?;
        Some(Self { table, min_rows })
    }

    fn show(&self) -> Shown {
        let table = self.table.to_string();
        let Some(min_rows) = self.min_rows else {
            return table.into();
        };
        let mut keys = Keys::default();
        keys.put("name", table);
        keys.put("min_rows", min_rows);
        keys.into()
    }
}
