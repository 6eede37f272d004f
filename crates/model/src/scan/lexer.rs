//! Splits SQL text outside COPY data into tokens, as psql does: the rules are those of psql's `psqlscan.l`.
//!
//! It takes one byte after another in pieces of any size and remembers only what it must: a quote that is open, a
//! dollar tag, the depth of a comment. A token's text is kept up to a limit, never a whole literal.

use memchr::{memchr, memchr2};

use super::encoding::WideLeads;

/// Longest text kept of a word, a quoted name or a wanted string. Names end at 63 bytes; versions, encodings and
/// search paths are shorter than this too.
const MAX_TOKEN_TEXT: usize = 1024;

/// Longest text kept of a line comment and of a backslash command.
const MAX_LINE_TEXT: usize = 4096;

/// Longest dollar tag; PostgreSQL reads it as an identifier.
const MAX_DOLLAR_TAG: usize = 256;

/// What the lexer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An unquoted word, in lower case.
    Word(&'a [u8]),
    /// A quoted identifier without its quotes.
    Quoted(&'a [u8]),
    /// A string literal of any kind; its text is kept only where [`Lexer::keep_strings`] says so.
    Literal(&'a [u8]),
    /// A number; its text is kept as that of a literal is.
    Number(&'a [u8]),
    /// Any other character.
    Punct(u8),
    /// A `--` comment that starts in the first column: its text behind the dashes.
    Comment(&'a [u8]),
    /// A backslash command: the rest of its line.
    Meta(&'a [u8]),
}

/// Where the lexer stands between two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Base,
    Word,
    Number,
    /// Inside `'…'`; `escapes` where a backslash escapes.
    Literal {
        escapes: bool,
    },
    /// Behind a backslash in a literal.
    LiteralBackslash,
    /// Behind a lead byte whose second byte may look like a backslash or a quote.
    LiteralLead {
        escapes: bool,
    },
    /// Behind a quote that ends the literal unless another follows.
    LiteralQuote {
        escapes: bool,
    },
    Quoted,
    QuotedQuote,
    DollarTag,
    /// Inside a dollar quote, with so many bytes of its closing tag matched.
    DollarBody {
        matched: usize,
    },
    Dash {
        first_column: bool,
    },
    LineComment {
        first_column: bool,
    },
    Slash,
    BlockComment {
        depth: u32,
        last: u8,
    },
    Meta,
    /// Skips to the end of the line.
    SkipLine,
}

/// Tokenizer over pieces of a stream.
pub(super) struct Lexer {
    state: State,
    /// Text of the token under way.
    text: Vec<u8>,
    dollar_tag: Vec<u8>,
    /// Whether the next byte is the first of its line.
    first_column: bool,
    /// Bytes taken so far, and where the token under way began.
    position: u64,
    token_start: u64,
    /// Set while only white space with a newline came behind a literal: a further literal continues it.
    continues: Option<bool>,
    continues_newline: bool,
    /// `standard_conforming_strings`: a plain literal knows no backslash.
    pub standard_strings: bool,
    /// Whether the next token would begin a statement: no literal, quoted name or number can.
    pub at_statement_start: bool,
    /// Whether the text of literals is kept.
    pub keep_strings: bool,
    /// Whether numbers and commas are passed over: inside the rows of an INSERT they are half of all tokens, and say
    /// nothing.
    pub skips_numbers: bool,
    /// The first bytes of characters with an ASCII second byte, where the client encoding has such.
    pub wide_leads: Option<WideLeads>,
}

impl Lexer {
    pub(super) fn new() -> Self {
        Self {
            state: State::Base,
            text: Vec::new(),
            dollar_tag: Vec::new(),
            first_column: true,
            position: 0,
            token_start: 0,
            continues: None,
            continues_newline: false,
            standard_strings: true,
            at_statement_start: false,
            keep_strings: false,
            skips_numbers: false,
            wide_leads: None,
        }
    }

    /// Tells whether the stream stands inside something that must still be closed.
    pub(super) fn is_inside_quote(&self) -> bool {
        matches!(
            self.state,
            State::Literal { .. }
                | State::LiteralBackslash
                | State::LiteralLead { .. }
                | State::Quoted
                | State::DollarBody { .. }
                | State::BlockComment { .. }
        )
    }

    /// Drops the token under way and skips the rest of the line.
    pub(super) fn skip_line(&mut self) {
        self.state = State::SkipLine;
    }

    /// Returns the offset of the first byte of the last token, or of the one under way.
    pub(super) fn token_start(&self) -> u64 {
        self.token_start
    }

    /// Returns how many bytes were taken.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Passes over bytes that somebody else has read: a byte order mark, COPY data up to a line's end.
    pub(super) fn pass_over(&mut self, count: usize) {
        self.position += count as u64;
        self.first_column = true;
    }

    /// Tells whether a token is under way that belongs to a statement.
    pub(super) fn is_inside_token(&self) -> bool {
        !matches!(
            self.state,
            State::Base | State::LineComment { .. } | State::SkipLine | State::Meta
        )
    }

    /// Tells whether the token under way may be one that a restore has to judge: a backslash command, or at the start
    /// of a statement the word that says what it is.
    pub(super) fn may_be_judged(&self, at_statement_start: bool) -> bool {
        self.state == State::Meta || (at_statement_start && self.state == State::Word)
    }

    /// Reads on until one token is whole; returns how many bytes it took, and the token with its offset, or none when
    /// bytes ran out.
    ///
    /// A byte that only ends a token is not taken: it comes again.
    pub(super) fn next<'a>(&'a mut self, bytes: &[u8]) -> (usize, Option<(u64, Token<'a>)>) {
        let mut at = 0;
        while at < bytes.len() {
            if self.state == State::Base {
                if self.skips_numbers {
                    at += self.skip_numbers(&bytes[at..]);
                    if at == bytes.len() {
                        break;
                    }
                }
                self.token_start = self.position;
            }
            let (taken, found) = self.step(&bytes[at..]);
            at += taken;
            self.position += taken as u64;
            if let Some(kind) = found {
                return (at, Some((self.token_start, self.token(kind))));
            }
        }
        (at, None)
    }

    /// Ends the stream: a token that only its end closes is returned.
    pub(super) fn end(&mut self) -> Option<(u64, Token<'_>)> {
        let kind = match self.state {
            State::Word => Kind::Word,
            State::Number => Kind::Number,
            State::LineComment { first_column: true } => Kind::Comment,
            State::Meta => Kind::Meta,
            State::LiteralQuote { .. } => Kind::Literal,
            State::QuotedQuote => Kind::Quoted,
            State::Dash { .. } => Kind::Punct(b'-'),
            State::Slash => Kind::Punct(b'/'),
            State::DollarTag => Kind::Punct(b'$'),
            _ => return None,
        };
        self.state = State::Base;
        Some((self.token_start, self.token(kind)))
    }

    fn token(&mut self, kind: Kind) -> Token<'_> {
        match kind {
            Kind::Word => {
                self.text.make_ascii_lowercase();
                Token::Word(&self.text)
            }
            Kind::Quoted => Token::Quoted(&self.text),
            Kind::Literal => Token::Literal(&self.text),
            Kind::Number => Token::Number(&self.text),
            Kind::Punct(byte) => Token::Punct(byte),
            Kind::Comment => Token::Comment(trim_line_end(&self.text)),
            Kind::Meta => Token::Meta(trim_line_end(&self.text)),
        }
    }

    /// Takes at least one byte, or ends a token without taking the byte behind it.
    fn step(&mut self, bytes: &[u8]) -> (usize, Option<Kind>) {
        let byte = bytes[0];
        match self.state {
            State::Base => self.base(byte),
            State::Word => self.word(bytes),
            State::Number => self.number(byte),
            State::Literal { escapes } => (self.literal(bytes, escapes), None),
            State::LiteralBackslash => {
                self.keep(&bytes[..1]);
                self.become_with(State::Literal { escapes: true })
            }
            State::LiteralLead { escapes } => {
                self.keep(&bytes[..1]);
                self.become_with(State::Literal { escapes })
            }
            State::LiteralQuote { escapes } => self.literal_quote(byte, escapes),
            State::Quoted => (self.quoted(bytes), None),
            State::QuotedQuote => self.quoted_quote(byte),
            State::DollarTag => self.dollar_tag(byte),
            State::DollarBody { matched } => self.dollar_body(bytes, matched),
            State::Dash { first_column } => self.dash(byte, first_column),
            State::LineComment { first_column } => self.line_comment(bytes, first_column),
            State::Slash => self.slash(byte),
            State::BlockComment { depth, last } => (self.block_comment(bytes, depth, last), None),
            State::Meta => self.meta(bytes),
            State::SkipLine => (self.skip(bytes), None),
        }
    }

    /// Passes over digits, points, commas and blanks, and returns how many.
    fn skip_numbers(&mut self, bytes: &[u8]) -> usize {
        let is_skipped = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b',' | b' ');
        let end = bytes
            .iter()
            .position(|byte| !is_skipped(byte))
            .unwrap_or(bytes.len());
        if bytes[..end].iter().any(|&byte| byte != b' ') {
            self.continues = None;
        }
        if end > 0 {
            self.first_column = false;
        }
        self.position += end as u64;
        end
    }

    fn base(&mut self, byte: u8) -> (usize, Option<Kind>) {
        let first_column = std::mem::replace(&mut self.first_column, byte == b'\n');
        if byte.is_ascii_whitespace() || byte == 0x0b {
            self.continues_newline |= matches!(byte, b'\n' | b'\r');
            return (1, None);
        }
        let continues = self.continues.take().filter(|_| self.continues_newline);
        self.continues_newline = false;
        self.text.clear();
        if self.at_statement_start && matches!(byte, b'0'..=b'9' | b'\'' | b'"' | b'$') {
            return (1, Some(Kind::Punct(byte)));
        }
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => self.state = State::Word,
            b'0'..=b'9' => {
                self.keep(&[byte]);
                self.state = State::Number;
            }
            b'\'' => {
                self.state = State::Literal {
                    escapes: continues.unwrap_or(!self.standard_strings),
                }
            }
            b'"' => self.state = State::Quoted,
            b'$' => self.state = State::DollarTag,
            b'-' => self.state = State::Dash { first_column },
            b'/' => self.state = State::Slash,
            b'\\' => self.state = State::Meta,
            other => return (1, Some(Kind::Punct(other))),
        }
        if self.state == State::Word {
            self.text.push(byte);
        }
        (1, None)
    }

    fn word(&mut self, bytes: &[u8]) -> (usize, Option<Kind>) {
        let end = bytes
            .iter()
            .position(|&b| !is_word_byte(b))
            .unwrap_or(bytes.len());
        self.keep_always(&bytes[..end]);
        let Some(&next) = bytes.get(end) else {
            return (end, None);
        };
        if next == b'\'' && self.text.eq_ignore_ascii_case(b"e") {
            self.text.clear();
            self.state = State::Literal { escapes: true };
            return (end + 1, None);
        }
        self.state = State::Base;
        (end, Some(Kind::Word))
    }

    fn number(&mut self, byte: u8) -> (usize, Option<Kind>) {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') {
            self.keep(&[byte]);
            return (1, None);
        }
        self.state = State::Base;
        (0, Some(Kind::Number))
    }

    fn literal(&mut self, bytes: &[u8], escapes: bool) -> usize {
        let stop = match (escapes, self.wide_leads) {
            (true, Some(leads)) => bytes
                .iter()
                .position(|&b| matches!(b, b'\'' | b'\\') || leads.contains(b)),
            (true, None) => memchr2(b'\'', b'\\', bytes),
            (false, _) => memchr(b'\'', bytes),
        };
        let end = stop.unwrap_or(bytes.len());
        self.keep(&bytes[..end]);
        match stop.map(|at| bytes[at]) {
            None => return end,
            Some(b'\'') => self.state = State::LiteralQuote { escapes },
            Some(b'\\') => self.state = State::LiteralBackslash,
            Some(lead) => {
                self.keep(&[lead]);
                self.state = State::LiteralLead { escapes };
            }
        }
        end + 1
    }

    fn literal_quote(&mut self, byte: u8, escapes: bool) -> (usize, Option<Kind>) {
        if byte == b'\'' {
            self.keep(b"'");
            return self.become_with(State::Literal { escapes });
        }
        self.continues = Some(escapes);
        self.continues_newline = false;
        self.state = State::Base;
        (0, Some(Kind::Literal))
    }

    fn quoted(&mut self, bytes: &[u8]) -> usize {
        let stop = memchr(b'"', bytes);
        let end = stop.unwrap_or(bytes.len());
        self.keep_always(&bytes[..end]);
        if stop.is_none() {
            return end;
        }
        self.state = State::QuotedQuote;
        end + 1
    }

    fn quoted_quote(&mut self, byte: u8) -> (usize, Option<Kind>) {
        if byte == b'"' {
            self.keep_always(b"\"");
            return self.become_with(State::Quoted);
        }
        self.state = State::Base;
        (0, Some(Kind::Quoted))
    }

    /// Behind a `$`: the text of a tag, then `$`; anything else is a lone dollar sign.
    fn dollar_tag(&mut self, byte: u8) -> (usize, Option<Kind>) {
        let may_start = byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80;
        if byte == b'$' {
            self.dollar_tag.clear();
            self.dollar_tag.push(b'$');
            self.dollar_tag.extend_from_slice(&self.text);
            self.dollar_tag.push(b'$');
            self.text.clear();
            return self.become_with(State::DollarBody { matched: 0 });
        }
        let continues = may_start || (byte.is_ascii_digit() && !self.text.is_empty());
        if continues && self.text.len() < MAX_DOLLAR_TAG {
            self.text.push(byte);
            return (1, None);
        }
        // `$1` and the like: what was read of a would-be tag holds no quote, so it can pass for one character.
        self.state = State::Base;
        (0, Some(Kind::Punct(b'$')))
    }

    fn dollar_body(&mut self, bytes: &[u8], matched: usize) -> (usize, Option<Kind>) {
        if matched == 0 {
            let Some(start) = memchr(b'$', bytes) else {
                return (bytes.len(), None);
            };
            self.state = State::DollarBody { matched: 1 };
            return (start + 1, None);
        }
        if bytes[0] != self.dollar_tag[matched] {
            // A dollar sign stands only at both ends of a tag, so a mismatch can only begin the tag anew.
            self.state = State::DollarBody { matched: 0 };
            return (0, None);
        }
        if matched + 1 < self.dollar_tag.len() {
            return self.become_with(State::DollarBody {
                matched: matched + 1,
            });
        }
        self.state = State::Base;
        (1, Some(Kind::Literal))
    }

    fn dash(&mut self, byte: u8, first_column: bool) -> (usize, Option<Kind>) {
        if byte == b'-' {
            return self.become_with(State::LineComment { first_column });
        }
        self.state = State::Base;
        (0, Some(Kind::Punct(b'-')))
    }

    /// A lone carriage return ends a comment, too: to psql and to the server it is a line end.
    fn line_comment(&mut self, bytes: &[u8], first_column: bool) -> (usize, Option<Kind>) {
        let end = memchr2(b'\n', b'\r', bytes);
        if first_column {
            self.keep_line(&bytes[..end.unwrap_or(bytes.len())]);
        }
        let Some(end) = end else {
            return (bytes.len(), None);
        };
        self.first_column = false;
        self.state = State::Base;
        (end, first_column.then_some(Kind::Comment))
    }

    fn slash(&mut self, byte: u8) -> (usize, Option<Kind>) {
        if byte == b'*' {
            return self.become_with(State::BlockComment { depth: 1, last: 0 });
        }
        self.state = State::Base;
        (0, Some(Kind::Punct(b'/')))
    }

    fn block_comment(&mut self, bytes: &[u8], depth: u32, last: u8) -> usize {
        let (mut depth, mut last) = (depth, last);
        for (at, &byte) in bytes.iter().enumerate() {
            match (last, byte) {
                (b'*', b'/') => depth -= 1,
                (b'/', b'*') => depth = depth.saturating_add(1),
                _ => {
                    last = byte;
                    continue;
                }
            }
            last = 0;
            if depth == 0 {
                self.first_column = false;
                self.state = State::Base;
                return at + 1;
            }
        }
        self.state = State::BlockComment { depth, last };
        bytes.len()
    }

    fn meta(&mut self, bytes: &[u8]) -> (usize, Option<Kind>) {
        let end = memchr(b'\n', bytes);
        self.keep_line(&bytes[..end.unwrap_or(bytes.len())]);
        let Some(end) = end else {
            return (bytes.len(), None);
        };
        self.first_column = false;
        self.state = State::Base;
        (end, Some(Kind::Meta))
    }

    fn skip(&mut self, bytes: &[u8]) -> usize {
        let Some(end) = memchr(b'\n', bytes) else {
            return bytes.len();
        };
        self.first_column = true;
        self.state = State::Base;
        end + 1
    }

    fn become_with(&mut self, state: State) -> (usize, Option<Kind>) {
        self.state = state;
        (1, None)
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.keep_strings {
            self.keep_always(bytes);
        }
    }

    fn keep_always(&mut self, bytes: &[u8]) {
        let room = MAX_TOKEN_TEXT.saturating_sub(self.text.len());
        self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn keep_line(&mut self, bytes: &[u8]) {
        let room = MAX_LINE_TEXT.saturating_sub(self.text.len());
        self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

enum Kind {
    Word,
    Quoted,
    Literal,
    Number,
    Punct(u8),
    Comment,
    Meta,
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(pieces: &[&[u8]], standard_strings: bool) -> Vec<String> {
        let mut lexer = Lexer::new();
        lexer.keep_strings = true;
        lexer.standard_strings = standard_strings;
        let mut found = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let (taken, token) = lexer.next(rest);
                found.extend(token.map(|(_, t)| show(&t)));
                rest = &rest[taken..];
            }
        }
        found.extend(lexer.end().map(|(_, t)| show(&t)));
        found
    }

    fn show(token: &Token<'_>) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match token {
            Token::Word(t) => format!("w:{}", text(t)),
            Token::Quoted(t) => format!("q:{}", text(t)),
            Token::Literal(t) => format!("l:{}", text(t)),
            Token::Number(t) => format!("n{}", text(t)),
            Token::Punct(b) => format!("{}", char::from(*b)),
            Token::Comment(t) => format!("c:{}", text(t)),
            Token::Meta(t) => format!("m:{}", text(t)),
        }
    }

    fn lex(text: &str) -> String {
        tokens(&[text.as_bytes()], true).join(" ")
    }

    #[test]
    fn reads_the_words_of_sql() {
        for (text, found) in [
            (
                "CREATE Table a.\"B c\"\"d\" (x int);",
                "w:create w:table w:a . q:B c\"d ( w:x w:int ) ;",
            ),
            ("'it''s' ;", "l:it's ;"),
            ("'a\\' ;", "l:a\\ ;"),
            ("E'a\\'b' e'\\\\' ;", "l:a'b l:\\ ;"),
            ("E'a'\n '\\';' ;", "l:a l:'; ;"),
            ("x'00' b'1'", "w:x l:00 w:b l:1"),
            ("$$ ; ' $x$ $$ $_$a$b$_$ $1 $a", "l: l: $ n1 $"),
            ("a$b$c", "w:a$b$c"),
            ("/* ; /* x */ ' */ a", "w:a"),
            ("-- one\n - -- two\nb", "c: one - w:b"),
            ("1.5e10 -1 a-b a/b", "n1.5e10 - n1 w:a - w:b w:a / w:b"),
            ("\\connect \"a b\"\nx", "m:connect \"a b\" w:x"),
            ("-- last", "c: last"),
            ("-- one\r;-- two\r\n;", "c: one ; ;"),
        ] {
            assert_eq!(lex(text), found, "{text}");
        }
    }

    #[test]
    fn numbers_can_be_passed_over() {
        let mut lexer = Lexer::new();
        lexer.skips_numbers = true;
        let mut found = Vec::new();
        let mut rest = &b"1, -2.5, 1e5, E'a' ,\n '\\', 7)"[..];
        while !rest.is_empty() {
            let (taken, token) = lexer.next(rest);
            found.extend(token.map(|(start, token)| (start, show(&token))));
            rest = &rest[taken..];
        }
        let expected = [(3, "-"), (10, "w:e5"), (14, "l:"), (22, "l:"), (28, ")")];
        assert_eq!(
            found,
            expected.map(|(start, token)| (start, token.to_owned()))
        );
    }

    #[test]
    fn old_strings_know_backslashes() {
        assert_eq!(tokens(&[b"'a\\'b' ;"], false), ["l:a'b", ";"]);
    }

    #[test]
    fn half_letters_are_no_backslashes() {
        let mut lexer = Lexer::new();
        lexer.wide_leads = Some(WideLeads::ShiftJis);
        for text in [&b"E'\x95\x5c' ;"[..], b"E'\xb1' ;", b"E'\xb1\\'\x83\x5c' ;"] {
            let start = lexer.position();
            let (taken, token) = lexer.next(text);
            assert!(matches!(token, Some((at, Token::Literal(_))) if at == start));
            assert_eq!(&text[taken..], b" ;");
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            text in "([a$_'\"\\\\/*;(-]|\\$a\\$|\n|E'|--|é|1| ){0,40}",
            seeds in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            standard: bool,
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = seeds.iter().map(|seed| seed.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(tokens(&[bytes], standard), tokens(&pieces, standard));
        }
    }
}
