//! URLs of servers and storages: what is accepted, and how they are shown.
//!
//! Promises that no error and no shown URL holds a password: a URL that it cannot take apart for certain is shown
//! as its scheme alone. Never connects.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};

use super::reader::shown;
use super::shown::HIDDEN;
use crate::connection::QUOTATION_MARKS;
use crate::notice::DATABASE_MARK;

/// Schemes that libpq takes.
const POSTGRES: [&str; 2] = ["postgres://", "postgresql://"];

/// Where a value brings quotation marks along, out of an env file or from a shell that did not take them.
const QUOTED: &str = "begins with a quotation mark, which is part of the value; remove it";

/// What a storage is.
const WANTED: &str = "must be a folder, `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or `rclone:remote:path`";

/// Parameters of a connection URL that are shown; any other may be a secret.
const SHOWN_PARAMETERS: [&str; 6] = ["host", "port", "user", "dbname", "sslmode", "service"];

/// A place that backups are stored in, as a URL or a path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageUrl {
    /// A folder.
    Folder(PathBuf),
    /// A bucket of S3 or a service like it.
    S3 {
        /// The bucket.
        bucket: String,
        /// What every key starts with, without slashes at its ends; may be empty.
        prefix: String,
    },
    /// A bucket of Google Cloud Storage.
    Gcs {
        /// The bucket.
        bucket: String,
        /// What every key starts with, without slashes at its ends; may be empty.
        prefix: String,
    },
    /// A container of Azure Blob Storage.
    Azure {
        /// The container.
        container: String,
        /// What every key starts with, without slashes at its ends; may be empty.
        prefix: String,
    },
    /// Whatever rclone reaches.
    Rclone {
        /// The remote with its path, as rclone takes it, without a slash at its end.
        remote: String,
    },
}

impl StorageUrl {
    /// Returns the scheme of its URL; `file` for a folder.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Folder(_) => "file",
            Self::S3 { .. } => "s3",
            Self::Gcs { .. } => "gs",
            Self::Azure { .. } => "az",
            Self::Rclone { .. } => "rclone",
        }
    }
}

/// Reads `./backups`, `file:///srv/backups`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or
/// `rclone:remote:path`.
///
/// The error tells what is wrong, to stand behind a name for the URL; it never shows the URL.
impl FromStr for StorageUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_storage(text)
    }
}

impl fmt::Display for StorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bucket, prefix) = match self {
            Self::Folder(path) => return write!(f, "{}", path.display()),
            Self::S3 { bucket, prefix } | Self::Gcs { bucket, prefix } => (bucket, prefix),
            Self::Azure { container, prefix } => (container, prefix),
            Self::Rclone { remote } => return write!(f, "rclone:{remote}"),
        };
        write!(f, "{}://{bucket}", self.scheme())?;
        match prefix.as_str() {
            "" => Ok(()),
            prefix => write!(f, "/{prefix}"),
        }
    }
}

/// Tells why a text is not a connection URL.
pub(super) fn check_postgres(text: &str) -> Result<(), &'static str> {
    if text.starts_with(QUOTATION_MARKS) {
        return Err(QUOTED);
    }
    if !POSTGRES.iter().any(|scheme| text.starts_with(scheme)) {
        return Err("must start with `postgres://` or `postgresql://`");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("holds a space or a line end; write `%20` for a space");
    }
    Ok(())
}

/// Tells whether a connection URL carries a password, or may.
pub(super) fn has_password(text: &str) -> bool {
    match split_postgres(text) {
        Some(parts) => {
            parts.userinfo.is_some_and(|u| u.contains(':')) || parts.query.contains("password=")
        }
        None => true,
    }
}

/// Shows a connection URL without its password: `postgres://user@host:port/database?sslmode=require`.
///
/// A password with an unescaped `/`, `?`, `#` or `@` in it makes a URL ambiguous; that one is shown as
/// `postgres://***`.
pub fn redact(text: &str) -> String {
    let Some(parts) = split_postgres(text) else {
        return "postgres://***".into();
    };
    let mut shown = parts.scheme.to_owned();
    if let Some(userinfo) = parts.userinfo {
        let user = userinfo.split(':').next().unwrap_or_default();
        shown.push_str(&format!("{user}@"));
    }
    shown.push_str(parts.hosts);
    shown.push_str(parts.path);
    let parameters: Vec<&str> = parts.query.split('&').filter(|p| is_shown(p)).collect();
    if !parameters.is_empty() {
        shown.push_str(&format!("?{}", parameters.join("&")));
    }
    shown
}

fn is_shown(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or_default();
    SHOWN_PARAMETERS.contains(&name)
}

struct PostgresParts<'t> {
    scheme: &'static str,
    userinfo: Option<&'t str>,
    hosts: &'t str,
    path: &'t str,
    query: &'t str,
}

/// Takes a connection URL apart, `None` unless there is only one way to.
fn split_postgres(text: &str) -> Option<PostgresParts<'_>> {
    let scheme = POSTGRES
        .into_iter()
        .find(|scheme| text.starts_with(scheme))?;
    let rest = &text[scheme.len()..];
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let (userinfo, hosts) = match authority.split_once('@') {
        Some((userinfo, hosts)) => (Some(userinfo), hosts),
        None => (None, authority),
    };
    // An `@` or `#` behind the hosts may be the rest of a password, and so may a port that is no number.
    // So may a parameter that stands in the path because its `?` was forgotten.
    let is_certain = !tail.contains(['@', '#'])
        && !query.contains('?')
        && !path.contains(['&', '='])
        && path.matches('/').count() <= 1
        && hosts.split(',').all(is_host);
    is_certain.then_some(PostgresParts {
        scheme,
        userinfo,
        hosts,
        path,
        query,
    })
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        // `[::1]` has colons of its own.
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (text, ""),
    };
    let is_plain = |c: char| c.is_alphanumeric() || "-_.%".contains(c);
    let is_name = match name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
    {
        Some(address) => address.chars().all(|c| is_plain(c) || c == ':'),
        None => name.chars().all(is_plain),
    };
    is_name && port.bytes().all(|b| b.is_ascii_digit())
}

/// Reads the place of a storage.
fn parse_storage(text: &str) -> Result<StorageUrl, String> {
    if text.starts_with(QUOTATION_MARKS) {
        return Err(QUOTED.to_owned());
    }
    // A setting of a remote may be an address.
    if let Some(remote) = text.strip_prefix("rclone:") {
        crate::remote::check(remote)?;
        let remote = remote.trim_end_matches('/').to_owned();
        return Ok(StorageUrl::Rclone { remote });
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return parse_folder(text);
    };
    match scheme {
        "file" => parse_file_url(text),
        "s3" => parse_bucket(rest, "s3", "`access_key_id` and `secret_access_key`")
            .map(|(bucket, prefix)| StorageUrl::S3 { bucket, prefix }),
        "gs" => parse_bucket(rest, "gs", "`service_account_file`")
            .map(|(bucket, prefix)| StorageUrl::Gcs { bucket, prefix }),
        "az" => parse_bucket(rest, "az", "`account`, and a key of it")
            .map(|(container, prefix)| StorageUrl::Azure { container, prefix }),
        "gcs" => Err("is written `gs://bucket/prefix`".into()),
        "azure" | "abfs" | "abfss" | "wasb" | "wasbs" => {
            Err("is written `az://container/prefix`, with `account` beside it".into())
        }
        _ => Err(WANTED.into()),
    }
}

fn parse_folder(text: &str) -> Result<StorageUrl, String> {
    if text == "~" || text.starts_with("~/") {
        return Err("starts with `~`, which only a shell knows; write `${HOME}`".into());
    }
    let schemes = ["s3:", "gs:", "az:", "file:"];
    if schemes.iter().any(|scheme| text.starts_with(scheme)) {
        return Err("lacks `//` behind its scheme, as in `s3://bucket/prefix`".into());
    }
    if text.is_empty() || text.contains('\0') {
        return Err(WANTED.into());
    }
    Ok(StorageUrl::Folder(PathBuf::from(text)))
}

fn parse_file_url(text: &str) -> Result<StorageUrl, String> {
    let wrong =
        || "must have three slashes and a full path, as in `file:///srv/backups`".to_owned();
    let url = url::Url::parse(text).map_err(|_| wrong())?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("holds `?` or `#`; write `%3F` or `%23`, or give the plain path".into());
    }
    let path = url.to_file_path().map_err(|()| wrong())?;
    match path.to_str() {
        Some(path) if !path.contains('\0') => Ok(StorageUrl::Folder(PathBuf::from(path))),
        _ => Err("does not name a folder in UTF-8".into()),
    }
}

/// Reads a bucket and a prefix; `keys` are where a login belongs.
fn parse_bucket(rest: &str, scheme: &str, keys: &str) -> Result<(String, String), String> {
    if rest.contains('@') {
        return Err(format!("must not hold credentials; give {keys}"));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    // Wider than AWS's rule, because other services allow more; only what would change the request is refused.
    let is_bucket = !bucket.is_empty()
        && bucket.len() <= 255
        && bucket
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !bucket.bytes().all(|b| b == b'.');
    if !is_bucket {
        return Err(format!(
            "has no valid bucket name; it looks like `{scheme}://bucket/prefix`"
        ));
    }
    let prefix = prefix.trim_matches('/');
    let is_prefix = !prefix.contains(['?', '#', '\\'])
        && !prefix.chars().any(char::is_control)
        && (prefix.is_empty()
            || prefix
                .split('/')
                .all(|part| !matches!(part, "" | "." | "..")));
    if !is_prefix {
        return Err("has a prefix with `?`, `#`, `\\`, `//`, `.` or `..` in it".into());
    }
    Ok((bucket.into(), prefix.into()))
}

/// Tells why a text is not the address of an S3 service.
pub(super) fn check_endpoint(text: &str) -> Result<(), String> {
    if text.starts_with(QUOTATION_MARKS) {
        return Err(QUOTED.to_owned());
    }
    let url = url::Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    let Some(url) = url else {
        return Err("must be an address such as `https://s3.example.com`".into());
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "must not hold credentials; give `access_key_id` and `secret_access_key`".into(),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not hold `?` or `#`".into());
    }
    Ok(())
}

/// Checks an address that something is sent to.
pub(super) fn check_web(text: &str) -> Result<(), &'static str> {
    if text.starts_with(QUOTATION_MARKS) {
        return Err(QUOTED);
    }
    const WRONG: &str = "must be an address such as `https://example.com/hook`";
    let is_web = ["http://", "https://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    let has_host = url::Url::parse(text).is_ok_and(|url| url.host().is_some());
    if is_web && has_host && !text.contains(char::is_whitespace) {
        Ok(())
    } else {
        Err(WRONG)
    }
}

/// Shows where an address leads, and nothing that would let anybody write there.
pub(super) fn hide(url: &SecretString) -> String {
    let text = url.expose_secret();
    let mark = if text.contains(DATABASE_MARK) {
        format!("/{DATABASE_MARK}")
    } else {
        String::new()
    };
    match url::Url::parse(text) {
        Ok(url) => {
            let host = shown(url.host_str().unwrap_or_default());
            let port = url
                .port()
                .map(|port| format!(":{port}"))
                .unwrap_or_default();
            format!("{}://{host}{port}/{HIDDEN}{mark}", url.scheme())
        }
        Err(_) => format!("https://{HIDDEN}{mark}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shows_connections_without_secrets() {
        for (url, shown) in [
            (
                "postgres://app:pw@db:5432/shop",
                "postgres://app@db:5432/shop",
            ),
            ("postgresql://app@db/shop", "postgresql://app@db/shop"),
            ("postgres://db", "postgres://db"),
            ("postgres://", "postgres://"),
            (
                "postgres:///shop?host=/run/pg&password=pw",
                "postgres:///shop?host=/run/pg",
            ),
            (
                "postgres://u:p%40@a:1,b:2/d?sslmode=require&sslpassword=pw",
                "postgres://u@a:1,b:2/d?sslmode=require",
            ),
            ("postgres://u:p@[::1]:5432/d", "postgres://u@[::1]:5432/d"),
            ("postgres://u:p:w@h/d", "postgres://u@h/d"),
            ("postgres://u:p/w@h/d", "postgres://***"),
            ("postgres://u:p?w@h/d", "postgres://***"),
            ("postgres://u:p#w@h/d", "postgres://***"),
            ("postgres://u:p@w@h/d", "postgres://***"),
            ("postgres://u:12/34/d", "postgres://***"),
            ("postgres://u:pw", "postgres://***"),
            ("mysql://u:p@h/d", "postgres://***"),
        ] {
            assert_eq!(redact(url), shown, "{url}");
        }
    }

    #[test]
    fn knows_where_a_password_is() {
        for (url, expected) in [
            ("postgres://app:pw@db/shop", true),
            ("postgres://db/shop?password=pw", true),
            ("postgres://u:p/w@h/d", true),
            ("postgres://app@db/shop", false),
        ] {
            assert_eq!(has_password(url), expected, "{url}");
        }
    }

    #[test]
    fn reads_storages() {
        let s3 = |bucket: &str, prefix: &str| StorageUrl::S3 {
            bucket: bucket.into(),
            prefix: prefix.into(),
        };
        let folder = |path: &str| StorageUrl::Folder(path.into());
        for (text, expected) in [
            ("./backups", folder("./backups")),
            ("/srv/b", folder("/srv/b")),
            ("file:///srv/my%20b", folder("/srv/my b")),
            ("s3://acme", s3("acme", "")),
            (
                "rclone::sftp,host=nas:pg/",
                StorageUrl::Rclone {
                    remote: ":sftp,host=nas:pg".into(),
                },
            ),
            ("s3://acme/", s3("acme", "")),
            ("s3://acme/pg/prod/", s3("acme", "pg/prod")),
            (
                "gs://acme/pg",
                StorageUrl::Gcs {
                    bucket: "acme".into(),
                    prefix: "pg".into(),
                },
            ),
            (
                "az://backups",
                StorageUrl::Azure {
                    container: "backups".into(),
                    prefix: String::new(),
                },
            ),
        ] {
            let url: StorageUrl = text.parse().unwrap();
            assert_eq!(url, expected, "{text}");
            assert_eq!(
                url.to_string().parse::<StorageUrl>().unwrap(),
                url,
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_other_storages() {
        for (text, message) in [
            ("", "must be a folder"),
            ("~/backups", "starts with `~`"),
            ("s3:acme/pg", "lacks `//`"),
            ("file://srv/b", "must have three slashes"),
            ("file:///srv?x", "holds `?` or `#`"),
            ("s3://", "has no valid bucket name"),
            ("s3://a b/c", "has no valid bucket name"),
            ("s3://../c", "has no valid bucket name"),
            ("s3://key:secret@acme/c", "must not hold credentials"),
            ("s3://acme/a/../b", "has a prefix"),
            ("s3://acme/a//b", "has a prefix"),
            ("s3://acme/a?b", "has a prefix"),
            ("gs://", "has no valid bucket name; it looks like `gs://"),
            ("gs:acme", "lacks `//`"),
            (
                "gs://key:secret@acme",
                "must not hold credentials; give `service_account_file`",
            ),
            (
                "az://c@acme.blob.core.windows.net",
                "must not hold credentials; give `account`",
            ),
            ("gcs://acme", "is written `gs://"),
            ("abfss://c@acme.dfs.core.windows.net/x", "is written `az://"),
            ("rclone:backups", "must name a remote"),
            ("rclone::sftp,host=a,pass=secret@:x", "has `pass` in it"),
            ("ftp://user:secret@acme", "must be a folder"),
        ] {
            let error = text.parse::<StorageUrl>().unwrap_err();
            assert!(error.starts_with(message), "{text}: {error}");
            assert!(!error.contains("secret@"), "{error}");
        }
    }

    #[test]
    fn checks_endpoints() {
        let quoted = "\"https://s3.example.com\"";
        assert_eq!(check_endpoint(quoted), Err(QUOTED.to_owned()));
        assert_eq!(check_web(quoted), Err(QUOTED));
        assert_eq!(check_postgres("'postgres://h/d'"), Err(QUOTED));
        assert_eq!("\"s3://a/b\"".parse::<StorageUrl>(), Err(QUOTED.to_owned()));
        assert_eq!(check_endpoint("https://s3.example.com"), Ok(()));
        assert_eq!(check_endpoint("http://127.0.0.1:9000"), Ok(()));
        for text in [
            "s3.example.com",
            "ftp://x",
            "https://k:s@x",
            "https://x?a",
            "https://",
        ] {
            assert!(check_endpoint(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_password_is_ever_shown(
            password in "[a-zA-Z0-9/?#@:&=%,._-]{0,6}XyZZy[a-zA-Z0-9/?#@:&=%,._-]{0,6}",
            tail in "(db|db:5432|\\[::1\\]|a:1,b:2)(/shop)?(\\?sslmode=require)?",
        ) {
            let shown = redact(&format!("postgres://app:{password}@{tail}"));
            prop_assert!(!shown.contains("XyZZy"), "{}", shown);
            let shown = redact(&format!("postgres://app@{tail}&password={password}"));
            prop_assert!(!shown.contains("XyZZy"), "{}", shown);
        }

        #[test]
        fn no_text_panics(text in "(postgres://|s3://|file://|https://)?.{0,40}") {
            let _ = redact(&text);
            let _ = text.parse::<StorageUrl>();
            let _ = check_endpoint(&text);
        }
    }
}
