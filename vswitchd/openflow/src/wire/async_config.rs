//! Asynchronous configuration on the wire (OpenFlow 1.3.5 7.3.10, OpenFlow 1.4.0 7.3.10).

use super::cursor::{Put, Reader};
use super::properties;
use crate::error::ErrorCode;
use crate::message::AsyncConfig;
use crate::version::Version;

/// Reasons of packet-ins before OpenFlow 1.4, which tells apart what "action" was earlier.
const EARLY_REASONS: u32 = 0b111;
const ACTION: u32 = 0b10;
const ACTIONS14: u32 = 0b11_1000;

/// Nothing at all; which of it is given is said apart.
const SILENT: AsyncConfig = AsyncConfig {
    packet_in: [0; 2],
    port_status: [0; 2],
    flow_removed: [0; 2],
    role_status: [0; 2],
    table_status: [0; 2],
    request_forward: [0; 2],
    given: 0,
};

pub(super) fn read(v: Version, r: &mut Reader<'_>) -> Result<AsyncConfig, ErrorCode> {
    if v < Version::V14 {
        let packet_in = |m: u32| m & EARLY_REASONS | if m & ACTION != 0 { ACTIONS14 } else { 0 };
        return Ok(AsyncConfig {
            packet_in: [packet_in(r.u32()?), packet_in(r.u32()?)],
            port_status: [r.u32()?, r.u32()?],
            flow_removed: [r.u32()?, r.u32()?],
            // Those that the message has.
            given: 0b11_1111,
            ..SILENT
        });
    }
    read_properties(r)
}

/// Reads the form of OpenFlow 1.4, which Nicira's second set message has in any version.
pub(super) fn read_properties(r: &mut Reader<'_>) -> Result<AsyncConfig, ErrorCode> {
    let mut a = SILENT;
    while let Some((kind, value)) = properties::next(r)? {
        let mask = properties::only_u32(value);
        match a.masks().get_mut(usize::from(kind / 2)) {
            // Slaves come first in numbers and second in the model.
            Some(pair) => {
                pair[usize::from(kind % 2 == 0)] = mask?;
                a.given |= 1 << kind;
            }
            None => return Err(properties::unknown(kind)),
        }
    }
    Ok(a)
}

pub(super) fn put(out: &mut Vec<u8>, v: Version, a: &AsyncConfig) {
    if v < Version::V14 {
        let packet_in = a.packet_in.map(|m| m & EARLY_REASONS);
        for m in packet_in.iter().chain(&a.port_status).chain(&a.flow_removed) {
            out.put_u32(*m);
        }
        return;
    }
    let (mut a, given) = (*a, a.given);
    for (i, pair) in a.masks().into_iter().enumerate() {
        let masks = [(2 * i as u16, pair[1]), (2 * i as u16 + 1, pair[0])];
        for (kind, mask) in masks.into_iter().filter(|(kind, _)| given & 1 << kind != 0) {
            properties::put_plain(out, kind, |out| out.put_u32(mask));
        }
    }
}
