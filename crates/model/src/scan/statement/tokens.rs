//! The tokens of one statement, and a cursor that walks over them.
//!
//! Texts lie behind each other in one buffer: a dump in INSERT mode has a statement per row, and an allocation for each
//! token would cost more than reading it.

use crate::scan::lexeme::{Lexeme, LexemeKind};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Word,
    Quoted,
    Literal,
    Number,
    Punct(u8),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    pub depth: u32,
    start: usize,
    end: usize,
}

/// Tokens in order, each with its depth in parentheses; those that enclose others lie outside.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    list: Vec<Token>,
    text: Vec<u8>,
}

impl Tokens {
    /// Takes over what is known of a whole statement.
    pub(crate) fn of(lexemes: &[Lexeme]) -> Self {
        let mut tokens = Self::default();
        let mut depth = 0_u32;
        for lexeme in lexemes {
            let kind = match lexeme.kind {
                LexemeKind::Word => Kind::Word,
                LexemeKind::Quoted => Kind::Quoted,
                LexemeKind::Literal => Kind::Literal,
                LexemeKind::Number => Kind::Number,
                LexemeKind::Punct(byte) => Kind::Punct(byte),
            };
            if kind == Kind::Punct(b')') {
                depth = depth.saturating_sub(1);
            }
            tokens.push(kind, depth, &lexeme.text);
            depth += u32::from(kind == Kind::Punct(b'('));
        }
        tokens
    }

    pub(super) fn push(&mut self, kind: Kind, depth: u32, text: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(text);
        let end = self.text.len();
        self.list.push(Token {
            kind,
            depth,
            start,
            end,
        });
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.text.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Tells whether one of this kind stands outside parentheses.
    pub(super) fn has_outside(&self, kind: Kind) -> bool {
        let mut list = self.list.iter();
        list.any(|token| token.depth == 0 && token.kind == kind)
    }

    /// Tells whether a GRANT or REVOKE speaks of several things at once: a comma stands between its ON and its TO or FROM.
    pub(super) fn are_rights_on_several(&self) -> bool {
        let outside = self.list.iter().filter(|token| token.depth == 0);
        let word = |token: &Token| (token.kind == Kind::Word).then(|| self.text(*token));
        outside
            .skip_while(|token| word(token) != Some(b"on"))
            .take_while(|token| !matches!(word(token), Some(b"to" | b"from")))
            .any(|token| token.kind == Kind::Punct(b','))
    }

    fn text(&self, token: Token) -> &[u8] {
        &self.text[token.start..token.end]
    }
}

/// A name as a statement writes it: its last parts, unquoted, in the bytes of the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path<'a> {
    parts: [&'a [u8]; MAX_PARTS],
    length: usize,
}

/// A column has three parts in front of its own: database, schema and table.
const MAX_PARTS: usize = 4;

impl<'a> Path<'a> {
    fn new(first: &'a [u8]) -> Self {
        Self {
            parts: [first, b"", b"", b""],
            length: 1,
        }
    }

    fn push(&mut self, part: &'a [u8]) {
        if self.length == MAX_PARTS {
            self.parts.rotate_left(1);
            self.length -= 1;
        }
        self.parts[self.length] = part;
        self.length += 1;
    }

    /// Returns its parts, the last of which names it.
    pub(crate) fn parts(&self) -> &[&'a [u8]] {
        &self.parts[..self.length]
    }

    /// Returns its last part.
    pub(crate) fn name(&self) -> &'a [u8] {
        self.parts[self.length - 1]
    }

    /// Returns the schema in front of the last part, where one is written.
    pub(crate) fn schema(&self) -> Option<&'a [u8]> {
        let at = self.length.checked_sub(2)?;
        Some(self.parts[at])
    }

    /// Returns the table of a column; none where no table is written.
    pub(crate) fn table(mut self) -> Option<Self> {
        self.length -= 1;
        (self.length > 0).then_some(self)
    }
}

/// Walks over tokens.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    tokens: &'a Tokens,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts in front of the first token.
    pub(super) fn new(tokens: &'a Tokens) -> Self {
        Self { tokens, at: 0 }
    }

    /// Returns how many tokens lie behind it.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Tells whether nothing follows.
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.tokens.list.len()
    }

    /// Returns what token stands at a place.
    pub(super) fn kind_at(&self, at: usize) -> Option<Kind> {
        self.tokens.list.get(at).map(|token| token.kind)
    }

    pub(super) fn peek(&self) -> Option<(Kind, &'a [u8])> {
        let token = *self.tokens.list.get(self.at)?;
        Some((token.kind, self.tokens.text(token)))
    }

    pub(super) fn next(&mut self) -> Option<(Kind, &'a [u8])> {
        let found = self.peek()?;
        self.at += 1;
        Some(found)
    }

    pub(super) fn next_word(&mut self) -> Option<&'a [u8]> {
        let (kind, word) = self.peek()?;
        (kind == Kind::Word).then(|| {
            self.at += 1;
            word
        })
    }

    /// Takes `word` if it comes next.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let is_next = self.peek() == Some((Kind::Word, word.as_bytes()));
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes all of `words` or none.
    pub(super) fn words(&mut self, words: &[&str]) -> bool {
        let start = self.at;
        let all = words.iter().all(|word| self.word(word));
        if !all {
            self.at = start;
        }
        all
    }

    /// Takes one of `words`.
    pub(super) fn any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|word| self.word(word))
    }

    pub(super) fn punct(&mut self, byte: u8) -> bool {
        let is_next = matches!(self.peek(), Some((Kind::Punct(next), _)) if next == byte);
        self.at += usize::from(is_next);
        is_next
    }

    pub(super) fn identifier(&mut self) -> Option<&'a [u8]> {
        match self.peek()? {
            (Kind::Word | Kind::Quoted, name) => {
                self.at += 1;
                Some(name)
            }
            _ => None,
        }
    }

    /// Takes `name`, `schema.name` or `database.schema.name`.
    pub(super) fn path(&mut self) -> Option<Path<'a>> {
        let mut path = Path::new(self.identifier()?);
        while self.punct(b'.') {
            path.push(self.identifier()?);
        }
        Some(path)
    }

    /// Takes `a, b, c`.
    pub(super) fn paths(&mut self) -> Option<Vec<Path<'a>>> {
        let mut paths = vec![self.path()?];
        while self.punct(b',') {
            paths.push(self.path()?);
        }
        Some(paths)
    }

    /// Moves behind the next run of `words` outside parentheses.
    pub(super) fn seek(&mut self, words: &[&str]) -> bool {
        while let Some(token) = self.tokens.list.get(self.at) {
            if token.depth == 0 && self.words(words) {
                return true;
            }
            self.at += 1;
        }
        false
    }

    /// Tells whether `words` follow somewhere outside parentheses.
    pub(super) fn has(&self, words: &[&str]) -> bool {
        self.clone().seek(words)
    }

    /// Takes the tokens inside the parentheses that open next.
    pub(super) fn inside(&mut self) -> impl Iterator<Item = (Kind, &'a [u8])> + use<'a> {
        let mut inside: &[Token] = &[];
        if self.punct(b'(') {
            let rest = &self.tokens.list[self.at..];
            let end = rest.iter().position(|token| token.depth == 0);
            inside = &rest[..end.unwrap_or(rest.len())];
            self.at += inside.len();
            self.punct(b')');
        }
        let tokens = self.tokens;
        inside.iter().map(|token| (token.kind, tokens.text(*token)))
    }
}
