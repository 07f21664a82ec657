//! Decides which addresses outgoing HTTP may reach: global unicast, and what the operator allows (contract 9.1).
//!
//! Pure. It checks addresses, never names, so no spelling and no rebinding gets around it. Every IPv6 form that
//! embeds an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo, ISATAP) is refused, whatever it embeds: no honest
//! endpoint is published under one, and what a gateway makes of it cannot be known here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The operator's exceptions beyond global addresses (`[webhook]` of the configuration).
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Allows loopback under the three hosts `localhost`, `127.0.0.1` and `[::1]`.
    pub allow_localhost: bool,
    /// Non-global networks that may be reached.
    pub allow_networks: Vec<IpNet>,
}

impl Policy {
    /// Allows everything: for services that the operator configured.
    pub(crate) fn allow_all() -> Self {
        let networks = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        Self { allow_localhost: true, allow_networks: networks.to_vec() }
    }

    /// Returns true if `ip` is in one of the allowed networks.
    pub(crate) fn allows(&self, ip: IpAddr) -> bool {
        self.allow_networks.iter().any(|network| network.contains(&ip))
    }

    /// Returns true if loopback is allowed under `host`, spelled as in a URL.
    pub(crate) fn allows_localhost(&self, host: &str) -> bool {
        self.allow_localhost && matches!(host, "localhost" | "127.0.0.1" | "[::1]")
    }
}

/// Checks each address before a connection is made to it.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// The operator's exceptions.
    pub policy: Policy,
    /// The addresses this process listens on; always refused, or a webhook could feed the server its own mail.
    pub own_listeners: Vec<SocketAddr>,
}

/// An address that outgoing HTTP may not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is refused: {reason}")]
pub(crate) struct Blocked {
    pub(crate) address: SocketAddr,
    /// The kind of address.
    pub(crate) reason: &'static str,
}

impl Guard {
    /// Checks that a URL with host `host` (as its parser returns it, IPv6 in brackets) may connect to `address`.
    pub(crate) fn permits(&self, host: &str, address: SocketAddr) -> Result<(), Blocked> {
        let ip = address.ip().to_canonical();
        let refuse = |reason| Err(Blocked { address, reason });
        if self.own_listeners.iter().any(|own| is_same_listener(*own, SocketAddr::new(ip, address.port()))) {
            return refuse(OWN_LISTENER);
        }
        let opened = self.policy.allows(address.ip()) || (ip.is_loopback() && self.policy.allows_localhost(host));
        match not_global(address.ip()) {
            Some(reason) if !opened => refuse(reason),
            _ => Ok(()),
        }
    }

    /// Checks again once connected: a listener on all addresses is also reached under this machine's public ones,
    /// where both ends of the connection have the same address.
    pub(crate) fn permits_connection(&self, local: SocketAddr, address: SocketAddr) -> Result<(), Blocked> {
        let to_itself = local.ip().to_canonical() == address.ip().to_canonical();
        let is_ours = |own: &SocketAddr| own.ip().is_unspecified() && own.port() == address.port();
        if to_itself && self.own_listeners.iter().any(is_ours) {
            return Err(Blocked { address, reason: OWN_LISTENER });
        }
        Ok(())
    }
}

const OWN_LISTENER: &str = "this server's own listener";

fn is_same_listener(own: SocketAddr, address: SocketAddr) -> bool {
    let reaches = own.ip().is_unspecified() && (address.ip().is_loopback() || address.ip().is_unspecified());
    own.port() == address.port() && (reaches || own.ip().to_canonical() == address.ip())
}

/// Returns the kind of `ip`, unless it is a global unicast address.
pub(crate) fn not_global(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => NOT_GLOBAL_V4.iter().find(|(net, _)| net.contains(&ip)).map(|(_, reason)| *reason),
        IpAddr::V6(ip) if is_isatap(ip) => Some("ISATAP address"),
        IpAddr::V6(ip) => match NOT_GLOBAL_V6.iter().find(|(net, _)| net.contains(&ip)) {
            Some((_, reason)) => Some(reason),
            None if GLOBAL_UNICAST_V6.contains(&ip) => None,
            None => Some("reserved address"),
        },
    }
}

/// Detects ISATAP. RFC 5214 §6.1: the interface identifier begins with 0000:5efe or 0200:5efe, under any prefix.
fn is_isatap(ip: Ipv6Addr) -> bool {
    matches!(ip.segments(), [_, _, _, _, 0x0000 | 0x0200, 0x5efe, _, _])
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(a: u16, b: u16, c: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length)
}

/// The registry of RFC 6890 without its global entries, plus a metadata service in public address space.
const NOT_GLOBAL_V4: [(Ipv4Net, &str); 16] = [
    (v4(0, 0, 0, 0, 8), "unspecified address"),
    (v4(10, 0, 0, 0, 8), "private address"),
    (v4(100, 64, 0, 0, 10), "carrier-grade NAT address"),
    (v4(127, 0, 0, 0, 8), "loopback address"),
    (v4(168, 63, 129, 16, 32), "cloud metadata address"),
    (v4(169, 254, 0, 0, 16), "link-local or cloud metadata address"),
    (v4(172, 16, 0, 0, 12), "private address"),
    (v4(192, 0, 0, 0, 24), "protocol assignment address"),
    (v4(192, 0, 2, 0, 24), "documentation address"),
    (v4(192, 88, 99, 0, 24), "6to4 relay address"),
    (v4(192, 168, 0, 0, 16), "private address"),
    (v4(198, 18, 0, 0, 15), "benchmark address"),
    (v4(198, 51, 100, 0, 24), "documentation address"),
    (v4(203, 0, 113, 0, 24), "documentation address"),
    (v4(224, 0, 0, 0, 4), "multicast address"),
    (v4(240, 0, 0, 0, 4), "reserved or broadcast address"),
];

/// The space that IANA assigned to global unicast (RFC 4291 §2.4); anything else is refused as reserved.
const GLOBAL_UNICAST_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// The exceptions within [`GLOBAL_UNICAST_V6`], and names for the well-known forms outside.
const NOT_GLOBAL_V6: [(Ipv6Net, &str); 16] = [
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), "unspecified address"),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "loopback address"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), "IPv4-mapped address"),
    (v6(0, 0, 0, 96), "IPv4-compatible address"),
    (v6(0x64, 0xff9b, 0, 96), "NAT64 address"),
    (v6(0x64, 0xff9b, 1, 48), "NAT64 address"),
    (v6(0x100, 0, 0, 64), "discard address"),
    (v6(0x2001, 0, 0, 32), "Teredo address"),
    (v6(0x2001, 0, 0, 23), "protocol assignment, benchmark or ORCHID address"),
    (v6(0x2001, 0xdb8, 0, 32), "documentation address"),
    (v6(0x2002, 0, 0, 16), "6to4 address"),
    (v6(0x3fff, 0, 0, 20), "documentation address"),
    (v6(0xfc00, 0, 0, 7), "unique-local address"),
    (v6(0xfe80, 0, 0, 10), "link-local address"),
    (v6(0xfec0, 0, 0, 10), "site-local address"),
    (v6(0xff00, 0, 0, 8), "multicast address"),
];

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;

    fn at(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 443)
    }

    fn reason(guard: &Guard, host: &str, ip: &str) -> Option<&'static str> {
        guard.permits(host, at(ip)).err().map(|blocked| blocked.reason)
    }

    #[test]
    fn every_form_of_a_non_global_address_is_refused() {
        for (ip, expected) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("10.0.0.0", "private"),
            ("10.255.255.255", "private"),
            ("100.64.0.1", "carrier-grade"),
            ("100.100.100.200", "carrier-grade"),
            ("100.127.255.255", "carrier-grade"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("168.63.129.16", "metadata"),
            ("169.254.0.1", "link-local"),
            ("169.254.169.254", "metadata"),
            ("169.254.170.2", "metadata"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.1", "protocol"),
            ("192.0.0.192", "protocol"),
            ("192.0.2.1", "documentation"),
            ("192.88.99.1", "6to4"),
            ("192.168.0.1", "private"),
            ("198.18.0.1", "benchmark"),
            ("198.19.255.255", "benchmark"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.255", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::2", "compatible"),
            ("::127.0.0.1", "compatible"),
            ("::8.8.8.8", "compatible"),
            ("::ffff:127.0.0.1", "mapped"),
            ("::ffff:10.0.0.1", "mapped"),
            ("::ffff:8.8.8.8", "mapped"),
            ("::ffff:0:127.0.0.1", "reserved"),
            ("64:ff9b::127.0.0.1", "NAT64"),
            ("64:ff9b::8.8.8.8", "NAT64"),
            ("64:ff9b:1::10.0.0.1", "NAT64"),
            ("100::1", "discard"),
            ("100:0:0:1::1", "reserved"),
            ("2001::1", "Teredo"),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
            ("2001:1::1", "protocol"),
            ("2001:2::1", "benchmark"),
            ("2001:10::1", "ORCHID"),
            ("2001:20::1", "ORCHID"),
            ("2001:1ff::1", "protocol"),
            ("2001:db8::1", "documentation"),
            ("2001:db8:ffff::1", "documentation"),
            ("2002:7f00:1::1", "6to4"),
            ("2002:808:808::1", "6to4"),
            ("3fff::1", "documentation"),
            ("3fff:fff:ffff::1", "documentation"),
            ("4000::1", "reserved"),
            ("5f00::1", "reserved"),
            ("fc00::1", "unique-local"),
            ("fd00:ec2::254", "unique-local"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("feff::1", "site-local"),
            ("ff02::1", "multicast"),
            ("2606:4700::5efe:a00:1", "ISATAP"),
            ("2606:4700::200:5efe:a00:1", "ISATAP"),
            ("fe80::5efe:10.0.0.1", "ISATAP"),
        ] {
            let found = reason(&Guard::default(), "example.com", ip).unwrap_or("permitted");
            assert!(found.contains(expected), "{ip}: {found}");
        }
    }

    #[test]
    fn global_addresses_pass_up_to_the_edges_of_what_is_refused() {
        for ip in [
            "1.0.0.0",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "168.63.129.15",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "192.169.0.0",
            "192.175.48.1",
            "198.17.255.255",
            "198.20.0.0",
            "203.0.112.1",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700::1",
            "2a00:1450::1",
            "3ffe::1",
        ] {
            assert_eq!(reason(&Guard::default(), "example.com", ip), None, "{ip}");
        }
    }

    #[test]
    fn allow_localhost_opens_loopback_for_its_three_hosts_only() {
        let policy = Policy { allow_localhost: true, ..Policy::default() };
        let guard = Guard { policy, ..Guard::default() };
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            assert_eq!(reason(&guard, host, "127.0.0.1"), None);
            assert_eq!(reason(&guard, host, "::1"), None);
            assert_eq!(reason(&guard, host, "10.0.0.1"), Some("private address"));
            assert!(reason(&Guard::default(), host, "127.0.0.1").is_some());
        }
        for host in ["localhost.", "sub.localhost", "rebind.example", "127.0.0.2", "[::ffff:127.0.0.1]"] {
            assert!(reason(&guard, host, "127.0.0.1").is_some(), "{host}");
        }
        assert!(reason(&guard, "127.0.0.1", "::ffff:127.0.0.1").is_none());
    }

    #[test]
    fn allow_networks_opens_what_it_names_and_no_more() {
        let allow_networks = vec!["10.1.0.0/16".parse().unwrap(), "fd00:1::/32".parse().unwrap()];
        let policy = Policy { allow_networks, ..Policy::default() };
        let guard = Guard { policy, ..Guard::default() };
        assert_eq!(reason(&guard, "hook.internal", "10.1.2.3"), None);
        assert_eq!(reason(&guard, "hook.internal", "fd00:1::9"), None);
        assert_eq!(reason(&guard, "hook.internal", "8.8.8.8"), None);
        for ip in ["10.2.0.1", "fd00:2::1", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "127.0.0.1"] {
            assert!(reason(&guard, "hook.internal", ip).is_some(), "{ip}");
        }
    }

    #[test]
    fn our_own_listeners_are_refused_even_where_everything_is_open() {
        let policy = Policy {
            allow_localhost: true,
            allow_networks: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        };
        let guard = |own: &str| Guard { policy: policy.clone(), own_listeners: vec![own.parse().unwrap()] };
        let blocked = |own: &str, to: &str| {
            let found = guard(own).permits("localhost", to.parse().unwrap());
            found.is_err_and(|blocked| blocked.reason == OWN_LISTENER)
        };
        assert!(blocked("127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(blocked("127.0.0.1:8080", "[::ffff:127.0.0.1]:8080"));
        assert!(!blocked("127.0.0.1:8080", "127.0.0.1:8081"));
        assert!(!blocked("127.0.0.1:8080", "127.0.0.2:8080"));
        for to in ["127.0.0.1:25", "127.9.9.9:25", "[::1]:25", "0.0.0.0:25", "[::]:25"] {
            assert!(blocked("0.0.0.0:25", to) && blocked("[::]:25", to), "{to}");
        }
        assert!(blocked("203.0.113.9:443", "203.0.113.9:443"));
    }

    #[test]
    fn a_connection_that_comes_back_to_this_machine_is_recognised() {
        let guard = Guard { own_listeners: vec!["0.0.0.0:443".parse().unwrap()], ..Guard::default() };
        let permits =
            |local: &str, to: &str| guard.permits_connection(local.parse().unwrap(), to.parse().unwrap()).is_ok();
        assert!(!permits("8.8.4.4:50000", "8.8.4.4:443"));
        assert!(permits("8.8.4.4:50000", "8.8.4.4:8443"));
        assert!(permits("8.8.4.4:50000", "8.8.8.8:443"));
    }
}
