//! Where a connection leads, as libpq sees it: what it leaves open comes from the environment.

use std::path::Path;

use super::environment::Environment;
use pgkeep_model::connection::Connection;

/// Folders in which libpq looks for a socket where no host is named: as Debian and as PostgreSQL itself have them.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Tells whether a connection leads to the server itself: a socket with the lock that only a server lays beside it.
pub(super) fn is_direct(connection: &Connection, environment: &Environment) -> bool {
    let connection = with_ambient_place(connection, environment);
    let has_service = connection.get("service").is_some() || environment.get("PGSERVICE").is_some();
    let is_socket = |(host, port): &(&str, u16)| {
        let lock = format!(".s.PGSQL.{port}.lock");
        match *host {
            "" => SOCKET_FOLDERS
                .iter()
                .any(|folder| Path::new(folder).join(&lock).exists()),
            folder => folder.starts_with('/') && Path::new(folder).join(&lock).exists(),
        }
    };
    !has_service && connection.hosts().iter().all(is_socket)
}

/// Fills in what libpq would take from the environment. Where a service is named, its file wins over that; what it says
/// is known to libpq alone.
pub(crate) fn with_ambient_place(connection: &Connection, environment: &Environment) -> Connection {
    let environment = environment.for_connection(connection);
    let mut place = connection.clone();
    if connection.get("service").is_some() || environment.get("PGSERVICE").is_some() {
        return place;
    }
    let is_named = place.names_a_place();
    let ambient = [
        ("host", "PGHOST"),
        ("hostaddr", "PGHOSTADDR"),
        ("port", "PGPORT"),
    ];
    for (name, variable) in ambient {
        let is_open = place.get(name).is_none() && (name == "port" || !is_named);
        let value = environment.get(variable).and_then(|value| value.to_str());
        if let Some(value) = value.filter(|value| is_open && !value.is_empty()) {
            // A value that libpq would refuse names no pooler.
            place = place
                .with_parameter(name, value.to_owned())
                .unwrap_or(place);
        }
    }
    place
}
