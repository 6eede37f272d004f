//! What is carried out to restore single tables, what is left out and why, and what prevents it.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::names::rewritten;
use super::select::{Selection, There};
use super::structure::Statement;
use super::subject::{Deed, Object, Part, Subject};
use crate::name::{TableName, printable, quote};

/// SQL that brings tables back, in three pieces; the rows go behind the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Schemas, types, functions, sequences, tables.
    pub before: Vec<u8>,
    /// Sequence values, constraints, indexes, triggers.
    pub behind: Vec<u8>,
    /// What locks tables that were there before: as late as can be.
    pub locking: Vec<u8>,
    /// What hides rows from anyone who looks: last of all.
    pub last: Vec<u8>,
    /// What was left out.
    pub left_out: Vec<LeftOut>,
    /// What is made besides the tables, because they need it: `type public.mood`.
    pub besides: Vec<String>,
    /// Names that neither the dump makes nor the target has.
    pub unknown: BTreeSet<String>,
}

/// Something of a table that does not come back.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// The table.
    pub table: String,
    /// What it is: `constraint orders_customer_fkey`.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Something that prevents restoring tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// These names are taken in the target.
    Taken(Vec<TableName>),
    /// A table cannot be made without another.
    Needs {
        /// The table.
        table: TableName,
        /// The other.
        other: TableName,
        /// Whether the other is there, and the table goes to another schema.
        is_moved: bool,
    },
    /// The dump has names without a schema, so that none can be given another.
    NoSchemas,
}

/// What becomes of a statement.
enum Fate {
    Kept,
    Locking,
    Last,
    Out(String),
}

impl Selection<'_> {
    /// Tells all its problems at once.
    pub fn problems(&self, there: &There) -> Vec<Refused> {
        let mut taken: Vec<TableName> = self.names_to_be_free().into_iter().collect();
        taken.retain(|name| there.relations.contains(name));
        let tables: Vec<TableName> = self.tables.iter().map(|table| self.target(table)).collect();
        // The indexes of a table that is there are no news.
        if taken.iter().any(|name| tables.contains(name)) {
            taken.retain(|name| tables.contains(name));
        }
        let mut problems = Vec::new();
        if !taken.is_empty() {
            problems.push(Refused::Taken(taken));
        }
        for statement in &self.structure.statements {
            let subject = &statement.subject;
            if !self.is_own(subject) {
                continue;
            }
            if !self.moved.is_empty()
                && statement.spoken.has_search_path
                && !problems.contains(&Refused::NoSchemas)
            {
                problems.push(Refused::NoSchemas);
            }
            problems.extend(self.missing_parents(subject, there));
        }
        problems
    }

    fn missing_parents(&self, subject: &Subject, there: &There) -> Vec<Refused> {
        let (
            Deed::Table {
                inherits,
                partition_of,
            },
            Some(Object::Relation(table)),
        ) = (&subject.deed, &subject.makes)
        else {
            return Vec::new();
        };
        let is_moved = self.moved.contains_key(table);
        let others = inherits.iter().chain(partition_of);
        others
            .filter(|other| !self.tables.contains(other))
            .filter(|other| is_moved || !there.relations.contains(other))
            .map(|other| Refused::Needs {
                table: table.clone(),
                other: other.clone(),
                is_moved: is_moved && there.relations.contains(other),
            })
            .collect()
    }

    /// Plans.
    pub fn plan(&self, there: &There) -> Plan {
        let mut needed = self.needed(there);
        let mut plan = Plan::default();
        let mut missing: BTreeSet<String> = BTreeSet::new();
        let names = needed.iter().filter_map(Object::name);
        missing.extend(names.map(|name| name.schema_or_public().to_owned()));
        let own = self.own.iter().filter_map(Object::name);
        missing.extend(own.map(|name| self.schema_for(name.schema_or_public()).to_owned()));
        missing.retain(|schema| !there.schemas.contains(schema));
        let mut schemas = String::new();
        for schema in missing {
            plan.besides.push(format!("schema {}", printable(&schema)));
            if self.schemas_made().contains(&schema) {
                needed.insert(Object::Schema(schema));
            } else {
                schemas += &self.make_schema(&schema);
            }
        }
        if !schemas.is_empty() {
            plan.before = format!("SET client_encoding = 'UTF8';\n{schemas}").into_bytes();
        }
        let mut besides: Vec<String> = needed.iter().filter_map(described).collect();
        besides.sort();
        plan.besides.extend(besides);
        let mut walk = Walk {
            selection: self,
            there,
            needed: &needed,
            plan,
            parts: HashSet::new(),
            late: HashSet::new(),
            in_force: Vec::new(),
            said: HashMap::new(),
            is_behind: false,
        };
        for statement in &self.structure.statements {
            walk.take(statement);
        }
        walk.turn();
        walk.plan
    }

    /// Makes a schema that no statement of the dump makes, with the owner and the rights of the one whose tables come
    /// here.
    ///
    /// Anyone who is to own a table must be able to create things in its schema. Of `public` a dump tells neither
    /// owner nor rights where they are as ever: it is open to everybody.
    fn make_schema(&self, schema: &str) -> String {
        let name = quote(schema);
        let mut sql = format!("CREATE SCHEMA {name};\n");
        let mut said = Vec::new();
        for from in self.sources_of(schema) {
            let about = self.structure.about_schema(&from, schema);
            let is_open =
                from == "public" && !about.iter().any(|(_, sql)| sql.starts_with("REVOKE"));
            if is_open {
                sql += &format!("GRANT USAGE ON SCHEMA {name} TO PUBLIC;\n");
            }
            said.extend(about);
        }
        let owners = self.owners_in(schema);
        let is_owned = said.iter().any(|(owner, _)| owner.is_some());
        if let Some(owner) = owners.first().filter(|_| !is_owned) {
            sql += &format!("ALTER SCHEMA {name} OWNER TO {};\n", quote(owner));
        }
        for (_, statement) in &said {
            sql += &format!("{statement}\n");
        }
        let has_it = |owner: &&String| {
            let is_first = !is_owned && owners.first() == Some(*owner);
            is_first || said.iter().any(|(of, _)| of.as_ref() == Some(*owner))
        };
        for owner in owners.iter().filter(|owner| !has_it(owner)) {
            sql += &format!(
                "GRANT USAGE, CREATE ON SCHEMA {name} TO {};\n",
                quote(owner)
            );
        }
        sql
    }

    /// Returns the schemas of the dump whose tables come into this one.
    fn sources_of(&self, schema: &str) -> BTreeSet<String> {
        self.own
            .iter()
            .filter_map(Object::name)
            .map(TableName::schema_or_public)
            .filter(|from| self.schema_for(from) == schema && *from != schema)
            .map(str::to_owned)
            .collect()
    }

    /// Returns whom the tables' own statements give what comes into a schema, each once, in the dump's order.
    fn owners_in(&self, schema: &str) -> Vec<String> {
        let mut owners: Vec<String> = Vec::new();
        for statement in &self.structure.statements {
            let subject = &statement.subject;
            let comes_here = |object: &Object| {
                let name = object.name();
                name.is_some_and(|name| self.schema_for(name.schema_or_public()) == schema)
            };
            if !self.is_own(subject) || !subject.on.iter().any(comes_here) {
                continue;
            }
            let owner = self.structure.owner_in(statement);
            owners.extend(owner.filter(|owner| !owners.contains(owner)));
        }
        owners
    }

    fn schemas_made(&self) -> HashSet<String> {
        let made = self.structure.statements.iter();
        made.filter_map(|statement| match &statement.subject.makes {
            Some(Object::Schema(name)) => Some(name.clone()),
            _ => None,
        })
        .collect()
    }
}

fn described(object: &Object) -> Option<String> {
    let (kind, name) = match object {
        Object::Schema(_) => return None, // they are told apart
        Object::Relation(name) => ("sequence", name),
        Object::Type(name) => ("type", name),
        Object::Routine(name) => ("function", name),
        Object::Other(name) => ("object", name),
        Object::Statistics(name) => ("statistics", name),
    };
    Some(printable(&format!("{kind} {name}")))
}

/// Goes through the statements in the dump's order.
struct Walk<'a> {
    selection: &'a Selection<'a>,
    there: &'a There,
    needed: &'a HashSet<Object>,
    plan: Plan,
    /// Parts of tables that are left out, with what others say of them.
    parts: HashSet<Part>,
    /// Parts of tables that are made late, and so is what others say of them.
    late: HashSet<Part>,
    /// Settings in force here, in the order in which they were made.
    in_force: Vec<(String, Vec<u8>)>,
    /// Settings that the plan's text has made so far.
    said: HashMap<String, Vec<u8>>,
    is_behind: bool,
}

impl Walk<'_> {
    fn take(&mut self, statement: &Statement) {
        if !self.is_behind && self.selection.structure.is_behind(statement) {
            self.turn();
        }
        let subject = &statement.subject;
        if let Deed::Setting(name) = &subject.deed {
            // The dump waits for locks for ever; among tables in use that is not for it to say.
            if name == "lock_timeout" {
                return;
            }
            self.in_force.retain(|(known, _)| known != name);
            let sql = self.selection.structure.sql(statement).to_vec();
            self.in_force.push((name.clone(), sql));
            return;
        }
        let is_own = self.selection.is_own(subject);
        if is_own || self.is_of_leaf(subject) {
            if subject
                .part
                .as_ref()
                .is_some_and(|part| self.parts.contains(part))
            {
                return;
            }
            let is_late = subject
                .part
                .as_ref()
                .is_some_and(|part| self.late.contains(part));
            match self.fate(statement) {
                Fate::Kept if is_late => self.plan.locking.extend(self.apart(statement)),
                Fate::Kept => self.say(statement, is_own),
                Fate::Locking => {
                    self.late.extend(subject.part.clone());
                    self.plan.locking.extend(self.apart(statement));
                }
                Fate::Last => self.plan.last.extend(self.apart(statement)),
                Fate::Out(why) => {
                    self.leave_out(subject, why);
                    self.leave_out_inherited(subject);
                }
            }
        } else if self.is_needed(subject) {
            self.say(statement, false);
        }
    }

    /// The rows come here, in a session with the dump's settings.
    fn turn(&mut self) {
        if !self.is_behind {
            self.settle();
            self.is_behind = true;
            // What is behind the rows is read by itself, so it has all settings once more.
            self.said.clear();
        }
    }

    /// Tells whether a statement makes a table that comes back a partition of one that does not.
    fn is_of_leaf(&self, subject: &Subject) -> bool {
        matches!(&subject.deed, Deed::Attach { child, .. } if self.selection.tables.contains(child))
    }

    fn is_needed(&self, subject: &Subject) -> bool {
        // Comments on columns of a composite type name it as if it were a relation.
        let is_there = |object: &Object| {
            let as_type = match object {
                Object::Relation(name) => self.needed.contains(&Object::Type(name.clone())),
                _ => false,
            };
            as_type || self.needed.contains(object) || self.selection.own.contains(object)
        };
        let is_set = match &subject.deed {
            Deed::SetValue(name) => self.needed.contains(&Object::Relation(name.clone())),
            _ => false,
        };
        let is_on = !subject.on.is_empty() && subject.on.iter().all(is_there);
        is_set
            || is_on
            || subject
                .makes
                .as_ref()
                .is_some_and(|made| self.needed.contains(made))
    }

    fn fate(&mut self, statement: &Statement) -> Fate {
        let selection = self.selection;
        let subject = &statement.subject;
        let is_there = |name: &TableName| self.there.relations.contains(name);
        match &subject.deed {
            Deed::ForeignKey(other) if selection.tables.contains(other) => Fate::Kept,
            Deed::ForeignKey(other) if self.is_moved(subject) => Fate::Out(format!(
                "`{other}` is not restored with it, and a copy in another schema holds no rows of tables in use"
            )),
            Deed::ForeignKey(other) if self.there.closed.contains(other) => Fate::Out(format!(
                "`{other}` belongs to a superuser, as whom the check of the key would run: `--allow-superuser` restores it, or \
                 the key is added by hand"
            )),
            Deed::ForeignKey(other) if is_there(other) => Fate::Locking,
            Deed::ForeignKey(other) => Fate::Out(format!(
                "`{other}` is not restored with it and does not exist"
            )),
            Deed::Attach { parent, .. } if selection.tables.contains(parent) => Fate::Kept,
            Deed::Attach { parent, child } if selection.moved.contains_key(child) => {
                Fate::Out(format!(
                    "`{parent}` is not restored with it, and a copy in another schema is not attached to it"
                ))
            }
            Deed::Attach { parent, .. } if is_there(parent) => Fate::Locking,
            Deed::Attach { parent, .. } => Fate::Out(format!("`{parent}` does not exist")),
            Deed::RowSecurity => Fate::Last,
            Deed::Publication(_) => {
                Fate::Out("the target decides which tables it publishes".to_owned())
            }
            Deed::Guarded => match self.lacks(statement) {
                Some(name) => Fate::Out(format!(
                    "`{name}` is not restored with it and does not exist"
                )),
                None => Fate::Kept,
            },
            _ => {
                self.note_unknown(statement);
                Fate::Kept
            }
        }
    }

    fn is_moved(&self, subject: &Subject) -> bool {
        let mut names = subject.on.iter().filter_map(Object::name);
        names.any(|name| self.selection.moved.contains_key(name))
    }

    /// Returns the first name that a trigger, a rule or a policy cannot do without.
    fn lacks(&self, statement: &Statement) -> Option<TableName> {
        let mut names = self.selection.mentioned(statement);
        let lacking = names.find(|mention| {
            let name = &mention.name;
            let is_known_relation = self.selection.relations.contains(name);
            !self.is_at_hand(name) && (mention.is_call || is_known_relation)
        });
        lacking.map(|mention| mention.name)
    }

    fn is_at_hand(&self, name: &TableName) -> bool {
        let own = [
            Object::Relation(name.clone()),
            Object::Statistics(name.clone()),
        ];
        let makers = self.selection.makers.get(name).into_iter().flatten();
        own.iter().any(|own| self.selection.own.contains(own))
            || self.there.has_any(name)
            || makers
                .into_iter()
                .any(|object| self.needed.contains(object))
    }

    /// A name in a schema that nobody knows is a column behind the name of a table.
    fn note_unknown(&mut self, statement: &Statement) {
        for mention in self.selection.mentioned(statement) {
            let schema = mention.name.schema_or_public();
            let is_schema =
                self.selection.schemas.contains(schema) || self.there.schemas.contains(schema);
            if (is_schema || mention.is_call) && !self.is_at_hand(&mention.name) {
                self.plan.unknown.insert(mention.name.to_string());
            }
        }
    }

    fn leave_out(&mut self, subject: &Subject, why: String) {
        self.parts.extend(subject.part.clone());
        let (table, what) = match (&subject.deed, &subject.part) {
            (Deed::Attach { parent, child }, _) => {
                (child.to_string(), format!("being a partition of {parent}"))
            }
            (Deed::Publication(name), _) => {
                let table = subject
                    .on
                    .iter()
                    .find_map(Object::name)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                (table, format!("publication {name}"))
            }
            (_, Some(part)) => (
                part.table.to_string(),
                format!("{} {}", part.kind, part.name),
            ),
            (_, None) => (String::new(), "a statement".to_owned()),
        };
        self.plan.left_out.push(LeftOut {
            table: printable(&table),
            what: printable(&what),
            why: printable(&why),
        });
    }

    /// A table that does not become a partition does not get what the dump says only of those it would be one of: their
    /// foreign keys, triggers and checks that stand apart. Keys and indexes it has by itself.
    fn leave_out_inherited(&mut self, subject: &Subject) {
        let Deed::Attach { parent, child } = &subject.deed else {
            return;
        };
        let structure = self.selection.structure;
        let ancestors = structure.ancestors(child);
        for statement in &structure.statements {
            let Some(part) = &statement.subject.part else {
                continue;
            };
            let is_lost = match &statement.subject.deed {
                Deed::ForeignKey(_) => true,
                Deed::Guarded => part.kind == "trigger",
                // A comment is on the same part.
                Deed::Plain => {
                    let is_made = structure.sql(statement).starts_with(b"ALTER");
                    part.kind == "constraint" && is_made && statement.subject.makes.is_none()
                }
                _ => false,
            };
            if is_lost && ancestors.contains(&part.table) {
                self.plan.left_out.push(LeftOut {
                    table: printable(&child.to_string()),
                    what: printable(&format!("{} {} of {}", part.kind, part.name, part.table)),
                    why: printable(&format!("it does not become a partition of `{parent}`")),
                });
            }
        }
    }

    /// Brings the text's settings to those in force here.
    fn settle(&mut self) {
        let out = if self.is_behind {
            &mut self.plan.behind
        } else {
            &mut self.plan.before
        };
        for (name, sql) in &self.in_force {
            if self.said.get(name) != Some(sql) {
                out.extend_from_slice(sql);
                out.push(b'\n');
                self.said.insert(name.clone(), sql.clone());
            }
        }
    }

    fn say(&mut self, statement: &Statement, is_own: bool) {
        self.settle();
        let sql = self.text(statement, is_own);
        let out = if self.is_behind {
            &mut self.plan.behind
        } else {
            &mut self.plan.before
        };
        out.extend_from_slice(&sql);
        out.push(b'\n');
    }

    /// It is carried out in a session that had other settings meanwhile.
    fn apart(&self, statement: &Statement) -> Vec<u8> {
        let mut out = Vec::new();
        let settings = self.in_force.iter().map(|(_, setting)| setting.clone());
        for sql in settings.chain([self.text(statement, true)]) {
            out.extend_from_slice(&sql);
            out.push(b'\n');
        }
        out
    }

    /// What is needed stays where it is, and so do the names that it speaks of.
    fn text(&self, statement: &Statement, is_own: bool) -> Vec<u8> {
        let structure = self.selection.structure;
        let sql = structure.sql(statement);
        if !is_own || self.selection.moved.is_empty() {
            return sql.to_vec();
        }
        let lexemes = structure.lexemes(statement);
        rewritten(sql, &lexemes, &statement.spoken, &self.selection.moved)
    }
}
