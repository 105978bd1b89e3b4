//! Why frames are lost, and the account of all frames.
//!
//! Neither cycle-level nor behavioural: names and sums, which balance in every cycle.

use serde::Serialize;

macro_rules! reasons {
    ($($(#[$m:meta])* $name:ident $text:literal,)*) => {
        /// Why a frame was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum DropReason { $($(#[$m])* $name,)* }
        impl DropReason {
            /// Every reason, in order of its number.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)*];
            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(DropReason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// An entry without output, or a frame whose entry has none for it.
    Rule "rule",
    /// Shorter than 14 bytes.
    TooShort "too_short",
    /// Longer than the longest frame.
    TooLong "too_long",
    /// Damaged on the wire: its checksum (FCS) is wrong.
    Fcs "fcs_error",
    /// A MAC control frame (PAUSE): it ends in the MAC.
    MacControl "mac_control",
    /// Received on a port that is down, or by a device that is not enabled.
    IngressDown "ingress_down",
    /// The port's ingress queue was full: the pipeline is slower than the wire.
    IngressQueue "ingress_queue_full",
    /// Sent to a port that is down.
    EgressDown "egress_down",
    /// The port's egress queue was full.
    EgressQueue "egress_queue_full",
    /// The port's queue to the host was full.
    HostQueue "host_queue_full",
    /// No receive descriptor was posted, or no receive queue enabled.
    NoDescriptor "no_descriptor",
    /// It did not fit the receive buffer.
    BufferTooSmall "buffer_too_small",
    /// A DMA transfer of it faulted.
    DmaFault "dma_fault",
    /// Its ring was disabled or stopped while it was under way.
    RingStopped "ring_stopped",
    /// The device was reset or removed.
    Reset "reset",
    /// A meter was exceeded.
    Meter "meter",
    /// The wire held all it can: nobody took frames from it, or the device stood still.
    WireFull "wire_full",
}

impl kernel::State for DropReason {
    fn save(&self, w: &mut kernel::Writer) {
        w.bytes(&[*self as u8]);
    }
    fn load(r: &mut kernel::Reader<'_>) -> Result<Self, kernel::Damage> {
        let n = u8::load(r)?;
        DropReason::ALL.get(usize::from(n)).copied().ok_or(r.damage("reason of a drop"))
    }
}

pub(crate) const REASONS: usize = DropReason::ALL.len();

/// Counters of a port. Those behind registers go back to zero at a reset, the drops by reason do not.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct PortCounts {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_drops: u64,
    pub rx_errors: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_drops: u64,
    pub tx_errors: u64,
    pub by_reason: [u64; REASONS],
}

kernel::state!(struct PortCounts {
    rx_packets, rx_bytes, rx_drops, rx_errors, tx_packets, tx_bytes, tx_drops, tx_errors,
    by_reason,
});

impl PortCounts {
    /// Counts a drop, also in the register it belongs to.
    pub fn drop(&mut self, why: DropReason) {
        self.by_reason[why as usize] += 1;
        match why {
            DropReason::TooShort | DropReason::TooLong | DropReason::Fcs => self.rx_errors += 1,
            DropReason::EgressDown | DropReason::EgressQueue => self.tx_drops += 1,
            DropReason::IngressQueue
            | DropReason::HostQueue
            | DropReason::NoDescriptor
            | DropReason::BufferTooSmall => self.rx_drops += 1,
            DropReason::MacControl
            | DropReason::Rule
            | DropReason::Meter
            | DropReason::IngressDown
            | DropReason::DmaFault
            | DropReason::RingStopped
            | DropReason::Reset
            | DropReason::WireFull => {}
        }
    }

    /// What a device reset does to them.
    pub fn reset(&mut self) {
        *self = PortCounts { by_reason: self.by_reason, ..Self::default() };
    }
}

/// Every frame that came to be, and what became of it. At any time `born = gone + inside`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct FrameAccount {
    /// Put on a wire towards the device.
    pub injected: u64,
    /// Fetched from transmit rings.
    pub from_host: u64,
    /// Copies made for further outputs.
    pub copies: u64,
    /// Made by the device itself: PAUSE frames.
    pub made: u64,
    /// Taken from a wire, away from the device.
    pub collected: u64,
    /// Written to receive buffers.
    pub to_host: u64,
    /// Dropped, for whatever reason.
    pub dropped: u64,
    /// In the device or on a wire now, counted.
    pub inside: u64,
}

kernel::state!(struct FrameAccount {
    injected, from_host, copies, made, collected, to_host, dropped, inside,
});

impl FrameAccount {
    /// Whether no frame is lost or made from nothing.
    pub fn balances(&self) -> bool {
        self.injected + self.from_host + self.copies + self.made
            == self.collected + self.to_host + self.dropped + self.inside
    }
}
