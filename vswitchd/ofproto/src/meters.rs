//! The meter table (OpenFlow 1.3.5 5.7, 6.5): numbers of a bridge, and the datapath's meters behind them.
//!
//! A meter of a bridge is one of the datapath, which all bridges share: numbers differ, and are given out by
//! [`MeterIds`]. A meter that is deleted stays in the datapath until no record passes packets through it any more; until then
//! nobody else gets its number.
//!
//! Two meters are virtual: they are not for flows to name, but meter every packet to controllers, or every packet that the
//! datapath hands to the switch. There is no slow path here that packets take, so the second meters nothing; it can be
//! configured all the same, as in Open vSwitch.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use clock::Instant;
use datapath_api::{Datapath, DatapathError, MeterBandKind, MeterUnit};
use flow::MeterId;
use openflow::error::MeterModFailed;
use openflow::message::FlowRemovedReason;
use openflow::meter::{
    self as of, BandCounter, MeterBand, MeterConfig, MeterFeatures, MeterFlags, MeterMod, MeterModCommand,
    MeterStats,
};
use openflow::{Action, ErrorCode, Instructions, MeterNo};
use parking_lot::Mutex;

use crate::bridge::Bridge;
use crate::changes::Changes;
use crate::record::offload_meter;
use crate::rule::Rule;
use crate::switch::Switch;
use crate::tables::Pipeline;

/// Bits of the band types that there are: drop and DSCP remark (OpenFlow 1.3.5 7.3.5.11).
const BAND_TYPES: u32 = 1 << 1 | 1 << 2;

/// A meter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meter {
    /// What the datapath knows it by.
    pub dp: MeterId,
    /// As the controller said.
    pub config: MeterConfig,
    /// When it was added.
    pub created: Instant,
}

impl Meter {
    /// Whether it changes packets.
    pub fn remarks(&self) -> bool {
        self.config.bands.iter().any(|b| matches!(b.kind, of::MeterBandKind::DscpRemark { .. }))
    }
}

/// Which of the datapath's meters are in use.
#[derive(Debug, Default)]
pub(crate) struct MeterIds(Mutex<BTreeSet<u32>>);

impl MeterIds {
    /// The least that is free; `None` when `most` are in use.
    fn take(&self, most: u32) -> Option<MeterId> {
        let mut used = self.0.lock();
        let id = (0..most).zip(used.iter().map(|u| Some(*u)).chain(std::iter::repeat(None)));
        let id = id.into_iter().find(|(i, u)| Some(*i) != *u).map(|(i, _)| i)?;
        used.insert(id);
        Some(MeterId(id))
    }

    fn give_back(&self, id: MeterId) {
        self.0.lock().remove(&id.0);
    }
}

/// Whether a rule's packets go through meter `no`.
fn uses(i: &Instructions, no: MeterNo) -> bool {
    i.meter == Some(no) || i.actions().any(|a| names(a) == Some(no))
}

/// The meter that an action names.
fn names(a: &Action) -> Option<MeterNo> {
    match a {
        Action::Meter(m) => Some(*m),
        Action::Controller { meter, .. } => *meter,
        _ => None,
    }
}

/// Every meter that instructions name is there.
///
/// # Errors
/// `OFPMMFC_INVALID_METER`.
pub(crate) fn check<'a>(
    p: &Pipeline,
    meter: Option<MeterNo>,
    actions: impl IntoIterator<Item = &'a Action>,
) -> Result<(), ErrorCode> {
    let missing = |m: MeterNo| m > MeterNo::MAX || !p.meters.contains_key(&m.0);
    let named = meter.into_iter().chain(actions.into_iter().filter_map(names));
    if named.into_iter().any(missing) { Err(MeterModFailed::InvalidMeter.into()) } else { Ok(()) }
}

/// A configuration as the datapath wants it.
///
/// # Errors
/// `MeterModFailed`.
fn for_datapath(mm: &MeterMod) -> Result<datapath_api::MeterConfig, ErrorCode> {
    let unit = match (mm.flags.has(MeterFlags::KBPS), mm.flags.has(MeterFlags::PKTPS)) {
        (true, true) => return Err(MeterModFailed::BadFlags.into()),
        (_, true) => MeterUnit::Pps,
        _ => MeterUnit::Kbps,
    };
    let given = mm.flags.has(MeterFlags::BURST);
    let band = |b: &MeterBand| {
        let kind = match b.kind {
            of::MeterBandKind::Drop => MeterBandKind::Drop,
            of::MeterBandKind::DscpRemark { prec_level: 0 } => {
                return Err(MeterModFailed::BadBandValue.into());
            }
            of::MeterBandKind::DscpRemark { prec_level } => MeterBandKind::DscpRemark { levels: prec_level },
            of::MeterBandKind::Experimenter { .. } => return Err(MeterModFailed::BadBand.into()),
        };
        Ok(datapath_api::MeterBand { rate: b.rate, burst: if given { b.burst_size } else { 0 }, kind })
    };
    Ok(datapath_api::MeterConfig {
        unit,
        bands: mm.bands.iter().map(band).collect::<Result<_, ErrorCode>>()?,
    })
}

fn of_datapath(e: DatapathError) -> ErrorCode {
    tracing::debug!(error = %e, "the datapath did not take a meter");
    MeterModFailed::OutOfMeters.into()
}

/// Puts a meter into the datapath, and says how hardware may have it.
fn put(
    switch: &Switch,
    dp: &dyn Datapath,
    id: MeterId,
    wanted: datapath_api::MeterConfig,
) -> Result<(), DatapathError> {
    let lendable = offload_meter(&wanted);
    dp.meter_put(id, wanted)?;
    if let Some(sink) = switch.sink() {
        sink.meter(id, lendable);
    }
    Ok(())
}

/// Takes a meter out of the datapath and of hardware.
fn remove(switch: &Switch, id: MeterId) {
    if let Some(sink) = switch.sink() {
        sink.meter_removed(id);
    }
    // It was there, or the datapath has gone.
    let _ = switch.datapath().map(|d| d.meter_del(id));
    switch.meters.give_back(id);
}

impl Bridge {
    /// Applies a meter-mod.
    ///
    /// # Errors
    /// OpenFlow's code for what is wrong; nothing has changed then.
    pub fn apply_meter(&self, mm: &MeterMod, now: Instant) -> Result<(), ErrorCode> {
        let switch = self.switch();
        let dp = switch.as_ref().and_then(|s| s.datapath());
        let limits = dp.and_then(|d| d.meter_limits());
        if mm.command == MeterModCommand::Delete {
            return self.delete_meters(mm.meter, now);
        }
        let virtual_one = matches!(mm.meter, MeterNo::SLOWPATH | MeterNo::CONTROLLER);
        if mm.meter.0 == 0 || mm.meter > MeterNo::MAX && !virtual_one {
            return Err(MeterModFailed::InvalidMeter.into());
        }
        let (Some(switch), Some(dp), Some(limits)) = (&switch, dp, limits) else {
            return Err(MeterModFailed::OutOfMeters.into());
        };
        if mm.bands.len() > usize::from(limits.max_bands) {
            return Err(MeterModFailed::OutOfBands.into());
        }
        let wanted = for_datapath(mm)?;
        let config = MeterConfig { flags: mm.flags, meter: mm.meter, bands: mm.bands.clone() };
        self.change_rules(now, None, |p, _| match (mm.command, p.meters.get(&mm.meter.0).cloned()) {
            (MeterModCommand::Add, Some(_)) => Err(MeterModFailed::MeterExists.into()),
            (MeterModCommand::Modify, None) => Err(MeterModFailed::UnknownMeter.into()),
            (_, Some(old)) => {
                put(switch, &**dp, old.dp, wanted).map_err(of_datapath)?;
                p.meters.insert(mm.meter.0, Arc::new(Meter { config, ..(*old).clone() }));
                Ok(())
            }
            (_, None) => {
                let id = switch.meters.take(limits.max_meters).ok_or(MeterModFailed::OutOfMeters)?;
                if let Err(e) = put(switch, &**dp, id, wanted) {
                    switch.meters.give_back(id);
                    return Err(of_datapath(e));
                }
                if virtual_one {
                    // Whoever sends packets to controllers is concerned.
                    p.config_generation = p.generation;
                }
                p.meters.insert(mm.meter.0, Arc::new(Meter { dp: id, config, created: now }));
                Ok(())
            }
        })
    }

    /// Deletes a meter, or all, and the flows that use them. One that is not there is no error.
    fn delete_meters(&self, no: MeterNo, now: Instant) -> Result<(), ErrorCode> {
        let gone = self.change_rules(now, None, |p, changes| {
            let gone: Vec<Arc<Meter>> = match no {
                MeterNo::ALL => p.meters.values().cloned().collect(),
                no => p.meters.get(&no.0).cloned().into_iter().collect(),
            };
            for m in &gone {
                p.meters.remove(&m.config.meter.0);
                if m.config.meter > MeterNo::MAX {
                    p.config_generation = p.generation;
                }
            }
            delete_flows(p, &gone, changes);
            Ok((p.generation, gone))
        });
        let (generation, gone) = gone?;
        self.retired.lock().extend(gone.iter().map(|m| (generation, m.dp)));
        self.retire_meters();
        Ok(())
    }

    /// Takes meters out of the datapath that no record has any more.
    pub(crate) fn retire_meters(&self) {
        let mut retired = self.retired.lock();
        if retired.is_empty() {
            return;
        }
        let Some(switch) = self.switch() else { return };
        retired.retain(|(generation, id)| {
            let follows = self.follows(*generation);
            if follows {
                remove(&switch, *id);
            }
            !follows
        });
    }

    /// Every meter goes: the bridge does.
    pub(crate) fn drop_meters(&self) {
        let Some(switch) = self.switch() else { return };
        let held = self.pipeline().meters.values().map(|m| m.dp).collect::<Vec<_>>();
        let retired = std::mem::take(&mut *self.retired.lock());
        for id in held.into_iter().chain(retired.into_iter().map(|(_, id)| id)) {
            remove(&switch, id);
        }
    }

    /// Counters of a meter, or of all.
    ///
    /// # Errors
    /// `OFPMMFC_UNKNOWN_METER`.
    pub fn meter_stats(&self, no: MeterNo) -> Result<Vec<MeterStats>, ErrorCode> {
        let (p, now) = (self.pipeline(), self.now());
        let mut flows: HashMap<MeterNo, u32> = HashMap::new();
        let wanted = chosen(&p, no)?;
        let rules = || p.tables().flat_map(|(_, t)| t.rules.rules().map(|f| f.rule));
        for r in rules().filter(|_| !wanted.is_empty()) {
            let mut of_rule: Vec<MeterNo> =
                r.instructions.meter.into_iter().chain(r.instructions.actions().filter_map(names)).collect();
            of_rule.sort_unstable();
            of_rule.dedup();
            of_rule.into_iter().for_each(|m| *flows.entry(m).or_default() += 1);
        }
        let switch = self.switch();
        let dp: Option<&dyn Datapath> = switch.as_ref().and_then(|s| s.datapath()).map(|d| &**d);
        let stats = |m: &Arc<Meter>| {
            let mut counted = dp.and_then(|d| d.meter_stats(m.dp).ok()).unwrap_or_default();
            let hw = switch.as_ref().and_then(|s| s.hardware()).map(|h| h.meter(m.dp)).unwrap_or_default();
            counted.input.packets += hw.packets;
            counted.input.bytes += hw.bytes;
            // One that is lent has one band.
            if let Some(b) = counted.bands.first_mut() {
                b.packets += hw.dropped_packets;
                b.bytes += hw.dropped_bytes;
            }
            let age = now.since(m.created);
            MeterStats {
                meter: m.config.meter,
                flow_count: flows.get(&m.config.meter).copied().unwrap_or(0),
                packets_in: counted.input.packets,
                bytes_in: counted.input.bytes,
                duration_sec: u32::try_from(age.as_secs()).unwrap_or(u32::MAX),
                duration_nsec: age.subsec_nanos(),
                bands: (0..m.config.bands.len())
                    .map(|i| counted.bands.get(i).copied().unwrap_or_default())
                    .map(|c| BandCounter { packets: c.packets, bytes: c.bytes })
                    .collect(),
            }
        };
        Ok(wanted.iter().map(stats).collect())
    }

    /// What a meter is, or all.
    ///
    /// # Errors
    /// `OFPMMFC_UNKNOWN_METER`.
    pub(crate) fn meter_configs(&self, no: MeterNo) -> Result<Vec<MeterConfig>, ErrorCode> {
        Ok(chosen(&self.pipeline(), no)?.iter().map(|m| m.config.clone()).collect())
    }

    /// What meters can be.
    pub(crate) fn meter_features(&self) -> MeterFeatures {
        let limits = self.switch().and_then(|s| s.datapath()?.meter_limits());
        limits.map_or_else(MeterFeatures::default, |l| MeterFeatures {
            max_meters: l.max_meters,
            band_types: BAND_TYPES,
            capabilities: MeterFlags::KNOWN.0.into(),
            max_bands: l.max_bands,
            max_color: 0,
        })
    }
}

fn chosen(p: &Pipeline, no: MeterNo) -> Result<Vec<Arc<Meter>>, ErrorCode> {
    match no {
        MeterNo::ALL => Ok(p.meters.values().cloned().collect()),
        no => Ok(vec![p.meters.get(&no.0).cloned().ok_or(MeterModFailed::UnknownMeter)?]),
    }
}

/// Removes the flows that use one of `gone` (OpenFlow 1.3.5 6.5).
fn delete_flows(p: &mut Pipeline, gone: &[Arc<Meter>], changes: &mut Changes) {
    let is_user = |r: &Rule| gone.iter().any(|m| uses(&r.instructions, m.config.meter));
    let rules: Vec<Arc<Rule>> = p
        .tables()
        .flat_map(|(_, t)| t.rules.rules().map(|f| f.rule))
        .filter(|r| !gone.is_empty() && is_user(r))
        .cloned()
        .collect();
    for r in rules {
        p.table_mut(r.table).rules.remove(&r.matches, r.priority.into());
        changes.removed(r, FlowRemovedReason::MeterDelete);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_free_number_is_taken() {
        let ids = MeterIds::default();
        let take = || ids.take(3).map(|i| i.0);
        assert_eq!([take(), take(), take(), take()], [Some(0), Some(1), Some(2), None]);
        ids.give_back(MeterId(1));
        assert_eq!([take(), take()], [Some(1), None]);
    }
}
