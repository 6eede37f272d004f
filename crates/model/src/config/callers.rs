//! Who may call the server, and from where: roles and networks; and when something runs.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

use super::keys::Kind;
use super::reader::{Field, Reader, choose};
use super::setting::{Blank, Item, Scalar};
use super::shown::Shown;
use crate::schedule::Schedule;

/// What the bearer of a token may do; each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerRole {
    /// Look.
    #[default]
    Read,
    /// Make backups, drills and verifications, and pin.
    Operate,
    /// Restore, accept, and download.
    Restore,
}

impl ServerRole {
    /// Returns the name that stands in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Restore => "restore",
        }
    }
}

impl Scalar for ServerRole {
    fn parse(text: &str, _: Kind) -> Result<Self, String> {
        choose(
            text,
            &[Self::Read, Self::Operate, Self::Restore],
            Self::as_str,
        )
    }

    fn show(&self, _: Kind) -> Shown {
        self.as_str().to_owned().into()
    }
}

impl Blank for ServerRole {
    fn blank() -> Self {
        Self::Read
    }
}

/// A network: an address, and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address.
    pub address: IpAddr,
    /// How many bits of it count.
    pub bits: u8,
}

impl Network {
    fn width(address: IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }

    /// Tells whether an address is in it. An IPv4 address that is written as an IPv6 one is the same.
    pub fn holds(self, other: IpAddr) -> bool {
        let (ours, theirs) = match (self.address, other.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (u128::from(ours.to_bits()), u128::from(theirs.to_bits()))
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits(), theirs.to_bits()),
            _ => return false,
        };
        let rest = u32::from(Self::width(self.address) - self.bits);
        let network = |bits: u128| bits.checked_shr(rest).unwrap_or(0);
        network(ours) == network(theirs)
    }
}

/// Reads an address, or one with `/` and a number of bits.
impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "must be an address or a network such as `10.0.0.0/8`".to_owned();
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let width = Self::width(address);
        let bits = match bits {
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= width)
                .ok_or_else(bad)?,
            None => width,
        };
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == Self::width(self.address) {
            self.address.fmt(f)
        } else {
            write!(f, "{}/{}", self.address, self.bits)
        }
    }
}

impl Item for Network {
    fn read(reader: &mut Reader, item: &Field) -> Option<Self> {
        reader.scalar(item, str::parse)
    }

    fn show(&self) -> Shown {
        self.to_string().into()
    }
}

impl Scalar for Schedule {
    fn parse(text: &str, _: Kind) -> Result<Self, String> {
        text.parse()
            .map_err(|why: String| format!("is no schedule: {why}"))
    }

    fn show(&self, _: Kind) -> Shown {
        self.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_addresses_or_have_bits() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "::ffff:10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("fd00::/8", "fdff::1", true),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.holds(address.parse().unwrap()),
                expected,
                "{network} {address}"
            );
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "proxy",
            "10.0.0.0/",
            "10.0.0.0/-1",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
