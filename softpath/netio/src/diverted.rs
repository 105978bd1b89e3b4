//! An interface of which the kernel forwards what it can by itself, and hands us the rest.
//!
//! ```text
//!   interface ─► filters ──hit──► another interface
//!                   └──none──► TAP ──► our receive queue
//!   interface ◄── packet socket ◄── our transmit queue
//! ```
//!
//! A packet socket that received would see every frame before the filters do, those that are forwarded too. So it only sends, and
//! what no filter caught is redirected to a TAP interface by whoever sets up the filters. The TAP has no address and no IPv6, so
//! that the host itself says nothing there; and its segments and checksums are done before we see them.

use std::sync::Arc;

use device::{BufferPool, IoError, LinkState, PacketIo, PortCounters, QueueId, QueuePair};

use crate::af_packet::open_tx;
use crate::netdev::{Netdev, OpenError};
use crate::netdev_port::Counters;
use crate::tap::TapPort;

/// See the module's text.
pub struct DivertedPort {
    netdev: Netdev,
    mac: [u8; 6],
    mtu: usize,
    tap_index: u32,
    queues: Option<QueuePair>,
    /// The interface's counters when it was opened.
    before: PortCounters,
}

impl DivertedPort {
    /// Opens the interface called `name` in promiscuous mode and brings it up; what is to be received is expected from a TAP
    /// called `tap`, which is made and brought up. Received packets lie in buffers of `pool`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(name: &str, tap: &str, pool: &BufferPool) -> Result<Self, OpenError> {
        let netdev = Netdev::open(name)?;
        let tx = open_tx(&netdev, Arc::new(Counters::default()), true)?;
        let mut rest = TapPort::create(tap, pool)?;
        // Where there is no IPv6 it need not be switched off.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{tap}/disable_ipv6"), "1");
        let (mac, mtu) = (netdev.mac()?, netdev.mtu()?);
        if let Ok(mtu) = u32::try_from(mtu) {
            rest.netdev().set_mtu(mtu)?;
        }
        rest.netdev().set_up()?;
        netdev.set_up()?;
        let tap_index = u32::try_from(rest.netdev().index()).unwrap_or_default();
        let gone = |_| OpenError::Os {
            name: tap.to_owned(),
            op: "take its queue",
            source: std::io::ErrorKind::NotFound.into(),
        };
        let (rx, _) = rest.take_queues(QueueId(0)).map_err(gone)?;
        let before = read_counters(name);
        Ok(DivertedPort { netdev, mac, mtu, tap_index, queues: Some((rx, Box::new(tx))), before })
    }

    /// Number of the TAP interface that frames have to be redirected to.
    pub fn tap_index(&self) -> u32 {
        self.tap_index
    }

    /// The interface.
    pub fn netdev(&self) -> &Netdev {
        &self.netdev
    }
}

/// What the kernel has counted of an interface, whoever forwarded it; zeros when it cannot be read.
fn read_counters(name: &str) -> PortCounters {
    let get = |what: &str| {
        let text = std::fs::read_to_string(format!("/sys/class/net/{name}/statistics/{what}"));
        text.ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
    };
    PortCounters {
        rx_packets: get("rx_packets"),
        tx_packets: get("tx_packets"),
        rx_bytes: get("rx_bytes"),
        tx_bytes: get("tx_bytes"),
        rx_dropped: get("rx_dropped"),
        tx_dropped: get("tx_dropped"),
        rx_errors: get("rx_errors"),
        tx_errors: get("tx_errors"),
    }
}

impl PacketIo for DivertedPort {
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError> {
        self.queues.take().filter(|_| q.0 == 0).ok_or(IoError::Gone)
    }

    fn queue_pairs(&self) -> u16 {
        1
    }

    fn mac(&self) -> [u8; 6] {
        self.netdev.mac().unwrap_or(self.mac)
    }

    fn mtu_frame_bytes(&self) -> usize {
        self.netdev.mtu().unwrap_or(self.mtu) + 14
    }

    fn link(&self) -> LinkState {
        self.netdev.link()
    }

    fn counters(&self) -> PortCounters {
        let (now, b) = (read_counters(self.netdev.name()), &self.before);
        PortCounters {
            rx_packets: now.rx_packets.saturating_sub(b.rx_packets),
            tx_packets: now.tx_packets.saturating_sub(b.tx_packets),
            rx_bytes: now.rx_bytes.saturating_sub(b.rx_bytes),
            tx_bytes: now.tx_bytes.saturating_sub(b.tx_bytes),
            rx_dropped: now.rx_dropped.saturating_sub(b.rx_dropped),
            tx_dropped: now.tx_dropped.saturating_sub(b.tx_dropped),
            rx_errors: now.rx_errors.saturating_sub(b.rx_errors),
            tx_errors: now.tx_errors.saturating_sub(b.tx_errors),
        }
    }

    fn is_gone(&self) -> bool {
        !self.netdev.is_present()
    }

    fn interface_index(&self) -> Option<u32> {
        u32::try_from(self.netdev.index()).ok()
    }
}
