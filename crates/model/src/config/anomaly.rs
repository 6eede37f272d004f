//! The bars of the anomaly gate: shares, patterns for tables, and entries with bars of their own.

use super::check;
use super::keys::{Key, Kind};
use super::reader::{Field, Fields, Reader, check_text, name_error};
use super::setting::{Blank, Group, Item, Scalar, Setting};
use super::shown::{Keys, Shown};
use super::tree::Value;
use super::types::{Anomaly, TableBars};
use super::values::{put_nested, read_nested};
use crate::pattern::TablePattern;
use crate::percent::Percent;

impl Scalar for Percent {
    fn parse(text: &str, _: Kind) -> Result<Self, String> {
        text.parse()
            .map_err(|why: &str| format!("{why}, such as `50%`"))
    }

    fn show(&self, _: Kind) -> Shown {
        self.to_string().into()
    }
}

impl Blank for Percent {
    fn blank() -> Self {
        const ALL: Percent = match Percent::new(100) {
            Some(all) => all,
            None => unreachable!(),
        };
        ALL
    }
}

impl Scalar for TablePattern {
    fn parse(text: &str, _: Kind) -> Result<Self, String> {
        check_text(text)?;
        text.parse::<Self>().map_err(name_error)
    }

    fn show(&self, _: Kind) -> Shown {
        self.to_string().into()
    }
}

/// What stands here for long is refused, because the name is not given.
impl Blank for TablePattern {
    fn blank() -> Self {
        Self::default()
    }
}

impl Item for TablePattern {
    fn read(reader: &mut Reader, item: &Field) -> Option<Self> {
        reader.scalar(item, |text| Scalar::parse(text, item.key.kind))
    }

    fn show(&self) -> Shown {
        self.to_string().into()
    }
}

impl Item for TableBars {
    fn read(reader: &mut Reader, item: &Field) -> Option<Self> {
        let fields = reader.open(item)?;
        let bars = Self::read_new(reader, &fields);
        fields.has("name").then_some(bars)
    }

    fn show(&self) -> Shown {
        self.shown().into()
    }
}

/// Switched off, or the bars. Without a word of it, it is on.
impl Setting for Option<Anomaly> {
    fn unset(_: &Key) -> Self {
        Some(Group::unset())
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        let field = fields.find(name)?;
        if !matches!(field.node.value, Value::Text(_)) {
            return read_nested(reader, field, check::anomaly).map(Some);
        }
        let off = |text: &str| match text {
            "off" => Ok(None),
            _ => Err("must hold bars such as `max_loss: 50%`, or be `off`".to_owned()),
        };
        reader.scalar(field, off)
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        match self {
            Some(anomaly) => put_nested(anomaly, keys, key),
            None => keys.put(key.name, "off".to_owned()),
        }
    }
}
