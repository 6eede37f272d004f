//! What a key and a section of the file are, and what a key may take. Holds no keys and no logic but look-ups.

/// A group of keys that stand together.
pub(super) struct Section {
    /// Name in the JSON Schema.
    pub name: &'static str,
    /// Where its keys belong, to end "it belongs ...".
    pub place: &'static str,
    pub doc: &'static str,
    pub keys: &'static [Key],
}

/// One key.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// The default as it would stand in the file.
    pub default: Option<&'static str>,
    pub is_required: bool,
    pub doc: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// Text that is never shown.
    Secret,
    /// A connection URL; never shown whole.
    ConnectionUrl,
    StorageUrl,
    /// An `http://` or `https://` address.
    Endpoint,
    Path,
    /// A list of paths.
    Paths,
    /// A file whose content is the secret of the key without `_file`.
    SecretFile,
    /// `true` or `false`.
    Flag,
    /// A whole number in a range.
    Count(u64, u64),
    /// A share such as `50%`.
    Percent,
    /// A length of time of at least so many and at most so many seconds.
    Duration(u64, u64),
    /// The same, or `0` or `off`.
    DurationOrOff(u64, u64),
    /// A length of time on the calendar.
    Span,
    /// A whole number in a range, or a length of time on the calendar.
    CountOrSpan(u64, u64),
    /// `auto`, or how many.
    Jobs,
    /// A number of bytes in a range.
    Size(u64, u64),
    /// The name of a time zone.
    TimeZone,
    /// A cron expression.
    Schedule,
    /// A list of addresses and networks.
    Networks,
    Choice(&'static [&'static str]),
    /// Names of storages, at least one.
    Storages,
    /// Names of databases.
    Databases,
    /// A program and its arguments.
    Command,
    Tables,
    Schemas,
    /// A list of any texts.
    Texts,
    /// A list of choices.
    Choices(&'static [&'static str]),
    /// Free names, each with a secret text.
    Headers,
    /// An address that is a secret, because whoever has it may write there.
    SecretUrl,
    /// A list of the keys of a section.
    Sections(&'static Section),
    /// Names of tables, or the keys of a section for each.
    RequiredTables(&'static Section),
    Section(&'static Section),
    /// The keys of a section, or one of the choices for the first of them.
    SectionOrChoice(&'static Section, &'static [&'static str]),
    /// Names of tables, each with the keys of a section.
    Limits(&'static Section),
    /// Free names, each with the keys of a section.
    Named(&'static Section),
}

impl Key {
    /// Returns the name of the key that gives the same by a file.
    pub fn file(&self) -> String {
        format!("{}_file", self.name)
    }
}

impl Kind {
    /// Tells whether a text switches the key off.
    pub fn is_off(self, text: &str) -> bool {
        matches!(self, Self::DurationOrOff(..)) && matches!(text, "0" | "off")
    }

    /// Returns the section whose keys it holds.
    pub fn section(self) -> Option<&'static Section> {
        match self {
            Self::Section(section)
            | Self::SectionOrChoice(section, _)
            | Self::Sections(section)
            | Self::RequiredTables(section)
            | Self::Limits(section)
            | Self::Named(section) => Some(section),
            _ => None,
        }
    }

    /// Tells whether its text is never shown.
    pub fn is_secret(self) -> bool {
        matches!(
            self,
            Self::Secret | Self::ConnectionUrl | Self::SecretUrl | Self::Headers
        )
    }
}

impl Section {
    /// Finds a key by its name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// Makes a key that is read by hand.
pub(super) const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        default: None,
        is_required: false,
        doc,
    }
}

/// Makes one that must be given.
pub(super) const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        is_required: true,
        ..key(name, kind, doc)
    }
}
