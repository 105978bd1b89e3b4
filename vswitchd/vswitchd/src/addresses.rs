//! The addresses that the host has given bridges' LOCAL ports, and the kernel's routes by way of them: what tunnels go by.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use ofproto::tunnel::Route;

use crate::config::PortKind;
use crate::report::Parts;

/// The kernel's IPv4 routes (proc_net(5)).
const ROUTES: &str = "/proc/net/route";

fn ip(a: &SockaddrStorage) -> Option<IpAddr> {
    match (a.as_sockaddr_in(), a.as_sockaddr_in6()) {
        (Some(a), _) => Some(a.ip().into()),
        (None, Some(a)) => Some(a.ip().into()),
        (None, None) => None,
    }
}

/// Leading ones of a mask.
fn prefix(mask: IpAddr) -> u8 {
    match mask {
        IpAddr::V4(m) => u32::from(m).leading_ones() as u8,
        IpAddr::V6(m) => u128::from(m).leading_ones() as u8,
    }
}

/// Has the switch know the addresses of LOCAL ports that are interfaces of the host, and the routes that lead by them. Only where
/// there are tunnels; nothing else asks.
pub fn tell_addresses(parts: &Parts) {
    if !parts.layer.tunnels().any() {
        return;
    }
    let mut of: BTreeMap<String, Vec<(IpAddr, u8)>> = BTreeMap::new();
    for p in parts.port_table().all() {
        if p.no == openflow::PortNo::LOCAL
            && let PortKind::Internal { interface } = &p.kind
        {
            of.insert(interface.clone(), Vec::new());
        }
    }
    if of.is_empty() {
        return;
    }
    match getifaddrs() {
        Ok(all) => {
            for i in all {
                let Some(list) = of.get_mut(&i.interface_name) else { continue };
                let (a, mask) = (i.address.as_ref().and_then(ip), i.netmask.as_ref().and_then(ip));
                if let (Some(a), Some(mask)) = (a, mask) {
                    list.push((a, prefix(mask)));
                }
            }
        }
        Err(e) => return tracing::warn!(target: "ovs_router", "addresses of interfaces cannot be read: {e}"),
    }
    let text = std::fs::read_to_string(ROUTES).unwrap_or_default();
    let routes: Vec<Route> = kernel_routes(&text).filter(|r| of.contains_key(&r.device)).collect();
    let known = parts.layer.tunnels();
    let same = of.iter().all(|(device, list)| {
        let mut has = known.routing.addresses().iter().filter(|a| a.device == *device);
        list.iter().all(|(ip, prefix)| has.next().is_some_and(|a| a.ip == *ip && a.prefix == *prefix))
            && has.next().is_none()
    });
    if same && known.routing.learned_gateways().eq(routes.iter()) {
        return;
    }
    parts.layer.with_tunnels(|t| {
        for (device, list) in &of {
            t.routing.set_addresses(device, list);
        }
        t.routing.set_learned_gateways(routes);
    });
}

/// An address of the host's interface of that name, of IPv4 if it has one.
pub fn address_of(interface: &str) -> Option<IpAddr> {
    let all = getifaddrs().ok()?.filter(|i| i.interface_name == interface);
    all.filter_map(|i| i.address.as_ref().and_then(ip)).min_by_key(IpAddr::is_ipv6)
}

/// Routes with a gateway, from the text of [`ROUTES`].
fn kernel_routes(text: &str) -> impl Iterator<Item = Route> {
    text.lines().skip(1).filter_map(|line| {
        let f: Vec<&str> = line.split_whitespace().collect();
        // In the processor's byte order.
        let address = |i: usize| {
            let n = u32::from_str_radix(f.get(i)?, 16).ok()?;
            Some(Ipv4Addr::from(n.to_ne_bytes()))
        };
        let (network, gateway, mask) = (address(1)?, address(2)?, address(7)?);
        (!gateway.is_unspecified()).then(|| Route {
            network: network.into(),
            prefix: prefix(mask.into()),
            mark: 0,
            device: f[0].to_owned(),
            gateway: Some(gateway.into()),
            source: None,
            by_user: false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_routes_are_read_from_its_table() {
        // As Linux 6.18 writes it on a little-endian machine.
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    br0\t00000000\tFE0200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    br0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        if cfg!(target_endian = "little") {
            let all: Vec<_> = kernel_routes(text).collect();
            assert_eq!(all.len(), 1);
            assert_eq!((all[0].device.as_str(), all[0].prefix), ("br0", 0));
            assert_eq!(all[0].gateway, Some("192.0.2.254".parse().expect("an address")));
        }
        assert_eq!(kernel_routes("Iface\nbr0 xx\n").count(), 0);
    }
}
