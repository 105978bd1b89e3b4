//! Generic netlink (`linux/genetlink.h`): families by name, messages with the datapath's number in front.

use std::time::{Duration, Instant};

use super::KdpError;
use crate::ack::Ack;
use crate::error::CodecError;
use crate::message::{Message, flag, kind, messages};
use crate::transport::Transport;
use crate::wire::{Writer, find, read_u16, read_u32};

/// Family of the controller, which knows the others.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Bytes of `struct genlmsghdr`, and of `struct ovs_header` behind it.
pub(super) const GENL: usize = 4;
pub(super) const OVS: usize = 4;

/// Numbers of the datapath's families.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Families {
    pub datapath: u16,
    pub vport: u16,
    pub flow: u16,
    pub packet: u16,
}

/// A message that was told.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Number of the datapath.
    pub number: u32,
    /// Of the message.
    pub flags: u16,
    pub attrs: Vec<u8>,
}

impl Families {
    /// Asks the kernel.
    ///
    /// # Errors
    /// [`KdpError::Refused`] when there is none: openvswitch.ko is not loaded.
    pub fn resolve<T: Transport>(link: &mut T) -> Result<Families, KdpError> {
        let mut one = |name, seq| number_of(link, name, seq);
        Ok(Families {
            datapath: one("ovs_datapath", 1)?,
            vport: one("ovs_vport", 2)?,
            flow: one("ovs_flow", 3)?,
            packet: one("ovs_packet", 4)?,
        })
    }
}

/// The number of the family called `name`.
///
/// # Errors
/// [`KdpError::Refused`] when there is none.
pub(super) fn number_of<T: Transport>(link: &mut T, name: &'static str, seq: u32) -> Result<u16, KdpError> {
    let mut w = Writer::new();
    let ask = (CONTROLLER, GET_FAMILY, 1);
    put(&mut w, ask, flag::REQUEST | flag::ACK, seq, None, |w| w.text(FAMILY_NAME, name));
    let told = exchange_at(link, w.bytes(), seq, name, Duration::from_secs(2), GENL)?;
    let id = told.first().and_then(|t| find(&t.attrs, FAMILY_ID).ok().flatten());
    Ok(read_u16("family", id.ok_or(CodecError::Missing("family"))?)?)
}

/// Writes a message of family, command and version; `number` is the datapath's.
pub(super) fn put(
    w: &mut Writer,
    (family, cmd, version): (u16, u8, u8),
    flags: u16,
    seq: u32,
    number: Option<u32>,
    body: impl FnOnce(&mut Writer),
) {
    let m = w.message(family, flags, seq);
    w.raw(&[cmd, version, 0, 0]);
    if let Some(n) = number {
        w.raw(&n.to_ne_bytes());
    }
    body(w);
    w.end_message(m);
}

/// Sends a request and takes in what is told until it is acknowledged or a dump has ended.
pub(super) fn exchange<T: Transport>(
    link: &mut T,
    request: &[u8],
    seq: u32,
    what: &'static str,
    patience: Duration,
) -> Result<Vec<Told>, KdpError> {
    exchange_at(link, request, seq, what, patience, GENL + OVS)
}

fn exchange_at<T: Transport>(
    link: &mut T,
    request: &[u8],
    seq: u32,
    what: &'static str,
    patience: Duration,
    head: usize,
) -> Result<Vec<Told>, KdpError> {
    let mut told = Vec::new();
    ask(link, request, seq, what, patience, &mut |m| {
        let number = m.body.get(GENL..GENL + OVS).map_or(Ok(0), |b| read_u32("datapath", b))?;
        let attrs = m.body.get(head..).unwrap_or_default().to_vec();
        told.push(Told { number, flags: m.flags, attrs });
        Ok(())
    })?;
    Ok(told)
}

/// Sends a request and hands on what is told until it is acknowledged or a dump has ended. Whether a dump was interrupted: it has
/// left things out, or told them twice.
pub(super) fn ask<T: Transport>(
    link: &mut T,
    request: &[u8],
    seq: u32,
    what: &'static str,
    patience: Duration,
    told: &mut dyn FnMut(&Message<'_>) -> Result<(), CodecError>,
) -> Result<bool, KdpError> {
    link.send(request)?;
    let (mut buf, mut interrupted) = (Vec::new(), false);
    let began = Instant::now();
    while let Some(left) = patience.checked_sub(began.elapsed()) {
        if !link.receive(&mut buf, left)? {
            break;
        }
        for m in messages(&buf).flatten().filter(|m| m.seq == seq) {
            interrupted |= m.flags & flag::DUMP_INTR != 0;
            let ack = match m.kind {
                kind::DONE => Ack::read_done(m.flags, m.body)?,
                kind::ERROR => Ack::read(m.flags, m.body)?,
                _ => {
                    told(&m)?;
                    continue;
                }
            };
            if ack.errno == 0 {
                return Ok(interrupted);
            }
            return Err(KdpError::Refused { what, errno: ack.errno, text: ack.words().to_owned() });
        }
    }
    Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
}
