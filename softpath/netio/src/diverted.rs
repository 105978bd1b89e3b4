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
//!
//! Filters may have begun with a frame. Each one therefore comes with an 802.1ad tag, outermost, that says how far it has come
//! ([`Places`]); it is taken off here.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use device::{
    BufferPool, IoError, LinkState, PacketBatch, PacketBuf, PacketIo, PortCounters, QueueId, QueuePair,
    RxQueue,
};

use crate::af_packet::{Sending, open_tx};
use crate::netdev::{Netdev, OpenError};
use crate::netdev_port::{Counters, add};
use crate::tap::TapPort;

/// Ethernet type of the tag.
const TAG: [u8; 2] = [0x88, 0xa8];
/// Addresses, which stand before the tag.
const ADDRESSES_BYTES: usize = 12;
const TAG_BYTES: usize = 4;

/// Knows what the tags mean.
pub trait Places: Send + Sync {
    /// Where a frame with this in its tag goes on in the tables, as [`device::PacketMeta::resume`] has it: 0 from the beginning.
    /// `None` when that is not known.
    fn resume(&self, tci: u16) -> Option<u32>;
}

/// Receives from the TAP, and takes tags off.
struct Tagged {
    rx: Box<dyn RxQueue>,
    places: Arc<dyn Places>,
    /// What was received before tags were looked at, reused.
    raw: PacketBatch,
    lost: Arc<Counters>,
}

/// Takes the tag off a frame: where the frame goes on. False for a frame without a tag, or with one that nobody knows.
fn untag(p: &mut PacketBuf, places: &dyn Places) -> bool {
    let (at, end) = (ADDRESSES_BYTES, ADDRESSES_BYTES + TAG_BYTES);
    let Some(tag) = p.get(at..end).filter(|t| t[..2] == TAG) else {
        return false;
    };
    let Some(resume) = places.resume(u16::from_be_bytes([tag[2], tag[3]])) else {
        return false;
    };
    p.copy_within(..at, TAG_BYTES);
    p.meta.resume = resume;
    p.pull_front(TAG_BYTES)
}

impl RxQueue for Tagged {
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        let had = out.len();
        if out.room() == 0 {
            return Ok(0);
        }
        let got = self.rx.rx_burst(&mut self.raw);
        for mut p in self.raw.drain_front(out.room()) {
            if untag(&mut p, &*self.places) {
                // There is room.
                let _ = out.push(p);
            } else {
                add(&self.lost.rx_errors, 1);
            }
        }
        got.map(|_| out.len() - had)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.rx.poll_fd()
    }

    fn dropped(&self) -> u64 {
        self.rx.dropped() + self.lost.rx_errors.load(Ordering::Relaxed)
    }
}

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
    /// called `tap`, which is made and brought up, with tags that `places` knows. Received packets lie in buffers of `pool`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        name: &str,
        tap: &str,
        places: Arc<dyn Places>,
        pool: &BufferPool,
    ) -> Result<Self, OpenError> {
        let netdev = Netdev::open(name)?;
        let tx = open_tx(&netdev, Arc::new(Counters::default()), true, Sending::Fit)?;
        let mut rest = TapPort::create(tap, pool)?;
        // Where there is no IPv6 it need not be switched off.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{tap}/disable_ipv6"), "1");
        let (mac, mtu) = (netdev.mac()?, netdev.mtu()?);
        if let Ok(mtu) = u32::try_from(mtu) {
            rest.netdev().set_mtu(mtu + TAG_BYTES as u32)?;
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
        let lost = Arc::new(Counters::default());
        let rx = Box::new(Tagged { rx, places, raw: PacketBatch::new(), lost });
        let before = netdev.counters();
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
        let (now, b) = (self.netdev.counters(), &self.before);
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Even;

    impl Places for Even {
        fn resume(&self, tci: u16) -> Option<u32> {
            tci.is_multiple_of(2).then(|| u32::from(tci) * 10)
        }
    }

    #[test]
    fn the_tag_is_taken_off_and_says_where_a_frame_goes_on() {
        let pool = BufferPool::new(4).unwrap();
        let frame: Vec<u8> = (0..60).collect();
        let tagged = |tag: [u8; 4]| [&frame[..12], &tag, &frame[12..]].concat();
        let mut p = pool.copy_from(&tagged([0x88, 0xa8, 0x20, 4])).unwrap();
        assert!(untag(&mut p, &Even));
        assert_eq!((&p[..], p.meta.resume), (&frame[..], 0x2004 * 10));
        for wrong in [&tagged([0x88, 0xa8, 0, 3])[..], &frame, &frame[..13]] {
            assert!(!untag(&mut pool.copy_from(wrong).unwrap(), &Even));
        }
    }
}
