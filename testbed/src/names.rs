use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Longest name; the kernel allows 64 bytes for a hostname.
const NAME_LENGTH_MAX: usize = 63;
/// Prefix lengths that leave room for hosts and stay within one private range.
const PREFIX_BITS: std::ops::RangeInclusive<u8> = 8..=29;

/// The name of a host or a testbed: 1 to 63 of `[a-z0-9.-]`, first and last `[a-z0-9]`, so that it
/// is a hostname and a folder's name at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let ends =
            bytes.first().copied().is_some_and(plain) && bytes.last().copied().is_some_and(plain);
        let inner = bytes.iter().all(|&byte| plain(byte) || byte == b'.' || byte == b'-');
        if ends && inner && bytes.len() <= NAME_LENGTH_MAX && !text.contains("..") {
            Ok(HostName(text.to_owned()))
        } else {
            Err(Error::BadName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for HostName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> String {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The IPv4 prefix of a testbed's network, such as `10.77.0.0/16`. The first address belongs to
/// the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    base: Ipv4Addr,
    bits: u8,
}

impl Prefix {
    /// 10.77.0.0/16. Every testbed can use it: each has a network of its own.
    pub const DEFAULT: Prefix = Prefix { base: Ipv4Addr::new(10, 77, 0, 0), bits: 16 };

    /// The prefix length in bits.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// The switch's address, source of forwarded connections.
    pub fn switch(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) | 1)
    }

    /// The address with this number in the prefix, if it may belong to a host.
    pub(crate) fn host(self, number: u32) -> Option<Ipv4Addr> {
        let last = (1u32 << (32 - self.bits)) - 1;
        (2..last).contains(&number).then(|| Ipv4Addr::from(u32::from(self.base) | number))
    }

    /// Why `address` cannot belong to a host of this prefix, if so.
    pub(crate) fn objection(self, address: Ipv4Addr) -> Option<&'static str> {
        let number = u32::from(address) ^ u32::from(self.base);
        if number >> (32 - self.bits) != 0 {
            return Some("it lies outside the testbed's prefix");
        }
        self.host(number).is_none().then_some("it is the network's, the switch's or the broadcast")
    }
}

impl FromStr for Prefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadPrefix(text.to_owned());
        let (base, bits) = text.split_once('/').ok_or_else(bad)?;
        let base: Ipv4Addr = base.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        let inside =
            PREFIX_BITS.contains(&bits) && u32::from(base).checked_shl(bits.into()) == Some(0);
        if inside { Ok(Prefix { base, bits }) } else { Err(bad()) }
    }
}

impl TryFrom<String> for Prefix {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.base, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it failed, a name could leave the testbed's folder or be refused by the kernel.
    #[test]
    fn names_are_folder_names_and_hostnames() {
        for good in ["a", "core.rennes", "n-1", &"x".repeat(63)] {
            assert!(good.parse::<HostName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "-a", "a.", "A", "a\n", "a b", "a..b", &"x".repeat(64)] {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
    }

    /// If it failed, hosts could get the switch's or the broadcast address.
    #[test]
    fn prefixes_keep_reserved_addresses() {
        let prefix: Prefix = "10.9.0.0/29".parse().unwrap();
        assert_eq!(prefix.switch(), Ipv4Addr::new(10, 9, 0, 1));
        assert_eq!(prefix.host(1), None);
        assert_eq!(prefix.host(2), Some(Ipv4Addr::new(10, 9, 0, 2)));
        assert_eq!(prefix.host(6), Some(Ipv4Addr::new(10, 9, 0, 6)));
        assert_eq!(prefix.host(7), None);
        assert!(prefix.objection(Ipv4Addr::new(10, 9, 0, 2)).is_none());
        assert!(prefix.objection(Ipv4Addr::new(10, 9, 0, 8)).is_some());
        assert!(prefix.objection(Ipv4Addr::new(10, 9, 0, 0)).is_some());
        for bad in ["10.9.0.1/16", "10.9.0.0", "10.9.0.0/33", "10.9.0.0/30", "0.0.0.0/0", "x/8"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }
}
