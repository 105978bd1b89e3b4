//! The kernel's own Open vSwitch datapath (openvswitch.ko), over generic netlink: datapaths, their ports and flows, packets that no
//! flow knows, packets to be executed (`linux/openvswitch.h`).
//!
//! ```text
//!   port ─► flow table ─hit──► actions
//!               └─miss─► socket of the CPU ([`Upcalls`]) ─► whoever translates ─► [`KernelDatapath::execute`]
//!                                                                            └─► [`KernelDatapath::put`]
//! ```
//!
//! Requests go one by one, each with its answer: flows are put when a packet has been translated, which costs far more. With
//! a socket for each CPU the kernel keeps the packets of a flow in order (Linux 5.15).
//!
//! [`SystemDatapath`] is all of it as a datapath that a switch can stand on.
//!
//! *Not here*: options of ERSPAN, connection limits, NSH.

mod actions;
mod connections;
pub mod fake;
mod genl;
mod handler;
mod key;
mod meter;
mod system;
mod table;
mod tunnel_device;
mod upcall;
mod userdata;

use std::io;
use std::time::Duration;

use flow::{Action, FlowId, PacketKey, PacketMatch, PortId};

use crate::error::CodecError;
use crate::message::flag;
use crate::transport::Transport;
use crate::wire::{NESTED, Writer, attrs, find, read_text, read_u32, read_u64};

pub use actions::Userdata;
pub use connections::{Connection, Connections, Direction};
pub use genl::Families;
pub use system::{Sockets, Software, SystemCounters, SystemDatapath, SystemParts};
pub use upcall::{Beside, Upcall, Upcalls};

/// What is wrong between us and the datapath.
#[derive(thiserror::Error, Debug)]
pub enum KdpError {
    /// The socket.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The kernel refused.
    #[error("{what}: {text} (errno {errno})")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Error number.
        errno: i32,
        /// The kernel's words, or those of the number.
        text: String,
    },
    /// The kernel's datapath does not have it.
    #[error("the kernel's datapath has no {0}")]
    Unsupported(&'static str),
    /// What it said could not be read.
    #[error("{0}")]
    Codec(#[from] CodecError),
}

/// Bits of what whoever works by a datapath can do (OVS_DP_F_*).
mod features {
    pub const UNALIGNED: u32 = 1;
    pub const TC_RECIRC_SHARING: u32 = 4;
    pub const DISPATCH_PER_CPU: u32 = 8;
}

const CMD_NEW: u8 = 1;
const CMD_DEL: u8 = 2;
const CMD_GET: u8 = 3;
const CMD_SET: u8 = 4;
const PACKET_EXECUTE: u8 = 3;

const DP_NAME: u16 = 1;
const DP_UPCALL_PID: u16 = 2;
const DP_STATS: u16 = 3;
const DP_USER_FEATURES: u16 = 5;
const DP_PER_CPU_PIDS: u16 = 8;
const VPORT_PORT_NO: u16 = 1;
const VPORT_TYPE: u16 = 2;
const VPORT_NAME: u16 = 3;
const VPORT_OPTIONS: u16 = 4;
const VPORT_UPCALL_PID: u16 = 5;
const FLOW_KEY: u16 = 1;
const FLOW_ACTIONS: u16 = 2;
const FLOW_STATS: u16 = 3;
const FLOW_TCP_FLAGS: u16 = 4;
const FLOW_USED: u16 = 5;
const FLOW_MASK: u16 = 7;
const FLOW_UFID: u16 = 9;
const FLOW_UFID_FLAGS: u16 = 10;
/// Neither key nor mask nor actions are told back (OVS_UFID_F_OMIT_*).
const OMIT_ALL: u32 = 7;
const PACKET_PACKET: u16 = 1;
const PACKET_KEY: u16 = 2;
const PACKET_ACTIONS: u16 = 3;

/// What a port of a datapath is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VportKind {
    /// An interface that there is.
    Netdev,
    /// One that the datapath makes, for the host itself.
    Internal,
    /// VXLAN on this UDP port; packets say where to.
    Vxlan(u16),
    /// The same with group policy.
    VxlanGbp(u16),
    /// Geneve on this UDP port; packets say where to.
    Geneve(u16),
    /// GRE; packets say where to.
    Gre,
    /// GRE over IPv6.
    Ip6Gre,
    /// Another.
    Other(u32),
}

impl VportKind {
    /// Whether it is of a tunnel.
    pub fn is_tunnel(&self) -> bool {
        !matches!(self, VportKind::Netdev | VportKind::Internal | VportKind::Other(_))
    }

    fn number(&self) -> u32 {
        match self {
            VportKind::Netdev => 1,
            VportKind::Internal => 2,
            VportKind::Gre => 3,
            VportKind::Ip6Gre => 109,
            VportKind::Vxlan(_) | VportKind::VxlanGbp(_) => 4,
            VportKind::Geneve(_) => 5,
            VportKind::Other(n) => *n,
        }
    }
}

/// A port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vport {
    /// Number in the datapath.
    pub port: PortId,
    /// Interface.
    pub name: String,
    /// What it is.
    pub kind: VportKind,
}

/// Counters of a flow, and its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KernelFlow {
    /// The record; `None` for a flow that was put without our name.
    pub id: Option<FlowId>,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Milliseconds of the host's monotonic clock at which it last saw a packet; 0 when it saw none.
    pub used_ms: u64,
    /// TCP flags seen, ored.
    pub tcp_flags: u8,
}

/// Counters of a datapath.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KernelStats {
    /// Packets that a flow knew.
    pub hits: u64,
    /// Packets that none knew.
    pub misses: u64,
    /// Of these, packets that could not be told.
    pub lost: u64,
    /// Flows.
    pub flows: u64,
}

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A datapath of the kernel.
pub struct KernelDatapath<T> {
    link: T,
    families: Families,
    /// Number of the datapath: its local interface's.
    number: u32,
    seq: u32,
    /// What was said that we can do.
    features: u32,
    /// The last dump was.
    interrupted: bool,
}

/// What we can do with every kernel.
const USUAL: u32 = features::UNALIGNED | features::DISPATCH_PER_CPU;

/// What an answer is for.
#[derive(Clone, Copy)]
struct Ask {
    what: &'static str,
    family: u16,
    cmd: u8,
    version: u8,
    flags: u16,
}

impl<T: Transport> KernelDatapath<T> {
    /// Opens the datapath called `name`, which is made if there is none; its local interface has that name.
    ///
    /// # Errors
    /// [`KdpError`]: without openvswitch.ko there is no such family.
    pub fn open(mut link: T, name: &str) -> Result<Self, KdpError> {
        let families = Families::resolve(&mut link)?;
        let mut d =
            KernelDatapath { link, families, number: 0, seq: 100, features: USUAL, interrupted: false };
        let make = |w: &mut Writer| {
            w.text(DP_NAME, name);
            w.u32(DP_UPCALL_PID, 0);
            w.u32(DP_USER_FEATURES, USUAL);
        };
        let ask = d.ask(CMD_NEW, "datapath", d.families.datapath, 2);
        let made = match d.request(ask, make) {
            Err(KdpError::Refused { errno, .. }) if errno == nix::libc::EEXIST => {
                let get = d.ask(CMD_GET, "datapath", d.families.datapath, 2);
                d.request(get, |w| w.text(DP_NAME, name))?
            }
            other => other?,
        };
        let told = made.first().ok_or(CodecError::Missing("datapath"))?;
        d.number = told.number;
        let set = d.ask(CMD_SET, "datapath", d.families.datapath, 2);
        d.request(set, |w| w.u32(DP_USER_FEATURES, USUAL))?;
        Ok(d)
    }

    fn ask(&self, cmd: u8, what: &'static str, family: u16, version: u8) -> Ask {
        Ask { what, family, cmd, version, flags: flag::REQUEST | flag::ACK | flag::ECHO }
    }

    /// The families' numbers, for sockets that receive.
    pub fn families(&self) -> Families {
        self.families
    }

    /// Has packets go on here where filters of TC let go of them; whether the kernel can.
    pub fn share_recirculation(&mut self) -> bool {
        let more = self.features | features::TC_RECIRC_SHARING;
        let set = self.ask(CMD_SET, "features", self.families.datapath, 2);
        let can = self.request(set, |w| w.u32(DP_USER_FEATURES, more)).is_ok();
        if can {
            self.features = more;
        }
        can
    }

    /// Names the sockets that hear of packets, one for each CPU, by their netlink ports.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn dispatch(&mut self, sockets: &[u32]) -> Result<(), KdpError> {
        let pids: Vec<u8> = sockets.iter().flat_map(|p| p.to_ne_bytes()).collect();
        let ask = self.ask(CMD_SET, "sockets", self.families.datapath, 2);
        let wanted = self.features;
        self.request(ask, |w| {
            w.u32(DP_USER_FEATURES, wanted);
            w.attr(DP_PER_CPU_PIDS, &pids);
        })?;
        Ok(())
    }

    /// Counters.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn stats(&mut self) -> Result<KernelStats, KdpError> {
        let ask = self.ask(CMD_GET, "datapath", self.families.datapath, 2);
        let told = self.request(ask, |_| {})?;
        let body = told.first().map(|t| t.attrs.as_slice()).unwrap_or_default();
        let b = find(body, DP_STATS)?.ok_or(CodecError::Missing("statistics"))?;
        let n = |i: usize| read_u64("statistics", b.get(i * 8..i * 8 + 8).unwrap_or_default());
        Ok(KernelStats { hits: n(0)?, misses: n(1)?, lost: n(2)?, flows: n(3)? })
    }

    /// Adds a port, numbered as asked or as the kernel likes.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn add_port(
        &mut self,
        name: &str,
        kind: &VportKind,
        number: Option<PortId>,
    ) -> Result<PortId, KdpError> {
        let ask = self.ask(CMD_NEW, "port", self.families.vport, 1);
        let told = self.request(ask, |w| {
            w.text(VPORT_NAME, name);
            w.u32(VPORT_TYPE, kind.number());
            if let Some(n) = number {
                w.u32(VPORT_PORT_NO, n.0);
            }
            w.u32(VPORT_UPCALL_PID, 0);
            if let VportKind::Vxlan(udp) | VportKind::VxlanGbp(udp) | VportKind::Geneve(udp) = kind {
                let n = w.nest(VPORT_OPTIONS | NESTED);
                w.u16(1, *udp);
                if let VportKind::VxlanGbp(_) = kind {
                    let x = w.nest(2 | NESTED);
                    w.attr(1, &[]);
                    w.end(x);
                }
                w.end(n);
            }
        })?;
        let body = told.first().map(|t| t.attrs.as_slice()).unwrap_or_default();
        Ok(read_port(body)?.port)
    }

    /// Takes a port away.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn remove_port(&mut self, port: PortId) -> Result<(), KdpError> {
        let ask = self.ask(CMD_DEL, "port", self.families.vport, 1);
        self.request(ask, |w| w.u32(VPORT_PORT_NO, port.0)).map(drop)
    }

    /// The ports.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn ports(&mut self) -> Result<Vec<Vport>, KdpError> {
        let told = self.dump(CMD_GET, "ports", self.families.vport, 1, |_| {})?;
        told.iter().map(|t| read_port(&t.attrs)).collect()
    }

    /// Puts a flow, or changes what it does. `options` are those of the packets' tunnel, as a header has them: the kernel matches
    /// them where they are.
    ///
    /// # Errors
    /// [`KdpError::Unsupported`] for what this datapath does not match or do; others.
    pub fn put(
        &mut self,
        id: FlowId,
        (m, options): (&PacketMatch, &[u8]),
        actions: &[Action],
        userdata: Userdata<'_>,
    ) -> Result<(), KdpError> {
        self.put_with(id, (m, options), |w| actions::put_actions(w, actions, m, userdata))
    }

    /// Puts a flow, or changes what it does: its packets are handed over with `userdata`.
    ///
    /// # Errors
    /// [`KdpError::Unsupported`] for what this datapath does not match; others.
    pub fn put_handing_over(
        &mut self,
        id: FlowId,
        (m, options): (&PacketMatch, &[u8]),
        userdata: &[u8],
    ) -> Result<(), KdpError> {
        self.put_with(id, (m, options), |w| {
            actions::put_hand_over(w, userdata);
            Ok(())
        })
    }

    fn put_with(
        &mut self,
        id: FlowId,
        (m, options): (&PacketMatch, &[u8]),
        put: impl FnOnce(&mut Writer) -> Result<(), KdpError>,
    ) -> Result<(), KdpError> {
        let mut body = Writer::new();
        key::put_match(&mut body, m, options, FLOW_KEY, FLOW_MASK)?;
        let n = body.nest(FLOW_ACTIONS | NESTED);
        put(&mut body)?;
        body.end(n);
        body.attr(FLOW_UFID, &ufid(id));
        let ask = Ask {
            flags: flag::REQUEST | flag::ACK | flag::CREATE,
            ..self.ask(CMD_NEW, "flow", self.families.flow, 1)
        };
        self.request(ask, |w| w.raw(body.bytes())).map(drop)
    }

    /// Removes a flow; its last counters.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn remove(&mut self, id: FlowId) -> Result<KernelFlow, KdpError> {
        let ask = self.ask(CMD_DEL, "flow", self.families.flow, 1);
        let told = self.request(ask, |w| {
            w.attr(FLOW_UFID, &ufid(id));
            w.u32(FLOW_UFID_FLAGS, OMIT_ALL);
        })?;
        let none = KernelFlow { id: Some(id), ..KernelFlow::default() };
        told.first().map_or(Ok(none), |t| read_flow(&t.attrs))
    }

    /// Removes every flow.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn flush(&mut self) -> Result<(), KdpError> {
        let ask = self.ask(CMD_DEL, "flows", self.families.flow, 1);
        self.request(ask, |_| {}).map(drop)
    }

    /// Every flow's counters.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn flows(&mut self) -> Result<Vec<KernelFlow>, KdpError> {
        let told =
            self.dump(CMD_GET, "flows", self.families.flow, 1, |w| w.u32(FLOW_UFID_FLAGS, OMIT_ALL))?;
        told.iter().map(|t| read_flow(&t.attrs)).collect()
    }

    /// Whether the last dump was interrupted: what it did not tell of may be there all the same.
    pub fn was_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Executes actions on a packet with this key, which says by what port it has come in, how far it has come through the
    /// tables and what is known of it beside its bytes.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn execute(
        &mut self,
        packet: &[u8],
        key: &PacketKey,
        beside: &Beside,
        actions: &[Action],
        userdata: Userdata<'_>,
    ) -> Result<(), KdpError> {
        let mut body = Writer::new();
        body.attr(PACKET_PACKET, packet);
        key::put_metadata(&mut body, key, &beside.options, PACKET_KEY);
        beside.put(&mut body);
        let n = body.nest(PACKET_ACTIONS | NESTED);
        actions::put_actions(&mut body, actions, &key::of_packet(key), userdata)?;
        body.end(n);
        let ask = Ask {
            flags: flag::REQUEST | flag::ACK,
            ..self.ask(PACKET_EXECUTE, "packet", self.families.packet, 1)
        };
        self.request(ask, |w| w.raw(body.bytes())).map(drop)
    }

    /// The same datapath by another link.
    pub fn by<U: Transport>(&self, link: U) -> KernelDatapath<U> {
        KernelDatapath {
            link,
            families: self.families,
            number: self.number,
            seq: 100,
            features: self.features,
            interrupted: false,
        }
    }

    /// Takes the datapath away, with its ports and flows.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn destroy(&mut self) -> Result<(), KdpError> {
        let ask = self.ask(CMD_DEL, "datapath", self.families.datapath, 2);
        self.request(ask, |_| {}).map(drop)
    }

    fn request(&mut self, ask: Ask, put: impl FnOnce(&mut Writer)) -> Result<Vec<genl::Told>, KdpError> {
        self.seq = self.seq.wrapping_add(1);
        let mut w = Writer::new();
        genl::put(&mut w, (ask.family, ask.cmd, ask.version), ask.flags, self.seq, Some(self.number), put);
        let told = genl::exchange(&mut self.link, w.bytes(), self.seq, ask.what, PATIENCE)?;
        self.interrupted = told.iter().any(|t| t.flags & flag::DUMP_INTR != 0);
        Ok(told)
    }

    fn dump(
        &mut self,
        cmd: u8,
        what: &'static str,
        family: u16,
        version: u8,
        put: impl FnOnce(&mut Writer),
    ) -> Result<Vec<genl::Told>, KdpError> {
        let ask = Ask { flags: flag::REQUEST | flag::DUMP, ..self.ask(cmd, what, family, version) };
        self.request(ask, put)
    }
}

/// The name of a flow in the kernel.
fn ufid(id: FlowId) -> [u8; 16] {
    let mut b = *b"HoiS\0\0\0\0\0\0\0\0\0\0\0\0";
    b[8..].copy_from_slice(&id.0.to_be_bytes());
    b
}

fn read_port(b: &[u8]) -> Result<Vport, KdpError> {
    let (mut port, mut name, mut number, mut udp, mut gbp) = (None, String::new(), 0, 0, false);
    for a in attrs(b) {
        match a? {
            (VPORT_PORT_NO, v) => port = Some(PortId(read_u32("port number", v)?)),
            (VPORT_NAME, v) => name = read_text(v),
            (VPORT_TYPE, v) => number = read_u32("port type", v)?,
            (VPORT_OPTIONS, v) => {
                udp = find(v, 1)?.and_then(|v| v.try_into().ok()).map_or(0, u16::from_ne_bytes);
                gbp = find(v, 2)?.map_or(Ok(false), |x| find(x, 1).map(|g| g.is_some()))?;
            }
            _ => {}
        }
    }
    let kind = match number {
        1 => VportKind::Netdev,
        2 => VportKind::Internal,
        3 => VportKind::Gre,
        4 if gbp => VportKind::VxlanGbp(udp),
        4 => VportKind::Vxlan(udp),
        5 => VportKind::Geneve(udp),
        109 => VportKind::Ip6Gre,
        n => VportKind::Other(n),
    };
    Ok(Vport { port: port.ok_or(CodecError::Missing("port number"))?, name, kind })
}

fn read_flow(b: &[u8]) -> Result<KernelFlow, KdpError> {
    let mut f = KernelFlow::default();
    for a in attrs(b) {
        match a? {
            (FLOW_UFID, v) if v.len() == 16 && v.starts_with(b"HoiS") => {
                f.id = v[8..].try_into().ok().map(|b| FlowId(u64::from_be_bytes(b)));
            }
            (FLOW_STATS, v) if v.len() >= 16 => {
                f.packets = read_u64("flow packets", &v[..8])?;
                f.bytes = read_u64("flow bytes", &v[8..16])?;
            }
            (FLOW_TCP_FLAGS, v) => f.tcp_flags = v.first().copied().unwrap_or_default(),
            (FLOW_USED, v) => f.used_ms = read_u64("flow used", v)?,
            _ => {}
        }
    }
    Ok(f)
}
