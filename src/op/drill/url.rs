//! Writes a connection as the URL that other programs read.

use secrecy::ExposeSecret;

use crate::model::connection::Connection;

/// Parameters that have a place of their own in a URL, or say nothing to another program.
const PLACED: &[&str] = &["user", "port", "dbname", "host"];

/// Other parameters worth passing on.
const PASSED_ON: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "hostaddr",
    "connect_timeout",
    "options",
];

/// Returns `postgresql://user:password@/database?host=…&port=…`, which libpq and the usual drivers understand.
pub(super) fn url_of(connection: &Connection) -> String {
    let user = connection.user().map(encode).unwrap_or_default();
    let password = connection
        .password()
        .map(|password| format!(":{}", encode(password.expose_secret())))
        .unwrap_or_default();
    let at = if user.is_empty() && password.is_empty() {
        ""
    } else {
        "@"
    };
    let (host, is_socket) = match connection.get("host") {
        Some(host) if host.starts_with('/') => (host, true),
        Some(host) => (host, false),
        None => ("", false),
    };
    let place = match (is_socket, connection.get("port")) {
        (true, _) => String::new(),
        (false, Some(port)) if !host.contains(',') => format!("{}:{port}", bracketed(host)),
        (false, _) => bracketed(host),
    };
    let mut parameters = Vec::new();
    if is_socket {
        parameters.push(format!("host={}", encode(host)));
        parameters.extend(connection.get("port").map(|port| format!("port={port}")));
    }
    for name in PASSED_ON.iter().filter(|name| !PLACED.contains(name)) {
        parameters.extend(
            connection
                .get(name)
                .map(|value| format!("{name}={}", encode(value))),
        );
    }
    let query = if parameters.is_empty() {
        String::new()
    } else {
        format!("?{}", parameters.join("&"))
    };
    let database = connection.database_name().map(encode).unwrap_or_default();
    format!("postgresql://{user}{password}{at}{place}/{database}{query}")
}

fn bracketed(host: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

fn encode(text: &str) -> String {
    let is_plain =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes()
        .map(|byte| match is_plain(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_as_the_same_connection() {
        for url in [
            "postgresql://u:p%40%2F%25@db.example:5433/shop?sslmode=require",
            "postgresql://pgkeep@/a%20b?host=%2Ftmp%2Fx&port=5432",
            "postgresql://u@[::1]:5432/d",
        ] {
            let connection: Connection = url.parse().unwrap();
            let written = url_of(&connection);
            let again: Connection = written.parse().unwrap();
            assert_eq!(again.label(), connection.label(), "{written}");
            let secret = |c: &Connection| c.password().map(|p| p.expose_secret().to_owned());
            assert_eq!(secret(&again), secret(&connection), "{written}");
        }
    }
}
