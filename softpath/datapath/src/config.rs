//! How a datapath and its ports are set up.

use std::time::Duration;

use flow::PortId;

/// How a [`crate::SoftDatapath`] is set up.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// Forwarding cores, at least 1.
    pub cores: usize,
    /// Further cores, which do nothing until they are activated ([`crate::SoftDatapath::activate`]).
    pub spare_cores: usize,
    /// Records that the table holds at most.
    pub max_flows: usize,
    /// Most slots of each core's exact-match cache, 8 bytes each; rounded up to a power of two. It begins with fewer and grows with
    /// the working set. 0 switches it off.
    pub exact_slots: usize,
    /// Most memory of each core for keys of flows that took shortcuts (see [`datapath_api::MissHandler::classify`]), in bytes; 64
    /// bytes are a flow. The oldest flows give way.
    pub flow_bytes: usize,
    /// Masks of megaflows beyond which packets that no cache knows take shortcuts where there are any, rather than get megaflows of
    /// their own.
    pub shortcuts_beyond_masks: usize,
    /// Seed of the hashes; a random one when `None`. Give one only to repeat a run: a known seed can be attacked.
    pub seed: Option<u64>,
    /// Passes through the flow table that a packet may take, the first one included.
    pub max_passes: u8,
    /// How long a core that runs by itself polls without success before it sleeps.
    pub busy_poll: Duration,
    /// Buffers for packets that come by `execute`.
    pub execute_buffers: u32,
}

impl Default for DatapathConfig {
    fn default() -> Self {
        DatapathConfig {
            cores: 1,
            spare_cores: 0,
            max_flows: 200_000,
            exact_slots: 1 << 21,
            flow_bytes: 96 << 20,
            shortcuts_beyond_masks: 8,
            seed: None,
            max_passes: 6,
            busy_poll: Duration::from_micros(50),
            execute_buffers: 512,
        }
    }
}

/// How a port is attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// Its number; below 65536.
    pub id: PortId,
    /// Its name, for people.
    pub name: String,
    /// Longest frame without FCS that it sends, in bytes. A VLAN tag may come on top.
    pub max_frame_bytes: usize,
    /// The core that serves it; the one with the fewest ports when `None`.
    pub core: Option<usize>,
}

impl PortConfig {
    /// A port that sends whatever a buffer holds.
    pub fn new(id: PortId, name: impl Into<String>) -> Self {
        PortConfig { id, name: name.into(), max_frame_bytes: usize::MAX - 8, core: None }
    }
}
