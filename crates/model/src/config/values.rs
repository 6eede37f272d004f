//! What the configuration's own types are read from and shown as: choices, groups in groups, required tables.

use super::check;
use super::keys::{Key, Kind};
use super::reader::{Field, Fields, Reader, choose, parse_count, parse_span};
use super::setting::{Blank, Group, Scalar, Setting};
use super::shown::{Keys, Shown};
use super::tree::{Node, Value};
use super::types::{
    Compression, CompressionMethod, DrillConfig, KeepPreDeploy, LogConfig, PostgresConfig, Preset,
    REQUIRED_TABLE, RequiredTable, Retention, Retries,
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

            fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
                if let Some(group) = read_nested(reader, fields, name, $check) {
                    *self = group;
                }
            }

            fn put(&self, keys: &mut Keys, key: &Key) {
                put_nested(self, keys, key);
            }
        }

        impl Setting for Option<$group> {
            fn unset(_: &Key) -> Self {
                None
            }

            fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
                if let Some(group) = read_nested(reader, fields, name, $check) {
                    *self = Some(group);
                }
            }

            fn put(&self, keys: &mut Keys, key: &Key) {
                if let Some(group) = self {
                    put_nested(group, keys, key);
                }
            }
        }
    )*};
}

nested! {
    Retries: check::retries;
    Retention: check::retention;
    DrillConfig: check::nothing;
    PostgresConfig: check::nothing;
    LogConfig: check::nothing;
}

fn read_nested<T: Group>(
    reader: &mut Reader,
    fields: &Fields,
    name: &str,
    check: impl Fn(&mut T, &mut Reader, &Fields),
) -> Option<T> {
    let fields = reader.open_key(fields, name)?;
    let mut group = T::unset();
    group.read_all(reader, &fields);
    check(&mut group, reader, &fields);
    Some(group)
}

fn put_nested(group: &impl Group, keys: &mut Keys, key: &Key) {
    let shown = group.shown();
    keys.put_some(key.name, (!shown.is_empty()).then_some(shown));
}

/// A method alone, or a method and a level.
impl Setting for Compression {
    fn unset(_: &Key) -> Self {
        Group::unset()
    }

    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
        let is_method = |field: Field| matches!(field.node.value, Value::Text(_));
        let read = if fields.find(name).is_some_and(is_method) {
            reader
                .scalar(fields, name, |key, text| Scalar::parse(text, key.kind))
                .map(|method| Self {
                    method,
                    level: None,
                })
        } else {
            read_nested(reader, fields, name, check::level)
        };
        if let Some(compression) = read {
            *self = compression;
        }
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        let level = self.level_in_force();
        put_nested(&Self { level, ..*self }, keys, key);
    }
}

impl Setting for Vec<RequiredTable> {
    fn unset(_: &Key) -> Self {
        Self::new()
    }

    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
        let Some(field) = fields.find(name) else {
            return;
        };
        let read = reader.list(&field, |reader, item| match &item.value {
            Value::Map(_) => read_required(reader, item, &field.path),
            _ => {
                let table = reader.table(item, item.line, &field.path);
                table.map(RequiredTable::new)
            }
        });
        if let Some(tables) = read {
            *self = tables;
        }
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        keys.put_list(key.name, self, |required| {
            let table = required.table.to_string();
            let Some(min_rows) = required.min_rows else {
                return table.into();
            };
            let mut keys = Keys::default();
            keys.put("name", table);
            keys.put("min_rows", min_rows);
            keys.into()
        });
    }
}

fn read_required(reader: &mut Reader, item: &Node, path: &str) -> Option<RequiredTable> {
    let fields = reader.open(item, item.line, path, &REQUIRED_TABLE)?;
    let min_rows = reader.scalar(&fields, "min_rows", |key, text| parse_count(text, key.kind));
    let Some(name) = fields.find("name") else {
        reader.note(item.line, format!("`{path}.name` is missing"));
        return None;
    };
    let table = reader.table(name.node, name.line, &name.path)?;
    Some(RequiredTable { table, min_rows })
}
