//! Which rows of tables are kept, each under the name of its table.

use super::keys::{Key, Kind, key};
use super::reader::{Field, Fields, Reader, show_duration};
use super::setting::Setting;
use super::shown::{Keys, Shown};
use crate::limits::{
    Keep, Limit, MAX_LAST, MAX_NEWEST, References, column, condition, last, newest,
};

/// What becomes of rows that others refer to.
const REFERENCES: &[&str] = &["keep", "drop"];

/// The keys of one table's limit.
pub(super) const KEYS: &[Key] = &[
    key(
        "newest",
        Kind::Count(1, MAX_NEWEST as u64),
        "How many rows are kept, the largest first by the column `by`.",
    ),
    key(
        "last",
        Kind::Duration(1, MAX_LAST.as_secs()),
        "How old rows are at most that are kept, by the column `by`.",
    ),
    key("by", Kind::Text, "The column by which rows are new or old."),
    key(
        "where",
        Kind::Text,
        "The rows that are kept, as a condition in SQL. Functions and operators of extensions need their schema.",
    ),
    Key {
        default: Some("keep"),
        ..key(
            "references",
            Kind::Choice(REFERENCES),
            "`keep` also keeps every row that kept rows of other tables refer to; with `drop`, foreign keys that refer to \
             this table are restored as NOT VALID.",
        )
    },
];

/// The limits of a database, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits(pub Vec<Limit>);

impl Setting for Limits {
    fn unset(_: &Key) -> Self {
        Self::default()
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        let entries = reader.entries(fields.find(name)?)?;
        let limits = entries.iter().filter_map(|entry| read_one(reader, entry));
        Some(Self(limits.collect()))
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        let mut tables = Keys::default();
        for limit in &self.0 {
            tables.put(&limit.table.to_string(), show(limit));
        }
        keys.put_some(key.name, (!tables.is_empty()).then_some(tables));
    }
}

fn show(limit: &Limit) -> Shown {
    let mut keys = Keys::default();
    match &limit.keep {
        Keep::Newest { rows, by } => {
            keys.put("newest", *rows as u64);
            keys.put("by", by.clone());
        }
        Keep::Last { age, by } => {
            keys.put("last", show_duration(*age));
            keys.put("by", by.clone());
        }
        Keep::Where(condition) => keys.put("where", condition.clone()),
    }
    if limit.references == References::Drop {
        keys.put("references", "drop".to_owned());
    }
    keys.into()
}

fn read_one(reader: &mut Reader, entry: &Field) -> Option<Limit> {
    let table = match entry.name.parse() {
        Ok(table) => table,
        Err(why) => {
            reader.refuse(entry, why);
            return None;
        }
    };
    let fields = reader.open(entry)?;
    let mut ways = Vec::new();
    let mut read = |name, parse: &dyn Fn(&str) -> Result<Keep, String>| {
        if let Some(field) = fields.find(name) {
            ways.push(name);
            reader.scalar(field, parse)
        } else {
            None
        }
    };
    let by = String::new;
    let counted = |text: &str| newest(text).map(|rows| Keep::Newest { rows, by: by() });
    let aged = |text: &str| last(text).map(|age| Keep::Last { age, by: by() });
    let chosen = |text: &str| condition(text).map(Keep::Where);
    let keeps = [
        read("newest", &|text| {
            counted(text).map_err(|why| why.to_string())
        }),
        read("last", &|text| aged(text).map_err(|why| why.to_string())),
        read("where", &|text| chosen(text).map_err(|why| why.to_string())),
    ];
    if ways.len() != 1 {
        reader.refuse(entry, "needs one of `newest`, `last` and `where`");
        return None;
    }
    let references = fields.find("references").and_then(|field| {
        reader.scalar(field, |text| match text {
            "keep" => Ok(References::Keep),
            "drop" => Ok(References::Drop),
            _ => Err("must be `keep` or `drop`".to_owned()),
        })
    });
    let mut keep = keeps.into_iter().flatten().next()?;
    match (&mut keep, fields.find("by")) {
        (Keep::Where(_), None) => {}
        (Keep::Where(_), Some(field)) => {
            reader.refuse(field, "does not go with `where`");
            return None;
        }
        (Keep::Newest { by, .. } | Keep::Last { by, .. }, Some(field)) => {
            *by = reader.scalar(field, |text| column(text).map_err(|why| why.to_string()))?;
        }
        (_, None) => {
            reader.note_missing(&fields, "by");
            return None;
        }
    }
    Some(Limit {
        table,
        keep,
        references: references.unwrap_or_default(),
    })
}
