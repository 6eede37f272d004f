//! The database's own properties, which a plain dump leaves out: how it is created, and what is put back afterwards.
//!
//! The manifest is somebody's file, so every name and value is quoted as SQL, and what is not understood is left out
//! with a warning.

use serde::Deserialize;
use serde_json::Value;

use crate::name::{quote, quote_if_needed};

/// The database's properties as a manifest tells them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// Its owner.
    pub owner: Option<String>,
    /// LC_COLLATE.
    pub collate: Option<String>,
    /// LC_CTYPE.
    pub ctype: Option<String>,
    /// `c`, `i` or `b`.
    pub locale_provider: Option<String>,
    /// The provider's locale.
    pub locale: Option<String>,
    /// Rules that change ICU's order.
    pub icu_rules: Option<String>,
    /// Rights as PostgreSQL writes them; none for the default ones.
    pub acl: Option<Vec<String>>,
    /// `ALTER DATABASE … SET`.
    pub settings: Vec<Settings>,
    /// Its comment.
    pub comment: Option<String>,
    /// -1 for none.
    pub connection_limit: Option<i32>,
}

/// Settings for everybody or for one role.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Settings {
    /// None for everybody.
    pub role: Option<String>,
    /// `name=value` each.
    pub settings: Vec<String>,
}

/// The first server with providers of locales.
const KNOWS_PROVIDERS: u32 = 15;

/// Settings whose value is a list of names, each of which is quoted by itself.
const LISTS: &[&str] = &[
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// What is put back: statements that can each fail by themselves, and what cannot be put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutBack {
    /// SQL, one statement each.
    pub statements: Vec<String>,
    /// What stays as it is.
    pub warnings: Vec<String>,
}

impl Properties {
    /// Reads them out of a manifest; what is not understood counts as not there.
    pub fn read(value: &Value) -> Self {
        Self::deserialize(value).unwrap_or_default()
    }

    /// Returns the statement that creates a database with this encoding and locale; `any_locale` leaves the locale to
    /// `C`, which every server has and which fits every encoding.
    ///
    /// A server may have another provider by default, under which the same locale sorts otherwise: where a locale is
    /// named, its provider is. Servers before 15 know one only.
    pub fn create(
        &self,
        name: &str,
        encoding: &str,
        any_locale: bool,
        server_major: u32,
    ) -> String {
        let mut sql = format!("CREATE DATABASE {} TEMPLATE template0", quote(name));
        if !encoding.is_empty() {
            sql += &format!(" ENCODING {}", literal(encoding));
        }
        let libc = if server_major >= KNOWS_PROVIDERS {
            " LOCALE_PROVIDER libc"
        } else {
            ""
        };
        if any_locale {
            return sql + " LC_COLLATE 'C' LC_CTYPE 'C'" + libc;
        }
        for (word, value) in [("LC_COLLATE", &self.collate), ("LC_CTYPE", &self.ctype)] {
            if let Some(value) = value {
                sql += &format!(" {word} {}", literal(value));
            }
        }
        match (self.locale_provider.as_deref(), &self.locale) {
            (Some("i"), Some(locale)) => {
                sql += &format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(locale));
                if let Some(rules) = &self.icu_rules {
                    sql += &format!(" ICU_RULES {}", literal(rules));
                }
            }
            (Some("b"), Some(locale)) => {
                sql += &format!(
                    " LOCALE_PROVIDER builtin BUILTIN_LOCALE {}",
                    literal(locale)
                );
            }
            _ if self.collate.is_some() || self.ctype.is_some() => sql += libc,
            _ => {}
        }
        sql
    }

    /// Returns what gives the database `name` its properties.
    pub fn put_back(&self, name: &str, no_owner: bool, no_privileges: bool) -> PutBack {
        let mut out = PutBack::default();
        let database = quote(name);
        if let (Some(owner), false) = (&self.owner, no_owner) {
            out.say(format!(
                "ALTER DATABASE {database} OWNER TO {}",
                quote(owner)
            ));
        }
        if !no_privileges {
            self.rights(&database, &mut out);
        }
        if let Some(comment) = &self.comment {
            out.say(format!(
                "COMMENT ON DATABASE {database} IS {}",
                literal(comment)
            ));
        }
        // Settings and the limit come last: they hold for each session that puts back what is behind them.
        for entry in &self.settings {
            entry.put_back(&database, &mut out);
        }
        if let Some(limit) = self.connection_limit.filter(|limit| *limit >= 0) {
            out.say(format!(
                "ALTER DATABASE {database} CONNECTION LIMIT {limit}"
            ));
        }
        out
    }

    /// A list of rights is all that is granted, so the default ones are taken away first.
    fn rights(&self, database: &str, out: &mut PutBack) {
        let Some(acl) = &self.acl else { return };
        out.say(format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"));
        for item in acl {
            match Right::read(item) {
                Some(right) => right.put_back(database, self.owner.as_deref(), out),
                None => out.warn(format!(
                    "the right `{item}` of the database was not understood and not granted"
                )),
            }
        }
    }
}

impl Settings {
    fn put_back(&self, database: &str, out: &mut PutBack) {
        for setting in &self.settings {
            let Some((name, value)) = setting.split_once('=') else {
                continue;
            };
            if value == "***" {
                out.warn(format!("the database's setting `{name}` may hold a secret and is not in the backup; set it again"));
                continue;
            }
            let who = match &self.role {
                Some(role) => format!("ALTER ROLE {} IN DATABASE {database}", quote(role)),
                None => format!("ALTER DATABASE {database}"),
            };
            let value = if LISTS.contains(&name) {
                list(value)
            } else {
                literal(value)
            };
            out.say(format!("{who} SET {} TO {value}", setting_name(name)));
        }
    }
}

impl PutBack {
    fn say(&mut self, statement: String) {
        self.statements.push(statement);
    }

    fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }
}

/// One entry of an ACL: `grantee=privileges/grantor`.
struct Right {
    grantee: String,
    granted: Vec<&'static str>,
    with_option: Vec<&'static str>,
}

impl Right {
    fn read(item: &str) -> Option<Self> {
        let (grantee, rest) = role_of(item)?;
        let letters = rest.strip_prefix('=')?.split_once('/')?.0;
        let mut right = Self {
            grantee,
            granted: Vec::new(),
            with_option: Vec::new(),
        };
        for letter in letters.chars() {
            match letter {
                'C' => right.granted.push("CREATE"),
                'T' => right.granted.push("TEMPORARY"),
                'c' => right.granted.push("CONNECT"),
                '*' => right.with_option.push(right.granted.pop()?),
                _ => return None,
            }
        }
        Some(right)
    }

    fn put_back(&self, database: &str, owner: Option<&str>, out: &mut PutBack) {
        let to = match self.grantee.as_str() {
            "" => "PUBLIC".to_owned(),
            // An owner has all rights of its own.
            name if Some(name) == owner => return,
            name => quote(name),
        };
        for (rights, option) in [
            (&self.granted, ""),
            (&self.with_option, " WITH GRANT OPTION"),
        ] {
            if !rights.is_empty() {
                out.say(format!(
                    "GRANT {} ON DATABASE {database} TO {to}{option}",
                    rights.join(", ")
                ));
            }
        }
    }
}

/// Takes the role in front of the `=`, quoted or not; nothing stands for everybody.
fn role_of(item: &str) -> Option<(String, &str)> {
    let Some(quoted) = item.strip_prefix('"') else {
        let end = item.find('=')?;
        return Some((item[..end].to_owned(), &item[end..]));
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '"' && chars.next_if(|(_, next)| *next == '"').is_none() {
            return Some((name, &quoted[at + 1..]));
        }
        name.push(c);
    }
    None
}

/// Quotes a text as a literal, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!(" E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// `app.theme` is two names with a dot between them.
fn setting_name(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(quote_if_needed).collect();
    parts.join(".")
}

/// Splits `"$user", public` and quotes each name as a literal, as pg_dump does.
fn list(value: &str) -> String {
    let mut names = Vec::new();
    let mut rest = value.trim();
    while !rest.is_empty() {
        let (name, behind) = match rest.strip_prefix('"') {
            Some(_) => role_of(rest).unwrap_or_else(|| (rest.to_owned(), "")),
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim_end().to_owned(), &rest[end..])
            }
        };
        names.push(literal(&name));
        rest = behind.trim_start().trim_start_matches(',').trim_start();
    }
    if names.is_empty() {
        literal("")
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn creates_with_encoding_and_locale() {
        let properties = Properties::read(
            &json!({"collate": "de_DE.UTF-8", "ctype": "C", "locale_provider": "c"}),
        );
        assert_eq!(
            properties.create("my \"db\"", "UTF8", false, 14),
            "CREATE DATABASE \"my \"\"db\"\"\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'de_DE.UTF-8' LC_CTYPE 'C'"
        );
        assert!(
            properties
                .create("d", "UTF8", true, 14)
                .ends_with("LC_COLLATE 'C' LC_CTYPE 'C'")
        );
        // Whatever provider the server has by default, and also where the dump's server knew none.
        let before_15 = Properties::read(&json!({"collate": "de_DE.UTF-8", "ctype": "C"}));
        for libc in [&properties, &before_15] {
            for any_locale in [false, true] {
                let sql = libc.create("d", "UTF8", any_locale, 18);
                assert!(sql.ends_with("LC_CTYPE 'C' LOCALE_PROVIDER libc"), "{sql}");
            }
        }
        let icu = json!({"locale_provider": "i", "locale": "de", "icu_rules": "&a < b"});
        assert!(
            Properties::read(&icu)
                .create("d", "UTF8", false, 16)
                .ends_with("LOCALE_PROVIDER icu ICU_LOCALE 'de' ICU_RULES '&a < b'")
        );
        let icu = Properties::read(&json!({"locale_provider": "i", "locale": "de-u-co-phonebk"}));
        assert!(
            icu.create("d", "UTF8", false, 15)
                .ends_with("LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk'")
        );
        assert_eq!(
            Properties::default().create("d", "", false, 18),
            "CREATE DATABASE \"d\" TEMPLATE template0"
        );
    }

    #[test]
    fn puts_back_what_a_plain_dump_leaves_out() {
        let properties = Properties::read(&json!({
            "owner": "App",
            "acl": ["=Tc/App", "App=CTc/App", "\"odd \"\"one\"=c*C/App", "broken"],
            "settings": [
                {"role": null, "settings": ["search_path=\"$user\", public", "app.key=***", "work_mem=4MB"]},
                {"role": "r", "settings": ["DateStyle=ISO, DMY", "x.y=it's"]},
            ],
            "comment": "it's", "connection_limit": 5,
        }));
        let out = properties.put_back("d", false, false);
        assert_eq!(
            out.statements,
            [
                "ALTER DATABASE \"d\" OWNER TO \"App\"",
                "REVOKE ALL ON DATABASE \"d\" FROM PUBLIC",
                "GRANT TEMPORARY, CONNECT ON DATABASE \"d\" TO PUBLIC",
                "GRANT CREATE ON DATABASE \"d\" TO \"odd \"\"one\"",
                "GRANT CONNECT ON DATABASE \"d\" TO \"odd \"\"one\" WITH GRANT OPTION",
                "COMMENT ON DATABASE \"d\" IS 'it''s'",
                "ALTER DATABASE \"d\" SET search_path TO '$user', 'public'",
                "ALTER DATABASE \"d\" SET work_mem TO '4MB'",
                "ALTER ROLE \"r\" IN DATABASE \"d\" SET \"DateStyle\" TO 'ISO, DMY'",
                "ALTER ROLE \"r\" IN DATABASE \"d\" SET x.y TO 'it''s'",
                "ALTER DATABASE \"d\" CONNECTION LIMIT 5",
            ]
        );
        assert_eq!(out.warnings.len(), 2, "{:?}", out.warnings);
        let less = properties.put_back("d", true, true);
        assert!(
            !less
                .statements
                .iter()
                .any(|sql| sql.contains("OWNER") || sql.contains("GRANT"))
        );
    }

    #[test]
    fn values_stay_values() {
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
        assert_eq!(list(""), "''");
        assert_eq!(list("a, \"B c\",d"), "'a', 'B c', 'd'");
    }
}
