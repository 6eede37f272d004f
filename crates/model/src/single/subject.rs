//! Says of one statement what it makes and what it belongs to.
//!
//! It never looks at comments. What it does not know belongs to nothing, and is left alone.

use crate::name::TableName;
use crate::scan::{
    self, Action, Alter, Constraint, Kind, Lexeme, Path, Said, Spoken, Target, Thing, Tokens,
};

/// A thing of the database that statements make and speak about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// A schema.
    Schema(String),
    /// A table, a sequence, an index, a view: they share their names.
    Relation(TableName),
    /// A type or a domain.
    Type(TableName),
    /// A function, a procedure or an aggregate; all of one name.
    Routine(TableName),
    /// A collation, a text search configuration, an operator class and the like.
    Other(TableName),
    /// A statistics object.
    Statistics(TableName),
}

impl Object {
    /// Returns its name; a schema has none of this kind.
    pub fn name(&self) -> Option<&TableName> {
        match self {
            Self::Schema(_) => None,
            Self::Relation(name)
            | Self::Type(name)
            | Self::Routine(name)
            | Self::Other(name)
            | Self::Statistics(name) => Some(name),
        }
    }
}

/// What of a table a statement is about, where it can be left out together with others about the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// `constraint`, `trigger`, `rule` or `policy`.
    pub kind: &'static str,
    /// Its table.
    pub table: TableName,
    /// Its name.
    pub name: String,
}

/// What a statement does, where it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Makes or changes what `makes` and `on` tell, and nothing else.
    Plain,
    /// Changes this setting of the session.
    Setting(String),
    /// Makes a table.
    Table {
        /// Tables that it inherits from.
        inherits: Vec<TableName>,
        /// The table that it is made as a partition of.
        partition_of: Option<TableName>,
    },
    /// Makes a sequence.
    Sequence,
    /// Makes a view.
    View,
    /// Gives a sequence to a column.
    OwnedBy(TableName),
    /// Makes a column an identity, with this sequence.
    Identity(TableName),
    /// Makes a table a partition.
    Attach {
        /// The partitioned table.
        parent: TableName,
        /// The partition.
        child: TableName,
    },
    /// Adds a foreign key to this table.
    ForeignKey(TableName),
    /// Makes a trigger, a rule or a policy.
    Guarded,
    /// Adds the table to a publication.
    Publication(String),
    /// Switches row security.
    RowSecurity,
    /// Sets a sequence.
    SetValue(TableName),
    /// Content of large objects.
    LargeObject,
    /// Rows of a table.
    Copy(TableName),
}

/// What is known of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What it does.
    pub deed: Deed,
    /// What it makes.
    pub makes: Option<Object>,
    /// What it belongs to: all of it must be there.
    pub on: Vec<Object>,
    /// What of a table it is about.
    pub part: Option<Part>,
}

impl Subject {
    fn nothing() -> Self {
        Self {
            deed: Deed::Plain,
            makes: None,
            on: Vec::new(),
            part: None,
        }
    }

    fn makes(object: Object) -> Self {
        Self {
            makes: Some(object),
            ..Self::nothing()
        }
    }

    fn on(objects: impl IntoIterator<Item = Object>) -> Self {
        Self {
            on: objects.into_iter().collect(),
            ..Self::nothing()
        }
    }

    fn and_makes(self, object: Object) -> Self {
        Self {
            makes: Some(object),
            ..self
        }
    }

    fn and_on(mut self, object: Object) -> Self {
        self.on.push(object);
        self
    }

    fn does(self, deed: Deed) -> Self {
        Self { deed, ..self }
    }

    fn about(self, kind: &'static str, table: &TableName, name: String) -> Self {
        let table = table.clone();
        Self {
            part: Some(Part { kind, table, name }),
            ..self
        }
    }
}

/// Reads a statement.
pub fn subject(lexemes: &[Lexeme], spoken: &Spoken) -> Subject {
    let tokens = Tokens::of(lexemes);
    Reader { spoken }
        .subject(&scan::read(&tokens))
        .unwrap_or_else(Subject::nothing)
}

/// Reads names. They are completed by the schema that the session has in force.
struct Reader<'a> {
    spoken: &'a Spoken,
}

impl Reader<'_> {
    fn text(&self, bytes: &[u8]) -> String {
        self.spoken.encoding.decode(bytes).into_owned()
    }

    fn name(&self, path: &Path<'_>) -> TableName {
        let schema = match path.schema() {
            Some(schema) => self.text(schema),
            None => self.spoken.schema.clone(),
        };
        TableName::new(schema, self.text(path.name()))
    }

    fn table_of(&self, column: &Path<'_>) -> Option<TableName> {
        column.table().map(|table| self.name(&table))
    }

    fn subject(&self, said: &Said<'_>) -> Option<Subject> {
        let nothing = Subject::nothing();
        let relation = |path: &Path<'_>| Object::Relation(self.name(path));
        Some(match said {
            Said::CreateSchema { name, .. } => Subject::makes(Object::Schema(self.text(name))),
            Said::CreateTable(made) => Subject::makes(relation(&made.name)).does(Deed::Table {
                inherits: made.inherits.iter().map(|path| self.name(path)).collect(),
                partition_of: made.parent.as_ref().map(|path| self.name(path)),
            }),
            Said::CreateIndex { name, table, .. } => {
                // An index lies in its table's schema, whatever stands in front of its name.
                let table = self.name(table);
                let index = TableName::new(table.schema_or_public(), self.text((*name)?));
                Subject::on([Object::Relation(table)]).and_makes(Object::Relation(index))
            }
            Said::CreateTrigger { name, table, .. } => {
                self.part("trigger", name, table).does(Deed::Guarded)
            }
            Said::CreatePolicy { name, table, .. } => {
                self.part("policy", name, table).does(Deed::Guarded)
            }
            // It makes a view out of what was made as a table, in dumps of 9.6 and before.
            Said::CreateRule {
                name: b"_RETURN",
                table,
                ..
            } => self.part("rule", b"_RETURN", table),
            Said::CreateRule { name, table, .. } => {
                self.part("rule", name, table).does(Deed::Guarded)
            }
            Said::CreateStatistics { name, table } => {
                let on = Subject::on([relation(table.as_ref()?)]);
                on.and_makes(Object::Statistics(self.name(name)))
            }
            Said::Create(thing, name) => {
                let makes = Subject::makes(self.object(*thing, name));
                match thing {
                    Thing::Sequence => makes.does(Deed::Sequence),
                    Thing::View => makes.does(Deed::View),
                    _ => makes,
                }
            }
            Said::Alter(alter) => return self.altered(alter),
            Said::Comment(target) | Said::Label(target) => return self.described(target),
            Said::Rights(rights) => return self.described(rights.on.as_ref()?),
            Said::Authorization { .. } => {
                nothing.does(Deed::Setting("session authorization".to_owned()))
            }
            Said::Set(setting) => nothing.does(Deed::Setting(setting.lasting()?)),
            Said::Reset(name) => {
                let name = String::from_utf8_lossy(name).into_owned();
                nothing.does(Deed::Setting(name))
            }
            Said::Select {
                function,
                arguments,
                ..
            } => nothing.does(match (*function, arguments.first()) {
                (b"set_config", _) => Deed::Setting("search_path".to_owned()),
                (b"setval", Some((Kind::Literal, literal))) => {
                    Deed::SetValue(relation_literal(literal, self.spoken)?)
                }
                (b"lo_open" | b"lowrite" | b"loread" | b"lo_close", _) => Deed::LargeObject,
                _ => return None,
            }),
            Said::Copy(copy) => nothing.does(Deed::Copy(self.name(copy.table.as_ref()?))),
            _ => return None,
        })
    }

    fn object(&self, thing: Thing, path: &Path<'_>) -> Object {
        let name = self.name(path);
        match thing {
            Thing::Table | Thing::View | Thing::Sequence | Thing::Index => Object::Relation(name),
            Thing::Type => Object::Type(name),
            Thing::Function | Thing::Aggregate => Object::Routine(name),
            Thing::Statistics => Object::Statistics(name),
            Thing::Operators | Thing::Other => Object::Other(name),
        }
    }

    fn part(&self, kind: &'static str, name: &[u8], table: &Path<'_>) -> Subject {
        let table = self.name(table);
        let on = Subject::on([Object::Relation(table.clone())]);
        on.about(kind, &table, self.text(name))
    }

    fn described(&self, target: &Target<'_>) -> Option<Subject> {
        Some(match target {
            Target::Schema(name) => Subject::on([Object::Schema(self.text(name))]),
            Target::Thing(thing, path) => Subject::on([self.object(*thing, path)]),
            // A composite type has columns, too; a relation and a type of one name are one thing.
            Target::Column(column) => Subject::on([Object::Relation(self.table_of(column)?)]),
            Target::Part {
                is_of_domain: true,
                table,
                ..
            } => Subject::on([Object::Type(self.name(table))]),
            Target::Part {
                kind, name, table, ..
            } => self.part(kind, name, table),
            Target::Extension(_) | Target::EventTrigger(_) | Target::Publication(_) => return None,
        })
    }

    fn altered(&self, alter: &Alter<'_>) -> Option<Subject> {
        let on = alter.on.as_ref()?;
        let (thing, path) = match (on, &alter.action) {
            (Target::Thing(thing, path), _) => (*thing, path),
            (Target::Publication(name), Action::Add(Some(table))) => {
                let on = Subject::on([Object::Relation(self.name(table))]);
                return Some(on.does(Deed::Publication(self.text(name))));
            }
            (Target::Schema(_), _) => return self.described(on),
            _ => return None,
        };
        let on = Subject::on([self.object(thing, path)]);
        Some(match &alter.action {
            Action::AttachPartition(child) if thing == Thing::Table => {
                Subject::nothing().does(Deed::Attach {
                    parent: self.name(path),
                    child: self.name(child),
                })
            }
            Action::AttachPartition(child) => on.and_on(Object::Relation(self.name(child))),
            Action::AddConstraint {
                name, constraint, ..
            } => {
                let table = self.name(path);
                let about = self.part("constraint", name, path);
                match constraint {
                    Constraint::ForeignKey(other) => about.does(Deed::ForeignKey(self.name(other))),
                    Constraint::Indexed => {
                        let index = TableName::new(table.schema_or_public(), self.text(name));
                        about.and_makes(Object::Relation(index))
                    }
                    Constraint::Other => about,
                }
            }
            Action::Identity(sequence) => on.does(Deed::Identity(self.name(sequence))),
            Action::RowSecurity { .. } => on.does(Deed::RowSecurity),
            Action::Switch(kind, name) => self.part(kind, name, path),
            Action::OwnedBy(column) => {
                let table = self.table_of(column)?;
                let on = on.and_on(Object::Relation(table.clone()));
                on.does(Deed::OwnedBy(table))
            }
            Action::Add(_) | Action::Other => on,
        })
    }
}

/// Reads the text of a literal that names a relation: `'public."S q"'`.
pub fn relation_literal(literal: &[u8], spoken: &Spoken) -> Option<TableName> {
    let text = spoken.encoding.decode(literal);
    let name: TableName = text.parse().ok()?;
    let schema = name.schema.unwrap_or_else(|| spoken.schema.clone());
    Some(TableName::new(schema, name.name))
}
