//! What the device keeps in the words of its datasheet, in checkpoints: as the bytes that a driver would see.

use std::collections::VecDeque;
use std::sync::Arc;

use kernel::{Damage, Foreign, Reader, State, Writer};
use simnic_defs::entry::ActionSlot;
use simnic_defs::{
    BufDesc, CmdCpl, CmdDesc, CmdStatus, ConnSpec, EvictRecord, HeaderSpec, HwAction, MeterSpec, RxReason,
};
use zerocopy::{FromBytes, IntoBytes};

/// Codec of the datasheet's types.
pub(crate) struct Wire;

macro_rules! plain {
    ($($t:ty),*) => {$(
        impl Foreign<$t> for Wire {
            fn save(v: &$t, w: &mut Writer) {
                w.bytes(v.as_bytes());
            }
            fn load(r: &mut Reader<'_>) -> Result<$t, Damage> {
                <$t>::read_from_bytes(r.bytes(size_of::<$t>())?).map_err(|_| r.damage(stringify!($t)))
            }
        }
    )*};
}
plain!(CmdDesc, CmdCpl, BufDesc, ConnSpec, MeterSpec, HeaderSpec, EvictRecord);

macro_rules! numbered {
    ($($t:ty),*) => {$(
        impl Foreign<$t> for Wire {
            fn save(v: &$t, w: &mut Writer) {
                w.bytes(&[*v as u8]);
            }
            fn load(r: &mut Reader<'_>) -> Result<$t, Damage> {
                u8::load(r)?.try_into().map_err(|_| r.damage(stringify!($t)))
            }
        }
    )*};
}
numbered!(CmdStatus, RxReason);

impl Foreign<HwAction> for Wire {
    fn save(v: &HwAction, w: &mut Writer) {
        w.bytes(v.encode().as_bytes());
    }
    fn load(r: &mut Reader<'_>) -> Result<HwAction, Damage> {
        let slot = ActionSlot::read_from_bytes(r.bytes(size_of::<ActionSlot>())?);
        slot.ok().and_then(|s| HwAction::decode(&s).ok()).ok_or(r.damage("action"))
    }
}

impl<T> Foreign<Option<T>> for Wire
where
    Wire: Foreign<T>,
{
    fn save(v: &Option<T>, w: &mut Writer) {
        v.is_some().save(w);
        if let Some(x) = v {
            <Wire as Foreign<T>>::save(x, w);
        }
    }
    fn load(r: &mut Reader<'_>) -> Result<Option<T>, Damage> {
        Ok(if bool::load(r)? { Some(<Wire as Foreign<T>>::load(r)?) } else { None })
    }
}

impl<T> Foreign<VecDeque<T>> for Wire
where
    Wire: Foreign<T>,
{
    fn save(v: &VecDeque<T>, w: &mut Writer) {
        (v.len() as u64).save(w);
        v.iter().for_each(|x| <Wire as Foreign<T>>::save(x, w));
    }
    fn load(r: &mut Reader<'_>) -> Result<VecDeque<T>, Damage> {
        let n = r.count()?;
        (0..n).map(|_| <Wire as Foreign<T>>::load(r)).collect()
    }
}

impl Foreign<Box<[HwAction]>> for Wire {
    fn save(v: &Box<[HwAction]>, w: &mut Writer) {
        (v.len() as u64).save(w);
        v.iter().for_each(|x| Wire::save(x, w));
    }
    fn load(r: &mut Reader<'_>) -> Result<Box<[HwAction]>, Damage> {
        let n = r.count()?;
        (0..n).map(|_| <Wire as Foreign<HwAction>>::load(r)).collect()
    }
}

impl Foreign<Box<[(u16, Arc<HeaderSpec>)]>> for Wire {
    fn save(v: &Box<[(u16, Arc<HeaderSpec>)]>, w: &mut Writer) {
        (v.len() as u64).save(w);
        for (number, header) in v {
            number.save(w);
            Wire::save(&**header, w);
        }
    }
    fn load(r: &mut Reader<'_>) -> Result<Box<[(u16, Arc<HeaderSpec>)]>, Damage> {
        let n = r.count()?;
        (0..n).map(|_| Ok((u16::load(r)?, Arc::new(Wire::load(r)?)))).collect()
    }
}

impl Foreign<Vec<(Option<Arc<HeaderSpec>>, u32)>> for Wire {
    fn save(v: &Vec<(Option<Arc<HeaderSpec>>, u32)>, w: &mut Writer) {
        (v.len() as u64).save(w);
        for (header, users) in v {
            header.is_some().save(w);
            if let Some(h) = header {
                Wire::save(&**h, w);
            }
            users.save(w);
        }
    }
    fn load(r: &mut Reader<'_>) -> Result<Vec<(Option<Arc<HeaderSpec>>, u32)>, Damage> {
        let n = r.count()?;
        let one = |r: &mut Reader<'_>| {
            let header = if bool::load(r)? { Some(Arc::new(Wire::load(r)?)) } else { None };
            Ok((header, u32::load(r)?))
        };
        (0..n).map(|_| one(r)).collect()
    }
}
