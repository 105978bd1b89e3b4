//! In-band control: the bridge's own connections to its controllers, and what they need, go as NORMAL has it, whatever the flow
//! tables say. So a controller that is reached through the bridge cannot lock itself out (ovs-vswitchd.conf.db(5),
//! `connection_mode`; the packets are those of Open vSwitch's design notes on in-band control).
//!
//! * DHCP requests of the LOCAL port, and the answers to them, which the LOCAL port gets in any case;
//! * ARP requests of the LOCAL port and replies to it;
//! * ARP about the controller, or about the gateway on the way to it;
//! * TCP from and to the controller's port.
//!
//! **Un-wildcarding.** Open vSwitch has these as hidden flows, whose masks put both Ethernet addresses into every megaflow. Here a
//! packet that is none of these is looked at no further than proves it: the Ethernet type, the protocol, and the leading bits of
//! an address up to the first that is another.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use flow::{FieldId, MacAddr, PipelineKey, PipelineMask};
use openflow::PortNo;

use crate::tables::Pipeline;
use crate::tunnel::Routing;

const ARP: u64 = 0x0806;
const IPV4: u64 = 0x0800;
const TCP: u128 = 6;
const UDP: u128 = 17;
const REQUEST: u128 = 1;
const REPLY: u128 = 2;
/// UDP ports of DHCP (RFC 2131 4.1).
const DHCP_SERVER: u128 = 67;
const DHCP_CLIENT: u128 = 68;
/// A fragment that is not the first, which has no ports.
const LATER: u64 = 2;
/// Most controllers and managers whose connections are looked after; more are left to the tables.
pub const MAX_REMOTES: usize = 16;

/// What [`takes`] and [`is_answer_of_dhcp`] look at, at most.
pub(crate) const BITS: [FieldId; 7] = [
    FieldId::EthSrc,
    FieldId::EthDst,
    FieldId::NwProto,
    FieldId::NwSrc,
    FieldId::NwDst,
    FieldId::TpSrc,
    FieldId::TpDst,
];

/// Those of `all` that are worth looking after: what is at a loopback address is never reached through a bridge. Sorted, at most
/// [`MAX_REMOTES`].
pub fn remotes(all: impl IntoIterator<Item = SocketAddrV4>) -> Vec<SocketAddrV4> {
    let mut r: Vec<_> = all.into_iter().filter(|a| !a.ip().is_loopback()).collect();
    r.sort_unstable();
    r.dedup();
    r.truncate(MAX_REMOTES);
    r
}

/// A packet, and what was looked at of it.
struct Looking<'a> {
    key: &'a PipelineKey,
    wc: &'a mut PipelineMask,
}

impl Looking<'_> {
    /// Whether all of `f`, of `width` bits, is `want`; looks at it up to the first bit that is not.
    fn is(&mut self, f: FieldId, width: u32, want: u128) -> bool {
        let other = self.key.get(f) ^ want;
        let same = other.leading_zeros().saturating_sub(128 - width);
        let all = (1u128 << width) - 1;
        let looked = if other == 0 { all } else { all & !(all >> (same + 1)) };
        self.wc.set_masked(f, u128::MAX, looked);
        other == 0
    }

    fn ip(&mut self, f: FieldId, want: Ipv4Addr) -> bool {
        self.is(f, 32, u32::from(want).into())
    }

    fn port(&mut self, f: FieldId, want: u128) -> bool {
        self.wc.set_exact(f);
        self.key.get(f) == want
    }
}

/// Whether the bridge's own connections need the packet, which is about to be looked up in table 0; what that depends on is in
/// `wc` afterwards.
pub(crate) fn takes(p: &Pipeline, routing: &Routing, key: &PipelineKey, wc: &mut PipelineMask) -> bool {
    let remotes = &p.settings.in_band;
    let Some(local) = p.ports.get(PortNo::LOCAL).filter(|_| !remotes.is_empty()) else { return false };
    let mac = MacAddr(local.hw_addr.0).to_u64().into();
    let from_local = key.get64(FieldId::InPort) as u32 == PortNo::LOCAL.0;
    wc.set_exact(FieldId::EthType);
    let mut l = Looking { key, wc };
    match key.get64(FieldId::EthType) {
        ARP => {
            l.wc.set_exact(FieldId::NwProto);
            let (about, address) = match key.get(FieldId::NwProto) {
                REQUEST => (FieldId::NwSrc, FieldId::EthSrc),
                REPLY => (FieldId::NwDst, FieldId::EthDst),
                _ => return false,
            };
            if l.is(address, 48, mac) {
                return true;
            }
            remotes.iter().any(|r| {
                let gateway = match routing.lookup((*r.ip()).into(), 0).and_then(|h| h.gateway) {
                    Some(IpAddr::V4(g)) => Some(g),
                    _ => None,
                };
                l.ip(about, *r.ip()) || gateway.is_some_and(|g| l.ip(about, g))
            })
        }
        IPV4 => {
            l.wc.set_exact(FieldId::NwProto);
            l.wc.set_masked(FieldId::NwFrag, u128::MAX, LATER.into());
            if key.get64(FieldId::NwFrag) & LATER != 0 {
                return false;
            }
            match key.get(FieldId::NwProto) {
                UDP if from_local => {
                    l.port(FieldId::TpDst, DHCP_SERVER)
                        && l.port(FieldId::TpSrc, DHCP_CLIENT)
                        && l.is(FieldId::EthSrc, 48, mac)
                }
                TCP => remotes.iter().any(|r| {
                    let port = r.port().into();
                    l.ip(FieldId::NwDst, *r.ip()) && l.port(FieldId::TpDst, port)
                        || l.ip(FieldId::NwSrc, *r.ip()) && l.port(FieldId::TpSrc, port)
                }),
                _ => false,
            }
        }
        _ => false,
    }
}

/// Whether the packet, as it came in, is an answer by DHCP, which the LOCAL port gets whatever the tables say.
pub(crate) fn is_answer_of_dhcp(p: &Pipeline, key: &PipelineKey, wc: &mut PipelineMask) -> bool {
    if p.settings.in_band.is_empty()
        || key.get64(FieldId::EthType) != IPV4
        || key.get(FieldId::NwProto) != UDP
        || key.get64(FieldId::NwFrag) & LATER != 0
    {
        return false;
    }
    let mut l = Looking { key, wc };
    l.port(FieldId::TpSrc, DHCP_SERVER) && l.port(FieldId::TpDst, DHCP_CLIENT)
}

/// What [`takes`] lets through, as the flows that Open vSwitch has in its place, a line each; nothing where there is nothing to look
/// after.
pub(crate) fn as_flows(p: &Pipeline) -> String {
    let Some(local) = p.ports.get(PortNo::LOCAL).filter(|_| !p.settings.in_band.is_empty()) else {
        return String::new();
    };
    let mac = MacAddr(local.hw_addr.0);
    let mut flows = vec![
        format!("priority=180000,udp,in_port=LOCAL,dl_src={mac},tp_src=68,tp_dst=67"),
        format!("priority=180001,arp,dl_dst={mac},arp_op=2"),
        format!("priority=180002,arp,dl_src={mac},arp_op=1"),
    ];
    for r in &p.settings.in_band {
        let (ip, port) = (r.ip(), r.port());
        flows.extend([
            format!("priority=180005,arp,arp_tpa={ip},arp_op=2"),
            format!("priority=180006,arp,arp_spa={ip},arp_op=1"),
            format!("priority=180007,tcp,nw_dst={ip},tp_dst={port}"),
            format!("priority=180008,tcp,nw_src={ip},tp_src={port}"),
        ]);
    }
    flows.iter().map(|f| format!("{f},actions=NORMAL\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_not_looked_after_and_there_is_a_most() {
        let a = |s: &str| s.parse::<SocketAddrV4>().unwrap();
        let r = remotes([a("192.0.2.9:6653"), a("127.0.0.1:6653"), a("192.0.2.1:6640"), a("192.0.2.9:6653")]);
        assert_eq!(r, [a("192.0.2.1:6640"), a("192.0.2.9:6653")]);
        assert_eq!(
            remotes((0..99).map(|n| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, n), 1))).len(),
            MAX_REMOTES
        );
    }

    #[test]
    fn a_packet_is_looked_at_up_to_the_first_bit_that_is_another() {
        let (mut key, mut wc) = (PipelineKey::ZERO, PipelineMask::ZERO);
        key.set(FieldId::NwDst, 0xc000_0201);
        let mut l = Looking { key: &key, wc: &mut wc };
        assert!(!l.ip(FieldId::NwDst, Ipv4Addr::new(192, 1, 2, 1)));
        assert_eq!(wc.get(FieldId::NwDst), 0xffff_0000);
        let mut l = Looking { key: &key, wc: &mut wc };
        assert!(!l.ip(FieldId::NwDst, Ipv4Addr::new(10, 0, 0, 1)) && !l.is(FieldId::EthSrc, 48, 1 << 47));
        assert!(l.ip(FieldId::NwDst, Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!((wc.get(FieldId::NwDst), wc.get(FieldId::EthSrc)), (0xffff_ffff, 1 << 47));
    }
}
