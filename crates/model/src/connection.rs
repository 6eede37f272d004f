//! Connections to PostgreSQL as people write them: a URL, `keyword=value` pairs or parts.
//!
//! Everything is turned into libpq's own environment variables, so that no program ever gets a URL or a password
//! in its arguments. Parsing follows libpq; no error, label or debug text ever holds a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// Where and as whom to connect.
#[derive(Clone, Default)]
pub struct Connection {
    values: BTreeMap<&'static str, String>,
    password: Option<SecretString>,
}

/// One value for a program's environment.
#[derive(Clone, Debug)]
pub enum Value {
    /// May be shown.
    Plain(String),
    /// Must never be shown.
    Secret(SecretString),
}

impl Value {
    /// Returns the text, secret or not, for the environment of a program and nothing else.
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(secret) => secret.expose_secret(),
        }
    }
}

/// The part of a connection that is wrong. Errors name it instead of echoing the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Before `:` or `@`.
    User,
    /// Between `:` and `@`.
    Password,
    /// One or several hosts.
    Host,
    /// Behind the host's `:`.
    Port,
    /// Behind the `/`.
    Database,
    /// Behind the `?`.
    Parameters,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Password => "password",
            Self::Host => "host",
            Self::Port => "port",
            Self::Database => "database name",
            Self::Parameters => "parameters",
        })
    }
}

/// Tells which part of a connection is wrong, without echoing it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectionError {
    /// Neither of the two forms.
    #[error("the connection is neither a `postgres://` URL nor `keyword=value` pairs")]
    Form,
    /// `%` without two hexadecimal digits, or bytes that are no UTF-8.
    #[error("the {0} of the connection has a broken percent-encoding")]
    Encoding(Part),
    /// PostgreSQL cannot hold such a text.
    #[error("the {0} of the connection holds a NUL character")]
    Nul(Part),
    /// An `@` or `/` of the password was taken for the end of it.
    #[error("the connection URL has an `@` or `/` that is not percent-encoded")]
    Unescaped,
    /// A port that is no number from 1 to 65535, or not one per host.
    #[error("the port of the connection is not a number from 1 to 65535, or not one per host")]
    Port,
    /// `[` without `]`, or text behind the `]`.
    #[error("the host of the connection is not a whole IPv6 address in brackets")]
    Brackets,
    /// A parameter without `=`, or with two.
    #[error("a parameter of the connection is not of the form `name=value`")]
    Pair,
    /// The whole stands in quotation marks.
    #[error("the connection begins with a quotation mark, which is part of no connection")]
    Quoted,
    /// A quote that is not closed.
    #[error("a quoted value of the connection is not closed")]
    Quote,
    /// A parameter that libpq does not know; the name is left out where it may be part of a password.
    #[error("{} is not a connection parameter of PostgreSQL", .0.as_deref().map_or("a name in the parameters".to_owned(), |name| format!("`{name}`")))]
    Unknown(Option<String>),
    /// A parameter that libpq knows and pgkeep cannot pass on.
    #[error("the connection parameter `{0}` cannot be passed to PostgreSQL's programs safely")]
    Unsupported(&'static str),
}

impl ConnectionError {
    /// Returns the next move, where there is one.
    pub fn hint(&self) -> Option<String> {
        let foreign = |name: &str| {
            format!("`{name}` belongs to another driver; remove it from the connection")
        };
        match self {
            Self::Unescaped | Self::Port | Self::Encoding(_) => Some(
                "percent-encode the password: `@` is %40, `/` is %2F, `:` is %3A, `%` is %25"
                    .into(),
            ),
            Self::Unknown(Some(name)) if name == "pgbouncer" => Some(
                "remove `pgbouncer` and use the direct or session connection (port 5432), not the transaction pooler"
                    .into(),
            ),
            Self::Unknown(Some(name)) => Some(match nearest_parameter(name) {
                Some(near) => format!("did you mean `{near}`?"),
                None => foreign(name),
            }),
            Self::Quoted => Some(
                "remove the quotation marks: the env files of Docker and systemd's `Environment=` pass them on \
                 unchanged"
                    .into(),
            ),
            Self::Unsupported("sslpassword") => {
                Some("use a client key without a passphrase, readable by this user only".into())
            }
            _ => None,
        }
    }
}

/// How a parameter reaches the programs.
enum Way {
    /// By this environment variable.
    Env(&'static str),
    /// libpq reads no variable for it: it goes by a conninfo string, which is no secret.
    Conninfo,
    /// Not at all.
    Never,
}

/// libpq's parameters: name, way, and the first major version of the client programs that obeys it.
///
/// An older client ignores a variable that it does not know, and silently ignoring `require_auth` would be a
/// downgrade; hence the version. The variables are those that libpq 15 holds, and the manual's for 16 to 18.
const PARAMETERS: &[(&str, Way, u32)] = &[
    ("application_name", Way::Env("PGAPPNAME"), 0),
    ("channel_binding", Way::Env("PGCHANNELBINDING"), 13),
    ("client_encoding", Way::Never, 0),
    ("connect_timeout", Way::Env("PGCONNECT_TIMEOUT"), 0),
    ("dbname", Way::Env("PGDATABASE"), 0),
    ("fallback_application_name", Way::Conninfo, 0),
    ("gssdelegation", Way::Env("PGGSSDELEGATION"), 17),
    ("gssencmode", Way::Env("PGGSSENCMODE"), 12),
    ("gsslib", Way::Env("PGGSSLIB"), 0),
    ("host", Way::Env("PGHOST"), 0),
    ("hostaddr", Way::Env("PGHOSTADDR"), 0),
    ("keepalives", Way::Conninfo, 0),
    ("keepalives_count", Way::Conninfo, 0),
    ("keepalives_idle", Way::Conninfo, 0),
    ("keepalives_interval", Way::Conninfo, 0),
    ("krbsrvname", Way::Env("PGKRBSRVNAME"), 0),
    ("load_balance_hosts", Way::Env("PGLOADBALANCEHOSTS"), 16),
    ("max_protocol_version", Way::Env("PGMAXPROTOCOLVERSION"), 18),
    ("min_protocol_version", Way::Env("PGMINPROTOCOLVERSION"), 18),
    ("options", Way::Env("PGOPTIONS"), 0),
    ("passfile", Way::Env("PGPASSFILE"), 10),
    ("password", Way::Env("PGPASSWORD"), 0),
    ("port", Way::Env("PGPORT"), 0),
    ("replication", Way::Never, 0),
    ("require_auth", Way::Env("PGREQUIREAUTH"), 16),
    ("requirepeer", Way::Env("PGREQUIREPEER"), 0),
    ("service", Way::Env("PGSERVICE"), 0),
    (
        "ssl_max_protocol_version",
        Way::Env("PGSSLMAXPROTOCOLVERSION"),
        13,
    ),
    (
        "ssl_min_protocol_version",
        Way::Env("PGSSLMINPROTOCOLVERSION"),
        13,
    ),
    ("sslcert", Way::Env("PGSSLCERT"), 0),
    ("sslcertmode", Way::Env("PGSSLCERTMODE"), 16),
    ("sslcompression", Way::Env("PGSSLCOMPRESSION"), 0),
    ("sslcrl", Way::Env("PGSSLCRL"), 0),
    ("sslcrldir", Way::Env("PGSSLCRLDIR"), 14),
    ("sslkey", Way::Env("PGSSLKEY"), 0),
    ("sslmode", Way::Env("PGSSLMODE"), 0),
    ("sslnegotiation", Way::Env("PGSSLNEGOTIATION"), 17),
    ("sslpassword", Way::Never, 0),
    ("sslrootcert", Way::Env("PGSSLROOTCERT"), 0),
    ("sslsni", Way::Env("PGSSLSNI"), 14),
    ("target_session_attrs", Way::Env("PGTARGETSESSIONATTRS"), 10),
    ("tcp_user_timeout", Way::Conninfo, 12),
    ("user", Way::Env("PGUSER"), 0),
];

/// Returns the environment variables that [`Connection::environment`] may set, for a caller that filters its own.
pub fn variables() -> impl Iterator<Item = &'static str> {
    PARAMETERS.iter().filter_map(|(_, way, _)| match way {
        Way::Env(variable) => Some(*variable),
        Way::Conninfo | Way::Never => None,
    })
}

impl Connection {
    /// Makes a connection from libpq's parameter names and their values; empty values mean "not set".
    pub fn from_parameters<N: AsRef<str>, V: Into<String>>(
        parameters: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConnectionError> {
        let mut connection = Self::default();
        for (name, value) in parameters {
            connection.set(name.as_ref(), value.into(), true)?;
        }
        connection.check_ports()?;
        Ok(connection)
    }

    /// Returns the same connection to another database.
    pub fn with_database(&self, name: &str) -> Result<Self, ConnectionError> {
        let mut other = self.clone();
        other.set("dbname", name.to_owned(), true)?;
        Ok(other)
    }

    /// Returns the same connection with a parameter of libpq set; the password is not set this way.
    pub fn with_parameter(&self, name: &str, value: String) -> Result<Self, ConnectionError> {
        let mut other = self.clone();
        other.set(name, value, true)?;
        other.check_ports()?;
        Ok(other)
    }

    /// Returns the same connection with another password.
    pub fn with_password(&self, password: SecretString) -> Result<Self, ConnectionError> {
        check_nul(password.expose_secret(), Part::Password)?;
        let mut other = self.clone();
        other.password = Some(password);
        Ok(other)
    }

    /// Returns the database that was named. Its characters have no meaning: `a=b` is a database called `a=b`.
    pub fn database_name(&self) -> Option<&str> {
        self.get("dbname")
    }

    /// Returns the user that was named.
    pub fn user(&self) -> Option<&str> {
        self.get("user")
    }

    /// Returns a parameter by libpq's name for it; the password is never among them.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Returns every parameter that is set, by libpq's name for it; the password is not among them.
    pub fn parameters(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }

    /// Returns the password, for a [redactor](super::redact::Redactor).
    pub fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    /// Returns every host with its port (5432 where none was written).
    pub fn hosts(&self) -> Vec<(&str, u16)> {
        let ports: Vec<u16> = self
            .get("port")
            .unwrap_or_default()
            .split(',')
            .map(|port| port.parse().unwrap_or(5432))
            .collect();
        let hosts = self
            .get("host")
            .or(self.get("hostaddr"))
            .unwrap_or_default();
        hosts
            .split(',')
            .enumerate()
            .map(|(at, host)| (host, *ports.get(at).unwrap_or(&ports[0])))
            .collect()
    }

    /// Tells whether the connection says itself where the server is, so that an ambient service must not.
    pub fn names_a_place(&self) -> bool {
        ["host", "hostaddr", "service"]
            .iter()
            .any(|name| self.values.contains_key(name))
    }

    /// Returns the oldest major version of the client programs that obeys every parameter.
    pub fn minimum_client_major(&self) -> u32 {
        let used =
            |(name, _, major): &(&str, Way, u32)| self.values.contains_key(name).then_some(*major);
        PARAMETERS.iter().filter_map(used).max().unwrap_or(0)
    }

    /// Returns libpq's environment variables for this connection.
    ///
    /// libpq takes PGDATABASE letter for letter (tested with `we=ird` and `postgres://x/y`), unlike a program's
    /// `--dbname`, which reads such names as connection strings.
    pub fn environment(&self) -> Vec<(&'static str, Value)> {
        let mut variables: Vec<_> = PARAMETERS
            .iter()
            .filter_map(|(name, way, _)| match (way, self.values.get(name)) {
                (Way::Env(variable), Some(value)) => Some((*variable, Value::Plain(value.clone()))),
                _ => None,
            })
            .collect();
        if let Some(password) = &self.password {
            variables.push(("PGPASSWORD", Value::Secret(password.clone())));
        }
        variables
    }

    /// Returns a conninfo string for what the environment cannot carry; it never holds a secret.
    ///
    /// That is parameters without a variable, and everything named beside a service: libpq lets a service file
    /// win over the environment, but not over a conninfo string.
    pub fn conninfo(&self) -> Option<String> {
        let has_service = self.values.contains_key("service");
        let needs_it = |way: &Way| match way {
            Way::Conninfo => true,
            Way::Env(_) => has_service,
            Way::Never => false,
        };
        let pairs: Vec<_> = PARAMETERS
            .iter()
            .filter(|(_, way, _)| needs_it(way))
            .filter_map(|(name, _, _)| Some(format!("{name}={}", quote_value(self.get(name)?))))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join(" "))
    }

    /// Returns `user@host:port/database` for people: no secret, one line.
    pub fn label(&self) -> String {
        let mut label = String::new();
        if let Some(user) = self.user() {
            label.push_str(user);
            label.push('@');
        }
        label.push_str(&self.place());
        if let Some(database) = self.database_name() {
            label.push('/');
            label.push_str(database);
        }
        label
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect()
    }

    fn place(&self) -> String {
        if !self.names_a_place() && self.get("port").is_none() {
            return "local".into();
        }
        match self.get("service") {
            Some(service) if self.get("host").is_none() => format!("service={service}"),
            _ => self
                .hosts()
                .iter()
                .map(|(host, port)| match host {
                    &"" => format!("local:{port}"),
                    host if host.contains(':') => format!("[{host}]:{port}"),
                    host => format!("{host}:{port}"),
                })
                .collect::<Vec<_>>()
                .join(","),
        }
    }

    fn set(&mut self, name: &str, value: String, may_show: bool) -> Result<(), ConnectionError> {
        // libpq's own courtesy to JDBC URLs.
        if name == "ssl" && value == "true" {
            return self.set("sslmode", "require".into(), may_show);
        }
        let Some((name, way, _)) = PARAMETERS.iter().find(|(known, _, _)| *known == name) else {
            return Err(ConnectionError::Unknown(shown_name(name, may_show)));
        };
        check_nul(&value, part_of(name))?;
        if value.is_empty() {
            return Ok(());
        }
        match (*name, way) {
            ("password", _) => self.password = Some(value.into()),
            // pgkeep sets the encoding itself, and a program's own choice of it would change the dump.
            ("client_encoding", _) => {}
            (name, Way::Never) => return Err(ConnectionError::Unsupported(name)),
            (name, _) => drop(self.values.insert(name, value)),
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), ConnectionError> {
        let Some(ports) = self.get("port") else {
            return Ok(());
        };
        let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok_and(|p| p > 0);
        let ports: Vec<_> = ports.split(',').collect();
        let fits = ports.len() == 1 || ports.len() == self.hosts().len();
        if fits && ports.into_iter().all(is_port) {
            Ok(())
        } else {
            Err(ConnectionError::Port)
        }
    }
}

/// What people put around a value, or their word processors.
pub(crate) const QUOTATION_MARKS: [char; 6] = ['"', '\'', '`', '\u{201c}', '\u{201d}', '\u{201e}'];

/// Reads a `postgres://` or `postgresql://` URL, or `keyword=value` pairs, as libpq does.
///
/// Two things are stricter than libpq, because there the rest of a password ends up in a host or database name
/// and from there in messages: an `@` in the hosts, and an `@` behind the first `/` of a URL without a user.
impl FromStr for Connection {
    type Err = ConnectionError;

    fn from_str(text: &str) -> Result<Self, ConnectionError> {
        let text = text.trim();
        if text.starts_with(QUOTATION_MARKS) {
            return Err(ConnectionError::Quoted);
        }
        let url = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let connection = match url {
            Some(rest) => parse_url(rest)?,
            None if text.contains("://") && !text.contains('=') => {
                return Err(ConnectionError::Form);
            }
            None => parse_pairs(text)?,
        };
        connection.check_ports()?;
        Ok(connection)
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.label())
    }
}

fn parse_url(rest: &str) -> Result<Connection, ConnectionError> {
    let mut connection = Connection::default();
    let (userinfo, rest) = match rest.find(['@', '/']) {
        Some(at) if rest[at..].starts_with('@') => (Some(&rest[..at]), &rest[at + 1..]),
        _ => (None, rest),
    };
    if let Some(userinfo) = userinfo {
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        connection.set("user", decode(user, Part::User)?, false)?;
        connection.set("password", decode(password, Part::Password)?, false)?;
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
    if hosts.contains('@') || database.contains('@') {
        return Err(ConnectionError::Unescaped);
    }
    let (hosts, ports) = parse_hosts(hosts)?;
    connection.set("host", decode(&hosts, Part::Host)?, false)?;
    connection.set("port", decode(&ports, Part::Port)?, false)?;
    connection.set("dbname", decode(database, Part::Database)?, false)?;
    parse_query(query, &mut connection)?;
    Ok(connection)
}

/// Splits `h1:1,[::1]:2` into `h1,::1` and `1,2`; the lists are empty where nothing was written.
fn parse_hosts(text: &str) -> Result<(String, String), ConnectionError> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for one in text.split(',') {
        let (host, port) = match one.strip_prefix('[') {
            Some(bracketed) => {
                let (host, behind) = bracketed.split_once(']').ok_or(ConnectionError::Brackets)?;
                match behind.strip_prefix(':') {
                    Some(port) => (host, port),
                    None if behind.is_empty() => (host, ""),
                    None => return Err(ConnectionError::Brackets),
                }
            }
            None => one.split_once(':').unwrap_or((one, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    let join = |parts: Vec<&str>| {
        if parts.iter().all(|part| part.is_empty()) {
            String::new()
        } else {
            parts.join(",")
        }
    };
    Ok((join(hosts), join(ports)))
}

fn parse_query(query: &str, connection: &mut Connection) -> Result<(), ConnectionError> {
    // An `@` here may be the end of a password with an unescaped `?`, and what looks like a name a piece of it.
    let may_show = !query.contains('@');
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(ConnectionError::Pair)?;
        if value.contains('=') {
            return Err(ConnectionError::Pair);
        }
        let name = decode(name, Part::Parameters)?;
        let value = decode(value, part_of(&name))?;
        connection.set(&name, value, may_show)?;
    }
    Ok(())
}

fn parse_pairs(text: &str) -> Result<Connection, ConnectionError> {
    let mut connection = Connection::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=').ok_or(ConnectionError::Form)?;
        let (value, behind) = parse_value(behind.trim_start())?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(ConnectionError::Pair);
        }
        // A password with a blank that nobody quoted leaves its second half where a name is expected.
        connection.set(name, value, connection.password.is_none())?;
        rest = behind.trim_start();
    }
    Ok(connection)
}

/// Reads one value of a `keyword=value` string and returns it with the rest of the text.
fn parse_value(text: &str) -> Result<(String, &str), ConnectionError> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(inner) => (true, inner),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if !quoted && c.is_ascii_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted {
        Err(ConnectionError::Quote)
    } else {
        Ok((value, ""))
    }
}

/// Quotes a value for a `keyword=value` string.
fn quote_value(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Returns a conninfo string that names nothing but a database, letter for letter.
///
/// For `pg_dumpall --database`, which reads a name with `=` in it as a connection string and ignores PGDATABASE.
pub fn database_conninfo(name: &str) -> String {
    format!("dbname={}", quote_value(name))
}

fn decode(text: &str, part: Part) -> Result<String, ConnectionError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = rest.next().and_then(hex).zip(rest.next().and_then(hex));
            let (high, low) = digits.ok_or(ConnectionError::Encoding(part))?;
            bytes.push(high * 16 + low);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| ConnectionError::Encoding(part))
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

fn check_nul(value: &str, part: Part) -> Result<(), ConnectionError> {
    if value.contains('\0') {
        Err(ConnectionError::Nul(part))
    } else {
        Ok(())
    }
}

fn part_of(name: &str) -> Part {
    match name {
        "user" => Part::User,
        "password" => Part::Password,
        "host" | "hostaddr" => Part::Host,
        "port" => Part::Port,
        "dbname" => Part::Database,
        _ => Part::Parameters,
    }
}

/// Returns an unknown parameter's name where it looks like one and cannot be a piece of a password.
fn shown_name(name: &str, may_show: bool) -> Option<String> {
    let is_name = !name.is_empty()
        && name.len() <= 40
        && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    (may_show && is_name).then(|| name.to_owned())
}

fn nearest_parameter(name: &str) -> Option<&'static str> {
    PARAMETERS
        .iter()
        .map(|(known, _, _)| (strsim::damerau_levenshtein(name, known), *known))
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variables(text: &str) -> Vec<(&'static str, String)> {
        let connection: Connection = text.parse().unwrap();
        let mut variables: Vec<_> = connection
            .environment()
            .into_iter()
            .map(|(name, value)| (name, value.expose().to_owned()))
            .collect();
        variables.sort();
        variables
    }

    fn expect(text: &str, expected: &[(&str, &str)]) {
        let mut expected: Vec<_> = expected
            .iter()
            .map(|(n, v)| (*n, (*v).to_owned()))
            .collect();
        expected.sort();
        assert_eq!(variables(text), expected, "{text}");
    }

    /// As `DATABASE_URL="postgres://…"` of an env file gives it.
    #[test]
    fn quotation_marks_around_a_connection_are_named() {
        for text in [
            "\"postgres://u:hunter2@h/d\"",
            "'host=h dbname=d'",
            "\u{201c}postgres://h/d\u{201d}",
        ] {
            let error = text.parse::<Connection>().unwrap_err();
            assert_eq!(error, ConnectionError::Quoted, "{text}");
            assert!(error.hint().unwrap().contains("remove the quotation marks"));
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn reads_urls_as_libpq_does() {
        let full = [
            ("PGUSER", "al:ice"),
            ("PGPASSWORD", "p@ss/w%"),
            ("PGHOST", "db.example.com"),
            ("PGPORT", "6432"),
            ("PGDATABASE", "my db"),
            ("PGSSLMODE", "verify-full"),
        ];
        expect(
            "postgres://al%3Aice:p%40ss%2Fw%25@db.example.com:6432/my%20db?sslmode=verify-full",
            &full,
        );
        expect("postgresql://", &[]);
        expect("postgres:///shop", &[("PGDATABASE", "shop")]);
        expect("postgres://h/", &[("PGHOST", "h")]);
        expect("postgres://:@h:/", &[("PGHOST", "h")]);
        expect("postgres://u@/", &[("PGUSER", "u")]);
        expect(
            "postgres://[::1]:5433",
            &[("PGHOST", "::1"), ("PGPORT", "5433")],
        );
        expect(
            "postgres://h1:1,[2001:db8::1]:2,h3/d",
            &[
                ("PGHOST", "h1,2001:db8::1,h3"),
                ("PGPORT", "1,2,"),
                ("PGDATABASE", "d"),
            ],
        );
        expect(
            "postgres:///d?host=/var/run/postgresql&port=5433",
            &[
                ("PGHOST", "/var/run/postgresql"),
                ("PGPORT", "5433"),
                ("PGDATABASE", "d"),
            ],
        );
        expect(
            "postgres://%2Ftmp%2Fs/d",
            &[("PGHOST", "/tmp/s"), ("PGDATABASE", "d")],
        );
        expect(
            "postgres://h/d?ssl=true",
            &[
                ("PGHOST", "h"),
                ("PGDATABASE", "d"),
                ("PGSSLMODE", "require"),
            ],
        );
        expect(
            "postgres://u:p?w@h/d",
            &[
                ("PGUSER", "u"),
                ("PGPASSWORD", "p?w"),
                ("PGHOST", "h"),
                ("PGDATABASE", "d"),
            ],
        );
    }

    #[test]
    fn reads_pairs_as_libpq_does() {
        expect(
            r"host=h port = 5433 user='o\'neil' password='a b\\c' dbname=we\ ird",
            &[
                ("PGHOST", "h"),
                ("PGPORT", "5433"),
                ("PGUSER", "o'neil"),
                ("PGPASSWORD", r"a b\c"),
                ("PGDATABASE", "we ird"),
            ],
        );
        expect(
            "dbname='postgres://x/y'",
            &[("PGDATABASE", "postgres://x/y")],
        );
        expect("", &[]);
        expect("host='' user=u", &[("PGUSER", "u")]);
    }

    #[test]
    fn says_what_is_wrong_without_echoing_it() {
        use ConnectionError as E;
        for (text, error) in [
            ("mysql://u:s3cretpw@h/d", E::Form),
            ("s3cretpw", E::Form),
            ("postgres://u:s3cretpw%zz@h/d", E::Encoding(Part::Password)),
            ("postgres://u:s3cretpw%f@h/d", E::Encoding(Part::Password)),
            ("postgres://u:s3cretpw%ff@h/d", E::Encoding(Part::Password)),
            ("postgres://u:s3cretpw%00@h/d", E::Nul(Part::Password)),
            ("postgres://u:a@s3cretpw@h/d", E::Unescaped),
            ("postgres://u:12/s3cretpw@h/d", E::Unescaped),
            ("postgres://u:s3cretpw/x", E::Port),
            ("postgres://h:0/d", E::Port),
            ("postgres://h:70000/d", E::Port),
            ("postgres://[::1/d", E::Brackets),
            ("postgres://[::1]x/d", E::Brackets),
            ("postgres://h/d?sslmode", E::Pair),
            ("postgres://h/d?sslmode=a=b", E::Pair),
            ("postgres://h/d?sslmod=x", E::Unknown(Some("sslmod".into()))),
            (
                "postgres://h/d?pgbouncer=true",
                E::Unknown(Some("pgbouncer".into())),
            ),
            ("postgres://x/y?s3cretpw=1@h/d", E::Unknown(None)),
            (
                "postgres://h/d?sslpassword=s3cretpw",
                E::Unsupported("sslpassword"),
            ),
            ("host=h password='s3cretpw", E::Quote),
            ("password=x s3cretpw=y", E::Unknown(None)),
            ("host=a,b port=1,2,3", E::Port),
        ] {
            let found = text.parse::<Connection>().expect_err(text);
            assert_eq!(found, error, "{text}");
            let told = format!("{found} {found:?} {:?}", found.hint());
            assert!(!told.contains("s3cret"), "{told}");
        }
        let hint = |text: &str| text.parse::<Connection>().unwrap_err().hint().unwrap();
        assert!(hint("postgres://h/d?sslmod=x").contains("`sslmode`"));
        assert!(hint("postgres://h/d?pgbouncer=true").contains("5432"));
    }

    #[test]
    fn labels_are_short_and_safe() {
        for (text, label) in [
            ("postgres://u:pw@h/d", "u@h:5432/d"),
            ("postgres://[::1]:1,h2/d", "[::1]:1,h2:5432/d"),
            ("postgres://u@/d?host=/run/pg&port=7", "u@/run/pg:7/d"),
            ("postgres:///d", "local/d"),
            ("service=prod dbname=d", "service=prod/d"),
            ("port=7", "local:7"),
            ("dbname='a\nb'", "local/a?b"),
            ("", "local"),
        ] {
            let connection: Connection = text.parse().unwrap();
            assert_eq!(connection.label(), label, "{text}");
        }
    }

    #[test]
    fn conninfo_carries_only_what_the_environment_cannot() {
        let conninfo = |text: &str| text.parse::<Connection>().unwrap().conninfo();
        assert_eq!(conninfo("postgres://u:pw@h/d"), None);
        assert_eq!(
            conninfo("postgres://u:pw@h/d?keepalives_idle=30"),
            Some("keepalives_idle='30'".into())
        );
        assert_eq!(
            conninfo("service=s password=pw dbname=a").as_deref(),
            Some("dbname='a' service='s'")
        );
        assert_eq!(database_conninfo(r"o'n\e=x"), r"dbname='o\'n\\e=x'");
    }

    #[test]
    fn tells_the_oldest_client_that_obeys() {
        let major = |text: &str| text.parse::<Connection>().unwrap().minimum_client_major();
        assert_eq!(major("postgres://h/d?sslmode=require"), 0);
        assert_eq!(major("postgres://h/d?channel_binding=require"), 13);
        assert_eq!(
            major("postgres://h/d?channel_binding=require&require_auth=scram-sha-256"),
            16
        );
    }

    fn encode(text: &str) -> String {
        text.bytes().map(|b| format!("%{b:02X}")).collect()
    }

    proptest! {
        #[test]
        fn urls_round_trip(user in "[^\0]{1,10}", password in "[^\0]{1,20}", host in "[a-z.]{1,20}", port in 1u16.., database in "[^\0]{1,20}") {
            let url = format!("postgres://{}:{}@{host}:{port}/{}", encode(&user), encode(&password), encode(&database));
            let connection: Connection = url.parse().unwrap();
            prop_assert_eq!(connection.user(), Some(user.as_str()));
            prop_assert_eq!(connection.database_name(), Some(database.as_str()));
            prop_assert_eq!(connection.hosts(), vec![(host.as_str(), port)]);
            prop_assert_eq!(connection.password().unwrap().expose_secret(), password.as_str());
        }

        #[test]
        fn pairs_round_trip(password in "[^\0]{1,20}", database in "[^\0]{1,20}") {
            let text = format!("password={} {}", quote_value(&password), database_conninfo(&database));
            let connection: Connection = text.parse().unwrap();
            prop_assert_eq!(connection.database_name(), Some(database.as_str()));
            prop_assert_eq!(connection.password().unwrap().expose_secret(), password.as_str());
        }

        #[test]
        fn no_secret_is_ever_shown(before in "[ -~]{0,8}", after in "[ -~]{0,8}", kind in 0..3usize) {
            let secret = format!("{before}S3CRET{after}");
            let text = match kind {
                0 => format!("postgres://user:{secret}@host/db"),
                1 => format!("postgres://user:{}@host/db?sslmode=require", encode(&secret)),
                _ => format!("host=h password={secret} dbname=d"),
            };
            let shown = match text.parse::<Connection>() {
                Ok(c) => format!("{c} {c:?} {} {:?} {:?}", c.label(), c.conninfo(), c.environment()),
                Err(e) => format!("{e} {e:?} {:?}", e.hint()),
            };
            prop_assert!(!shown.contains("S3CRET"), "{}", shown);
        }

        #[test]
        fn no_text_panics(text in "(postgres://)?[ -~é\0]{0,60}") {
            if let Ok(connection) = text.parse::<Connection>() {
                let _ = (connection.label(), connection.hosts(), connection.environment(), connection.conninfo());
            }
        }
    }
}
