//! Dummy ports and time under control: what `--enable-dummy` asks for (ovs-vswitchd(8)), so that tests say what packets come in, and
//! when.
//!
//! A dummy port is a port of the software datapath like any other, with a queue in memory that `netdev-dummy/receive` fills, and a
//! sending side that counts, writes captures and feeds streams. Nothing of the datapath is a stand-in.
//!
//! ```text
//!   netdev-dummy/receive ─► queue ─► (thread "fwdN") caches, misses, actions ─► counts, capture, streams
//!                             ▲                                                              │
//!                             └────────────── stream=unix:…, pstream=punix:… ◄───────────────┘
//! ```

mod commands;
mod options;
mod port;
mod stream;
mod traffic;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clock::Clock;
use device::{BufferPool, IoError};
use parking_lot::Mutex;

pub(crate) use commands::hex;
pub use commands::register;
pub use options::{DummyClass, DummyOptions};
use port::LongFrames;
pub use port::{DummyIo, DummyPort, MTU};
pub use traffic::Traffic;

/// Which interfaces are dummies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dummies {
    /// None.
    #[default]
    None,
    /// Those of type `dummy` and its kin, and the internal ones of bridges whose datapath is a dummy.
    ByType,
    /// Those of type `system` too.
    System,
    /// All that would be the host's.
    Override,
}

impl Dummies {
    /// The argument of `--enable-dummy`.
    pub fn of_option(argument: Option<&str>) -> Dummies {
        match argument {
            Some("override") => Dummies::Override,
            Some("system") => Dummies::System,
            _ => Dummies::ByType,
        }
    }
}

/// The dummy ports there are.
pub struct DummyPorts {
    all: Mutex<BTreeMap<String, Arc<DummyPort>>>,
    /// Last bytes of the next address.
    next: AtomicU32,
    /// Frames on their cables.
    traffic: Arc<Traffic>,
    long: LongFrames,
}

impl Default for DummyPorts {
    fn default() -> Self {
        // Number 0 is the datapath's own port, which a stock switch has.
        DummyPorts {
            all: Mutex::default(),
            next: AtomicU32::new(1),
            traffic: Arc::default(),
            long: LongFrames::default(),
        }
    }
}

impl DummyPorts {
    /// Makes one.
    ///
    /// # Errors
    /// [`IoError::Os`] when there are no descriptors left.
    pub fn open(
        &self,
        name: &str,
        class: DummyClass,
        n_rxq: u16,
        pool: &BufferPool,
        clock: &Arc<dyn Clock>,
    ) -> Result<DummyIo, IoError> {
        let [_, _, high, low] = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mac = [0xaa, 0x55, 0xaa, 0x55, high, low];
        let shared = (pool.clone(), self.long.clone(), self.traffic.clone());
        let io = DummyPort::open(name, class, n_rxq, mac, shared, clock.clone())?;
        self.all.lock().insert(name.to_owned(), io.port().clone());
        Ok(io)
    }

    /// Frames on the cables between dummies.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Forgets one, whose connections end.
    pub fn close(&self, name: &str) {
        if let Some(p) = self.all.lock().remove(name) {
            p.disconnect();
        }
    }

    /// The one of that name.
    pub fn get(&self, name: &str) -> Option<Arc<DummyPort>> {
        self.all.lock().get(name).cloned()
    }

    /// Every one, in order of name.
    pub fn all(&self) -> Vec<Arc<DummyPort>> {
        self.all.lock().values().cloned().collect()
    }
}
