//! What a group and a value of a key are, and what each plain type is read from and shown as.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Span;
use jiff::tz::TimeZone;
use secrecy::{ExposeSecret, SecretString};

use super::keys::{Key, Kind};
use super::reader::{
    Field, Fields, Reader, check_text, choose, limits_of, parse_count, parse_duration, parse_flag,
    parse_size, parse_span, parse_timezone, show_duration,
};
use super::shown::{HIDDEN, Keys, Shown, show_size};
use super::url::{self, StorageUrl};
use crate::name::{TableName, quote_if_needed};

/// A struct whose every field is a key.
pub(super) trait Group: Sized {
    /// Its keys, in the order in which they are shown.
    const KEYS: &'static [Key];

    /// What it is where nothing is given.
    fn unset() -> Self;

    /// Reads the keys that are given over what stands there; a bad one is noted and changes nothing.
    fn read(&mut self, reader: &mut Reader, fields: &Fields);

    /// Shows the keys, without secrets.
    fn put(&self, keys: &mut Keys);

    /// Reads the keys, and notes the required ones that are not given.
    fn read_all(&mut self, reader: &mut Reader, fields: &Fields) {
        reader.note_all_missing(fields);
        self.read(reader, fields);
    }

    /// Reads a whole section.
    fn read_new(reader: &mut Reader, fields: &Fields) -> Self {
        let mut group = Self::unset();
        group.read_all(reader, fields);
        group
    }

    /// Shows the keys as they stand in one section.
    fn shown(&self) -> Keys {
        let mut keys = Keys::default();
        self.put(&mut keys);
        keys
    }
}

/// The value of a key.
pub(super) trait Setting: Sized {
    /// What it is where the key is not given.
    fn unset(key: &Key) -> Self;

    /// Reads the key where it is given; a bad value is noted and counts as not given.
    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self>;

    /// Shows the value, without secrets.
    fn put(&self, keys: &mut Keys, key: &Key);
}

/// A value that is a single text in the file.
pub(super) trait Scalar: Sized {
    fn parse(text: &str, kind: Kind) -> Result<Self, String>;
    fn show(&self, kind: Kind) -> Shown;
}

/// A value that has something to be where neither the file nor the table says anything.
pub(super) trait Blank {
    fn blank() -> Self;
}

impl<T: Scalar + Blank> Setting for T {
    fn unset(key: &Key) -> Self {
        let default = key.default.map(|text| T::parse(text, key.kind));
        default.and_then(Result::ok).unwrap_or_else(T::blank)
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        let field = fields.find(name)?;
        reader.scalar(field, |text| T::parse(text, field.key.kind))
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        let shown = self.show(key.kind);
        // A key without a default is shown where it is given.
        if key.default.is_some() || key.is_required || !shown.is_false() {
            keys.put(key.name, shown);
        }
    }
}

/// Not given, or switched off where the key can be.
impl<T: Scalar> Setting for Option<T> {
    fn unset(key: &Key) -> Self {
        let default = key.default.filter(|text| !key.kind.is_off(text));
        default.and_then(|text| T::parse(text, key.kind).ok())
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        let field = fields.find(name)?;
        let kind = field.key.kind;
        reader.scalar(field, |text| {
            let is_given = !kind.is_off(text);
            is_given.then(|| T::parse(text, kind)).transpose()
        })
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        match self {
            Some(value) => keys.put(key.name, value.show(key.kind)),
            None if key.kind.is_off("off") => keys.put(key.name, "off".to_owned()),
            None => {}
        }
    }
}

/// Not given, switched off, or given.
impl<T: Scalar> Setting for Option<Option<T>> {
    fn unset(_: &Key) -> Self {
        None
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        Setting::read(reader, fields, name).map(Some)
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        if let Some(value) = self {
            value.put(keys, key);
        }
    }
}

macro_rules! scalar {
    ($($type:ty: |$text:ident, $in:pat_param| $parse:expr, |$value:ident, $out:pat_param| $show:expr;)*) => {$(
        impl Scalar for $type {
            fn parse($text: &str, $in: Kind) -> Result<Self, String> {
                $parse
            }
            fn show(&self, $out: Kind) -> Shown {
                let $value = self;
                $show.into()
            }
        }
    )*};
}

scalar! {
    bool: |text, _| parse_flag(text), |flag, _| *flag;
    u8: |text, kind| parse_count(text, kind), |number, _| u64::from(*number);
    u16: |text, kind| parse_count(text, kind), |number, _| u64::from(*number);
    u32: |text, kind| parse_count(text, kind), |number, _| u64::from(*number);
    usize: |text, kind| parse_count(text, kind), |number, _| *number as u64;
    u64: |text, kind| parse_size(text, kind), |bytes, _| show_size(*bytes);
    Duration: |text, kind| parse_duration(text, &limits_of(kind)), |duration, _| show_duration(*duration);
    Span: |text, _| parse_span(text), |span, _| format!("{span:#}");
    TimeZone: |text, _| parse_timezone(text), |zone, _| zone.iana_name().unwrap_or("UTC").to_owned();
    PathBuf: |text, _| check_text(text).map(PathBuf::from), |path, _| path.display().to_string();
    StorageUrl: |text, _| text.parse(), |url, _| url.to_string();
    String: |text, kind| match kind {
        Kind::Choice(choices) => choose(text, choices, |name| name).map(str::to_owned),
        Kind::Endpoint => url::check_endpoint(text).map(|()| text.to_owned()),
        _ => check_text(text).map(str::to_owned),
    }, |text, _| text.clone();
}

macro_rules! blank {
    ($($type:ty = $blank:expr;)*) => {$(
        impl Blank for $type {
            fn blank() -> Self {
                $blank
            }
        }
    )*};
}

// What stands here for long has a default in its key, or is refused where it is not given.
blank! {
    bool = false;
    u32 = 0;
    u64 = 0;
    Duration = Duration::ZERO;
    TimeZone = TimeZone::UTC;
    String = String::new();
    StorageUrl = StorageUrl::Folder(PathBuf::new());
}

// Secrets.

fn check_secret(text: &str, kind: Kind) -> Result<(), &'static str> {
    match kind {
        Kind::ConnectionUrl => url::check_postgres(text),
        Kind::SecretUrl => url::check_web(text),
        _ => Ok(()),
    }
}

/// A secret, given itself or as the file of the key with `_file`.
impl Setting for Option<SecretString> {
    fn unset(_: &Key) -> Self {
        None
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        SecretString::read(reader, fields, name).map(Some)
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        if let Some(secret) = self {
            secret.put(keys, key);
        }
    }
}

impl Setting for SecretString {
    fn unset(_: &Key) -> Self {
        Self::default()
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        let kind = fields.kind_of(name);
        reader.secret(fields, name, |text| check_secret(text, kind))
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        let shown = match key.kind {
            Kind::ConnectionUrl => url::redact(self.expose_secret()),
            Kind::SecretUrl => url::hide(self),
            _ => HIDDEN.to_owned(),
        };
        keys.put(key.name, shown);
    }
}

// Lists; an empty one is not shown.

/// A value that may stand in a list.
pub(super) trait Item: Sized {
    fn read(reader: &mut Reader, item: &Field) -> Option<Self>;
    fn show(&self) -> Shown;
}

impl<T: Item> Setting for Vec<T> {
    fn unset(_: &Key) -> Self {
        Self::new()
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        reader.list(fields.find(name)?, T::read)
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        keys.put_list(key.name, self, T::show);
    }
}

impl Item for TableName {
    fn read(reader: &mut Reader, item: &Field) -> Option<Self> {
        reader.table(item)
    }

    fn show(&self) -> Shown {
        self.to_string().into()
    }
}

impl Setting for Vec<String> {
    fn unset(_: &Key) -> Self {
        Self::new()
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        let field = fields.find(name)?;
        match field.key.kind {
            Kind::Schemas => reader.list(field, Reader::schema),
            Kind::Storages | Kind::Databases => reader.names(field),
            _ => reader.list(field, Reader::text),
        }
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        keys.put_list(key.name, self, |text| match key.kind {
            Kind::Schemas => quote_if_needed(text).into(),
            _ => text.clone().into(),
        });
    }
}

impl Item for PathBuf {
    fn read(reader: &mut Reader, item: &Field) -> Option<Self> {
        reader.text(item).map(Self::from)
    }

    fn show(&self) -> Shown {
        self.display().to_string().into()
    }
}

impl Setting for Vec<SecretString> {
    fn unset(_: &Key) -> Self {
        Self::new()
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        let form = "a program and its arguments, such as `[aws-vault, print]`";
        reader.command(fields.find(name)?, form)
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        keys.put_command(key.name, self);
    }
}
