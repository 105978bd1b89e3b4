//! Packets that are not for the tables: those of protocols that the port they came in on speaks itself.

use flow::{Action, ControllerAction, FieldId, MacAddr, PuntReason};

use super::Xlate;
use crate::settings::PortSettings;

const IPV4: u64 = 0x0800;
const UDP: u64 = 17;
/// In the place of the Ethernet type of a frame that has a length there (OpenFlow 1.0.0 3.4).
const NO_ETH_TYPE: u64 = 0x05ff;

impl Xlate<'_> {
    /// Whether the packet, which has just come in, is for the port itself; then it goes there and nowhere else.
    pub(super) fn taken_by_port(&mut self) -> bool {
        let Some(port) = self.env.pipeline.ports.get(self.in_port) else { return false };
        let of_tree = |x: &mut Self| x.env.pipeline.settings.tree.is_some() && x.is_bpdu();
        let reason = match self.of_link(&port.settings) {
            Some(reason) => reason,
            None if of_tree(self) => PuntReason::Stp,
            None => return false,
        };
        self.commit();
        self.emit(Action::Controller(ControllerAction {
            reason,
            in_port: self.in_port.0,
            bridge: self.env.index,
            ..ControllerAction::default()
        }));
        true
    }

    /// Which of the protocols that a port with these settings speaks over its link the packet is of.
    pub(super) fn of_link(&mut self, s: &PortSettings) -> Option<PuntReason> {
        if s.cfm.as_ref().is_some_and(|c| self.is_continuity_check(c)) {
            Some(PuntReason::Cfm)
        } else if s.bfd.as_ref().is_some_and(|b| self.is_bfd(&b.takes())) {
            Some(PuntReason::Bfd)
        } else if s.aggregation.as_ref().is_some_and(|a| a.lacp.is_some())
            && self.key.get64(FieldId::EthType) == u64::from(bonds::lacp::pdu::ETH_TYPE)
        {
            Some(PuntReason::Lacp)
        } else if s.lldp.is_some()
            && self.key.get64(FieldId::EthType) == u64::from(links::lldp::pdu::ETH_TYPE)
        {
            Some(PuntReason::Lldp)
        } else {
            None
        }
    }

    /// Whether the packet is of the spanning tree protocol (IEEE 802.1D 7.12.3): it has no Ethernet type, and goes to bridges.
    pub(super) fn is_bpdu(&mut self) -> bool {
        self.wc.set_exact(FieldId::EthDst);
        self.key.get64(FieldId::EthType) == NO_ETH_TYPE
            && self.key.get64(FieldId::EthDst) == MacAddr(spanning::ETH_DST).to_u64()
    }

    fn is_continuity_check(&mut self, c: &links::CfmSettings) -> bool {
        if self.key.get64(FieldId::EthType) != u64::from(links::cfm::ETH_TYPE) {
            return false;
        }
        self.wc.set_exact(FieldId::EthDst);
        let dst = if c.extended { links::cfm::ccm::EXTENDED_DST } else { links::cfm::ccm::USUAL_DST };
        self.key.get64(FieldId::EthDst) == MacAddr(dst).to_u64()
            && (!c.check_tunnel_key || self.has_no_tunnel_key())
    }

    fn is_bfd(&mut self, m: &links::bfd::BfdMatch) -> bool {
        if let Some(dst) = m.eth_dst {
            self.wc.set_exact(FieldId::EthDst);
            if self.key.get64(FieldId::EthDst) != MacAddr(dst).to_u64() {
                return false;
            }
        }
        if self.key.get64(FieldId::EthType) != IPV4 {
            return false;
        }
        self.wc.set_exact(FieldId::NwProto);
        let later = self.key.get(FieldId::NwFrag) & u128::from(flow::parse::FRAG_LATER) != 0;
        if self.key.get64(FieldId::NwProto) != UDP || later || !self.is_for_port(m.udp_dst) {
            return false;
        }
        if let Some(dst) = m.ip_dst {
            let is = self.key.get64(FieldId::NwDst) == u64::from(u32::from(dst));
            if is || !self.stock() {
                self.wc.set_exact(FieldId::NwDst);
            }
            if !is {
                return false;
            }
        }
        !m.no_tunnel_key || self.has_no_tunnel_key()
    }

    /// Whether the packet goes to that transport port. Where it does not, looks at no more than the first bit that tells.
    fn is_for_port(&mut self, port: u16) -> bool {
        let differs = self.key.get(FieldId::TpDst) as u16 ^ port;
        let looked = if differs == 0 { u16::MAX } else { 1 << differs.ilog2() };
        self.wc.set_masked(FieldId::TpDst, u128::MAX, looked.into());
        differs == 0
    }

    fn has_no_tunnel_key(&mut self) -> bool {
        self.wc.set_exact(FieldId::TunId);
        self.key.get(FieldId::TunId) == 0
    }
}
