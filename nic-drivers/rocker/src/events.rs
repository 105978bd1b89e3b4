//! The event ring (guide, section 8): links that change, addresses not seen before.

use std::collections::VecDeque;

use device::driver::Lifeline;
use device::{DmaMemory, Iova, Registers};
use rocker_defs::cmd::{event, top};
use rocker_defs::regs::RING_EVENT;
use rocker_defs::tlv::{find, number, read_tlvs};

use crate::life::Violation;
use crate::ring::{Ring, ring_bytes};

const LOG2: u8 = 6;
const PAYLOAD_BYTES: usize = 128;
/// Events kept until they are taken; the oldest go first.
const KEPT: usize = 256;

/// What the device tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The link of a front-panel port (from 0) came or went.
    Link {
        /// The port.
        port: u16,
        /// Whether there is carrier.
        up: bool,
    },
    /// A frame came from an address that the bridging table does not have.
    MacSeen {
        /// Ingress port (from 0).
        port: u16,
        /// Its source address.
        mac: [u8; 6],
        /// The VLAN it was in within the device.
        vlan: u16,
    },
}

pub(crate) struct EventRing<R: Registers> {
    ring: Ring<R>,
    kept: VecDeque<Event>,
    /// Events that were thrown away because nobody took them.
    pub(crate) lost: u64,
}

pub(crate) fn event_bytes() -> usize {
    ring_bytes(LOG2, PAYLOAD_BYTES)
}

fn parse(b: &[u8]) -> Option<Event> {
    let kind = number::<2>(&read_tlvs(b).ok()?, top::TYPE)? as u16;
    let info = read_tlvs(find(b, top::INFO)?).ok()?;
    let port = (number::<4>(&info, event::PPORT)? as u16).checked_sub(1)?;
    match kind {
        event::LINK_CHANGED => Some(Event::Link { port, up: number::<1>(&info, event::LINKUP)? != 0 }),
        event::MAC_VLAN_SEEN => {
            let mac = rocker_defs::tlv::value(&info, event::MAC)?.try_into().ok()?;
            let vlan = (number::<2>(&info, event::VLAN_ID)? as u16).swap_bytes();
            Some(Event::MacSeen { port, mac, vlan })
        }
        _ => None,
    }
}

impl<R: Registers> EventRing<R> {
    pub(crate) fn new(regs: R, mem: (DmaMemory, Iova)) -> Self {
        let ring = Ring::new(regs, RING_EVENT, mem, LOG2, PAYLOAD_BYTES);
        EventRing { ring, kept: VecDeque::new(), lost: 0 }
    }

    pub(crate) fn start(&mut self) {
        self.ring.start();
        self.refill();
    }

    fn refill(&mut self) {
        let n = self.ring.room();
        for _ in 0..n {
            self.ring.post(&[]);
        }
        if n > 0 {
            self.ring.doorbell();
        }
    }

    /// Takes what the device has told; at most a ring full, so that it ends.
    pub(crate) fn drain(&mut self, life: &Lifeline) {
        let mut n = 0;
        while n < self.ring.slots() as u32
            && let Some((slot, d, ours)) = self.ring.next()
        {
            n += 1;
            let mut b = [0; PAYLOAD_BYTES];
            let told = self.ring.payload(slot, &d, &mut b).and_then(parse);
            match (told, d.status()) {
                (Some(e), Some(0)) if ours => {
                    if self.kept.len() == KEPT {
                        self.kept.pop_front();
                        self.lost += 1;
                    }
                    self.kept.push_back(e);
                }
                _ => Violation::Event.count(life),
            }
        }
        if n > 0 {
            self.ring.credit(n);
            self.refill();
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Event> {
        self.kept.drain(..).collect()
    }
}
