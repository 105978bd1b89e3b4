//! The protocol by which a bridge takes part in a spanning tree: that of IEEE 802.1D-1998, or the rapid one of 2004, as one.

use spanning::bpdu::Bpdu;
use spanning::rstp::{self, Rstp};
use spanning::stp::{Counts, PortSettings};
use spanning::{BridgeId, State, Stp, StpSettings};

use crate::settings::PortTree;

/// Either.
pub(crate) enum Protocol {
    Stp(Stp),
    Rapid(Rstp),
}

/// Does the same with either.
macro_rules! either {
    ($protocol:expr, $p:ident => $do:expr) => {
        match $protocol {
            Protocol::Stp($p) => $do,
            Protocol::Rapid($p) => $do,
        }
    };
}

impl Protocol {
    pub(crate) fn new(name: &str, rapid: bool, settings: StpSettings) -> Protocol {
        match rapid {
            false => Protocol::Stp(Stp::new(name, settings)),
            true => Protocol::Rapid(Rstp::new(name, settings)),
        }
    }

    pub(crate) fn is_rapid(&self) -> bool {
        matches!(self, Protocol::Rapid(_))
    }

    pub(crate) fn configure(&mut self, settings: StpSettings) {
        either!(self, p => p.configure(settings));
    }

    pub(crate) fn set_port(&mut self, number: u8, t: &PortTree, speed_mbps: u32) {
        match self {
            Protocol::Stp(s) => {
                let own = t.path_cost.map(|c| u16::try_from(c).unwrap_or(u16::MAX));
                let path_cost = own.unwrap_or_else(|| PortSettings::cost_of_speed(speed_mbps));
                s.set_port(number, PortSettings { priority: t.priority, path_cost });
            }
            Protocol::Rapid(r) => {
                let usual = || rstp::PortSettings::cost_of_speed(speed_mbps);
                let settings = rstp::PortSettings {
                    priority: t.priority,
                    path_cost: t.path_cost.unwrap_or_else(usual),
                    admin_edge: t.admin_edge,
                    auto_edge: t.auto_edge,
                    point_to_point: t.point_to_point,
                    mcheck: t.mcheck,
                };
                r.set_port(number, settings);
            }
        }
    }

    pub(crate) fn remove_port(&mut self, number: u8) {
        either!(self, p => p.remove_port(number));
    }

    pub(crate) fn enable(&mut self, number: u8, on: bool) {
        either!(self, p => p.enable(number, on));
    }

    pub(crate) fn run(&mut self, ms: u32) {
        either!(self, p => p.run(ms));
    }

    pub(crate) fn receive(&mut self, number: u8, m: &Bpdu) {
        either!(self, p => p.receive(number, m));
    }

    pub(crate) fn received_wrong(&mut self, number: u8) {
        either!(self, p => p.received_wrong(number));
    }

    pub(crate) fn take_frames(&mut self) -> Vec<(u8, Bpdu)> {
        either!(self, p => p.take_frames())
    }

    pub(crate) fn take_flush(&mut self) -> bool {
        either!(self, p => p.take_flush())
    }

    pub(crate) fn topology_change_detection(&mut self) {
        either!(self, p => p.topology_change_detection());
    }

    /// What a port does.
    pub(crate) fn state(&self, number: u8) -> State {
        match self {
            Protocol::Stp(s) => s.state(number),
            Protocol::Rapid(r) => r.state(number).into(),
        }
    }

    /// What a port does, and what it is for, as people read it.
    pub(crate) fn words(&self, number: u8) -> (&'static str, &'static str) {
        either!(self, p => (p.state(number).name(), p.role(number).name()))
    }

    /// Of a rapid tree: for how long a port's link has been up, in seconds, and what is designated on its segment.
    pub(crate) fn rapid_status(&self, number: u8) -> Option<(u64, (BridgeId, u16, u32))> {
        match self {
            Protocol::Stp(_) => None,
            Protocol::Rapid(r) => Some((r.up_ms(number) / 1000, r.designated(number)?)),
        }
    }

    pub(crate) fn port_id(&self, number: u8) -> Option<u16> {
        either!(self, p => p.port_id(number))
    }

    pub(crate) fn in_state_ms(&self, number: u8) -> u64 {
        either!(self, p => p.in_state_ms(number))
    }

    pub(crate) fn counts(&self, number: u8) -> Counts {
        either!(self, p => p.counts(number))
    }

    /// The bridge's name, the root's, and what the way there costs.
    pub(crate) fn seen(&self) -> (BridgeId, BridgeId, u32) {
        either!(self, p => p.seen())
    }

    pub(crate) fn root_port(&self) -> Option<u8> {
        either!(self, p => p.root_port())
    }

    pub(crate) fn text(&self, port: &dyn Fn(u8) -> String) -> String {
        either!(self, p => p.text(port))
    }
}
