//! Copies of the frames that pass the ports, with their cycles: what a tap on every wire would see.
//!
//! Not part of the device: neither cycle-level nor behavioural; cycles are those in which the port had the frame.

use serde::Serialize;

/// A frame that passed a port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Captured {
    /// Cycle in which its first byte was received, or its last was sent.
    pub cycle: u64,
    /// The port.
    pub port: u8,
    /// Received by the device; otherwise sent.
    pub received: bool,
    /// The frame, without FCS.
    pub bytes: Vec<u8>,
}

kernel::state!(struct Captured { cycle, port, received, bytes });

/// Keeps a bounded number of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    frames: Vec<Captured>,
    left_bytes: usize,
    lost: u64,
}

kernel::state!(struct Capture { frames, left_bytes, lost });

impl Capture {
    pub fn new(limit_bytes: usize) -> Self {
        Capture { frames: Vec::new(), left_bytes: limit_bytes, lost: 0 }
    }

    pub fn see(&mut self, cycle: u64, port: u8, received: bool, bytes: &[u8]) {
        match self.left_bytes.checked_sub(bytes.len()) {
            Some(left) => {
                self.left_bytes = left;
                self.frames.push(Captured { cycle, port, received, bytes: bytes.to_vec() });
            }
            None => self.lost += 1,
        }
    }

    /// Frames in order of their cycles, and how many did not fit.
    pub fn finish(mut self) -> (Vec<Captured>, u64) {
        self.frames.sort_by_key(|f| f.cycle);
        (self.frames, self.lost)
    }
}
