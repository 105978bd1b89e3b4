//! Packets for exporters (sFlow, IPFIX): which of them, and what is said about them.

use crate::action::{Action, PortId};

/// What [`Action::Sample`] does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SampleAction {
    /// How many packets, of `u32::MAX`, which is all of them.
    pub probability: u32,
    /// What is done to a copy of those.
    pub actions: Box<[Action]>,
}

/// What [`Action::Export`] says of a packet beside the packet.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Export {
    /// The OpenFlow switch whose exporter it is for, by a number of the translator's.
    pub bridge: u32,
    /// OpenFlow port that it came in on.
    pub in_port: u32,
    /// OpenFlow port that it leaves by, where it was sampled there.
    pub out_port: u32,
    /// What is told.
    pub to: ExportTo,
    /// It leaves by this port, in a tunnel.
    pub tunnel_out: Option<PortId>,
    /// Bytes of it that are wanted.
    pub snap_bytes: u16,
    /// What becomes of it.
    pub fate: Fate,
}

/// Which exporter, and what it is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ExportTo {
    /// sFlow.
    Sflow {
        /// Priority and VLAN id that it leaves with.
        tci: u16,
        /// Where it goes, in sFlow's numbers.
        output: u32,
    },
    /// The bridge's IPFIX.
    Ipfix {
        /// The port that it is sampled at when it leaves; `None` when it came in.
        output: Option<PortId>,
    },
    /// IPFIX of a set of collectors, as an OpenFlow action says.
    FlowSample(FlowSample),
}

/// A `sample` of OpenFlow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowSample {
    /// Of 65535.
    pub probability: u16,
    /// Set of collectors.
    pub collector_set: u32,
    /// Observation domain.
    pub domain: u32,
    /// Observation point.
    pub point: u32,
    /// Port whose packets are sampled, where that is not the one that they come in on.
    pub output: Option<PortId>,
    /// 0 by the port, 1 ingress, 2 egress.
    pub direction: u8,
}

/// What becomes of a packet, as far as exporters tell.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Fate {
    /// It goes nowhere.
    pub dropped: bool,
    /// It is put into a tunnel.
    pub tunnel: Option<OuterHeader>,
    /// Its label stack entries, the outermost first.
    pub labels: Vec<u32>,
}

/// The outer header of a tunnel over IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct OuterHeader {
    /// IP protocol; 0 when unknown.
    pub protocol: u8,
    /// Source.
    pub src: u32,
    /// Destination.
    pub dst: u32,
    /// Transport ports.
    pub ports: (u16, u16),
    /// ToS.
    pub tos: u8,
    /// The tunnel's key.
    pub key: u64,
}

impl Export {
    /// One of which only that is known which text says.
    pub fn of_text(to: ExportTo) -> Export {
        Export {
            bridge: u32::MAX,
            in_port: 0,
            out_port: 0,
            to,
            tunnel_out: None,
            snap_bytes: 0,
            fate: Fate::default(),
        }
    }
}
