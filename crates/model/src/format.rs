//! Tells by its first bytes what a file is, whatever it is called.

/// How many first bytes [`Format::detect`] wants to see; tar has its mark at 257.
pub const HEAD_BYTES: usize = 512;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text, which may be a plain dump.
    Plain,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// Something that holds no plain dump as it is.
    Foreign(Foreign),
}

/// Files that people mistake for plain dumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Nothing at all.
    Empty,
    /// `pg_dump -Fc`.
    Custom,
    /// `pg_dump -Ft` or any other tar.
    Tar,
    /// A web page, such as a login form or an error.
    Html,
    /// Text in UTF-16, as PowerShell writes it.
    Utf16,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
    /// lz4.
    Lz4,
    /// zip.
    Zip,
    /// An age file.
    Age,
}

impl Format {
    /// Tells what a file that begins with `head` is.
    pub fn detect(head: &[u8]) -> Self {
        const MARKS: &[(&[u8], Format)] = &[
            (b"\x1f\x8b", Format::Gzip),
            (b"\x28\xb5\x2f\xfd", Format::Zstd),
            (b"PGDMP", Format::Foreign(Foreign::Custom)),
            (b"\xff\xfe", Format::Foreign(Foreign::Utf16)),
            (b"\xfe\xff", Format::Foreign(Foreign::Utf16)),
            (b"\xfd7zXZ\x00", Format::Foreign(Foreign::Xz)),
            (b"BZh", Format::Foreign(Foreign::Bzip2)),
            (b"\x04\x22\x4d\x18", Format::Foreign(Foreign::Lz4)),
            (b"PK\x03\x04", Format::Foreign(Foreign::Zip)),
            (b"age-encryption.org/", Format::Foreign(Foreign::Age)),
            (
                b"-----BEGIN AGE ENCRYPTED FILE-----",
                Format::Foreign(Foreign::Age),
            ),
        ];
        if head.is_empty() {
            return Self::Foreign(Foreign::Empty);
        }
        if let Some((_, format)) = MARKS.iter().find(|(mark, _)| head.starts_with(mark)) {
            return *format;
        }
        if is_skippable_frame(head) {
            return Self::Zstd;
        }
        if head.get(257..262) == Some(b"ustar") || head.starts_with(b"toc.dat\0") {
            return Self::Foreign(Foreign::Tar);
        }
        if is_html(head) {
            Self::Foreign(Foreign::Html)
        } else {
            Self::Plain
        }
    }
}

/// Tells whether a zstd frame without data comes first, as `pzstd` writes.
fn is_skippable_frame(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

fn is_html(head: &[u8]) -> bool {
    let head = head
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start();
    [&b"<!doctype"[..], b"<html", b"<?xml", b"<head", b"<body"]
        .iter()
        .any(|mark| {
            head.get(..mark.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(mark))
        })
}

impl Foreign {
    /// Says what the file is.
    pub fn description(self) -> &'static str {
        match self {
            Self::Empty => "it is empty",
            Self::Custom => "it is an archive in custom format (`pg_dump -Fc`), not a plain dump",
            Self::Tar => "it is a tar archive (such as `pg_dump -Ft` writes), not a plain dump",
            Self::Html => "it is a web page, not a dump",
            Self::Utf16 => "it is text in UTF-16, as PowerShell's `>` writes; psql refuses it",
            Self::Xz => "it is compressed with xz",
            Self::Bzip2 => "it is compressed with bzip2",
            Self::Lz4 => "it is compressed with lz4",
            Self::Zip => "it is a zip archive, not a dump",
            Self::Age => "it is encrypted with age",
        }
    }

    /// Returns what makes a plain dump of it.
    pub fn filter(self) -> Option<&'static str> {
        match self {
            Self::Custom | Self::Tar => Some("pg_restore -f - FILE"),
            Self::Xz => Some("xz -dc FILE"),
            Self::Bzip2 => Some("bzip2 -dc FILE"),
            Self::Lz4 => Some("lz4 -dc FILE"),
            Self::Zip => Some("unzip -p FILE"),
            Self::Age => Some("age -d -i KEY FILE"),
            Self::Empty | Self::Html | Self::Utf16 => None,
        }
    }

    /// Says what to do about it.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::Empty => {
                Some("a program that failed leaves an empty file; look at its own messages")
            }
            Self::Custom => Some("`pg_restore -f - FILE | pgkeep inspect -` shows what it holds"),
            Self::Tar => Some(
                "`pg_restore -f - FILE | pgkeep inspect -` shows what a tar archive of pg_dump holds",
            ),
            Self::Html => Some("the download most likely needed a login"),
            Self::Utf16 => Some("write dumps with `pg_dump -f FILE`, not through PowerShell's `>`"),
            Self::Xz => Some("`xz -dc FILE | pgkeep inspect -`"),
            Self::Bzip2 => Some("`bzip2 -dc FILE | pgkeep inspect -`"),
            Self::Lz4 => Some("`lz4 -dc FILE | pgkeep inspect -`"),
            Self::Zip => Some("`unzip -p FILE | pgkeep inspect -`"),
            Self::Age => Some("`age -d -i KEY FILE | pgkeep inspect -`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_by_content() {
        let mut tar = vec![b'x'; 300];
        tar[257..262].copy_from_slice(b"ustar");
        for (head, format) in [
            (&b""[..], Format::Foreign(Foreign::Empty)),
            (b"\x1f\x8b\x08", Format::Gzip),
            (b"\x28\xb5\x2f\xfd\x00", Format::Zstd),
            (b"\x50\x2a\x4d\x18\x04", Format::Zstd),
            (b"PGDMP\x01", Format::Foreign(Foreign::Custom)),
            (&tar, Format::Foreign(Foreign::Tar)),
            (b"toc.dat\0\0", Format::Foreign(Foreign::Tar)),
            (b"\n <!DOCTYPE html>", Format::Foreign(Foreign::Html)),
            (b"<HTML>", Format::Foreign(Foreign::Html)),
            (b"\xff\xfe-\0", Format::Foreign(Foreign::Utf16)),
            (b"--\n-- PostgreSQL database dump\n", Format::Plain),
            (b"\xef\xbb\xbf--\n", Format::Plain),
            (b"B", Format::Plain),
        ] {
            assert_eq!(Format::detect(head), format, "{head:?}");
        }
    }
}
