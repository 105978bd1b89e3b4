//! Where multicast packets go when a bridge snoops (RFC 4541 2.1).

use std::net::{Ipv4Addr, Ipv6Addr};

use flow::{ControllerAction, FieldId, PuntReason};
use openflow::PortNo;

use super::Xlate;
use super::normal::is_multicast;
use crate::port::Port;
use crate::settings::Snooping;
use crate::vlan::Tags;

/// Ports that packets go to, in order.
type Ports = Vec<PortNo>;

impl Xlate<'_> {
    /// Switches a packet of which snooping decides where it goes; false when it is none.
    pub(super) fn snooped(&mut self, s: &Snooping, from: PortNo, inner: &Tags) -> bool {
        let (dst, t) = (self.key.get64(FieldId::EthDst), self.key.get64(FieldId::EthType));
        let (v4, v6) = (t == 0x0800, t == 0x86dd);
        if !is_multicast(dst) || dst == 0xffff_ffff_ffff || !(v4 || v6) {
            return false;
        }
        let env = self.env;
        self.out.deps.mcast.push((env.index, env.mcast.generation()));
        let table = env.mcast.load();
        let vlan = inner.vid(0);
        self.wc.set_exact(FieldId::NwProto);
        let proto = self.key.get64(FieldId::NwProto);
        let mut kind = 0;
        if v4 && proto == 2 || v6 && proto == 58 {
            self.wc.set_masked(FieldId::TpSrc, u128::MAX, 0xff);
            kind = self.key.get64(FieldId::TpSrc);
        }
        let igmp = v4 && proto == 2;
        let mld = v6 && proto == 58 && matches!(kind, 130..=132 | 143);
        let routers = |x: &mut Self, out: &mut Ports| {
            for (v, p) in table.routers() {
                match () {
                    () if p == from && v == vlan => x.detail("mcast router port is input port, dropping"),
                    () if v != vlan => x.detail("mcast router is on another vlan, dropping"),
                    () => {
                        x.detail("forwarding to mcast router port");
                        out.push(p);
                    }
                }
            }
        };
        let mut out = Ports::new();
        if igmp || mld {
            let report = if igmp { matches!(kind, 0x12 | 0x16 | 0x17 | 0x22) } else { kind != 130 };
            if mld || report || kind == 0x11 {
                self.overhear(vlan);
            }
            if report {
                routers(self, &mut out);
                for p in env.pipeline.ways().filter(|p| p.settings.mcast_reports) {
                    if p.no == from {
                        self.detail("mcast port is input port, dropping the Report");
                    } else {
                        self.detail("forwarding report to mcast flagged port");
                        out.push(p.no);
                    }
                }
                self.send_to_all(&out, inner);
            } else {
                self.detail(if igmp { "multicast traffic, flooding" } else { "MLD query, flooding" });
                self.flood_vlan(from, inner);
            }
            return true;
        }
        let group = if v4 {
            self.wc.set_exact(FieldId::NwDst);
            Ipv4Addr::from(self.key.get64(FieldId::NwDst) as u32).to_ipv6_mapped()
        } else {
            self.wc.set_exact(FieldId::Ipv6Dst);
            Ipv6Addr::from(self.key.get(FieldId::Ipv6Dst))
        };
        let local = match group.to_ipv4_mapped() {
            Some(a) => a.octets()[..3] == [224, 0, 0],
            None => group == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        };
        if local {
            self.detail("RFC4541: section 2.1.2, item 2, flooding");
            self.flood_vlan(from, inner);
            return true;
        }
        let flooded = |x: &mut Self, out: &mut Ports| {
            for p in env.pipeline.ways().filter(|p| p.settings.mcast_flood) {
                if p.no == from {
                    x.detail("mcast flood port is input port, dropping");
                } else {
                    x.detail("forwarding to mcast flood port");
                    out.push(p.no);
                }
            }
        };
        if let Some(members) = table.members(vlan, group) {
            for p in members {
                if p == from {
                    self.detail("mcast group port is input port, dropping");
                } else {
                    self.detail("forwarding to mcast group port");
                    out.push(p);
                }
            }
            flooded(self, &mut out);
            routers(self, &mut out);
        } else if s.flood_unregistered {
            self.detail("unregistered multicast, flooding");
            self.flood_vlan(from, inner);
            return true;
        } else {
            routers(self, &mut out);
            flooded(self, &mut out);
        }
        self.send_to_all(&out, inner);
        true
    }

    fn send_to_all(&mut self, ports: &[PortNo], inner: &Tags) {
        let env = self.env;
        for p in ports.iter().filter_map(|p| env.pipeline.ports.get(*p)) {
            let p: &Port = p;
            self.leave_by(p, inner);
        }
    }

    /// Has a copy of the packet listened to.
    fn overhear(&mut self, vlan: u16) {
        self.commit();
        self.emit(flow::Action::Controller(ControllerAction {
            reason: PuntReason::Snoop,
            max_len: u16::MAX,
            cookie: u64::MAX,
            table: u8::MAX,
            metadata: vlan.into(),
            in_port: self.in_port.0,
            bridge: self.env.index,
            ..ControllerAction::default()
        }));
    }
}
