//! Takes secrets out of text before anybody reads it.
//!
//! Every known secret is replaced by `***` in each form in which programs print it: as it is, percent-encoded,
//! JSON-escaped, SQL-quoted and base64. Passwords in URLs and behind `password=` go even when they are not known.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;

use secrecy::{ExposeSecret, SecretString};

/// What stands in place of a secret.
const MASK: &str = "***";

/// Shorter secrets are not searched for: replacing every `a` would shred the text and tell the secret by the gaps.
const MIN_LENGTH: usize = 4;

/// Shorter pieces of base64 would match by accident.
const MIN_BASE64: usize = 6;

/// Replaces secrets in text.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a secret that contains another is replaced whole.
    needles: Vec<String>,
}

impl Redactor {
    /// Makes a redactor for these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut needles: Vec<String> = secrets
            .into_iter()
            .map(|secret| secret.expose_secret())
            .filter(|secret| secret.len() >= MIN_LENGTH)
            .flat_map(forms)
            .collect();
        needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        Self { needles }
    }

    /// Adds another redactor's secrets.
    pub fn merge(mut self, other: &Self) -> Self {
        self.needles.extend(other.needles.iter().cloned());
        self.needles
            .sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.needles.dedup();
        self
    }

    /// Returns the text without secrets.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for needle in &self.needles {
            if text.contains(needle.as_str()) {
                text = Cow::Owned(text.replace(needle.as_str(), MASK));
            }
        }
        for redact in [redact_userinfo, redact_assignments] {
            if let Some(redacted) = redact(&text) {
                text = Cow::Owned(redacted);
            }
        }
        text
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor(***)")
    }
}

/// Returns every form in which a secret may be printed.
fn forms(secret: &str) -> Vec<String> {
    let json = serde_json::Value::from(secret).to_string();
    let mut forms = vec![
        secret.to_owned(),
        percent_encode(secret, "-_.~", false),
        percent_encode(secret, "-_.~", true),
        // What encodeURIComponent and the userinfo rule of RFC 3986 leave alone.
        percent_encode(secret, "-_.~!*'()", false),
        percent_encode(secret, "-_.~!*'()$&+,;=", false),
        percent_encode(secret, "-_.~", false).replace("%20", "+"),
        json[1..json.len() - 1].to_owned(),
        secret.replace('\'', "''"),
        secret.replace('\\', "\\\\").replace('\'', "\\'"),
    ];
    forms.extend(base64_forms(secret.as_bytes()));
    forms.retain(|form| form.len() >= MIN_LENGTH);
    forms
}

fn percent_encode(text: &str, kept: &str, lower: bool) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let c = char::from(byte);
        if byte.is_ascii_alphanumeric() || (byte.is_ascii() && kept.contains(c)) {
            encoded.push(c);
        } else if lower {
            write!(encoded, "%{byte:02x}").expect("writing to a string cannot fail");
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    encoded
}

/// Returns the characters that a secret always becomes in base64, whatever stands before and behind it.
///
/// Base64 works in groups of three bytes, so there are three ways for a secret to lie in them
/// (`Authorization: Basic` encodes `user:password`).
fn base64_forms(secret: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for shift in 0..3 {
        let mut bytes = vec![0; shift];
        bytes.extend_from_slice(secret);
        let first = (shift * 8).div_ceil(6);
        let last = bytes.len() * 8 / 6;
        for alphabet in [b"+/", b"-_"] {
            let encoded = base64(&bytes, *alphabet);
            if let Some(piece) = encoded.get(first..last).filter(|p| p.len() >= MIN_BASE64) {
                forms.push(piece.to_owned());
            }
        }
    }
    forms
}

fn base64(bytes: &[u8], last_two: [u8; 2]) -> String {
    let digit = |value: u32| match u8::try_from(value & 63).expect("six bits fit") {
        value @ 0..=25 => b'A' + value,
        value @ 26..=51 => b'a' + value - 26,
        value @ 52..=61 => b'0' + value - 52,
        62 => last_two[0],
        _ => last_two[1],
    };
    let mut encoded = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..=group.len() {
            encoded.push(char::from(digit(bits >> (18 - 6 * at))));
        }
    }
    encoded
}

/// Masks the password of every `scheme://user:password@`; `None` where there is none.
fn redact_userinfo(text: &str) -> Option<String> {
    let mut redacted = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + 3);
        redacted.push_str(before);
        let end = behind.find(ends_url).unwrap_or(behind.len());
        let (url, next) = behind.split_at(end);
        // The last `@`: a password may hold one that nobody encoded, and hiding too much is the safe side.
        match (url.find(':'), url.rfind('@')) {
            (Some(colon), Some(at)) if colon < at => {
                redacted.push_str(&url[..=colon]);
                redacted.push_str(MASK);
                redacted.push_str(&url[at..]);
            }
            _ => redacted.push_str(url),
        }
        rest = next;
    }
    redacted.push_str(rest);
    (redacted != text).then_some(redacted)
}

fn ends_url(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`')
}

/// Masks the value behind every `password=`, quoted or not; `None` where there is none.
fn redact_assignments(text: &str) -> Option<String> {
    const NAME: &str = "password=";
    let mut redacted = String::new();
    let mut rest = text;
    while let Some(at) = rest.to_ascii_lowercase().find(NAME) {
        let (before, value) = rest.split_at(at + NAME.len());
        redacted.push_str(before);
        let end = match value.strip_prefix('\'') {
            Some(quoted) => quoted.find('\'').map_or(value.len(), |end| end + 2),
            None => value
                .find(|c| ends_url(c) || c == '&')
                .unwrap_or(value.len()),
        };
        if end > 0 {
            redacted.push_str(MASK);
        }
        rest = &value[end..];
    }
    redacted.push_str(rest);
    (redacted != text).then_some(redacted)
}

/// Returns a text without percent-encoding, as far as it has any; what is broken stays.
pub fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let value = digits.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        decoded.push(value.unwrap_or(bytes[at]));
        at += if value.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redactor(secret: &str) -> Redactor {
        Redactor::new([&SecretString::from(secret)])
    }

    #[test]
    fn hides_every_form() {
        let secret = "p@ss \"wörd\"/'x";
        let redactor = redactor(secret);
        for text in [
            "plain p@ss \"wörd\"/'x end",
            "url p%40ss%20%22w%C3%B6rd%22%2F%27x end",
            "lower p%40ss%20%22w%c3%b6rd%22%2f%27x end",
            "form p%40ss+%22w%C3%B6rd%22%2F%27x end",
            "component p%40ss%20%22w%C3%B6rd%22%2F'x end",
            r#"json p@ss \"wörd\"/'x end"#,
            "sql p@ss \"wörd\"/''x end",
        ] {
            let told = redactor.redact(text);
            assert!(told.ends_with(" *** end"), "{told}");
        }
        for prefix in ["", "u:", "us:", "user:"] {
            let basic = base64(format!("{prefix}{secret}").as_bytes(), *b"+/");
            let told = redactor.redact(&basic).into_owned();
            assert!(told.contains(MASK) && told.len() < 14, "{told}");
        }
    }

    #[test]
    fn base64_is_the_standard_one() {
        assert_eq!(base64(b"hello world?>", *b"+/"), "aGVsbG8gd29ybGQ/Pg");
        assert_eq!(base64(b"\xff\xfe\xfd", *b"-_"), "__79");
    }

    #[test]
    fn hides_passwords_that_nobody_told() {
        let redactor = Redactor::default();
        for (text, told) in [
            (
                "see postgres://u:pw@h/d now",
                "see postgres://u:***@h/d now",
            ),
            ("s3://k:a@b@h \"x://u:p@h\"", "s3://k:***@h \"x://u:***@h\""),
            ("postgres://u:a/b@h/d", "postgres://u:***@h/d"),
            ("host=h PASSWORD=pw x=1", "host=h PASSWORD=*** x=1"),
            ("password='a b' x", "password=*** x"),
            ("?sslpassword=a&b=c", "?sslpassword=***&b=c"),
            ("password=", "password="),
        ] {
            assert_eq!(redactor.redact(text), told);
        }
    }

    #[test]
    fn leaves_other_text_alone() {
        let redactor = redactor("s3cret");
        for text in [
            "",
            "https://example.com/a?b=c",
            "postgres://user@host/db",
            "a@b: password authentication failed for user \"x\"",
        ] {
            assert!(matches!(redactor.redact(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn longer_secrets_go_first() {
        let secrets = [SecretString::from("abcd"), SecretString::from("abcdefgh")];
        let redactor = Redactor::new(&secrets[..1]).merge(&Redactor::new(&secrets[1..]));
        assert_eq!(redactor.redact("x abcdefgh y abcd"), "x *** y ***");
        assert_eq!(format!("{redactor:?}"), "Redactor(***)");
    }

    proptest! {
        #[test]
        fn a_secret_never_survives(secret in "[!-~é]{4,20}", before in ".{0,20}", after in ".{0,20}") {
            // `*` is what the mask itself is made of.
            prop_assume!(!secret.contains('*'));
            let redactor = redactor(&secret);
            let told = redactor.redact(&format!("{before}{secret}{after}")).into_owned();
            prop_assert!(!told.contains(&secret), "{}", told);
        }
    }
}
