//! Splits one statement into its tokens with their places, for whoever has to see more of it than the scanner keeps.

use super::encoding::NameEncoding;
use super::lexer::{Lexer, Token};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexemeKind {
    /// An unquoted word, in lower case.
    Word,
    /// A quoted identifier without its quotes.
    Quoted,
    /// A string literal of any kind.
    Literal,
    /// A number.
    Number,
    /// Any other character.
    Punct(u8),
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lexeme {
    /// What it is.
    pub kind: LexemeKind,
    /// Offset of its first byte in the statement.
    pub start: usize,
    /// Offset behind its last byte.
    pub end: usize,
    /// Its text in the dump's encoding, unquoted; the first kilobyte of a long one.
    pub text: Vec<u8>,
}

/// Splits `sql`, in a session where plain literals know no backslash if `standard_strings` says so.
pub fn lexemes(sql: &[u8], standard_strings: bool, encoding: NameEncoding) -> Vec<Lexeme> {
    let mut lexer = Lexer::new();
    lexer.standard_strings = standard_strings;
    lexer.wide_leads = encoding.wide_leads();
    lexer.keep_strings = true;
    let mut found = Vec::new();
    let mut rest = sql;
    while !rest.is_empty() {
        let (taken, token) = lexer.next(rest);
        let token = token.map(|(start, token)| take(start, token));
        rest = &rest[taken..];
        // A token ends where the lexer stands: what only closes it was not taken.
        let end = lexer.position();
        found.extend(token.flatten().map(|lexeme| with_end(lexeme, end)));
    }
    let last = lexer.end().and_then(|(start, token)| take(start, token));
    found.extend(last.map(|lexeme| with_end(lexeme, sql.len() as u64)));
    found
}

fn take(start: u64, token: Token<'_>) -> Option<Lexeme> {
    let (kind, text) = match token {
        Token::Word(text) => (LexemeKind::Word, text),
        Token::Quoted(text) => (LexemeKind::Quoted, text),
        Token::Literal(text) => (LexemeKind::Literal, text),
        Token::Number(_) => (LexemeKind::Number, &b""[..]),
        Token::Punct(byte) => (LexemeKind::Punct(byte), &b""[..]),
        Token::Comment(_) | Token::Meta(_) => return None,
    };
    let start = usize::try_from(start).ok()?;
    Some(Lexeme {
        kind,
        start,
        end: start,
        text: text.to_vec(),
    })
}

fn with_end(lexeme: Lexeme, end: u64) -> Lexeme {
    Lexeme {
        end: usize::try_from(end).unwrap_or(lexeme.start),
        ..lexeme
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_has_its_place() {
        let sql = "ALTER TABLE ONLY a.\"B \"\"c\" SET DEFAULT nextval('a.\"S q\"'::regclass), x = E'\\'';";
        let found = lexemes(sql.as_bytes(), true, NameEncoding::Utf8);
        let texts: Vec<&str> = found.iter().map(|l| &sql[l.start..l.end]).collect();
        assert_eq!(
            texts,
            [
                "ALTER",
                "TABLE",
                "ONLY",
                "a",
                ".",
                "\"B \"\"c\"",
                "SET",
                "DEFAULT",
                "nextval",
                "(",
                "'a.\"S q\"'",
                ":",
                ":",
                "regclass",
                ")",
                ",",
                "x",
                "=",
                "E'\\''",
                ";"
            ]
        );
        assert_eq!(found[5].text, b"B \"c");
        assert_eq!(found[10].text, b"a.\"S q\"");
    }

    #[test]
    fn a_text_may_end_anywhere() {
        for sql in ["SELECT a", "SELECT 'a'", "SELECT \"a\"", "SELECT 1"] {
            let found = lexemes(sql.as_bytes(), true, NameEncoding::Utf8);
            assert_eq!((found.len(), found[1].end), (2, sql.len()), "{sql}");
        }
    }
}
