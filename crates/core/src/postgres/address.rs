//! Which way leads to a server: names looked up, and whether this machine can take it. No byte is sent to anybody but the
//! resolver.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::environment::Environment;
use super::place::with_ambient_place;
use pgkeep_model::connection::Connection;

/// A resolver that takes longer would make every connection slow.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// What is known of the way to one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// A socket of this machine, an address, or a place that libpq alone knows.
    NotLookedUp,
    /// Its name has addresses that this machine can reach by its routes.
    Open {
        /// Whether all of them are IPv6.
        is_only_ipv6: bool,
    },
    /// It has only addresses of IPv6, and this machine has no IPv6.
    NoIpv6,
    /// Its name could not be looked up, with the reason.
    Unknown(String),
}

/// Looks up every host of a connection, as libpq sees them.
pub async fn ways(connection: &Connection, environment: &Environment) -> Vec<(String, Way)> {
    let place = with_ambient_place(connection, environment);
    let mut ways = Vec::new();
    for (host, port) in place.hosts() {
        let is_name = !host.is_empty() && !host.starts_with('/') && place.get("hostaddr").is_none();
        let way = if is_name && host.parse::<IpAddr>().is_err() {
            way(host, port).await
        } else {
            Way::NotLookedUp
        };
        ways.push((host.to_owned(), way));
    }
    ways
}

async fn way(host: &str, port: u16) -> Way {
    let asked = tokio::net::lookup_host((host, port));
    match tokio::time::timeout(LOOKUP_LIMIT, asked).await {
        Ok(Ok(found)) => judge(&found.collect::<Vec<_>>(), has_ipv6()),
        Ok(Err(error)) => Way::Unknown(error.to_string()),
        Err(_) => Way::Unknown(format!("no answer for {} s", LOOKUP_LIMIT.as_secs())),
    }
}

fn judge(addresses: &[SocketAddr], has_ipv6: bool) -> Way {
    let is_only_ipv6 = addresses.iter().all(SocketAddr::is_ipv6);
    let is_loopback = addresses.iter().any(|address| address.ip().is_loopback());
    match addresses {
        [] => Way::Unknown("it has no address".to_owned()),
        _ if is_only_ipv6 && !has_ipv6 && !is_loopback => Way::NoIpv6,
        _ => Way::Open { is_only_ipv6 },
    }
}

/// Tells whether there is a route to the IPv6 internet. Connecting a datagram socket asks the routes and sends nothing.
fn has_ipv6() -> bool {
    // An address of the documentation's range: nobody is there.
    let far = IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0));
    socket.is_ok_and(|socket| socket.connect((far, 9)).is_ok())
}

/// Says how Supabase's session pooler is reached instead of a project's direct host.
pub fn supabase_pooler(host: &str) -> Option<String> {
    let project = host
        .strip_prefix("db.")?
        .strip_suffix(".supabase.co")
        .or_else(|| host.strip_prefix("db.")?.strip_suffix(".supabase.com"))?;
    Some(format!(
        "use Supabase's session pooler, which has IPv4: host `aws-0-<region>.pooler.supabase.com` (the project's \
         dashboard shows it under Connect), port 5432, user `postgres.{project}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn only_ipv6_without_ipv6_is_no_way() {
        let v4 = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 5432));
        let v6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 5432));
        let own = SocketAddr::from((Ipv6Addr::LOCALHOST, 5432));
        let open = |is_only_ipv6| Way::Open { is_only_ipv6 };
        for (addresses, has_ipv6, expected) in [
            (vec![v6], false, Way::NoIpv6),
            (vec![v6], true, open(true)),
            (vec![v4, v6], false, open(false)),
            (vec![v4], false, open(false)),
            (vec![own], false, open(true)),
        ] {
            assert_eq!(judge(&addresses, has_ipv6), expected, "{addresses:?}");
        }
        assert!(matches!(judge(&[], true), Way::Unknown(_)));
    }

    #[tokio::test]
    async fn sockets_and_addresses_are_not_looked_up() {
        for url in [
            "postgresql://u@/d?host=/run/postgresql",
            "postgresql://u@127.0.0.1/d",
            "postgresql://u@[::1]/d",
            "dbname=d host=db.example hostaddr=10.0.0.1",
            "dbname=d",
        ] {
            let connection: Connection = url.parse().unwrap();
            let ways = ways(&connection, &Environment::new([])).await;
            assert!(
                ways.iter().all(|(_, way)| *way == Way::NotLookedUp),
                "{url}"
            );
        }
    }

    #[test]
    fn the_pooler_of_a_project_is_named() {
        let hint = supabase_pooler("db.abcdefgh.supabase.co").unwrap();
        assert!(hint.contains("`postgres.abcdefgh`") && hint.contains("port 5432"));
        assert_eq!(supabase_pooler("db.example.com"), None);
        assert_eq!(supabase_pooler("aws-0-eu.pooler.supabase.com"), None);
    }
}
