//! Limited tables widened by what dumped rows refer to, as SQL: a restore of what is kept meets no foreign key that fails.
//!
//! Each limited table is a common table expression with the places of its kept rows and the columns by which they refer to
//! others. A table comes behind those that refer to it, so that it sees which of their rows are kept; one that refers to
//! itself grows until nothing changes.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::{Keep, Limit, References};
use crate::name::{TableName, quote};
use crate::restore::properties::literal;

/// The first server that hashes and compares the places of rows.
const HASHES_PLACES: u32 = 140_000;

/// The first server that is told to carry a common table expression out once.
const KNOWS_MATERIALIZED: u32 = 120_000;

/// A limited table with its partitions and children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Itself.
    pub table: TableName,
    /// The tables of it that hold rows, itself among them where it is no partitioned table.
    pub leaves: Vec<TableName>,
    /// Every table of it.
    pub all: Vec<TableName>,
    /// The partitioned table that it is a partition of.
    pub partition_of: Option<TableName>,
    /// Columns of its primary key, in their order; none where there is no such key.
    pub primary_key: Vec<String>,
    /// Its columns.
    pub columns: Vec<Column>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Whether it holds a point in time.
    pub is_time: bool,
}

/// A foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// The table that has it.
    pub child: TableName,
    /// The table that it refers to.
    pub parent: TableName,
    /// Columns that refer.
    pub child_columns: Vec<String>,
    /// Columns that are referred to, in the same order.
    pub parent_columns: Vec<String>,
    /// The operators by which a column that is referred to equals one that refers, such as `OPERATOR(pg_catalog.=)`.
    pub operators: Vec<String>,
    /// Whether the child is a partitioned table.
    pub is_of_partitioned: bool,
}

/// Why rows cannot be limited so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A table is limited twice, by itself or by what it is a partition or child of.
    Twice(TableName),
    /// A partition is limited alone; what refers to its root would not be seen.
    Partition {
        /// Which one.
        table: TableName,
        /// What it is a partition of.
        root: TableName,
    },
    /// Rows of a partition or child of a limited table are left out of the backup.
    LeftOut {
        /// The limited table.
        table: TableName,
        /// The part of it.
        part: TableName,
    },
    /// A foreign key from or to a child of a limited table goes by columns that only the child has.
    OwnColumn {
        /// The limited table.
        table: TableName,
        /// The foreign key.
        key: String,
        /// The child.
        child: TableName,
    },
    /// A table has no such column.
    NoColumn {
        /// Which table.
        table: TableName,
        /// The name that it does not have.
        column: String,
    },
    /// `last` goes by a column that holds no point in time.
    NoTime {
        /// Which table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// Limited tables refer to each other in a circle.
    Circle(Vec<TableName>),
    /// Kept rows refer to rows that are not in the backup at all.
    Unclosed {
        /// The limited table.
        child: TableName,
        /// The foreign key.
        key: String,
        /// The table whose rows are left out.
        parent: TableName,
    },
    /// A foreign key of a partitioned table cannot come back as NOT VALID.
    NeverValid {
        /// The table that has it.
        child: TableName,
        /// The foreign key.
        key: String,
        /// The limited table.
        parent: TableName,
    },
}

/// What a backup has of the rows of a table, with its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// None.
    Nothing,
    /// Those of some partitions.
    Some,
    /// All that it is to have.
    All,
}

/// How limited rows are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The common table expressions, from WITH on, and with a space behind.
    with: String,
    /// For each leaf the expression that has the places of its rows.
    places: HashMap<TableName, usize>,
    /// For each limit, its tables that hold rows.
    leaves: Vec<Vec<TableName>>,
    /// Every table that is read for it, with what is below them.
    reads: Vec<TableName>,
    /// The tables whose foreign keys come back as NOT VALID, as far as they refer to them.
    pub not_valid: Vec<TableName>,
    is_hashed: bool,
}

impl Plan {
    /// Returns the tables that are read by it.
    pub fn tables(&self) -> Vec<TableName> {
        self.leaves.iter().flatten().cloned().collect()
    }

    /// Returns every table that is read to find the rows; what is below one is read with it.
    pub fn reads(&self) -> &[TableName] {
        &self.reads
    }

    /// Returns the query that gives the kept rows of a leaf in their order: `select` is `SELECT a, b FROM ONLY t`.
    pub fn query(&self, table: &TableName, select: &str) -> Option<String> {
        let at = self.places.get(table)?;
        let place = if self.is_hashed { "ctid" } else { "ctid::text" };
        let leaf = literal(&table.quoted());
        Some(format!(
            "{}{select} WHERE {place} IN (SELECT c FROM k{at} WHERE o = {leaf}::pg_catalog.regclass) ORDER BY ctid",
            self.with
        ))
    }
}

/// Plans how the rows of limited tables are read.
///
/// `trees` has one entry for each limit, in the same order. `keys` are those that refer to a table of a tree or belong to one.
/// `held` tells what the backup has of a table's rows. `now` is the moment of the snapshot, as the server writes it.
pub fn plan(
    limits: &[Limit],
    trees: &[Tree],
    keys: &[Key],
    held: &dyn Fn(&TableName) -> Held,
    now: &str,
    server_version: u32,
) -> Result<Plan, Refused> {
    let homes = homes(trees)?;
    let home = |table: &TableName| homes.get(table).copied();
    check_trees(trees, keys, &home, held)?;
    let closing: Vec<&Key> = keys
        .iter()
        .filter(|key| held(&key.child) != Held::Nothing)
        .collect();
    for key in &closing {
        if home(&key.child).is_some() && held(&key.parent) != Held::All {
            return Err(Refused::Unclosed {
                child: key.child.clone(),
                key: key.name.clone(),
                parent: key.parent.clone(),
            });
        }
    }
    let is_dropped = |at: usize| limits[at].references == References::Drop;
    if let Some(key) = closing
        .iter()
        .find(|key| key.is_of_partitioned && home(&key.parent).is_some_and(is_dropped))
    {
        return Err(Refused::NeverValid {
            child: key.child.clone(),
            key: key.name.clone(),
            parent: key.parent.clone(),
        });
    }
    let widening: Vec<&Key> = closing
        .into_iter()
        .filter(|key| home(&key.parent).is_some_and(|at| !is_dropped(at)))
        .collect();
    let order = in_order(trees, &widening, &home)?;
    let writer = Writer {
        limits,
        trees,
        widening: &widening,
        home: &home,
        now,
        is_hashed: server_version >= HASHES_PLACES,
    };
    let materialized = if server_version >= KNOWS_MATERIALIZED {
        "AS MATERIALIZED"
    } else {
        "AS"
    };
    let mut expressions = Vec::new();
    for at in order {
        let text = writer.kept(at)?;
        expressions.push(format!("k{at} {materialized} ({text})"));
    }
    let places = trees.iter().enumerate().flat_map(|(at, tree)| {
        let leaves = tree.leaves.iter();
        leaves.map(move |leaf| (leaf.clone(), at))
    });
    Ok(Plan {
        with: format!("WITH RECURSIVE {} ", expressions.join(",\n")),
        places: places.collect(),
        leaves: trees.iter().map(|tree| tree.leaves.clone()).collect(),
        reads: {
            let children = widening.iter().map(|key| &key.child);
            let trees = trees.iter().map(|tree| &tree.table);
            trees.chain(children).cloned().collect()
        },
        not_valid: (0..trees.len())
            .filter(|at| is_dropped(*at))
            .flat_map(|at| trees[at].all.iter().cloned())
            .collect(),
        is_hashed: writer.is_hashed,
    })
}

/// Refuses what cannot be read as one table.
fn check_trees(
    trees: &[Tree],
    keys: &[Key],
    home: &dyn Fn(&TableName) -> Option<usize>,
    held: &dyn Fn(&TableName) -> Held,
) -> Result<(), Refused> {
    for tree in trees {
        if let Some(root) = &tree.partition_of {
            return Err(Refused::Partition {
                table: tree.table.clone(),
                root: root.clone(),
            });
        }
        if let Some(part) = tree.leaves.iter().find(|leaf| held(leaf) == Held::Nothing) {
            return Err(Refused::LeftOut {
                table: tree.table.clone(),
                part: part.clone(),
            });
        }
    }
    for key in keys {
        for (table, columns) in [
            (&key.child, &key.child_columns),
            (&key.parent, &key.parent_columns),
        ] {
            let Some(tree) = home(table).map(|at| &trees[at]) else {
                continue;
            };
            let is_known = |name: &String| tree.columns.iter().any(|column| column.name == *name);
            if !columns.iter().all(is_known) {
                return Err(Refused::OwnColumn {
                    table: tree.table.clone(),
                    key: key.name.clone(),
                    child: table.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Finds the tree of each table.
fn homes(trees: &[Tree]) -> Result<HashMap<TableName, usize>, Refused> {
    let mut homes = HashMap::new();
    for (at, tree) in trees.iter().enumerate() {
        for table in &tree.all {
            if homes.insert(table.clone(), at).is_some() {
                return Err(Refused::Twice(table.clone()));
            }
        }
    }
    Ok(homes)
}

/// Puts each tree behind those that refer to it.
fn in_order(
    trees: &[Tree],
    widening: &[&Key],
    home: &dyn Fn(&TableName) -> Option<usize>,
) -> Result<Vec<usize>, Refused> {
    let edges: HashSet<(usize, usize)> = widening
        .iter()
        .filter_map(|key| Some((home(&key.child)?, home(&key.parent)?)))
        .filter(|(child, parent)| child != parent)
        .collect();
    let mut left: Vec<usize> = (0..trees.len()).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let is_free = |at: usize| !left.iter().any(|child| edges.contains(&(*child, at)));
        let Some(next) = left.iter().position(|at| is_free(*at)) else {
            return Err(Refused::Circle(circle(&left, &edges, trees)));
        };
        order.push(left.remove(next));
    }
    Ok(order)
}

/// Finds a circle among trees of which each is referred to by another one.
fn circle(left: &[usize], edges: &HashSet<(usize, usize)>, trees: &[Tree]) -> Vec<TableName> {
    let mut way = vec![left[0]];
    loop {
        let here = way[way.len() - 1];
        // Each is referred to by another one that is left.
        let Some(child) = left.iter().find(|child| edges.contains(&(**child, here))) else {
            return way.into_iter().map(|at| trees[at].table.clone()).collect();
        };
        if let Some(at) = way.iter().position(|seen| seen == child) {
            let around = way[at..].iter().rev();
            return around.map(|at| trees[*at].table.clone()).collect();
        }
        way.push(*child);
    }
}

/// Writes the expressions.
struct Writer<'a> {
    limits: &'a [Limit],
    trees: &'a [Tree],
    widening: &'a [&'a Key],
    home: &'a dyn Fn(&TableName) -> Option<usize>,
    now: &'a str,
    is_hashed: bool,
}

impl Writer<'_> {
    /// Returns the expression that has the places of a tree's kept rows.
    fn kept(&self, at: usize) -> Result<String, Refused> {
        let quoted = self.trees[at].table.quoted();
        let taken = self.taken(at, "t");
        let mut text = format!("({})", self.base(at, &quoted)?);
        let mut grows = Vec::new();
        for (number, key) in self.widening.iter().enumerate() {
            if (self.home)(&key.parent) != Some(at) {
                continue;
            }
            let (from, refers) = match (self.home)(&key.child) {
                Some(child) if child == at => {
                    grows.push(equal(key, &kept_columns(number, key)));
                    continue;
                }
                Some(child) => (format!("k{child}"), kept_columns(number, key)),
                None => {
                    let columns = key.child_columns.iter();
                    let refers = columns.map(|name| format!("x.{}", quote(name)));
                    (format!("{} x", key.child.quoted()), refers.collect())
                }
            };
            let _ = write!(
                text,
                "\nUNION {taken} FROM {quoted} t WHERE EXISTS (SELECT FROM {from} WHERE {})",
                equal(key, &refers)
            );
        }
        if !grows.is_empty() {
            let grows = grows.join(" OR ");
            text = format!("({text})\nUNION {taken} FROM {quoted} t JOIN k{at} ON {grows}");
        }
        Ok(text)
    }

    /// Returns what is taken of each row: its table, its place, and the columns by which it refers to limited tables.
    fn taken(&self, at: usize, t: &str) -> String {
        let cast = if self.is_hashed { "" } else { "::text" };
        let mut taken = format!("SELECT {t}.tableoid AS o, {t}.ctid{cast} AS c");
        for (number, key) in self.widening.iter().enumerate() {
            if (self.home)(&key.child) == Some(at) {
                for (place, column) in key.child_columns.iter().enumerate() {
                    let _ = write!(taken, ", {t}.{} AS f{number}_{place}", quote(column));
                }
            }
        }
        taken
    }

    /// Returns what the limit itself keeps. In a condition the table has its own name.
    fn base(&self, at: usize, quoted: &str) -> Result<String, Refused> {
        let tree = &self.trees[at];
        let find = |name: &str| {
            let mut columns = tree.columns.iter();
            columns
                .find(|column| column.name == name)
                .ok_or_else(|| Refused::NoColumn {
                    table: tree.table.clone(),
                    column: name.to_owned(),
                })
        };
        let taken = self.taken(at, "t");
        Ok(match &self.limits[at].keep {
            Keep::Where(condition) => {
                let name = quote(&tree.table.name);
                let taken = self.taken(at, &name);
                format!("{taken} FROM {quoted} AS {name} WHERE (\n{condition}\n)")
            }
            Keep::Newest { rows, by } => {
                find(by)?;
                format!("{taken} FROM {quoted} t {} LIMIT {rows}", order(tree, by))
            }
            Keep::Last { age, by } => {
                if !find(by)?.is_time {
                    return Err(Refused::NoTime {
                        table: tree.table.clone(),
                        column: by.clone(),
                    });
                }
                format!(
                    "{taken} FROM {quoted} t WHERE t.{} >= {}",
                    quote(by),
                    since(self.now, *age)
                )
            }
        })
    }
}

/// The newest first, and always the same where two are equal.
fn order(tree: &Tree, by: &str) -> String {
    let mut order = format!("ORDER BY t.{} DESC NULLS LAST", quote(by));
    for column in &tree.primary_key {
        let _ = write!(order, ", t.{} DESC", quote(column));
    }
    // Without a key, and where children have the keys of their parent once more.
    order.push_str(", t.tableoid, t.ctid");
    order
}

/// The moment so long before another one.
fn since(now: &str, age: Duration) -> String {
    let now = literal(now);
    format!("{now}::timestamptz - interval '{} seconds'", age.as_secs())
}

impl Tree {
    /// Returns the query for the last value that a limit itself keeps, as text; no row where it keeps all.
    pub fn cutoff(&self, keep: &Keep, now: &str) -> Option<String> {
        let quoted = self.table.quoted();
        match keep {
            Keep::Newest { rows, by } => Some(format!(
                "SELECT t.{}::text FROM {quoted} t {} OFFSET {} LIMIT 1",
                quote(by),
                order(self, by),
                rows - 1
            )),
            Keep::Last { age, .. } => Some(format!("SELECT ({})::text", since(now, *age))),
            Keep::Where(_) => None,
        }
    }
}

/// Tells of a row that is referred to, by the name `t`, whether it is the one that these columns refer to.
fn equal(key: &Key, refers: &[String]) -> String {
    let columns = key.parent_columns.iter().zip(&key.operators).zip(refers);
    let equal: Vec<String> = columns
        .map(|((column, operator), refers)| format!("t.{} {operator} {refers}", quote(column)))
        .collect();
    format!("({})", equal.join(" AND "))
}

/// The columns of a kept row by which it refers.
fn kept_columns(number: usize, key: &Key) -> Vec<String> {
    (0..key.child_columns.len())
        .map(|place| format!("f{number}_{place}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TableName {
        TableName::new("public", text)
    }

    fn tree(text: &str) -> Tree {
        Tree {
            table: name(text),
            leaves: vec![name(text)],
            all: vec![name(text)],
            partition_of: None,
            primary_key: vec!["id".to_owned()],
            columns: vec![
                Column {
                    name: "id".to_owned(),
                    is_time: false,
                },
                Column {
                    name: "at".to_owned(),
                    is_time: true,
                },
                Column {
                    name: format!("{text}_id"),
                    is_time: false,
                },
            ],
        }
    }

    fn limit(text: &str, references: References) -> Limit {
        Limit {
            references,
            ..text.parse().unwrap()
        }
    }

    fn key(child: &str, parent: &str) -> Key {
        Key {
            name: format!("{child}_{parent}"),
            child: name(child),
            parent: name(parent),
            child_columns: vec![format!("{child}_id")],
            parent_columns: vec!["id".to_owned()],
            operators: vec!["OPERATOR(pg_catalog.=)".to_owned()],
            is_of_partitioned: false,
        }
    }

    fn planned(tables: &[&str], keys: &[Key]) -> Result<Plan, Refused> {
        let limits: Vec<Limit> = tables
            .iter()
            .map(|table| limit(&format!("{table}=newest:10:at"), References::Keep))
            .collect();
        let trees: Vec<Tree> = tables.iter().map(|table| tree(table)).collect();
        plan(
            &limits,
            &trees,
            keys,
            &|_| Held::All,
            "2026-01-01 00:00:00+00",
            150_000,
        )
    }

    #[test]
    fn a_table_comes_behind_those_that_refer_to_it() {
        let keys = [
            key("orders", "users"),
            key("items", "orders"),
            key("users", "users"),
        ];
        let plan = planned(&["users", "orders", "items"], &keys).unwrap();
        let at = |text: &str| {
            plan.with
                .find(text)
                .unwrap_or_else(|| panic!("{text}: {}", plan.with))
        };
        assert!(at("k2 AS MATERIALIZED (") < at("k1 AS MATERIALIZED ("));
        assert!(at("k1 AS MATERIALIZED (") < at("k0 AS MATERIALIZED ("));
        at("WHERE EXISTS (SELECT FROM k1 WHERE (t.\"id\" OPERATOR(pg_catalog.=) f0_0))");
        at("JOIN k0 ON (t.\"id\" OPERATOR(pg_catalog.=) f2_0)");
        let query = plan
            .query(&name("users"), "SELECT id FROM ONLY public.users")
            .unwrap();
        assert!(query.ends_with(
            "SELECT id FROM ONLY public.users WHERE ctid IN (SELECT c FROM k0 WHERE o = \
             '\"public\".\"users\"'::pg_catalog.regclass) ORDER BY ctid"
        ));
        assert_eq!(plan.query(&name("other"), ""), None);
    }

    #[test]
    fn what_cannot_be_closed_is_refused_by_its_names() {
        let circle = [key("a", "b"), key("b", "c"), key("c", "a"), key("d", "a")];
        let Refused::Circle(tables) = planned(&["d", "a", "b", "c"], &circle).unwrap_err() else {
            panic!("a circle")
        };
        let mut names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c"]);
        // One that is not limited breaks it.
        planned(&["a", "b"], &circle).unwrap();

        let limits =
            ["a", "b"].map(|table| limit(&format!("{table}=newest:1:at"), References::Drop));
        let trees = ["a", "b"].map(tree);
        let keys = [key("a", "b"), key("b", "a")];
        let now = "2026-01-01 00:00:00+00";
        let open = plan(&limits, &trees, &keys, &|_| Held::All, now, 150_000).unwrap();
        assert_eq!(open.not_valid, ["a", "b"].map(name));
        let partitioned = [Key {
            is_of_partitioned: true,
            ..key("x", "a")
        }];
        let refused = plan(&limits, &trees, &partitioned, &|_| Held::All, now, 150_000);
        assert!(matches!(refused, Err(Refused::NeverValid { .. })));

        let no_rows = |table: &TableName| match table.name.as_str() {
            "c" => Held::Some,
            _ => Held::All,
        };
        let limits = [limit("a=newest:1:at", References::Keep)];
        let refused = plan(
            &limits,
            &[tree("a")],
            &[key("a", "c")],
            &no_rows,
            now,
            150_000,
        );
        assert!(matches!(refused, Err(Refused::Unclosed { .. })));
        let limits = [limit("a=last:30d:id", References::Keep)];
        let refused = plan(&limits, &[tree("a")], &[], &|_| Held::All, now, 150_000);
        assert!(matches!(refused, Err(Refused::NoTime { .. })));
        let limits = [limit("a=newest:3:nothing", References::Keep)];
        let refused = plan(&limits, &[tree("a")], &[], &|_| Held::All, now, 150_000);
        assert!(matches!(refused, Err(Refused::NoColumn { .. })));
        let none = |_: &TableName| Held::Nothing;
        let refused = plan(&limits, &[tree("a")], &[], &none, now, 150_000);
        assert!(matches!(refused, Err(Refused::LeftOut { .. })));
        let part = Tree {
            partition_of: Some(name("p")),
            ..tree("a")
        };
        let refused = plan(&limits, &[part], &[], &|_| Held::All, now, 150_000);
        assert!(matches!(refused, Err(Refused::Partition { .. })));
        let own = Key {
            child_columns: vec!["own".to_owned()],
            ..key("a", "c")
        };
        let refused = plan(&limits, &[tree("a")], &[own], &|_| Held::All, now, 150_000);
        assert!(matches!(refused, Err(Refused::OwnColumn { .. })));
        let refused = planned(&["a", "a"], &[]);
        assert_eq!(refused, Err(Refused::Twice(name("a"))));
    }
}
