//! Rights that a database gives to whatever a role makes in it (`ALTER DEFAULT PRIVILEGES`), set aside for a restore.
//!
//! A dump tells the rights of each thing as they differ from those that PostgreSQL itself gives. Where the target gives
//! more, a table that was closed to somebody would be open. So the restore's transaction begins by setting the target's
//! own aside and ends by putting them back; what the dump itself sets stays as the dump has it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::properties::literal;
use crate::name::quote;

/// What one role gives on one kind of thing, in one schema or everywhere: a line of `pg_default_acl`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DefaultRights {
    /// Who makes the things.
    pub role: String,
    /// Where; none is everywhere.
    pub schema: Option<String>,
    /// The kind of thing, as the catalog has it: `r`, `S`, `f`, `T`, `n`, `L`.
    pub kind: String,
    /// All that is given.
    pub rights: Vec<Right>,
}

/// One right of somebody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Right {
    /// Who has it; none is PUBLIC.
    pub grantee: Option<String>,
    /// `SELECT`, `EXECUTE`…
    pub name: String,
    /// Whether they may hand it on.
    pub is_grantable: bool,
}

/// SQL that sets default rights aside and puts them back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAside {
    /// What stands in front of a dump.
    pub before: String,
    /// What stands behind it, in the same transaction.
    pub behind: String,
}

impl SetAside {
    /// Plans it; both are empty where nothing has to be set aside.
    pub fn new(defaults: &[DefaultRights]) -> Self {
        let (mut before, mut body) = (String::new(), String::new());
        for one in defaults {
            // Nothing can be said about a kind of a server that is newer than we are.
            if let Some(kind) = kind(&one.kind) {
                before += &one.clear(kind);
                body += &format!("IF {} THEN\n{}END IF;\n", one.is_gone(), one.set(kind));
            }
        }
        if before.is_empty() {
            return Self::default();
        }
        let tag = free_tag(&body);
        Self {
            before: format!("SET client_encoding = 'UTF8';\n{before}RESET client_encoding;\n"),
            // The dump may have left any setting behind, and speak for another role.
            behind: format!(
                "SET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\nRESET SESSION AUTHORIZATION;\n\
                 RESET ROLE;\nDO {tag} BEGIN\n{body}END {tag};\n"
            ),
        }
    }
}

/// Returns SQL that lets what `to` makes have the rights that what `from` makes is given.
pub fn also_for(defaults: &[DefaultRights], from: &str, to: &str) -> String {
    let of_role = defaults.iter().filter(|one| one.role == from);
    let all = of_role.filter_map(|one| {
        let as_other = DefaultRights {
            role: to.to_owned(),
            ..one.clone()
        };
        // A superuser needs no rights of its own; this role does.
        kind(&one.kind).map(|kind| {
            let (head, words, own) = (as_other.head(), kind.words, quote(to));
            format!(
                "{}{head} GRANT ALL ON {words} TO {own};\n",
                as_other.set(kind)
            )
        })
    });
    all.collect()
}

impl DefaultRights {
    fn head(&self) -> String {
        let role = quote(&self.role);
        match &self.schema {
            Some(schema) => format!(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {role} IN SCHEMA {}",
                quote(schema)
            ),
            None => format!("ALTER DEFAULT PRIVILEGES FOR ROLE {role}"),
        }
    }

    /// Returns SQL behind which PostgreSQL's own default is all that there is.
    ///
    /// What is given in a schema comes on top of that; what is given everywhere stands in its place.
    fn clear(&self, kind: Kind) -> String {
        let (head, words) = (self.head(), kind.words);
        let mut grantees: Vec<String> = self.rights.iter().map(Right::to_whom).collect();
        let own = [quote(&self.role), "PUBLIC".to_owned()];
        if self.schema.is_none() {
            grantees.extend(own.clone());
        }
        grantees.sort();
        grantees.dedup();
        let mut sql = format!(
            "{head} REVOKE ALL ON {words} FROM {};\n",
            grantees.join(", ")
        );
        if self.schema.is_none() {
            sql += &format!("{head} GRANT ALL ON {words} TO {};\n", own[0]);
            if let Some(right) = kind.of_public {
                sql += &format!("{head} GRANT {right} ON {words} TO PUBLIC;\n");
            }
        }
        sql
    }

    /// Returns SQL that makes it what it was, where PostgreSQL's own default is all that there is.
    fn set(&self, kind: Kind) -> String {
        let (head, words) = (self.head(), kind.words);
        let mut sql = match self.schema {
            Some(_) => String::new(),
            None => format!(
                "{head} REVOKE ALL ON {words} FROM {}, PUBLIC;\n",
                quote(&self.role)
            ),
        };
        let mut given: BTreeMap<(String, bool), Vec<&str>> = BTreeMap::new();
        for right in &self.rights {
            let to = (right.to_whom(), right.is_grantable);
            given.entry(to).or_default().push(&right.name);
        }
        for ((to, is_grantable), names) in given {
            let option = if is_grantable {
                " WITH GRANT OPTION"
            } else {
                ""
            };
            let names = names.join(", ");
            sql += &format!("{head} GRANT {names} ON {words} TO {to}{option};\n");
        }
        sql
    }

    /// Returns a condition: the dump has set nothing in its place, and where it was in a schema there is one of that name.
    fn is_gone(&self) -> String {
        let (role, kind) = (literal(&self.role), literal(&self.kind));
        let (schema, is_there) = match &self.schema {
            Some(schema) => {
                let schema = literal(schema);
                let is_there = format!(
                    "EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = {schema}) AND "
                );
                (schema, is_there)
            }
            None => ("NULL".to_owned(), String::new()),
        };
        format!(
            "{is_there}NOT EXISTS (SELECT FROM pg_catalog.pg_default_acl d\n  \
             LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace\n  \
             WHERE pg_catalog.pg_get_userbyid(d.defaclrole) = {role} AND n.nspname IS NOT DISTINCT FROM {schema}\n  \
             AND d.defaclobjtype = {kind})"
        )
    }
}

impl Right {
    fn to_whom(&self) -> String {
        match &self.grantee {
            Some(role) => quote(role),
            None => "PUBLIC".to_owned(),
        }
    }
}

/// A kind of thing.
#[derive(Clone, Copy)]
struct Kind {
    words: &'static str,
    /// What PostgreSQL gives everybody on it.
    of_public: Option<&'static str>,
}

fn kind(letter: &str) -> Option<Kind> {
    let (words, of_public) = match letter {
        "r" => ("TABLES", None),
        "S" => ("SEQUENCES", None),
        "f" => ("FUNCTIONS", Some("EXECUTE")),
        "T" => ("TYPES", Some("USAGE")),
        "n" => ("SCHEMAS", None),
        "L" => ("LARGE OBJECTS", None),
        _ => return None,
    };
    Some(Kind { words, of_public })
}

/// A role may be called like any mark of ours.
fn free_tag(body: &str) -> String {
    let mut tag = "$pgkeep$".to_owned();
    while body.contains(&tag) {
        tag.insert(tag.len() - 1, '_');
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(grantee: Option<&str>, name: &str) -> Right {
        Right {
            grantee: grantee.map(str::to_owned),
            name: name.to_owned(),
            is_grantable: false,
        }
    }

    fn rights(schema: Option<&str>, kind: &str, rights: Vec<Right>) -> DefaultRights {
        DefaultRights {
            role: "postgres".into(),
            schema: schema.map(str::to_owned),
            kind: kind.into(),
            rights,
        }
    }

    #[test]
    fn what_is_given_in_a_schema_is_taken_and_given_again() {
        let anon = Some("anon");
        let given = vec![
            right(anon, "SELECT"),
            right(anon, "INSERT"),
            right(None, "SELECT"),
        ];
        let aside = SetAside::new(&[rights(Some("public"), "r", given)]);
        let head = "ALTER DEFAULT PRIVILEGES FOR ROLE \"postgres\" IN SCHEMA \"public\"";
        let take = format!("\n{head} REVOKE ALL ON TABLES FROM \"anon\", PUBLIC;\nRESET");
        assert!(aside.before.contains(&take), "{}", aside.before);
        for give in [
            "GRANT SELECT, INSERT ON TABLES TO \"anon\";",
            "GRANT SELECT ON TABLES TO PUBLIC;",
        ] {
            let give = format!("{head} {give}");
            assert!(aside.behind.contains(&give), "{}", aside.behind);
        }
        assert!(!aside.behind.contains("REVOKE"), "{}", aside.behind);
    }

    #[test]
    fn what_is_given_everywhere_stands_in_the_place_of_the_default() {
        let aside = SetAside::new(&[rights(None, "f", vec![right(Some("postgres"), "EXECUTE")])]);
        let head = "ALTER DEFAULT PRIVILEGES FOR ROLE \"postgres\"";
        for sql in [
            "REVOKE ALL ON FUNCTIONS FROM \"postgres\", PUBLIC;",
            "GRANT ALL ON FUNCTIONS TO \"postgres\";",
            "GRANT EXECUTE ON FUNCTIONS TO PUBLIC;",
        ] {
            assert!(aside.before.contains(&format!("{head} {sql}")), "{sql}");
        }
        let again = format!(
            "{head} REVOKE ALL ON FUNCTIONS FROM \"postgres\", PUBLIC;\n{head} GRANT EXECUTE ON FUNCTIONS TO \"postgres\";\n"
        );
        assert!(aside.behind.contains(&again), "{}", aside.behind);
    }

    #[test]
    fn names_stay_names() {
        let mut one = rights(Some("a'b"), "r", vec![right(Some("$pgkeep$"), "SELECT")]);
        one.role = "o\"o".into();
        let aside = SetAside::new(&[one]);
        assert!(aside.behind.contains("DO $pgkeep_$ BEGIN"));
        assert!(aside.behind.ends_with("END $pgkeep_$;\n"));
        assert!(aside.behind.contains("n.nspname = 'a''b'"));
        assert!(aside.before.contains("FOR ROLE \"o\"\"o\" IN SCHEMA"));
    }

    #[test]
    fn nothing_is_said_where_nothing_is_given() {
        assert_eq!(SetAside::new(&[]), SetAside::default());
        let unknown = rights(None, "?", Vec::new());
        assert_eq!(SetAside::new(&[unknown]), SetAside::default());
    }
}
