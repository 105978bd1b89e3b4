//! Connections that are handed over to the device (SPEC 6.9, 8.4), as shared objects.
//!
//! The device forwards packets of an established connection until it ends or is idle; then its packets are software's again, and
//! [`offload::ObjectStats::over`] says so. Commands for connections are waited for, as those of [`crate::readout`].

use std::collections::HashMap;
use std::time::Duration;

use device::DeviceBacking;
use flow::{FieldId, PacketKey};
use offload::{ObjectError, ObjectId, ObjectKind, ObjectStats};
use simnic_defs::cmd::AGE_NEVER;
use simnic_defs::object::ConnState;
use simnic_defs::{ConnRecord, ConnSpec, Opcode};
use zerocopy::{FromZeros, IntoBytes};

use crate::meters::{about, broken};
use crate::provider::SimnicProvider;

/// Which of the device's connections each is.
pub(crate) struct Connections {
    known: HashMap<u32, u32>,
    free: Vec<u32>,
    room: u32,
}

impl Connections {
    pub fn new(room: u32) -> Self {
        Connections { known: HashMap::new(), free: (0..room).rev().collect(), room }
    }

    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.known.keys().copied()
    }

    /// The device has lost them.
    pub fn clear(&mut self) {
        *self = Connections::new(self.room);
    }
}

/// What the device is told of the connection of a packet with this key, one of the direction that opened it; `None` for one that it cannot
/// take.
fn spec_of(k: &PacketKey, timeout: Duration) -> Option<ConnSpec> {
    let mut c = ConnSpec::new_zeroed();
    let proto = k.get64(FieldId::NwProto) as u8;
    match k.get64(FieldId::EthType) {
        0x0800 => {
            c.family = 4;
            c.src[12..].copy_from_slice(&(k.get64(FieldId::NwSrc) as u32).to_be_bytes());
            c.dst[12..].copy_from_slice(&(k.get64(FieldId::NwDst) as u32).to_be_bytes());
        }
        0x86dd => {
            c.family = 6;
            c.src = k.get(FieldId::Ipv6Src).to_be_bytes();
            c.dst = k.get(FieldId::Ipv6Dst).to_be_bytes();
        }
        _ => return None,
    }
    // What a label says, the device does not know.
    if !matches!(proto, 6 | 17) || k.get(FieldId::CtLabel) != 0 {
        return None;
    }
    c.proto = proto;
    c.sport = (k.get64(FieldId::TpSrc) as u16).to_be_bytes();
    c.dport = (k.get64(FieldId::TpDst) as u16).to_be_bytes();
    c.zone = (k.get64(FieldId::CtZone) as u16).into();
    c.mark = (k.get64(FieldId::CtMark) as u32).into();
    c.timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).max(1).into();
    Some(c)
}

impl<B: DeviceBacking> SimnicProvider<B> {
    pub(crate) fn put_connection(
        &mut self,
        id: ObjectId,
        key: &PacketKey,
        timeout: Duration,
    ) -> Result<(), ObjectError> {
        if self.connections.room == 0 {
            return Err(ObjectError::Unsupported(id.kind));
        }
        let spec = spec_of(key, timeout)
            .ok_or_else(|| ObjectError::Device("the device takes TCP and UDP without labels".into()))?;
        let known = self.connections.known.get(&id.number).copied();
        let at = known.or_else(|| self.connections.free.last().copied()).ok_or(ObjectError::Full(id.kind))?;
        self.execute_with(about(Opcode::ConnSet, at), spec.as_bytes()).map_err(broken)?;
        if known.is_none() {
            self.connections.free.pop();
            self.connections.known.insert(id.number, at);
        }
        Ok(())
    }

    fn connection(&self, id: ObjectId) -> Result<u32, ObjectError> {
        self.connections.known.get(&id.number).copied().ok_or(ObjectError::Missing(id))
    }

    pub(crate) fn remove_connection(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        let at = self.connection(id)?;
        // Nothing is counted between the two: what goes round then is software's.
        let last = self.connection_stats(id)?;
        self.execute(about(Opcode::ConnClear, at)).map_err(broken)?;
        self.connections.known.remove(&id.number);
        self.connections.free.push(at);
        Ok(last)
    }

    pub(crate) fn connection_stats(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        let at = self.connection(id)?;
        let b = self.read_object::<{ ConnRecord::BYTES }>(Opcode::ConnRead, at)?;
        let r = ConnRecord::decode(&b).map_err(|e| ObjectError::Device(e.to_string()))?;
        let state = ConnState::try_from(r.state).map_err(|e| ObjectError::Device(e.to_string()))?;
        let age = r.age_ns.get();
        Ok(ObjectStats {
            packets: r.packets[0].get().saturating_add(r.packets[1].get()),
            bytes: r.bytes[0].get().saturating_add(r.bytes[1].get()),
            idle: if age == AGE_NEVER { Duration::ZERO } else { Duration::from_nanos(age) },
            over: state != ConnState::Established,
            ..ObjectStats::default()
        })
    }

    pub(crate) fn connection_ids(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.connections.numbers().map(|number| ObjectId { kind: ObjectKind::Connection, number })
    }
}
