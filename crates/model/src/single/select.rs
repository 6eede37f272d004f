//! Which objects of a dump belong to the tables that are wanted, and which others these cannot do without.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Deserialize;

use super::names::{Mention, Moved, mentions};
use super::structure::{Statement, Structure};
use super::subject::{Deed, Object, Subject};
use crate::name::TableName;

/// What the target holds, as far as it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct There {
    /// Schemas.
    pub schemas: HashSet<String>,
    /// Tables, views, sequences, indexes.
    pub relations: HashSet<TableName>,
    /// Types and domains; those of tables, too.
    pub types: HashSet<TableName>,
    /// Functions, procedures, aggregates.
    pub routines: HashSet<TableName>,
    /// Collations, text search objects, operator classes and families.
    pub others: HashSet<TableName>,
    /// Languages in which functions can be made; none where nobody asked.
    pub languages: Option<HashSet<String>>,
    /// Tables that belong to roles with powers over the server, where the one that restores has none.
    pub closed: HashSet<TableName>,
}

/// A name that the target was asked for, and what it is there.
#[derive(Clone, Debug, Deserialize)]
pub struct Found {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether a relation has it.
    pub relation: bool,
    /// Whether a type has it.
    pub is_type: bool,
    /// Whether a routine has it.
    pub routine: bool,
    /// Whether anything else has it.
    pub other: bool,
    /// Whether it is a table of a role with powers over the server.
    #[serde(default)]
    pub is_powerful: bool,
}

impl There {
    /// Gathers answers.
    pub fn new(schemas: impl IntoIterator<Item = String>, found: Vec<Found>) -> Self {
        let mut there = Self {
            schemas: schemas.into_iter().collect(),
            ..Self::default()
        };
        for found in found {
            let name = TableName::new(found.schema, found.name);
            if found.is_powerful {
                there.closed.insert(name.clone());
            }
            for (is_so, set) in [
                (found.relation, &mut there.relations),
                (found.is_type, &mut there.types),
                (found.routine, &mut there.routines),
                (found.other, &mut there.others),
            ] {
                if is_so {
                    set.insert(name.clone());
                }
            }
        }
        there
    }

    pub(super) fn has(&self, object: &Object) -> bool {
        match object {
            Object::Schema(name) => self.schemas.contains(name),
            Object::Relation(name) => self.relations.contains(name),
            Object::Type(name) => self.types.contains(name),
            Object::Routine(name) => self.routines.contains(name),
            Object::Other(name) | Object::Statistics(name) => self.others.contains(name),
        }
    }

    pub(super) fn has_any(&self, name: &TableName) -> bool {
        self.relations.contains(name)
            || self.types.contains(name)
            || self.routines.contains(name)
            || self.others.contains(name)
    }
}

/// The objects that come back, and where they go.
pub struct Selection<'a> {
    pub(super) structure: &'a Structure,
    /// The tables, partitions among them.
    pub(super) tables: HashSet<TableName>,
    /// They and what belongs to them: sequences, indexes, statistics.
    pub(super) own: HashSet<Object>,
    pub(super) moved: Moved,
    map: Vec<(String, String)>,
    /// What the dump makes, by name.
    pub(super) makers: HashMap<TableName, Vec<Object>>,
    /// Relations that the dump makes and that are not made for the sake of another.
    pub(super) relations: HashSet<TableName>,
    pub(super) schemas: HashSet<String>,
    /// Statements that make or are about an object that is not the tables' own.
    about: HashMap<Object, Vec<usize>>,
}

impl<'a> Selection<'a> {
    /// Selects tables, which the structure must make, with their partitions.
    pub fn new(structure: &'a Structure, named: &[TableName], map: &[(String, String)]) -> Self {
        let tables = structure.with_partitions(named);
        let own = own(structure, &tables);
        let mut selection = Self {
            structure,
            tables,
            own,
            moved: Moved::new(),
            map: map.to_vec(),
            makers: HashMap::new(),
            relations: HashSet::new(),
            schemas: HashSet::new(),
            about: HashMap::new(),
        };
        selection.moved = selection
            .own
            .iter()
            .filter_map(Object::name)
            .filter_map(|name| {
                let to = selection.schema_for(name.schema_or_public());
                (to != name.schema_or_public()).then(|| (name.clone(), to.to_owned()))
            })
            .collect();
        selection.note_makers();
        selection
    }

    fn note_makers(&mut self) {
        for (at, statement) in self.structure.statements.iter().enumerate() {
            let Subject {
                makes, on, deed, ..
            } = &statement.subject;
            if let Some(Object::Schema(name)) = makes {
                self.schemas.insert(name.clone());
            }
            let is_sequence = *deed == Deed::Sequence;
            match makes {
                Some(Object::Relation(name)) if !is_sequence => {
                    self.schemas.insert(name.schema_or_public().to_owned());
                    self.relations.insert(name.clone());
                }
                Some(object) if !self.own.contains(object) => {
                    if let Some(name) = object.name() {
                        self.makers
                            .entry(name.clone())
                            .or_default()
                            .push(object.clone());
                    }
                }
                _ => {}
            }
            if !self.is_own(&statement.subject) {
                let of = match deed {
                    Deed::SetValue(name) => Some(Object::Relation(name.clone())),
                    _ => None,
                };
                for object in makes.iter().chain(on).chain(&of) {
                    self.about.entry(object.clone()).or_default().push(at);
                }
            }
        }
    }

    /// Returns the schema that a table of `schema` goes to.
    pub fn schema_for<'b>(&'b self, schema: &'b str) -> &'b str {
        let found = self.map.iter().rev().find(|(from, _)| from == schema);
        found.map_or(schema, |(_, to)| to)
    }

    /// Returns a table's name in the target.
    pub fn target(&self, table: &TableName) -> TableName {
        let schema = self.schema_for(table.schema_or_public());
        TableName::new(schema, table.name.clone())
    }

    /// Returns the tables and sequences that go to another schema, by their names in the dump.
    pub fn moved(&self) -> impl Iterator<Item = &TableName> {
        self.moved.keys()
    }

    /// Tells whether a table is one of those that come back.
    pub fn has_table(&self, table: &TableName) -> bool {
        self.tables.contains(table)
    }

    /// Returns the tables that come back, in the order in which the dump makes them.
    pub fn tables(&self) -> Vec<TableName> {
        let made = self.structure.tables();
        made.filter(|table| self.tables.contains(table))
            .cloned()
            .collect()
    }

    /// Returns what relations will be called in the target, where nothing may have these names yet.
    pub fn names_to_be_free(&self) -> BTreeSet<TableName> {
        let relations = self.own.iter().filter_map(|object| match object {
            Object::Relation(name) => Some(self.target(name)),
            _ => None,
        });
        relations.collect()
    }

    /// Returns every name that it matters of whether the target has it.
    pub fn names_to_ask(&self) -> BTreeSet<TableName> {
        let mut names = self.names_to_be_free();
        for statement in &self.structure.statements {
            let subject = &statement.subject;
            if self.is_own(subject) {
                names.extend(self.mentioned(statement).map(|mention| mention.name));
            }
            if let Deed::Attach { parent, child } = &subject.deed
                && self.tables.contains(child)
            {
                names.insert(parent.clone());
            }
        }
        for object in self.needed(&There::default()) {
            names.extend(object.name().cloned());
            for statement in self.statements_about(&object) {
                names.extend(self.mentioned(statement).map(|mention| mention.name));
            }
        }
        names
    }

    pub(super) fn mentioned(&self, statement: &Statement) -> impl Iterator<Item = Mention> {
        mentions(&self.structure.lexemes(statement), &statement.spoken).into_iter()
    }

    pub(super) fn is_own(&self, subject: &Subject) -> bool {
        let is_about = match &subject.deed {
            Deed::SetValue(name) => self.own.contains(&Object::Relation(name.clone())),
            Deed::Attach { parent, child } => {
                self.tables.contains(parent) && self.tables.contains(child)
            }
            _ => false,
        };
        let makes = subject.makes.as_ref();
        let is_on = !subject.on.is_empty() && subject.on.iter().all(|on| self.own.contains(on));
        is_about || is_on || makes.is_some_and(|object| self.own.contains(object))
    }

    pub(super) fn statements_about(&self, object: &Object) -> impl Iterator<Item = &Statement> {
        let at = self.about.get(object).into_iter().flatten();
        at.map(|at| &self.structure.statements[*at])
    }

    /// Returns what the tables' statements speak of, the dump makes and the target lacks, and what that needs again.
    pub(super) fn needed(&self, there: &There) -> HashSet<Object> {
        let mut needed = HashSet::new();
        let mut open: Vec<Object> = Vec::new();
        let own = self.structure.statements.iter();
        for statement in own.filter(|statement| self.is_own(&statement.subject)) {
            open.extend(self.lacking(statement, there));
        }
        while let Some(object) = open.pop() {
            if !needed.insert(object.clone()) {
                continue;
            }
            for statement in self.statements_about(&object) {
                open.extend(self.lacking(statement, there));
            }
        }
        needed
    }

    fn lacking(&self, statement: &Statement, there: &There) -> Vec<Object> {
        let mentioned = self.mentioned(statement);
        let made = mentioned.flat_map(|mention| {
            let makers = self.makers.get(&mention.name).into_iter().flatten();
            makers
                .filter(move |object| mention.is_call || !matches!(object, Object::Routine(_)))
                .cloned()
                .collect::<Vec<_>>()
        });
        made.filter(|object| !there.has(object) && self.can_be_made(object, there))
            .collect()
    }

    /// Tells whether the target knows the language of a function. A trigger that calls one of another is left out.
    fn can_be_made(&self, object: &Object, there: &There) -> bool {
        let (Object::Routine(_), Some(languages)) = (object, &there.languages) else {
            return true;
        };
        let mut about = self.statements_about(object);
        let made = about.find(|statement| statement.subject.makes.as_ref() == Some(object));
        let language = made.and_then(|statement| self.structure.language_of(statement));
        language.is_none_or(|language| languages.contains(&language))
    }
}

/// Finds what belongs to tables: the sequences of their columns first, then what is made on them.
fn own(structure: &Structure, tables: &HashSet<TableName>) -> HashSet<Object> {
    let mut own: HashSet<Object> = tables.iter().cloned().map(Object::Relation).collect();
    for statement in &structure.statements {
        let subject = &statement.subject;
        match &subject.deed {
            Deed::OwnedBy(table) if tables.contains(table) => own.extend(subject.on.clone()),
            Deed::Identity(sequence) if subject.on.iter().all(|on| own.contains(on)) => {
                own.insert(Object::Relation(sequence.clone()));
            }
            _ => {}
        }
    }
    for statement in &structure.statements {
        let Subject { makes, on, .. } = &statement.subject;
        if let Some(object) = makes
            && !on.is_empty()
            && on.iter().all(|on| own.contains(on))
        {
            own.insert(object.clone());
        }
    }
    own
}
