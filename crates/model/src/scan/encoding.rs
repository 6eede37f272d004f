//! Decodes names by the dump's own `client_encoding`.

use std::borrow::Cow;

use encoding_rs::{
    BIG5, EUC_JP, EUC_KR, Encoding, GB18030, GBK, IBM866, ISO_8859_2, ISO_8859_3, ISO_8859_4,
    ISO_8859_5, ISO_8859_6, ISO_8859_7, ISO_8859_8, ISO_8859_10, ISO_8859_13, ISO_8859_14,
    ISO_8859_15, ISO_8859_16, KOI8_R, KOI8_U, SHIFT_JIS, WINDOWS_874, WINDOWS_1250, WINDOWS_1251,
    WINDOWS_1252, WINDOWS_1253, WINDOWS_1254, WINDOWS_1255, WINDOWS_1256, WINDOWS_1257,
    WINDOWS_1258,
};

/// Which bytes begin a character of two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WideLeads {
    /// 81 to 9F and E0 to FC.
    ShiftJis,
    /// Every byte from 81 on.
    AllHigh,
}

impl WideLeads {
    pub(super) fn contains(self, byte: u8) -> bool {
        match self {
            Self::ShiftJis => matches!(byte, 0x81..=0x9f | 0xe0..=0xfc),
            Self::AllHigh => byte >= 0x81,
        }
    }
}

/// What the dump's `SET client_encoding` means for names and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameEncoding {
    /// UTF-8, or nothing said.
    #[default]
    Utf8,
    /// ISO 8859-1: a byte is a code point.
    Latin1,
    /// Any other that the encoding tables know.
    Other(&'static Encoding),
}

impl NameEncoding {
    /// Tells whether this is one of PostgreSQL's names for UTF-8.
    pub(super) fn is_utf8(name: &str) -> bool {
        let plain: String = name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase();
        matches!(plain.as_str(), "utf8" | "unicode")
    }

    /// Finds an encoding by PostgreSQL's name for it, which is compared without case and punctuation.
    pub fn named(name: &str) -> Self {
        let plain: String = name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase();
        let encoding = match plain.as_str() {
            "latin1" | "iso88591" => return Self::Latin1,
            "latin2" | "iso88592" => ISO_8859_2,
            "latin3" | "iso88593" => ISO_8859_3,
            "latin4" | "iso88594" => ISO_8859_4,
            "latin5" | "iso88599" | "win1254" => WINDOWS_1254,
            "latin6" | "iso885910" => ISO_8859_10,
            "latin7" | "iso885913" => ISO_8859_13,
            "latin8" | "iso885914" => ISO_8859_14,
            "latin9" | "iso885915" => ISO_8859_15,
            "latin10" | "iso885916" => ISO_8859_16,
            "iso88595" => ISO_8859_5,
            "iso88596" => ISO_8859_6,
            "iso88597" => ISO_8859_7,
            "iso88598" => ISO_8859_8,
            "koi8r" | "koi8" => KOI8_R,
            "koi8u" => KOI8_U,
            "win874" => WINDOWS_874,
            "win1250" => WINDOWS_1250,
            "win1251" | "win" => WINDOWS_1251,
            "win1252" => WINDOWS_1252,
            "win1253" => WINDOWS_1253,
            "win1255" => WINDOWS_1255,
            "win1256" => WINDOWS_1256,
            "win1257" => WINDOWS_1257,
            "win1258" | "abc" | "tcvn" | "tcvn5712" | "vscii" => WINDOWS_1258,
            "eucjp" | "eucjis2004" => EUC_JP,
            "euckr" | "uhc" | "johab" => EUC_KR,
            "euccn" | "gbk" | "win936" | "windows936" => GBK,
            "gb18030" => GB18030,
            "win866" | "alt" => IBM866,
            "big5" | "win950" | "windows950" => BIG5,
            "sjis" | "shiftjis" | "shiftjis2004" | "mskanji" | "win932" | "windows932" => SHIFT_JIS,
            _ => return Self::Utf8,
        };
        Self::Other(encoding)
    }

    /// Returns the bytes that begin a character whose second byte can be an ASCII one, a backslash among them; none
    /// where no character has such a byte.
    ///
    /// In Shift JIS half-width katakana stand between them, each a character of one byte.
    pub(super) fn wide_leads(self) -> Option<WideLeads> {
        match self {
            Self::Other(e) if e == SHIFT_JIS => Some(WideLeads::ShiftJis),
            Self::Other(e) if e == BIG5 || e == GBK || e == GB18030 || e == EUC_KR => {
                Some(WideLeads::AllHigh)
            }
            _ => None,
        }
    }

    /// Tells whether the second byte of some character can be an ASCII one.
    pub fn has_wide_leads(self) -> bool {
        self.wide_leads().is_some()
    }

    /// Tells whether a byte begins a character whose second byte can be an ASCII one.
    pub fn is_wide_lead(self, byte: u8) -> bool {
        self.wide_leads().is_some_and(|leads| leads.contains(byte))
    }

    /// Encodes a text that came out of a dump of this encoding.
    pub fn encode(self, text: &str) -> Cow<'_, [u8]> {
        match self {
            Self::Utf8 => Cow::Borrowed(text.as_bytes()),
            Self::Latin1 => text
                .chars()
                .map(|c| u8::try_from(c).unwrap_or(b'?'))
                .collect(),
            Self::Other(encoding) => encoding.encode(text).0,
        }
    }

    /// Decodes a name; bytes that do not fit are read one by one as ISO 8859-1, so that no two names become one.
    pub fn decode(self, name: &[u8]) -> Cow<'_, str> {
        let latin1 = || name.iter().map(|&b| char::from(b)).collect();
        match self {
            Self::Utf8 => std::str::from_utf8(name).map_or_else(|_| latin1(), Cow::Borrowed),
            // What is ASCII alone needs no copy, however long it is.
            Self::Latin1 => match std::str::from_utf8(name) {
                Ok(text) if text.is_ascii() => Cow::Borrowed(text),
                _ => latin1(),
            },
            Self::Other(encoding) => encoding
                .decode_without_bom_handling_and_without_replacement(name)
                .unwrap_or_else(latin1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_by_postgresql_names() {
        assert_eq!(
            NameEncoding::named("LATIN1").decode(b"Gr\xf6\xdfe"),
            "Größe"
        );
        assert_eq!(NameEncoding::named("EUC_JP").decode(b"\xc9\xbd"), "表");
        assert_eq!(NameEncoding::named("SJIS").decode(b"\x95\x5c"), "表");
        assert_eq!(
            NameEncoding::named("UTF8").decode("naïve".as_bytes()),
            "naïve"
        );
        assert_eq!(NameEncoding::named("WIN866").decode(b"\x92\xa0\xa1"), "Таб");
        assert_eq!(
            NameEncoding::named("SQL_ASCII").decode(b"\xff\xfe"),
            "\u{ff}\u{fe}"
        );
    }

    #[test]
    fn knows_where_a_backslash_can_be_half_a_letter() {
        let leads = NameEncoding::named("sjis").wide_leads().unwrap();
        assert!(leads.contains(0x95) && leads.contains(0xe0));
        assert!(!leads.contains(0xb1) && !leads.contains(0xdf) && !leads.contains(b'a'));
        assert!(NameEncoding::named("EUC_JP").wide_leads().is_none());
    }
}
