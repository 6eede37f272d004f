//! How pgkeep makes HTTPS connections: what storages and notifiers have in common, and the crypto provider below both.
//!
//! It never follows a redirect: whoever answers with one would learn the secrets that go along.

use std::sync::Once;

use reqwest::{Client, ClientBuilder, redirect};

/// Starts a client. The crypto provider is installed by then, which reqwest wants before it builds one.
pub fn client() -> ClientBuilder {
    install_provider();
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let client = Client::builder();
    client
        .user_agent(concat!("pgkeep/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
}

/// Makes ring the process's crypto provider: what it builds from C is small, and it speaks TLS 1.2 and 1.3 as others do.
fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Refused only where the process has one already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_provider_however_often_it_is_asked_for() {
        for _ in 0..2 {
            client().https_only(true).build().unwrap();
        }
    }
}
