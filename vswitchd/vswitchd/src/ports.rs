//! The ports of all bridges: what is behind each, its link and its counters.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datapath_api::PortStats;
use device::{LinkState, PacketIo, PortCounters};
use flow::PortId;
use openflow::PortNo;
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::config::PortKind;

/// A port of a bridge, attached to the datapath.
pub struct SwitchPort {
    /// Index of its bridge.
    pub bridge: u32,
    /// Name.
    pub name: String,
    /// OpenFlow number.
    pub no: PortNo,
    /// Datapath number.
    pub dp: PortId,
    /// What is behind it.
    pub kind: PortKind,
    /// `None` once it was taken away again.
    io: Mutex<Option<Box<dyn PacketIo>>>,
    link: Mutex<LinkState>,
    /// How often the link went up or down.
    link_resets: AtomicU64,
}

impl SwitchPort {
    /// A port whose queues have been taken.
    pub fn new(
        bridge: u32,
        name: String,
        no: PortNo,
        dp: PortId,
        kind: PortKind,
        io: Box<dyn PacketIo>,
    ) -> Self {
        let link = Mutex::new(io.link());
        SwitchPort {
            bridge,
            name,
            no,
            dp,
            kind,
            io: Mutex::new(Some(io)),
            link,
            link_resets: AtomicU64::new(0),
        }
    }

    /// Takes away what is behind it; the port is down from then on.
    pub fn take_io(&self) -> Option<Box<dyn PacketIo>> {
        self.io.lock().take()
    }

    /// Whether what is behind it is gone, and only opening it anew can help.
    pub fn is_gone(&self) -> bool {
        self.io.lock().as_ref().is_none_or(|io| io.is_gone())
    }

    /// Index of the network interface that it is, if it is one.
    pub fn interface_index(&self) -> Option<u32> {
        self.io.lock().as_ref().and_then(|io| io.interface_index())
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> Option<[u8; 6]> {
        self.io.lock().as_ref().map(|io| io.mac())
    }

    /// Largest frame without FCS that it carries now, in bytes.
    pub fn frame_bytes(&self) -> Option<usize> {
        self.io.lock().as_ref().map(|io| io.mtu_frame_bytes())
    }

    /// How often the link went up or down.
    pub fn link_resets(&self) -> u64 {
        self.link_resets.load(Ordering::Relaxed)
    }

    /// Whether the host, or whoever plays it, decides if it is up: then it shows in the port's OpenFlow configuration.
    pub fn is_the_hosts(&self) -> bool {
        matches!(
            self.kind,
            PortKind::Internal { .. }
                | PortKind::Null
                | PortKind::Dummy { .. }
                | PortKind::Vport { internal: true, .. }
        )
    }

    /// Link state now; `Some` with it when it differs from the last time this was asked.
    pub fn link_change(&self) -> Option<LinkState> {
        let now = self.link();
        let mut last = self.link.lock();
        if last.link_up != now.link_up {
            self.link_resets.fetch_add(1, Ordering::Relaxed);
        }
        (*last != now).then(|| {
            *last = now;
            now
        })
    }

    /// Link state now.
    pub fn link(&self) -> LinkState {
        self.io.lock().as_ref().map(|io| io.link()).unwrap_or_default()
    }

    /// Whether the device behind it forwards by itself, so that the datapath does not see every packet.
    pub fn is_on_device(&self) -> bool {
        matches!(self.kind, PortKind::Sim { .. } | PortKind::Tc { .. } | PortKind::Vport { .. })
    }

    /// What the device, interface or file behind it has counted.
    pub fn counters(&self) -> PortCounters {
        self.io.lock().as_ref().map(|io| io.counters()).unwrap_or_default()
    }

    /// Its counters: the device's where a device forwards by itself, else the datapath's, `soft`. Errors are those of both,
    /// and so is what was not sent. A dummy says of neither; what is not known is all ones, as OpenFlow has it.
    pub fn stats(&self, soft: PortStats) -> PortStats {
        if let PortKind::Dummy { .. } = self.kind {
            let unknown = u64::MAX;
            return PortStats {
                rx_dropped: unknown,
                tx_dropped: unknown,
                rx_errors: unknown,
                tx_errors: unknown,
                ..soft
            };
        }
        if !self.is_on_device() {
            return soft;
        }
        let c = self.counters();
        PortStats {
            rx_packets: c.rx_packets,
            tx_packets: c.tx_packets,
            rx_bytes: c.rx_bytes,
            tx_bytes: c.tx_bytes,
            // The device's count includes what its queues to the datapath had no room for.
            rx_dropped: c.rx_dropped,
            tx_dropped: c.tx_dropped + soft.tx_dropped,
            rx_errors: c.rx_errors + soft.rx_errors,
            tx_errors: c.tx_errors + soft.tx_errors,
        }
    }

    /// Name of the kind of port, as in the configuration.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            PortKind::Sim { .. } => "sim",
            PortKind::AfPacket { .. } => "af_packet",
            PortKind::Tc { .. } => "tc",
            PortKind::AfXdp { .. } => "af_xdp",
            PortKind::Tap { .. } => "tap",
            PortKind::Internal { .. } => "internal",
            PortKind::Patch { .. } => "patch",
            PortKind::Tunnel { class, .. } => class,
            PortKind::Vport { internal: true, .. } => "internal",
            PortKind::Vport { .. } => "system",
            PortKind::Null => "null",
            PortKind::Dummy { class, .. } => class.name(),
            PortKind::Wrong { .. } => "wrong",
            PortKind::Pcap { .. } => "pcap",
            PortKind::Memory => "memory",
        }
    }

    /// What is behind it, for people.
    pub fn behind(&self) -> String {
        match &self.kind {
            PortKind::Sim { device, port } => format!("{device}:{port}"),
            PortKind::AfPacket { interface }
            | PortKind::Tc { interface }
            | PortKind::AfXdp { interface, .. }
            | PortKind::Tap { interface }
            | PortKind::Internal { interface }
            | PortKind::Vport { interface, .. } => interface.clone(),
            PortKind::Pcap { path, out } => {
                let names: Vec<_> =
                    [path, out].into_iter().flatten().map(|p| p.display().to_string()).collect();
                names.join(" > ")
            }
            PortKind::Patch { peer } => peer.clone(),
            PortKind::Tunnel { options, .. } => options.clone(),
            PortKind::Memory | PortKind::Null | PortKind::Dummy { .. } | PortKind::Wrong { .. } => {
                String::new()
            }
        }
    }
}

#[derive(Default)]
struct All {
    /// By when they came.
    in_order: BTreeMap<u64, Arc<SwitchPort>>,
    by_datapath: HashMap<PortId, u64>,
    next: u64,
}

/// All ports. Readers get a snapshot.
#[derive(Default)]
pub struct PortTable {
    all: RwLock<All>,
    changing: Mutex<()>,
}

impl PortTable {
    /// Adds a port.
    pub fn add(&self, p: SwitchPort) -> Arc<SwitchPort> {
        let p = Arc::new(p);
        let all = &mut *self.all.write();
        all.in_order.insert(all.next, Arc::clone(&p));
        all.by_datapath.insert(p.dp, all.next);
        all.next += 1;
        p
    }

    /// Forgets a port.
    pub fn remove(&self, dp: PortId) {
        let mut all = self.all.write();
        if let Some(at) = all.by_datapath.remove(&dp) {
            all.in_order.remove(&at);
        }
    }

    /// To be held while a port comes, goes, or is described anew, so that nobody describes one that has just gone.
    pub fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// Forgets all ports, and gives up what is behind them.
    pub fn clear(&self) {
        *self.all.write() = All::default();
    }

    /// All, in the order in which they came.
    pub fn all(&self) -> Vec<Arc<SwitchPort>> {
        self.all.read().in_order.values().cloned().collect()
    }

    /// The port with that datapath number.
    pub fn by_datapath(&self, dp: PortId) -> Option<Arc<SwitchPort>> {
        let all = self.all.read();
        all.in_order.get(all.by_datapath.get(&dp)?).cloned()
    }

    /// The counters of a port; see [`SwitchPort::stats`].
    pub fn stats(&self, dp: PortId, soft: PortStats) -> PortStats {
        self.by_datapath(dp).map_or(soft, |p| p.stats(soft))
    }
}

#[cfg(test)]
mod tests {
    use device::{IoError, QueueId, QueuePair};

    use super::*;

    struct Nic;

    impl PacketIo for Nic {
        fn take_queues(&mut self, _: QueueId) -> Result<QueuePair, IoError> {
            Err(IoError::Gone)
        }
        fn queue_pairs(&self) -> u16 {
            0
        }
        fn mac(&self) -> [u8; 6] {
            [2, 0, 0, 0, 0, 1]
        }
        fn mtu_frame_bytes(&self) -> usize {
            1514
        }
        fn link(&self) -> LinkState {
            LinkState::default()
        }
        fn counters(&self) -> PortCounters {
            PortCounters { rx_packets: 10, rx_dropped: 4, tx_dropped: 1, ..PortCounters::default() }
        }
    }

    #[test]
    fn what_a_devices_queue_had_no_room_for_is_counted_once() {
        let ports = PortTable::default();
        let kind = PortKind::Sim { device: "sim0".into(), port: 0 };
        ports.add(SwitchPort::new(0, "p1".into(), PortNo(1), PortId(1), kind, Box::new(Nic)));
        let soft = PortStats { rx_packets: 6, rx_dropped: 4, tx_dropped: 2, ..PortStats::default() };
        let s = ports.stats(PortId(1), soft);
        assert_eq!((s.rx_packets, s.rx_dropped, s.tx_dropped), (10, 4, 3));
    }
}
