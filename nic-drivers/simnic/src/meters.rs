//! Meters of the device as shared objects (SPEC 8.1); connections are in [`crate::connections`].
//!
//! Commands for them are waited for, as those of [`crate::readout`].

use std::time::Duration;

use device::DeviceBacking;
use offload::ownership::objects_of;
use offload::{ObjectError, ObjectId, ObjectKind, ObjectSpec, ObjectStats, OffloadError, SharedObjects};
use simnic_defs::cmd::AGE_NEVER;
use simnic_defs::{CmdDesc, MeterRecord, MeterSpec, Opcode};
use zerocopy::IntoBytes;

use crate::provider::SimnicProvider;

/// Which meter each of the device's is.
pub(crate) struct Meters(Vec<Option<u32>>);

impl Meters {
    pub fn new(n: u16) -> Self {
        Meters(vec![None; n.into()])
    }

    /// By the device's numbers.
    pub fn numbers(&self) -> &[Option<u32>] {
        &self.0
    }

    fn find(&self, number: Option<u32>) -> Option<usize> {
        self.0.iter().position(|m| *m == number)
    }

    /// The device has lost them.
    pub fn clear(&mut self) {
        self.0.fill(None);
    }
}

pub(crate) fn broken(e: OffloadError) -> ObjectError {
    ObjectError::Device(e.to_string())
}

/// A command about an object of the device.
pub(crate) fn about(op: Opcode, at: u32) -> CmdDesc {
    let mut d = CmdDesc::new(op, 0);
    d.entry = at.into();
    d
}

impl<B: DeviceBacking> SimnicProvider<B> {
    fn meter(&self, id: ObjectId) -> Result<usize, ObjectError> {
        let known = (id.kind == ObjectKind::Meter).then(|| self.meters.find(Some(id.number))).flatten();
        known.ok_or(ObjectError::Missing(id))
    }

    /// The record that `op` reads of an object of the device.
    pub(crate) fn read_object<const N: usize>(
        &mut self,
        op: Opcode,
        at: u32,
    ) -> Result<[u8; N], ObjectError> {
        let mut d = about(op, at);
        self.cmd.with_record_area(&mut d, N, 1);
        self.execute(d).map_err(broken)?;
        let mut b = [0; N];
        self.cmd.read_record(0, &mut b);
        Ok(b)
    }

    /// Entries that use `id`, as far as the driver has heard of them.
    fn users(&self, id: ObjectId) -> usize {
        self.entries.iter().filter(|e| objects_of(&e.rule.actions).contains(&id)).count()
    }
}

impl<B: DeviceBacking> SharedObjects for SimnicProvider<B> {
    fn put(&mut self, id: ObjectId, spec: &ObjectSpec) -> Result<(), ObjectError> {
        if let (ObjectKind::Connection, ObjectSpec::Connection { key, timeout }) = (id.kind, spec) {
            return self.put_connection(id, key, *timeout);
        }
        if id.kind != ObjectKind::Meter || self.meters.numbers().is_empty() {
            return Err(ObjectError::Unsupported(id.kind));
        }
        let ObjectSpec::Meter { rate_pps, rate_bps, burst } = *spec else {
            return Err(ObjectError::Device(format!("a {} is not a {}", spec.kind(), id.kind)));
        };
        let known = self.meters.find(Some(id.number));
        let meter = known.or_else(|| self.meters.find(None)).ok_or(ObjectError::Full(id.kind))?;
        let payload = MeterSpec {
            rate_pps: rate_pps.into(),
            rate_bps: rate_bps.into(),
            burst: burst.max(1).into(),
            reserved: 0.into(),
        };
        self.execute_with(about(Opcode::MeterSet, meter as u32), payload.as_bytes()).map_err(broken)?;
        self.meters.0[meter] = Some(id.number);
        Ok(())
    }

    fn remove(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        if id.kind == ObjectKind::Connection {
            return self.remove_connection(id);
        }
        let meter = self.meter(id)?;
        let users = self.users(id);
        if users > 0 {
            return Err(ObjectError::InUse(id, users));
        }
        let last = self.stats(id)?;
        self.execute(about(Opcode::MeterClear, meter as u32)).map_err(broken)?;
        self.meters.0[meter] = None;
        Ok(last)
    }

    fn stats(&mut self, id: ObjectId) -> Result<ObjectStats, ObjectError> {
        if id.kind == ObjectKind::Connection {
            return self.connection_stats(id);
        }
        let meter = self.meter(id)?;
        let b = self.read_object::<{ MeterRecord::BYTES }>(Opcode::MeterRead, meter as u32)?;
        let r = MeterRecord::decode(&b).map_err(|e| ObjectError::Device(e.to_string()))?;
        let age = r.age_ns.get();
        Ok(ObjectStats {
            packets: r.packets.get(),
            bytes: r.bytes.get(),
            dropped_packets: r.dropped_packets.get(),
            dropped_bytes: r.dropped_bytes.get(),
            over: false,
            idle: if age == AGE_NEVER { Duration::ZERO } else { Duration::from_nanos(age) },
        })
    }

    fn list(&self) -> Vec<ObjectId> {
        let numbers = self.meters.numbers().iter().flatten();
        let meters = numbers.map(|number| ObjectId { kind: ObjectKind::Meter, number: *number });
        meters.chain(self.connection_ids()).collect()
    }
}
