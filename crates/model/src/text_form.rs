//! The text form of values that PostgreSQL prints as settings of the session say: how a dump has them, so that whoever
//! reads it back, or reads a database to compare it, does so under the same settings.

use serde::{Deserialize, Serialize};

use crate::restore::properties::literal;

/// What a session is told instead of `SET client_encoding = 'SQL_ASCII'`: under that one, COPY takes any bytes into a
/// database of any encoding; under the database's own, the server checks each byte and changes none.
pub const ENCODING_OF_DATABASE: &str =
    "SELECT pg_catalog.set_config('client_encoding', pg_catalog.getdatabaseencoding(), false);";

/// The locale in which our own dumps have amounts of money, where the connection takes settings.
const MONETARY: &str = "C";

/// What a dump's values look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextForm {
    /// `bytea_output`: `hex` or `escape`.
    pub bytea_output: String,
    /// `lc_monetary`, where anything is of type `money`; none where nothing is, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lc_monetary: Option<String>,
    /// `quote_all_identifiers`, which the names of `regclass` and its like follow.
    #[serde(default)]
    pub quote_all_identifiers: bool,
}

impl Default for TextForm {
    /// Returns the form of our own dumps.
    fn default() -> Self {
        Self {
            bytea_output: "hex".to_owned(),
            lc_monetary: Some(MONETARY.to_owned()),
            quote_all_identifiers: false,
        }
    }
}

impl TextForm {
    /// Returns what is known of the form of a dump that somebody else made.
    pub fn foreign() -> Self {
        Self {
            lc_monetary: None,
            ..Self::default()
        }
    }

    /// Returns the form of a dump of ours that says no more than this.
    pub fn of_ours(self) -> Self {
        Self {
            lc_monetary: self.lc_monetary.or_else(|| Some(MONETARY.to_owned())),
            ..self
        }
    }

    /// Returns SQL for a session that takes such a dump: only money is read as a setting says.
    pub fn for_reading(&self) -> String {
        match self.lc_monetary.as_deref() {
            None => String::new(),
            Some(MONETARY) => format!("SET lc_monetary = '{MONETARY}';\n"),
            // A server that lacks the locale may well hold no money.
            Some(locale) => format!(
                "DO $pgkeep$BEGIN PERFORM pg_catalog.set_config('lc_monetary', {}, false); EXCEPTION WHEN OTHERS THEN NULL; END$pgkeep$;\n",
                literal(locale).replace('$', "")
            ),
        }
    }

    /// Returns SQL for a session that prints rows to be compared with such a dump's.
    pub fn for_comparing(&self) -> String {
        let bytea = match self.bytea_output.as_str() {
            "escape" => "escape",
            _ => "hex",
        };
        let quoting = if self.quote_all_identifiers {
            "on"
        } else {
            "off"
        };
        format!(
            "SET bytea_output = {bytea};\nSET quote_all_identifiers = {quoting};\n{}",
            self.for_reading()
        )
    }

    /// Returns what `psql` needs to read such a dump by hand: a variable in front of it, or arguments behind it. A server
    /// is not to be trusted with a shell, so a name that is no plain word is left out.
    pub fn for_psql(&self, takes_options: bool) -> (String, String) {
        let is_plain = |locale: &&str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte);
            !locale.is_empty() && locale.bytes().all(is_plain)
        };
        match self.lc_monetary.as_deref().filter(is_plain) {
            None => (String::new(), String::new()),
            Some(locale) if takes_options => (
                format!("PGOPTIONS='-c lc_monetary={locale}' "),
                String::new(),
            ),
            Some(locale) => (
                String::new(),
                format!(" -c \"SET lc_monetary = '{locale}'\" -f -"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_money(locale: &str) -> TextForm {
        TextForm {
            lc_monetary: Some(locale.to_owned()),
            ..TextForm::default()
        }
    }

    #[test]
    fn money_is_read_as_it_was_printed() {
        let ours = TextForm::default();
        assert_eq!(ours.for_reading(), "SET lc_monetary = 'C';\n");
        assert!(ours.for_comparing().contains("bytea_output = hex"));
        let other = with_money("es_AR.UTF-8").for_reading();
        assert!(
            other.contains("set_config('lc_monetary', 'es_AR.UTF-8', false)"),
            "{other}"
        );
        let hostile = with_money("$pgkeep$; x'").for_reading();
        assert_eq!(hostile.matches("$pgkeep$").count(), 2, "{hostile}");
        let unknown = TextForm {
            lc_monetary: None,
            bytea_output: "escape".to_owned(),
            quote_all_identifiers: true,
        };
        assert_eq!(
            unknown.for_comparing(),
            "SET bytea_output = escape;\nSET quote_all_identifiers = on;\n"
        );
        assert_eq!(unknown.of_ours().lc_monetary.as_deref(), Some("C"));
    }

    #[test]
    fn the_line_for_psql_says_it_where_it_matters() {
        let (front, behind) = with_money("C").for_psql(true);
        assert_eq!(
            (front.as_str(), behind.as_str()),
            ("PGOPTIONS='-c lc_monetary=C' ", "")
        );
        let (front, behind) = with_money("de_DE.UTF-8").for_psql(false);
        assert_eq!(front, "");
        assert_eq!(behind, " -c \"SET lc_monetary = 'de_DE.UTF-8'\" -f -");
        for nothing in [with_money("x'; rm -rf /"), with_money("")] {
            assert_eq!(nothing.for_psql(true), (String::new(), String::new()));
        }
    }
}
