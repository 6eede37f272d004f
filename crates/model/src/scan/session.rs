//! What a name means in the session that a dump sets up: the search path and the encoding in force.

use std::borrow::Cow;

use super::encoding::NameEncoding;
use super::listed::Spoken;
use super::report::Parent;
use super::statement::RawName;
use crate::name::TableName;

/// The settings of the session that names depend on.
#[derive(Default)]
pub(super) struct Session {
    pub(super) search_path: Option<Vec<Vec<u8>>>,
    pub(super) encoding: NameEncoding,
    /// The first client encoding that the dump set.
    pub(super) encoding_name: Option<String>,
    /// Whether the dump said that its text is UTF-8.
    pub(super) is_utf8: bool,
}

impl Session {
    /// Returns the schema that a name means.
    pub(super) fn schema<'a>(&'a self, name: &RawName<'a>) -> Cow<'a, str> {
        match name.schema {
            Some(schema) => self.encoding.decode(schema),
            None => self.default_schema(),
        }
    }

    /// Returns the first schema of the search path that a table can be made in; `public` where none is set.
    pub(super) fn default_schema(&self) -> Cow<'_, str> {
        let usable =
            |schema: &&Vec<u8>| !matches!(schema.as_slice(), b"$user" | b"pg_catalog" | b"pg_temp");
        let path = self.search_path.as_deref().unwrap_or_default();
        let schema = path.iter().find(usable);
        self.encoding
            .decode(schema.map_or(b"public", |schema| schema.as_slice()))
    }

    pub(super) fn table_name(&self, name: &RawName<'_>) -> TableName {
        TableName::new(self.schema(name), self.encoding.decode(name.name))
    }

    pub(super) fn parent(&self, name: &RawName<'_>) -> Parent {
        Parent {
            schema: self.schema(name).into_owned(),
            name: self.encoding.decode(name.name).into_owned(),
        }
    }

    /// Reads the name of a sequence as `setval` spells it. One that cannot be read is none that pg_dump wrote; the
    /// server refuses it.
    pub(super) fn sequence(&self, name: &[u8]) -> Option<TableName> {
        let mut name: TableName = self.encoding.decode(name).parse().ok()?;
        name.schema
            .get_or_insert_with(|| self.default_schema().into_owned());
        Some(name)
    }

    pub(super) fn spoken(&self, standard_strings: bool) -> Spoken {
        let path = self.search_path.as_deref();
        Spoken {
            standard_strings,
            encoding: self.encoding,
            has_search_path: path.is_none_or(|path| !path.is_empty()),
            schema: self.default_schema().into_owned(),
        }
    }
}
