//! Interfaces as rtnetlink tells of them (`linux/if_link.h`): names, who belongs to whom, and which port of which switch a
//! representor stands for.

use std::io;
use std::time::{Duration, Instant};

use crate::ack::Ack;
use crate::error::CodecError;
use crate::message::{flag, kind, messages};
use crate::transport::Transport;
use crate::wire::{Writer, attrs, find, read_text, read_u8, read_u32, word};

/// Bytes of `struct ifinfomsg`.
const IFINFO: usize = 16;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_CARRIER: u16 = 33;
const IFLA_PHYS_SWITCH_ID: u16 = 36;
const IFLA_PHYS_PORT_NAME: u16 = 38;
/// How long the kernel's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Times that a dump that was interrupted is begun again.
const TRIES: usize = 4;
/// The kernel's own limit (MAX_PHYS_ITEM_ID_LEN).
const MAX_SWITCH_ID: usize = 32;

/// An interface.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinkInfo {
    /// Number.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind of software interface (`bond`, `vxlan`), empty for hardware.
    pub kind: String,
    /// Interface that it belongs to: a bond, a bridge.
    pub master: Option<u32>,
    /// Whether it is to be used.
    pub up: bool,
    /// Whether there is a carrier.
    pub carrier: bool,
    /// The switch whose port it stands for, empty when it stands for none. Only ports of one switch forward to each other in
    /// hardware.
    pub switch_id: Vec<u8>,
    /// The switch's name of the port (`p0`, `pf0vf3`), empty when it has none.
    pub port_name: String,
}

impl LinkInfo {
    /// Whether it is what others form together.
    pub fn is_bond(&self) -> bool {
        matches!(self.kind.as_str(), "bond" | "team")
    }

    /// Whether packets that leave by it need to be told where to.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.kind.as_str(), "vxlan" | "geneve" | "gretap" | "ip6gretap")
    }

    /// Whether it is a port that the kernel's own datapath made for the host: what the host sends by it is on its way out of the host's
    /// stack, and what is sent to the host by it has to come in there.
    pub fn is_internal(&self) -> bool {
        self.kind == "openvswitch"
    }

    /// Whether hardware cannot forward between the two: they are ports of different switches.
    pub fn is_apart_from(&self, other: &LinkInfo) -> bool {
        !self.switch_id.is_empty() && !other.switch_id.is_empty() && self.switch_id != other.switch_id
    }

    /// Reads a message's body (RTM_NEWLINK).
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn read(b: &[u8]) -> Result<LinkInfo, CodecError> {
        let what = "ifinfomsg";
        let flags = word(what, b, 2)?;
        let mut l = LinkInfo {
            index: word(what, b, 1)?,
            up: flags & IFF_UP != 0,
            carrier: flags & IFF_LOWER_UP != 0,
            ..LinkInfo::default()
        };
        let rest = b.get(IFINFO..).ok_or(CodecError::Length { what, wanted: IFINFO, found: b.len() })?;
        for a in attrs(rest) {
            match a? {
                (IFLA_IFNAME, v) => l.name = read_text(v),
                (IFLA_MASTER, v) => l.master = Some(read_u32("master", v)?).filter(|m| *m != 0),
                (IFLA_CARRIER, v) => l.carrier = read_u8("carrier", v)? != 0,
                (IFLA_LINKINFO, v) => l.kind = find(v, IFLA_INFO_KIND)?.map(read_text).unwrap_or_default(),
                (IFLA_PHYS_SWITCH_ID, v) => {
                    l.switch_id = v.get(..v.len().min(MAX_SWITCH_ID)).unwrap_or_default().to_vec();
                }
                (IFLA_PHYS_PORT_NAME, v) => l.port_name = read_text(v),
                _ => {}
            }
        }
        Ok(l)
    }

    /// Writes it as the kernel tells it.
    pub(crate) fn put(&self, w: &mut Writer) {
        let flags = if self.up { IFF_UP } else { 0 } | if self.carrier { IFF_LOWER_UP } else { 0 };
        for v in [0, self.index, flags, 0] {
            w.raw(&v.to_ne_bytes());
        }
        w.text(IFLA_IFNAME, &self.name);
        if let Some(m) = self.master {
            w.u32(IFLA_MASTER, m);
        }
        w.u8(IFLA_CARRIER, self.carrier.into());
        if !self.kind.is_empty() {
            let n = w.nest(IFLA_LINKINFO);
            w.text(IFLA_INFO_KIND, &self.kind);
            w.end(n);
        }
        if !self.switch_id.is_empty() {
            w.attr(IFLA_PHYS_SWITCH_ID, &self.switch_id);
        }
        if !self.port_name.is_empty() {
            w.text(IFLA_PHYS_PORT_NAME, &self.port_name);
        }
    }
}

/// Asks for every interface.
pub fn dump_links(w: &mut Writer, seq: u32) {
    let m = w.message(kind::GET_LINK, flag::REQUEST | flag::DUMP, seq);
    w.raw(&[0; IFINFO]);
    w.end_message(m);
}

/// Every interface there is. For a link that is not in use otherwise: answers to other requests are thrown away.
///
/// # Errors
/// The operating system's, a timeout, or that the interfaces changed each time while they were told.
pub fn links<T: Transport + ?Sized>(link: &mut T) -> io::Result<Vec<LinkInfo>> {
    // Apart from the numbers that a provider's requests have.
    for seq in (1 << 30..).take(TRIES) {
        if let Some(all) = dump_once(link, seq)? {
            return Ok(all);
        }
    }
    Err(io::Error::other("the interfaces change all the time"))
}

fn dump_once<T: Transport + ?Sized>(link: &mut T, seq: u32) -> io::Result<Option<Vec<LinkInfo>>> {
    let mut w = Writer::new();
    dump_links(&mut w, seq);
    link.send(w.bytes())?;
    let (mut buf, mut all, mut clean) = (Vec::new(), Vec::new(), true);
    let began = Instant::now();
    while began.elapsed() < PATIENCE && link.receive(&mut buf, PATIENCE)? {
        for m in messages(&buf).flatten().filter(|m| m.seq == seq) {
            clean &= m.flags & flag::DUMP_INTR == 0;
            match m.kind {
                kind::NEW_LINK => all.extend(LinkInfo::read(m.body).ok()),
                kind::DONE => return Ok(clean.then_some(all)),
                kind::ERROR => {
                    let ack = Ack::read(m.flags, m.body).unwrap_or_default();
                    return Err(io::Error::from_raw_os_error(ack.errno));
                }
                _ => {}
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_representor_is_comes_back() {
        let l = LinkInfo {
            index: 7,
            name: "enp1s0f0npf0vf3".into(),
            kind: String::new(),
            master: Some(12),
            up: true,
            carrier: true,
            switch_id: vec![0xa6, 0x16, 0x18, 0, 3, 0, 0x4f, 0x1c],
            port_name: "pf0vf3".into(),
        };
        let mut w = Writer::new();
        l.put(&mut w);
        assert_eq!(LinkInfo::read(w.bytes()), Ok(l.clone()));
        for n in 0..w.len() {
            // Cut anywhere it is an error or less, never a panic.
            let _ = LinkInfo::read(&w.bytes()[..n]);
        }
        let other = LinkInfo { switch_id: vec![1], ..l.clone() };
        assert!(l.is_apart_from(&other) && !l.is_apart_from(&LinkInfo::default()));
    }
}
