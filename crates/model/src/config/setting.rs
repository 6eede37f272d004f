//! What a group and a value of a key are, and what each plain type is read from and shown as.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Span;
use jiff::tz::TimeZone;
use secrecy::{ExposeSecret, SecretString};

use super::keys::{Key, Kind};
use super::reader::{
    Fields, Reader, check_text, choose, limits_of, parse_count, parse_duration, parse_flag,
    parse_size, parse_span, parse_timezone, show_duration,
};
use super::shown::{HIDDEN, Keys, Shown, hide_arguments, show_size};
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
        reader.note_missing(fields);
        self.read(reader, fields);
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

    /// Reads the key over what stands there; a bad value is noted and changes nothing.
    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str);

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

    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
        if let Some(value) = reader.scalar(fields, name, |key, text| T::parse(text, key.kind)) {
            *self = value;
        }
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

    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
        let read = reader.scalar(fields, name, |key, text| {
            if key.kind.is_off(text) {
                Ok(None)
            } else {
                T::parse(text, key.kind).map(Some)
            }
        });
        if let Some(value) = read {
            *self = value;
        }
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

    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
        if fields.has(name) {
            let mut value = None;
            Setting::read(&mut value, reader, fields, name);
            *self = Some(value);
        }
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

    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
        let kind = fields.kind_of(name);
        let read = reader.secret(fields, name, |text| check_secret(text, kind));
        if read.is_some() {
            *self = read;
        }
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

    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
        let mut read = None;
        Setting::read(&mut read, reader, fields, name);
        if let Some(secret) = read {
            *self = secret;
        }
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

impl Setting for Vec<TableName> {
    fn unset(_: &Key) -> Self {
        Self::new()
    }

    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
        if let Some(tables) = reader.tables(fields, name) {
            *self = tables;
        }
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        keys.put_list(key.name, self, |table| table.to_string().into());
    }
}

impl Setting for Vec<String> {
    fn unset(_: &Key) -> Self {
        Self::new()
    }

    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
        let read = match fields.kind_of(name) {
            Kind::Schemas => reader.schemas(fields, name),
            Kind::Storages | Kind::Databases => reader.names(fields, name),
            _ => fields.find(name).and_then(|field| reader.texts(&field)),
        };
        if let Some(texts) = read {
            *self = texts;
        }
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        keys.put_list(key.name, self, |text| match key.kind {
            Kind::Schemas => quote_if_needed(text).into(),
            _ => text.clone().into(),
        });
    }
}

impl Setting for Vec<SecretString> {
    fn unset(_: &Key) -> Self {
        Self::new()
    }

    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
        let form = "a program and its arguments, such as `[aws-vault, print]`";
        if let Some(command) = reader.command(fields, name, form) {
            *self = command;
        }
    }

    /// Arguments may hold a secret; the program says enough.
    fn put(&self, keys: &mut Keys, key: &Key) {
        let shown: Vec<&str> = self.iter().enumerate().map(hide_arguments).collect();
        keys.put_list(key.name, &shown, |text| (*text).to_owned().into());
    }
}
