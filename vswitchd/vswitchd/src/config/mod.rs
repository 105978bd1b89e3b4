//! The configuration file: TOML that names bridges, their ports, and devices.
//!
//! `example.toml` beside this crate's manifest documents every key. Reading is done in two steps: [`file`] takes the text
//! apart (unknown keys and wrong types end there), [`check`] makes sure that it makes sense as a whole. Both name file,
//! line and key of what is wrong, and [`check`] reports everything it finds, not just the first.

mod check;
mod error;
mod file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use daemon::{Active, Passive};
use device::PciAddress;
use netio::af_xdp::XdpMode;
use offload_tc::TcPolicy;
use ofproto::{BridgeSettings, PortSettings};

use crate::controller::ControllerSettings;
use crate::dummy::{DummyClass, DummyOptions};

pub use error::{ConfigError, Problem};

/// Most bridges that one file may name.
pub const MAX_BRIDGES: usize = 64;
/// Most forwarding threads.
pub const MAX_THREADS: usize = 64;
/// Largest OpenFlow port number: as stock tools have it, not as OpenFlow 1.3 (OFPP_MAX).
pub const MAX_OFPORT: u32 = 0xfeff;

/// What to run. Made by [`Config::load`] or [`Config::parse`], or by hand in a test.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Config {
    /// Of the process.
    pub daemon: DaemonConfig,
    /// Of the software datapath.
    pub datapath: DatapathConfig,
    /// Of placement in hardware.
    pub offload: OffloadConfig,
    /// Devices that bridges' ports may be on.
    pub devices: Vec<DeviceConfig>,
    /// Bridges.
    pub bridges: Vec<BridgeConfig>,
}

/// Settings of the process.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DaemonConfig {
    /// Run directory; `None` leaves it to the environment.
    pub run_dir: Option<PathBuf>,
    /// Log file; `None` logs to stderr alone.
    pub log_file: Option<PathBuf>,
    /// Whether processors may halt between OpenFlow requests that come one by one.
    pub may_halt: bool,
}

/// Settings of the software datapath.
#[derive(Clone, PartialEq, Debug)]
pub struct DatapathConfig {
    /// Forwarding threads, at least 1.
    pub threads: usize,
    /// Processors that forwarding threads are pinned to, in order; threads beyond the list are not pinned.
    pub cores: Vec<usize>,
    /// How long a forwarding thread polls without success before it sleeps, microseconds; `None` never sleeps.
    pub busy_poll_us: Option<u64>,
    /// Packet buffers.
    pub buffers: u32,
    /// Most flow records at a time.
    pub max_flows: usize,
}

impl Default for DatapathConfig {
    fn default() -> Self {
        DatapathConfig {
            threads: 1,
            cores: Vec::new(),
            busy_poll_us: Some(50),
            buffers: 8192,
            max_flows: 200_000,
        }
    }
}

/// Settings of placement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffloadConfig {
    /// Whether flows are placed in hardware at all.
    pub enabled: bool,
    /// Packets per second from which a flow is worth a hardware entry.
    pub min_pps: u64,
    /// Whether flows of the host's interfaces are placed in the kernel's TC, and where in it they may be.
    pub tc: Option<TcPolicy>,
}

impl Default for OffloadConfig {
    fn default() -> Self {
        OffloadConfig { enabled: true, min_pps: 0, tc: None }
    }
}

/// A device.
#[derive(Clone, PartialEq, Debug)]
pub struct DeviceConfig {
    /// Name by which ports refer to it.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
}

/// Kinds of devices.
#[derive(Clone, PartialEq, Debug)]
pub enum DeviceKind {
    /// The simulated SmartNIC.
    Sim {
        /// Name of a profile that comes with the simulator, or a file with one; `None` for the default.
        profile: Option<PathBuf>,
        /// What each port's wire ends in.
        wires: Vec<Wire>,
    },
    /// A simulated Intel 82599, of one port.
    Ixgbe {
        /// What its wire ends in.
        wire: Wire,
    },
    /// A device on the PCI bus, bound to vfio-pci.
    Pci {
        /// Where it is.
        address: PciAddress,
    },
    /// A device in another process, served by the vfio-user protocol.
    VfioUser {
        /// The socket.
        path: PathBuf,
    },
}

impl DeviceKind {
    /// What the wires of a simulated device end in, by port; none of another.
    pub fn wires(&self) -> &[Wire] {
        match self {
            DeviceKind::Sim { wires, .. } => wires,
            DeviceKind::Ixgbe { wire } => std::slice::from_ref(wire),
            DeviceKind::Pci { .. } | DeviceKind::VfioUser { .. } => &[],
        }
    }

    /// The same device with its wires ending in these.
    pub fn with_wires(&self, ends: &[Wire]) -> DeviceKind {
        match self {
            DeviceKind::Sim { profile, .. } => {
                DeviceKind::Sim { profile: profile.clone(), wires: ends.to_vec() }
            }
            DeviceKind::Ixgbe { .. } => {
                DeviceKind::Ixgbe { wire: ends.first().cloned().unwrap_or(Wire::None) }
            }
            other => other.clone(),
        }
    }
}

/// What the wire of a simulated port ends in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wire {
    /// Nothing: the link is down.
    None,
    /// An existing interface, by a packet socket.
    AfPacket(String),
    /// An existing network interface, taken over by AF_XDP.
    AfXdp(String),
    /// A TAP interface, made if it does not exist.
    Tap(String),
    /// A memory cable whose other end the embedding program takes.
    Memory,
}

/// A bridge.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct BridgeConfig {
    /// Name.
    pub name: String,
    /// OpenFlow datapath id; `None` derives one from the address.
    pub datapath_id: Option<u64>,
    /// Ethernet address of its LOCAL port; `None` derives one from the name.
    pub hwaddr: Option<[u8; 6]>,
    /// What its LOCAL port is.
    pub local: LocalPort,
    /// Options of its LOCAL port's dummy, where it is one.
    pub local_dummy: DummyOptions,
    /// What OpenFlow does not know of its LOCAL port.
    pub local_settings: PortSettings,
    /// MTU that the LOCAL port's interface is to have, in bytes; `None` leaves it.
    pub local_mtu: Option<u32>,
    /// What OpenFlow does not know of it.
    pub settings: BridgeSettings,
    /// What to do while no controller is connected.
    pub fail_mode: FailMode,
    /// Controllers to connect to.
    pub controllers: Vec<Active>,
    /// Where to listen for OpenFlow connections, besides `<rundir>/<bridge>.mgmt`.
    pub listen: Vec<Passive>,
    /// How controllers and listeners are treated that are not treated as usual, by their names.
    pub treatment: BTreeMap<String, ControllerSettings>,
    /// Versions of OpenFlow it speaks; none at all means every one.
    pub protocols: Vec<openflow::Version>,
    /// How long a bundle stays when nothing is done with it; `None` as usual.
    pub bundle_idle: Option<std::time::Duration>,
    /// Whether its flows may be placed in hardware.
    pub offload: bool,
    /// Whether it stands on the kernel's own datapath.
    pub on_kernel: bool,
    /// Mirrors.
    pub mirrors: Vec<MirrorConfig>,
    /// Ports.
    pub ports: Vec<PortConfig>,
}

/// A mirror, with its ports by name; those that are not there are left out of it.
#[derive(Clone, PartialEq, Debug)]
pub struct MirrorConfig {
    /// What its statistics are asked for by; no other mirror of the bridge has it.
    pub id: String,
    /// Every packet is chosen.
    pub select_all: bool,
    /// Packets that come in here are chosen.
    pub select_src: Vec<String>,
    /// Packets that leave here are chosen.
    pub select_dst: Vec<String>,
    /// Of packets chosen by port, only those of these VLANs are.
    pub select_vlans: Option<ofproto::VlanSet>,
    /// Where copies go.
    pub output: MirrorTo,
    /// Copies are cut to this many bytes.
    pub snaplen: Option<u16>,
}

/// Where copies go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MirrorTo {
    /// Out of a port.
    Port(String),
    /// Into a VLAN.
    Vlan(u16),
}

/// What is behind the LOCAL port of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalPort {
    /// Nothing: the port is there, and down.
    #[default]
    None,
    /// A TAP interface named as the bridge, through which the host itself is on the bridge. It is made down.
    Tap,
    /// A dummy port.
    #[serde(skip)]
    Dummy,
    /// An internal port of the kernel's datapath.
    #[serde(skip)]
    Vport,
}

/// What a bridge does while it has controllers configured and none connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailMode {
    /// Nothing: packets go where flows send them.
    #[default]
    Secure,
    /// Acts as a learning switch.
    Standalone,
}

/// A port of a bridge.
#[derive(Clone, PartialEq, Debug)]
pub struct PortConfig {
    /// Name.
    pub name: String,
    /// OpenFlow port number; `None` for the lowest free one.
    pub ofport: Option<u32>,
    /// What is behind it.
    pub kind: PortKind,
    /// MTU that the interface behind it is to have, in bytes; `None` leaves it.
    pub mtu: Option<u32>,
    /// Ethernet address that an internal port's interface is to have; `None` leaves it.
    pub mac: Option<[u8; 6]>,
    /// What OpenFlow does not know of it.
    pub settings: PortSettings,
    /// Its receive queues.
    pub rx: RxQueues,
}

/// Receive queues that a port is to have.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RxQueues {
    /// How many; `None` for one. A port that cannot have so many has fewer.
    pub count: Option<u16>,
    /// Processors that are to serve some of them, by number of the queue.
    pub affinity: BTreeMap<u16, usize>,
}

impl PortConfig {
    /// A port that asks for no number.
    pub fn new(name: impl Into<String>, kind: PortKind) -> PortConfig {
        PortConfig {
            name: name.into(),
            ofport: None,
            kind,
            mtu: None,
            mac: None,
            settings: PortSettings::default(),
            rx: RxQueues::default(),
        }
    }
}

/// Why an interface cannot be had whose name datapaths keep for ports of their own.
pub fn reserved_name(name: &str) -> String {
    format!("could not create interface {name}, {RESERVED}")
}

/// Whether that is why: as with Open vSwitch the log says so in these words, and column `error` nothing.
pub fn is_of_reserved_name(why: &str) -> bool {
    why.ends_with(RESERVED)
}

const RESERVED: &str = "name is reserved";

/// Kinds of ports.
#[derive(Clone, PartialEq, Debug)]
pub enum PortKind {
    /// A port of a device.
    Sim {
        /// The device's name.
        device: String,
        /// Port of the device, from 0.
        port: u16,
    },
    /// An existing network interface.
    AfPacket {
        /// Its name.
        interface: String,
    },
    /// An existing network interface whose flows the kernel's TC forwards where it can.
    Tc {
        /// Its name.
        interface: String,
    },
    /// An existing network interface whose frames the switch takes by AF_XDP: the host's stack sees none of them.
    AfXdp {
        /// Its name.
        interface: String,
        /// How.
        mode: XdpMode,
    },
    /// A TAP interface, made if it does not exist, and brought up.
    Tap {
        /// Its name.
        interface: String,
    },
    /// A TAP interface of the switch's own, made down: the host brings it up when it wants to.
    Internal {
        /// Its name.
        interface: String,
    },
    /// A port of the kernel's own datapath.
    Vport {
        /// The interface.
        interface: String,
        /// The datapath makes it, for the host.
        internal: bool,
    },
    /// One end of a cable between two bridges of this switch.
    Patch {
        /// Name of the port at the other end.
        peer: String,
    },
    /// The end of a tunnel.
    Tunnel {
        /// Its type as it was written.
        class: &'static str,
        /// What is known of the tunnel.
        settings: Box<ofproto::TunnelSettings>,
        /// Its options as they were written, for people.
        options: String,
    },
    /// Nothing: the port is there, and down.
    Null,
    /// A dummy port.
    Dummy {
        /// Its type.
        class: DummyClass,
        /// Its options.
        options: DummyOptions,
    },
    /// Configured in a way that cannot be carried out.
    Wrong {
        /// What is wrong, as people read it.
        why: String,
    },
    /// Receives what is in a pcap file, once, and writes what is sent to another.
    Pcap {
        /// Read from here; `None` receives nothing.
        path: Option<PathBuf>,
        /// Write to here; `None` counts and forgets.
        out: Option<PathBuf>,
    },
    /// A memory cable whose other end the embedding program takes.
    Memory,
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to its directory.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { file: path.to_owned(), source })?;
        Config::parse(&text, path)
    }

    /// Checks a text. `path` is its name in messages, and its directory that of relative paths.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let at = error::Locator::new(text, path);
        let raw: file::File = toml::from_str(text).map_err(|e| at.syntax(&e))?;
        check::check(raw, &at)
    }
}
