//! What of a dump tells the text form of its values.

use super::rows::Rows;
use crate::text_form::TextForm;

/// What was met so far.
#[derive(Debug, Default)]
pub(super) struct FormFacts {
    has_hex_bytea: bool,
    /// Whether the names in front of rows are all quoted; none before the first.
    is_all_quoted: Option<bool>,
}

impl FormFacts {
    pub(super) fn note_head(&mut self, is_all_quoted: bool) {
        let before = self.is_all_quoted.unwrap_or(true);
        self.is_all_quoted = Some(before && is_all_quoted);
    }

    pub(super) fn note_rows(&mut self, rows: &Rows) {
        self.has_hex_bytea |= rows.has_hex_bytea();
    }

    /// Returns the form of a foreign dump. Under `hex` every value of type `bytea` begins with `\x`, so where none does
    /// there is none, or they are in the other form. Which locale money was printed in, the text does not tell.
    pub(super) fn text_form(&self) -> TextForm {
        let bytea_output = if self.has_hex_bytea { "hex" } else { "escape" };
        TextForm {
            bytea_output: bytea_output.to_owned(),
            lc_monetary: None,
            quote_all_identifiers: self.is_all_quoted == Some(true),
        }
    }
}
