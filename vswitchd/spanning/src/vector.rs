//! What is said of the network behind a port (IEEE 802.1D-1998 8.6.2.2, 802.1D-2004 17.5).

use crate::bpdu::{BridgeId, Config};

/// A priority vector; the best is the least.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Vector {
    pub(crate) root: BridgeId,
    pub(crate) cost: u32,
    pub(crate) bridge: BridgeId,
    pub(crate) port: u16,
}

impl Vector {
    pub(crate) fn of(c: &Config) -> Vector {
        Vector { root: c.root, cost: c.root_path_cost, bridge: c.bridge, port: c.port }
    }
}
