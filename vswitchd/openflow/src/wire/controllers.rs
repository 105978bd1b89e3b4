//! Messages between controllers and about them: role status, forwarded requests, bundles, controller status
//! (OpenFlow 1.4.0 7.4.4, 7.4.6, 7.3.9; OpenFlow 1.5.1 7.4.8).

use super::cursor::{Put, Reader};
use super::messages::{inner_header, role};
use super::{Dialect, EncodeError, decode_as, encode_as, properties};
use crate::error::{BadRequest, BundleFailed, ErrorCode, Nicira};
use crate::message::{
    Body, BundleControl, BundleFlags, BundleStep, ControllerStatus, Message, Role, RoleReason,
};
use crate::number::Xid;

/// The property of a controller's address.
const URI: u16 = 0;

pub(super) fn read_role_status(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let role = role(r.u32()?)?;
    let reason = match r.u8()? {
        0 => RoleReason::MasterRequest,
        1 => RoleReason::Config,
        2 => RoleReason::Experimenter,
        _ => return Err(BadRequest::BadType.into()),
    };
    r.skip(3)?;
    let generation_id = r.u64()?;
    // Properties are somebody's own.
    r.rest();
    Ok(Body::RoleStatus { role, reason, generation_id })
}

pub(super) fn put_role_status(out: &mut Vec<u8>, role: Role, reason: RoleReason, generation_id: u64) {
    out.put_u32(role as u32);
    out.put_u8(reason as u8);
    out.put_zeros(3);
    out.put_u64(generation_id);
}

pub(super) fn read_request_forward(d: Dialect, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let frame = r.rest();
    let inner = decode_as(d, frame).map_err(|e| e.code)?;
    match inner.body {
        Body::GroupMod(_) | Body::MeterMod(_) => Ok(Body::RequestForward(Box::new(inner))),
        _ => Err(BadRequest::BadType.into()),
    }
}

/// Appends a message inside another.
pub(super) fn put_inner(out: &mut Vec<u8>, d: Dialect, inner: &Message) -> Result<(), EncodeError> {
    encode_as(d, inner, out)
}

pub(super) fn read_bundle_control(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let (bundle, step, flags) = (r.u32()?, r.u16()?, BundleFlags(r.u16()?));
    let step = *BundleStep::ALL.get(usize::from(step)).ok_or(BundleFailed::BadType)?;
    if flags.0 & !BundleFlags::KNOWN.0 != 0 {
        return Err(BundleFailed::BadFlags.into());
    }
    // Properties are somebody's own.
    r.rest();
    Ok(Body::BundleControl(BundleControl { bundle, step, flags }))
}

pub(super) fn put_bundle_control(out: &mut Vec<u8>, b: &BundleControl) {
    out.put_u32(b.bundle);
    out.put_u16(b.step as u16);
    out.put_u16(b.flags.0);
}

pub(super) fn read_bundle_add(d: Dialect, xid: Xid, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let bundle = r.u32()?;
    r.skip(2)?;
    let flags = BundleFlags(r.u16()?);
    if flags.0 & !BundleFlags::KNOWN.0 != 0 {
        return Err(BundleFailed::BadFlags.into());
    }
    let header = inner_header(r).ok_or(BundleFailed::MsgBadLen)?;
    if usize::from(header.len) < super::HEADER_BYTES || usize::from(header.len) > r.left() {
        return Err(BundleFailed::MsgBadLen.into());
    }
    if header.version != d.version as u8 {
        return Err(Nicira::BundleBadVersion.into());
    }
    if header.xid != xid {
        return Err(BundleFailed::MsgBadXid.into());
    }
    let frame = r.bytes(header.len.into())?;
    // What follows are properties, which are somebody's own.
    r.rest();
    let message = decode_as(d, frame).map_err(|e| e.code)?;
    match message.body {
        Body::FlowMod(_) | Body::GroupMod(_) | Body::PortMod(_) | Body::PacketOut(_) => {
            Ok(Body::BundleAdd { bundle, flags, message: Box::new(message) })
        }
        _ => Err(BundleFailed::MsgUnsup.into()),
    }
}

/// Where the message within a bundle-add message begins; `None` when there is nothing at all.
pub(super) fn bundled_at(frame: &[u8]) -> Option<usize> {
    // Header, and in ONF's extension of OpenFlow 1.3 the experimenter's; then bundle and flags.
    Some(if *frame.first()? >= 5 { 16 } else { 24 })
}

/// The encoded message within a bundle-add message, which has been decoded; `None` when there is none.
pub fn bundled(frame: &[u8]) -> Option<&[u8]> {
    let inner = frame.get(bundled_at(frame)?..)?;
    inner.get(..usize::from(super::Header::parse(inner)?.len))
}

pub(super) fn put_bundle_add(
    out: &mut Vec<u8>,
    d: Dialect,
    xid: Xid,
    bundle: u32,
    flags: BundleFlags,
    message: &Message,
) -> Result<(), EncodeError> {
    out.put_u32(bundle);
    out.put_zeros(2);
    out.put_u16(flags.0);
    let start = out.len();
    put_inner(out, d, message)?;
    // The inner message has the transaction of the outer one.
    out[start + 4..start + 8].copy_from_slice(&xid.to_be_bytes());
    Ok(())
}

pub(super) fn read_status(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let len = usize::from(r.u16()?);
    let mut e = r.sub(len.checked_sub(2).ok_or(r.short())?, r.short())?;
    let short_id = e.u16()?;
    let role = role(e.u32()?)?;
    let (reason, channel) = (e.u8()?, e.u8()?);
    e.skip(6)?;
    let mut uri = String::new();
    while let Some((kind, mut value)) = properties::next(&mut e)? {
        if kind == URI {
            uri = String::from_utf8_lossy(value.rest()).trim_end_matches('\0').to_owned();
        }
    }
    Ok(Body::ControllerStatus(Box::new(ControllerStatus { short_id, role, reason, up: channel == 0, uri })))
}

pub(super) fn put_status(out: &mut Vec<u8>, s: &ControllerStatus) {
    let start = out.len();
    out.put_u16(0);
    out.put_u16(s.short_id);
    out.put_u32(s.role as u32);
    out.put_u8(s.reason);
    out.put_u8(u8::from(!s.up));
    out.put_zeros(6);
    properties::put_plain(out, URI, |out| out.extend_from_slice(s.uri.as_bytes()));
    let len = out.len() - start;
    out.patch_u16(start, len);
}
