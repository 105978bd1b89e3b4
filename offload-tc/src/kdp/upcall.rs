//! Packets that the kernel's datapath hands over: those that no flow knows, and those that an action sends.

use std::io;
use std::time::Duration;

use flow::{PacketKey, PortId};

use super::genl::{GENL, OVS};
use super::key::read_metadata;
use super::{Families, KdpError};
use crate::message::messages;
use crate::transport::Transport;
use crate::wire::{Writer, attrs, read_u16, read_u64};

const PACKET_ACTION: u8 = 2;
const PACKET_PACKET: u16 = 1;
const PACKET_KEY: u16 = 2;
const PACKET_USERDATA: u16 = 4;
const PACKET_MRU: u16 = 8;
const PACKET_HASH: u16 = 11;

/// What goes to and fro with a packet and means nothing here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Beside {
    hash: Option<u64>,
    longest: Option<u16>,
    /// Options of the tunnel's header that the packet was taken out of, of which a key has those that are mapped.
    pub(super) options: Vec<u8>,
}

impl Beside {
    /// Options of the tunnel's header that the packet was taken out of.
    pub fn options(&self) -> &[u8] {
        &self.options
    }

    /// Writes it into a request to execute the packet.
    pub(super) fn put(&self, w: &mut Writer) {
        if let Some(hash) = self.hash {
            w.u64(PACKET_HASH, hash);
        }
        if let Some(longest) = self.longest {
            w.u16(PACKET_MRU, longest);
        }
    }
}

/// A packet that was handed over.
#[derive(Clone, PartialEq, Debug)]
pub struct Upcall {
    /// The whole frame.
    pub packet: Vec<u8>,
    /// Its key, with what the datapath knows beside the frame.
    pub key: PacketKey,
    /// What the action that sent it said; `None` when no flow knew it.
    pub userdata: Option<Vec<u8>>,
    /// What the datapath wants to hear again when the packet is executed: the packet's hash, the longest fragment it was put
    /// together from, the options of its tunnel.
    pub beside: Beside,
}

/// A socket that hears of packets.
#[derive(Debug)]
pub struct Upcalls<T> {
    link: T,
    families: Families,
    buf: Vec<u8>,
    /// Times that packets were lost because they did not fit the socket's buffer.
    pub overruns: u64,
    /// Messages that could not be read.
    pub unreadable: u64,
}

impl<T: Transport> Upcalls<T> {
    /// Hears by `link`, whose port was named to the datapath ([`super::KernelDatapath::dispatch`]).
    pub fn new(link: T, families: Families) -> Self {
        Upcalls { link, families, buf: Vec::new(), overruns: 0, unreadable: 0 }
    }

    /// Waits up to `wait` for packets, and appends them to `out`; how many.
    ///
    /// # Errors
    /// The operating system's, but for lost packets, which are counted.
    pub fn receive(&mut self, wait: Duration, out: &mut Vec<Upcall>) -> io::Result<usize> {
        let mut buf = std::mem::take(&mut self.buf);
        let got = self.link.receive(&mut buf, wait);
        let had = out.len();
        match got {
            Ok(true) => {
                for m in messages(&buf) {
                    match m.ok().filter(|m| m.kind == self.families.packet).map(|m| read(m.body)) {
                        Some(Ok(u)) => out.push(u),
                        _ => self.unreadable += 1,
                    }
                }
            }
            Ok(false) => {}
            Err(e) if e.raw_os_error() == Some(nix::libc::ENOBUFS) => self.overruns += 1,
            Err(e) => {
                self.buf = buf;
                return Err(e);
            }
        }
        self.buf = buf;
        Ok(out.len() - had)
    }
}

fn read(body: &[u8]) -> Result<Upcall, KdpError> {
    let (mut packet, mut metadata, mut userdata) = (&[][..], &[][..], None);
    let mut beside = Beside::default();
    let is_action = body.first() == Some(&PACKET_ACTION);
    for a in attrs(body.get(GENL + OVS..).unwrap_or_default()) {
        match a? {
            (PACKET_PACKET, v) => packet = v,
            (PACKET_KEY, v) => metadata = v,
            (PACKET_USERDATA, v) => userdata = Some(v.to_vec()),
            (PACKET_HASH, v) => beside.hash = Some(read_u64("hash", v)?),
            (PACKET_MRU, v) => beside.longest = Some(read_u16("longest fragment", v)?),
            _ => {}
        }
    }
    let mut key = PacketKey::ZERO;
    // A runt has the metadata alone.
    let _ = flow::parse::parse_into(packet, PortId(0), &mut key);
    beside.options = read_metadata(metadata, &mut key)?.to_vec();
    let userdata = userdata.filter(|_| is_action);
    Ok(Upcall { packet: packet.to_vec(), key, userdata, beside })
}
