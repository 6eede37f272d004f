//! Whose word about the client is taken: addresses and networks of proxies.

use std::net::IpAddr;

use axum::http::HeaderMap;

use pgkeep_model::config::Network;

/// Networks of trusted proxies.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<Network>);

impl Proxies {
    /// Takes networks.
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Tells whether an address is a trusted proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.holds(address))
    }

    /// Returns the client behind `peer`: the last address of `X-Forwarded-For` that is no trusted proxy itself. What
    /// stands before it was written by anybody.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let values = headers.get_all("x-forwarded-for").into_iter();
        let said: Vec<&str> = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .collect();
        for text in said.iter().rev() {
            if !self.trusts(client) {
                break;
            }
            match text.trim().parse() {
                Ok(address) => client = address,
                Err(_) => break,
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_of_a_trusted_proxy_counts() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        let proxies = Proxies::new(vec![network("10.0.0.0/8"), network("::1")]);
        let client = |peer: &str, said: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", said.parse().unwrap());
            proxies.client(peer.parse().unwrap(), &headers).to_string()
        };
        for (peer, said, expected) in [
            ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
            ("10.1.2.3", "198.51.100.7", "198.51.100.7"),
            (
                "10.1.2.3",
                "203.0.113.9, 198.51.100.7, 10.9.9.9",
                "198.51.100.7",
            ),
            ("::1", "198.51.100.7", "198.51.100.7"),
            ("10.1.2.3", "unknown", "10.1.2.3"),
        ] {
            assert_eq!(client(peer, said), expected, "{peer} {said}");
        }
    }
}
