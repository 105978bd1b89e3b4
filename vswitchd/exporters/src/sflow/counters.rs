//! What ports, and the switch as a whole, have counted.

use super::Xdr;

/// Records of counter samples.
mod record {
    pub const INTERFACE: u32 = 1;
    pub const ETHERNET: u32 = 2;
    pub const LACP: u32 = 7;
    pub const OPENFLOW_PORT: u32 = 1004;
    pub const PORT_NAME: u32 = 1005;
    pub const RESOURCES: u32 = 2203;
    pub const DATAPATH: u32 = 2207;
}

/// In the place of a counter that is not known.
const UNKNOWN: u32 = u32::MAX;

/// Who knows what was counted.
pub trait Counted {
    /// The keys of ports that are interfaces of the host, and the host's numbers of them.
    fn ports(&self) -> Vec<(u32, u32)>;

    /// What one of them has counted.
    fn port(&self, key: u32) -> Option<PortCounters>;

    /// What the switch has; `None` when it is told of elsewhere.
    fn totals(&self) -> Option<Totals>;
}

/// Counters of a port; `None` is unknown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortCounters {
    /// The host's number of the interface.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Rate in bits per second; `None` is unknown.
    pub speed_bps: Option<u64>,
    /// It is wanted up.
    pub admin_up: bool,
    /// Its link carries.
    pub link_up: bool,
    /// Bytes received, packets received, dropped, erroneous.
    pub received: [Option<u64>; 4],
    /// Bytes sent, packets sent, dropped, erroneous.
    pub sent: [Option<u64>; 4],
    /// Frames received with alignment errors, with a wrong FCS, too long.
    pub frame_errors: [Option<u64>; 3],
    /// The bridge's datapath id and the port's number.
    pub openflow: (u64, u32),
    /// Of a port that speaks link aggregation control.
    pub lacp: Option<LacpCounters>,
}

/// What link aggregation control says of a port (IEEE 802.1AX dot3adAggPort).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LacpCounters {
    /// Identity of this end.
    pub actor: [u8; 6],
    /// Identity of the other end.
    pub partner: [u8; 6],
    /// The aggregate that the port belongs to.
    pub aggregate: u32,
    /// State of this end as it is configured, and as it is; of the other end as it is configured, and as it is.
    pub states: [u8; 4],
    /// Messages received, and those of them that made no sense; messages sent.
    pub messages: [u32; 3],
}

/// What the whole switch has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Packets that found a flow record, that did not, that were lost on the way; masks tried for that, records, masks.
    pub datapath: [u32; 6],
    /// The process' time in user mode and in the kernel, in milliseconds.
    pub time_ms: (u32, u32),
    /// Memory that it had at most.
    pub memory_bytes: u64,
}

/// The records of a port, and how many.
pub(super) fn of_port(c: &PortCounters) -> (u32, Xdr) {
    let (mut x, mut n) = (Xdr::default(), 4);
    let short = |v: Option<u64>| v.map_or(UNKNOWN, |v| v as u32);
    x.record(record::INTERFACE, |x| {
        x.u32(c.ifindex);
        // ethernetCsmacd (RFC 2863).
        x.u32(6);
        x.u64(c.speed_bps.unwrap_or(100_000_000));
        // Full duplex, or unknown.
        x.u32(u32::from(c.speed_bps.is_some()));
        x.u32(u32::from(c.admin_up) | u32::from(c.admin_up && c.link_up) << 1);
        for (counts, sent) in [(&c.received, false), (&c.sent, true)] {
            let [bytes, packets, dropped, errors] = *counts;
            x.u64(bytes.unwrap_or(u64::MAX));
            // Multicast and broadcast are not told apart.
            for v in [short(packets), UNKNOWN, UNKNOWN, short(dropped), short(errors)] {
                x.u32(v);
            }
            // Of unknown protocols; promiscuous.
            x.u32(if sent { 0 } else { UNKNOWN });
        }
    });
    if let Some(l) = &c.lacp {
        n += 1;
        x.record(record::LACP, |x| {
            for system in [l.actor, l.partner] {
                x.0.extend(system);
                x.0.extend([0; 2]);
            }
            x.u32(l.aggregate);
            x.0.extend(l.states);
            let [received, illegal, sent] = l.messages;
            for v in [received, UNKNOWN, UNKNOWN, UNKNOWN, illegal, sent, UNKNOWN, UNKNOWN] {
                x.u32(v);
            }
        });
    }
    x.record(record::PORT_NAME, |x| x.opaque(c.name.as_bytes()));
    x.record(record::OPENFLOW_PORT, |x| {
        x.u64(c.openflow.0);
        x.u32(c.openflow.1);
    });
    x.record(record::ETHERNET, |x| {
        let [alignment, fcs, long] = c.frame_errors.map(short);
        // Single, multiple collisions, SQE tests, deferred, late, excessive collisions, errors sending, carrier sense.
        let unknown = [UNKNOWN; 8];
        x.u32(alignment);
        x.u32(fcs);
        unknown.into_iter().for_each(|v| x.u32(v));
        x.u32(long);
        [UNKNOWN; 2].into_iter().for_each(|v| x.u32(v));
    });
    (n, x)
}

/// The records of the whole switch, and how many.
pub(super) fn of_totals(t: Option<Totals>) -> (u32, Xdr) {
    let mut x = Xdr::default();
    let Some(t) = t else { return (0, x) };
    x.record(record::DATAPATH, |x| t.datapath.into_iter().for_each(|v| x.u32(v)));
    x.record(record::RESOURCES, |x| {
        x.u32(t.time_ms.0);
        x.u32(t.time_ms.1);
        x.u64(t.memory_bytes);
        // Gauges that are not known are zero: most memory, files open and at most, connections open and at most.
        x.u64(0);
        (0..4).for_each(|_| x.u32(0));
    });
    (2, x)
}
