//! A key written once: the macro that makes struct, defaults, reader, `show` and the table of a group of keys.
//!
//! A group is declared as a struct whose every field says what it takes, and whose comment is the key's description in
//! the schema. What a type of value is read from and shown as stands in `setting.rs`.

use super::keys::Key;

/// Finds the key of a field.
pub(super) fn key_of(keys: &'static [Key], name: &str) -> &'static Key {
    let found = keys.iter().find(|key| key.name == name);
    found.unwrap_or_else(|| unreachable!("`{name}` is a key of its own group"))
}

/// Puts the keys of several groups into one table.
pub(super) const fn joined<const N: usize>(groups: &[&[Key]]) -> [Key; N] {
    let mut keys = [groups[0][0]; N];
    let (mut group, mut at) = (0, 0);
    while group < groups.len() {
        let mut key = 0;
        while key < groups[group].len() {
            keys[at] = groups[group][key];
            at += 1;
            key += 1;
        }
        group += 1;
    }
    keys
}

/// Makes one table of the keys of several groups.
macro_rules! join {
    ($first:expr $(, $other:expr)*) => {
        &$crate::config::section::joined::<{ $first.len() $(+ $other.len())* }>(&[$first $(, $other)*])
    };
}

/// Declares a group: `field: Type = Kind`, then what else there is to say of the key.
///
/// `keys of` gives keys to a struct that is declared elsewhere,
/// `with` takes the keys of another group in before its own, `as "name"` names a key that is not called as its field is, `default "text"` is what would stand in the file,
/// `file "description"` makes the key with `_file` beside a secret, and `required: true` refuses a group without the key.
macro_rules! group {
    (
        $(#[doc = $about:literal])+
        pub struct $group:ident $(: $($derive:ident),+)? {
            $(with $part:ident: $part_type:ty, $part_doc:literal;)?
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $kind:expr
                $(, as $name:literal)?
                $(, default $default:literal)?
                $(, file $file:literal)?
                $(, required: $required:literal)?;
            )*
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug $($(, $derive)+)?)]
        pub struct $group {
            $(
                #[doc = $part_doc]
                pub $part: $part_type,
            )?
            $(
                $(#[doc = $doc])+
                pub $field: $type,
            )*
        }

        group! {
            keys of $group {
                $(with $part: $part_type, $part_doc;)?
                $(
                    $(#[doc = $doc])+
                    $field: $type = $kind
                    $(, as $name)?
                    $(, default $default)?
                    $(, file $file)?
                    $(, required: $required)?;
                )*
            }
        }
    };
    (
        keys of $group:ident {
            $(with $part:ident: $part_type:ty, $part_doc:literal;)?
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $kind:expr
                $(, as $name:literal)?
                $(, default $default:literal)?
                $(, file $file:literal)?
                $(, required: $required:literal)?;
            )*
        }
    ) => {
        impl $crate::config::setting::Group for $group {
            const KEYS: &'static [$crate::config::keys::Key] = {
                #[allow(unused_imports, reason = "not every group uses every kind")]
                use $crate::config::keys::{Key, Kind::*};
                const OWN: &[Key] = &[$(
                    Key {
                        name: group!(@name $field $($name)?),
                        kind: $kind,
                        default: group!(@some $($default)?),
                        is_required: group!(@is $($required)?),
                        doc: concat!($($doc),+).trim_ascii_start(),
                    },
                    $(Key {
                        name: concat!(stringify!($field), "_file"),
                        kind: SecretFile,
                        default: None,
                        is_required: false,
                        doc: $file,
                    },)?
                )*];
                join!($(<$part_type>::KEYS,)? OWN)
            };

            fn unset() -> Self {
                Self {
                    $($part: <$part_type>::unset(),)?
                    $($field: $crate::config::setting::Setting::unset(
                        $crate::config::section::key_of(Self::KEYS, group!(@name $field $($name)?)),
                    ),)*
                }
            }

            fn read(
                &mut self,
                reader: &mut $crate::config::reader::Reader,
                fields: &$crate::config::reader::Fields,
            ) {
                $($crate::config::setting::Group::read(&mut self.$part, reader, fields);)?
                $(
                    let name = group!(@name $field $($name)?);
                    if let Some(value) = $crate::config::setting::Setting::read(reader, fields, name) {
                        self.$field = value;
                    }
                )*
            }

            fn put(&self, keys: &mut $crate::config::shown::Keys) {
                $($crate::config::setting::Group::put(&self.$part, keys);)?
                $($crate::config::setting::Setting::put(
                    &self.$field,
                    keys,
                    $crate::config::section::key_of(Self::KEYS, group!(@name $field $($name)?)),
                );)*
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
    (@some) => { None };
    (@some $default:literal) => { Some($default) };
    (@is) => { false };
    (@is $required:literal) => { $required };
}

pub(super) use {group, join};
