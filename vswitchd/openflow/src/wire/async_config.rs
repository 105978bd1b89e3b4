//! Asynchronous configuration on the wire (OpenFlow 1.3.5 7.3.10).

use super::cursor::{Put, Reader};
use crate::error::ErrorCode;
use crate::message::AsyncConfig;

pub(super) fn read(r: &mut Reader<'_>) -> Result<AsyncConfig, ErrorCode> {
    Ok(AsyncConfig {
        packet_in: [r.u32()?, r.u32()?],
        port_status: [r.u32()?, r.u32()?],
        flow_removed: [r.u32()?, r.u32()?],
    })
}

pub(super) fn put(out: &mut Vec<u8>, a: &AsyncConfig) {
    for m in a.packet_in.iter().chain(&a.port_status).chain(&a.flow_removed) {
        out.put_u32(*m);
    }
}
