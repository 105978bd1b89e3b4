//! Which way to the other end of a tunnel: routes, and the addresses of this host's ports.

use std::net::IpAddr;

use super::neighbour::solicited_group;

/// Most routes.
const MAX_ROUTES: usize = 16_384;

/// An address of a port of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The port's name.
    pub device: String,
    /// The address.
    pub ip: IpAddr,
    /// Bits that it has in common with its network.
    pub prefix: u8,
}

/// A route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Addresses it is for, bits behind the prefix zero.
    pub network: IpAddr,
    /// Bits that matter.
    pub prefix: u8,
    /// Mark of the packets that it is for.
    pub mark: u32,
    /// Port by which they leave.
    pub device: String,
    /// The next hop, where the destination is not reached directly.
    pub gateway: Option<IpAddr>,
    /// Source address of packets that have none yet.
    pub source: Option<IpAddr>,
    /// Somebody said so: it goes before what was found out, and stays until it is taken back.
    pub by_user: bool,
}

/// Where a packet goes next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hop {
    /// The port by which it leaves.
    pub device: String,
    /// Who is to have it: gateway or destination.
    pub next: IpAddr,
    /// The gateway, if there is one.
    pub gateway: Option<IpAddr>,
    /// Source address.
    pub source: Option<IpAddr>,
}

/// Why a route is not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RouteError {
    /// The port has no address from which the destination could be spoken to.
    #[error("Error while inserting route.")]
    NoSource,
    /// There are too many.
    #[error("too many routes")]
    Full,
}

/// Routes and addresses.
#[derive(Clone, Default, Debug)]
pub struct Routing {
    routes: Vec<Route>,
    addresses: Vec<Address>,
    /// Routes with a gateway that were found out, as they were found.
    gateways: Vec<Route>,
}

fn bits(a: IpAddr) -> (u128, u8) {
    match a {
        IpAddr::V4(a) => (u128::from(u32::from(a)) << 96, 32),
        IpAddr::V6(a) => (a.into(), 128),
    }
}

/// Whether two addresses agree in their first `prefix` bits, and in family.
pub(super) fn agree(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(prefix).min(128)) };
    a.is_ipv4() == b.is_ipv4() && (bits(a).0 ^ bits(b).0) & mask == 0
}

/// The network of an address.
fn network(a: IpAddr, prefix: u8) -> IpAddr {
    match a {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix).min(32)).unwrap_or(0);
            IpAddr::V4((u32::from(a) & mask).into())
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix).min(128)).unwrap_or(0);
            IpAddr::V6((u128::from(a) & mask).into())
        }
    }
}

impl Routing {
    /// Addresses of this host's ports.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Whether `ip` is an address of port `device`.
    pub fn is_local(&self, device: &str, ip: IpAddr) -> bool {
        self.addresses.iter().any(|a| a.ip == ip && a.device == device)
    }

    /// Whether `ip` is the group of those that ask for an address of port `device` (RFC 4291 2.7.1).
    pub fn is_solicited(&self, device: &str, ip: IpAddr) -> bool {
        let group = |a: &Address| match a.ip {
            IpAddr::V6(v6) => IpAddr::V6(solicited_group(v6)) == ip,
            IpAddr::V4(_) => false,
        };
        self.addresses.iter().any(|a| a.device == device && group(a))
    }

    /// Gives a port an address, and with it the route to its network. False when it has it.
    pub fn add_address(&mut self, a: Address) -> bool {
        if self.addresses.contains(&a) || self.addresses.len() >= MAX_ROUTES {
            return false;
        }
        self.routes.push(Route {
            network: network(a.ip, a.prefix),
            prefix: a.prefix,
            mark: 0,
            device: a.device.clone(),
            gateway: None,
            source: Some(a.ip),
            by_user: false,
        });
        self.addresses.push(a);
        true
    }

    /// Makes the addresses of `device` these, and its own routes those that follow from them. Whether that changed anything.
    pub fn set_addresses(&mut self, device: &str, addresses: &[(IpAddr, u8)]) -> bool {
        let has: Vec<_> =
            self.addresses.iter().filter(|a| a.device == device).map(|a| (a.ip, a.prefix)).collect();
        if has == addresses {
            return false;
        }
        self.addresses.retain(|a| a.device != device);
        self.routes.retain(|r| r.by_user || r.device != device);
        for (ip, prefix) in addresses {
            self.add_address(Address { device: device.into(), ip: *ip, prefix: *prefix });
        }
        self.set_learned_gateways(self.gateways.clone());
        true
    }

    /// Routes with a gateway that nobody gave.
    pub fn learned_gateways(&self) -> impl Iterator<Item = &Route> {
        self.gateways.iter()
    }

    /// Makes the routes with a gateway that nobody gave these. Those without a source take it as [`Routing::add`] says, and are
    /// of no use where there is none.
    pub fn set_learned_gateways(&mut self, routes: Vec<Route>) {
        self.routes.retain(|r| r.by_user || r.gateway.is_none());
        self.gateways = routes;
        for r in self.gateways.clone() {
            // Without a source it leads nowhere.
            let _ = self.add(r);
        }
    }

    /// Adds a route that somebody gave; another for the same packets makes way. Without a source it is the address of the port
    /// that is in one network with the gateway, or with the destination.
    ///
    /// # Errors
    /// [`RouteError`].
    pub fn add(&mut self, mut r: Route) -> Result<(), RouteError> {
        let near = r.gateway.unwrap_or(r.network);
        if r.source.is_none() {
            let of_port = self.addresses.iter().filter(|a| a.device == r.device);
            let found = of_port.filter(|a| agree(a.ip, near, a.prefix)).max_by_key(|a| a.prefix);
            r.source = Some(found.ok_or(RouteError::NoSource)?.ip);
        }
        r.network = network(r.network, r.prefix);
        self.routes.retain(|o| !same(o, &r));
        if self.routes.len() >= MAX_ROUTES {
            return Err(RouteError::Full);
        }
        self.routes.push(r);
        Ok(())
    }

    /// Takes back a route that somebody gave; whether there was one.
    pub fn remove(&mut self, net: IpAddr, prefix: u8, mark: u32) -> bool {
        let before = self.routes.len();
        let net = network(net, prefix);
        self.routes.retain(|r| !(r.by_user && r.network == net && r.prefix == prefix && r.mark == mark));
        self.routes.len() != before
    }

    /// Takes back every route that somebody gave.
    pub fn clear(&mut self) {
        self.routes.retain(|r| !r.by_user);
    }

    /// Every route, those that somebody gave first.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        let by = |user: bool| self.routes.iter().filter(move |r| r.by_user == user);
        by(true).chain(by(false))
    }

    /// The way to `to` for packets with this mark: the longest prefix, and of equals what somebody gave.
    pub fn lookup(&self, to: IpAddr, mark: u32) -> Option<Hop> {
        let fits = self.routes.iter().filter(|r| r.mark == mark && agree(r.network, to, r.prefix));
        let r = fits.max_by_key(|r| (r.prefix, r.by_user))?;
        Some(Hop {
            device: r.device.clone(),
            next: r.gateway.unwrap_or(to),
            gateway: r.gateway,
            source: r.source,
        })
    }
}

/// Whether two routes are for the same packets and of the same origin.
fn same(a: &Route, b: &Route) -> bool {
    (a.network, a.prefix, a.mark, a.by_user) == (b.network, b.prefix, b.mark, b.by_user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    fn route(net: &str, prefix: u8, gateway: Option<&str>, mark: u32) -> Route {
        Route {
            network: ip(net),
            prefix,
            mark,
            device: "br0".into(),
            gateway: gateway.map(ip),
            source: None,
            by_user: true,
        }
    }

    fn routing() -> Routing {
        let mut r = Routing::default();
        r.set_addresses("br0", &[(ip("192.0.2.1"), 24), (ip("2001:db8::1"), 64)]);
        r
    }

    #[test]
    fn the_longest_prefix_of_the_mark_wins_and_its_gateway_is_next() {
        let mut r = routing();
        r.add(route("198.51.100.0", 24, Some("192.0.2.254"), 0)).unwrap();
        r.add(route("198.51.100.200", 24, Some("192.0.2.250"), 9)).unwrap();
        r.add(route("0.0.0.0", 0, Some("192.0.2.253"), 0)).unwrap();
        let next = |to, mark| r.lookup(ip(to), mark).map(|h| h.next);
        assert_eq!(next("198.51.100.1", 0), Some(ip("192.0.2.254")));
        assert_eq!(next("198.51.100.1", 9), Some(ip("192.0.2.250")));
        assert_eq!(next("8.8.8.8", 0), Some(ip("192.0.2.253")));
        assert_eq!(next("8.8.8.8", 9), None);
        // What is near needs no gateway; families do not mix.
        assert_eq!(next("192.0.2.77", 0), Some(ip("192.0.2.77")));
        assert_eq!(next("2001:db8::7", 0), Some(ip("2001:db8::7")));
        assert_eq!(next("2001:db9::7", 0), None);
    }

    #[test]
    fn a_route_takes_its_source_from_the_network_of_its_gateway() {
        let mut r = routing();
        r.add(route("198.51.100.0", 24, Some("192.0.2.254"), 0)).unwrap();
        assert_eq!(r.lookup(ip("198.51.100.1"), 0).unwrap().source, Some(ip("192.0.2.1")));
        assert_eq!(r.add(route("198.51.100.0", 24, Some("203.0.113.1"), 0)), Err(RouteError::NoSource));
        assert!(r.remove(ip("198.51.100.0"), 24, 0) && !r.remove(ip("198.51.100.0"), 24, 0));
        assert_eq!(r.lookup(ip("198.51.100.1"), 0), None);
    }

    #[test]
    fn addresses_bring_their_networks_and_take_them_away() {
        let mut r = routing();
        assert!(r.is_local("br0", ip("192.0.2.1")) && !r.is_local("br1", ip("192.0.2.1")));
        assert!(!r.set_addresses("br0", &[(ip("192.0.2.1"), 24), (ip("2001:db8::1"), 64)]));
        assert!(r.is_solicited("br0", ip("ff02::1:ff00:1")) && !r.is_solicited("br1", ip("ff02::1:ff00:1")));
        assert!(!r.is_solicited("br0", ip("ff02::1:ff00:2")) && !r.is_solicited("br0", ip("2001:db8::1")));
        assert!(r.set_addresses("br0", &[(ip("10.0.0.1"), 8)]));
        assert_eq!(r.lookup(ip("192.0.2.2"), 0), None);
        assert!(r.lookup(ip("10.9.9.9"), 0).is_some());
    }
}
