//! Writes a connection as the URL that other programs read.

use secrecy::ExposeSecret;

use pgkeep_model::connection::Connection;

/// Parameters that have a place of their own in a URL.
const PLACED: &[&str] = &["user", "port", "dbname", "host"];

/// Returns `postgresql://user:password@host:port/database?…`, which libpq and the usual drivers understand. Nothing is
/// left out: a smoke test without `sslrootcert` or the second host meets another server, or none.
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
    let place = place(connection);
    let placed: &[&str] = match place {
        Some(_) => PLACED,
        // What is no name of a host, as a socket's folder, stands behind the question mark.
        None => &["user", "dbname"],
    };
    let parameters: Vec<String> = connection
        .parameters()
        .filter(|(name, _)| !placed.contains(name))
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    let query = if parameters.is_empty() {
        String::new()
    } else {
        format!("?{}", parameters.join("&"))
    };
    let place = place.unwrap_or_default();
    let database = connection.database_name().map(encode).unwrap_or_default();
    format!("postgresql://{user}{password}{at}{place}/{database}{query}")
}

/// Returns `host:port`, or several with commas, each with its own port; none where a host is none that can stand there.
fn place(connection: &Connection) -> Option<String> {
    let hosts: Vec<&str> = connection.get("host")?.split(',').collect();
    let ports: Vec<&str> = connection
        .get("port")
        .map_or(Vec::new(), |ports| ports.split(',').collect());
    let is_name = |host: &&str| !host.is_empty() && !host.starts_with(['/', '@']);
    if !hosts.iter().all(is_name) {
        return None;
    }
    let with_port = |(at, host): (usize, &&str)| {
        // One port is that of every host.
        let port = ports
            .get(at)
            .or(ports.first().filter(|_| ports.len() == 1))
            .filter(|port| !port.is_empty())
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        format!("{}{port}", bracketed(host))
    };
    let places: Vec<String> = hosts.iter().enumerate().map(with_port).collect();
    Some(places.join(","))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{}]", host.replace('%', "%25"))
    } else {
        encode(host)
    }
}

fn encode(text: &str) -> String {
    let is_plain =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes()
        .map(|byte| {
            if is_plain(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// All that the connection says, hosts with their ports.
    fn said(connection: &Connection) -> (BTreeMap<String, String>, Vec<(String, u16)>, String) {
        let rest = connection
            .parameters()
            .filter(|(name, _)| !matches!(*name, "host" | "port"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let hosts = connection
            .hosts()
            .into_iter()
            .map(|(host, port)| (host.to_owned(), port));
        let password = connection
            .password()
            .map(|password| password.expose_secret().to_owned());
        (
            rest.collect(),
            hosts.collect(),
            password.unwrap_or_default(),
        )
    }

    fn assert_same(connection: &Connection) {
        let written = url_of(connection);
        let again: Connection = written
            .parse()
            .unwrap_or_else(|error| panic!("{written}: {error}"));
        assert_eq!(said(&again), said(connection), "{written}");
    }

    #[test]
    fn reads_back_as_the_same_connection() {
        for url in [
            "postgresql://u:p%40%2F%25@db.example:5433/shop?sslmode=require",
            "postgresql://pgkeep@/a%20b?host=%2Ftmp%2Fx&port=5432",
            "postgresql://u@[::1]:5432/d",
            "postgresql://u@a:1,b:2,[::1]:3/d?target_session_attrs=read-write&load_balance_hosts=random",
            "postgresql://u@a,b/d?port=7",
            "postgresql://u@/d?host=a,%2Ftmp&port=1,2",
            "postgresql:///d?service=x&passfile=%2Fhome%2Fme%2Fpg%20pass",
            "postgresql://u@a/d?hostaddr=10.0.0.1&options=-c%20search_path%3Dx&keepalives_idle=5&sslcrl=a&krbsrvname=k",
            "postgresql:///d?port=5433",
        ] {
            assert_same(&url.parse().unwrap());
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(
            hosts in prop::collection::vec("[a-z][a-z0-9.-]{0,9}|/[a-z /%]{1,9}|::1", 0..4),
            port in prop::option::of(1u16..),
            rest in prop::collection::btree_map(
                prop::sample::select(vec![
                    "user", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey", "passfile", "options", "service",
                    "connect_timeout", "channel_binding", "gssencmode", "tcp_user_timeout", "require_auth",
                ]),
                "[ -~äß]{1,12}",
                0..6,
            ),
            password in "[ -~ä]{0,9}",
        ) {
            let host = (!hosts.is_empty()).then(|| ("host", hosts.join(",")));
            let port = port.map(|port| ("port", port.to_string()));
            let parameters = rest.into_iter().chain(host).chain(port);
            let connection = Connection::from_parameters(parameters).unwrap();
            assert_same(&connection.with_password(password.into()).unwrap());
        }
    }
}
