//! Flow records as text: the lines of `dpctl/dump-flows` of Open vSwitch 3.1, and what its logs say of them.

use std::fmt::Write;

use clock::Instant;
use datapath_api::FlowRecord;
use flow::text::flags::TUN_KEY;
use flow::text::odp::{Context, format_actions, format_flow, format_flow_whole};
use flow::text::value::PortName;
use flow::{FieldId, PacketKey, PacketMask};

use crate::record::FlowOwner;

/// What the log's lines are told as.
const MODULE: &str = "dpif";
/// Name of the one datapath, as Open vSwitch's dummy has it.
pub const DATAPATH: &str = "dummy@ovs-dummy";

/// The packets that a record is for, and with `whole` the bits that do not matter; then what it has counted, without the packet
/// that it was made for where Open vSwitch would not count that.
pub fn format_record(r: &FlowRecord, now: Instant, ports: PortName<'_>, whole: bool) -> String {
    let soft = r.counters.read();
    let owner = FlowOwner::of(r);
    let (packets, bytes) = owner.map(FlowOwner::hardware_totals).unwrap_or_default();
    let (mut packets, mut bytes) = (packets + soft.packets, bytes + soft.bytes);
    let made_for = owner.and_then(FlowOwner::packet);
    if let Some(m) = made_for {
        (packets, bytes) = (packets.saturating_sub(1), bytes.saturating_sub(m.bytes.into()));
    }
    // As Open vSwitch has it: with the bits of the packet that it was made for.
    let key = made_for.map_or_else(|| r.matches.key(), |m| m.key);
    let format = if whole { format_flow_whole } else { format_flow };
    let mut mask = r.matches.mask();
    if made_for.is_some() {
        leave_out(&key, &mut mask);
    }
    let mut line = format(&key, &mask, ports);
    let _ = write!(line, ", packets:{packets}, bytes:{bytes}, used:");
    match owner.and_then(FlowOwner::used).max(soft.used).filter(|_| packets > 0) {
        None => line.push_str("never"),
        Some(used) => {
            let ms = now.since(used).as_millis();
            let _ = write!(line, "{}.{:03}s", ms / 1000, ms % 1000);
        }
    }
    if soft.tcp_flags != 0 && packets > 0 {
        line.push_str(", flags:");
        line.push_str(&tcp_flags(soft.tcp_flags));
    }
    line
}

/// What Open vSwitch's datapath is not told of a tunnel, because it has attributes only for what there is: a key that is not there, a
/// type of service that is zero.
fn leave_out(key: &PacketKey, mask: &mut PacketMask) {
    if key.get(FieldId::TunTos) == 0 {
        mask.set(FieldId::TunTos, 0);
    }
    if key.get(FieldId::TunFlags) & u128::from(TUN_KEY) == 0 {
        mask.set_masked(FieldId::TunFlags, 0, TUN_KEY.into());
        if key.get(FieldId::TunId) == 0 {
            mask.set(FieldId::TunId, 0);
        }
    }
}

/// What a record does, as text.
pub fn format_record_actions(r: &FlowRecord, ports: PortName<'_>) -> String {
    let made_for = FlowOwner::of(r).and_then(FlowOwner::packet);
    let key = made_for.map_or_else(|| r.matches.key(), |m| m.key);
    format_actions(&r.actions, Context::of(&key), ports)
}

/// Says in the log that a record was looked at.
pub(crate) fn tell_dumped(r: &FlowRecord, now: Instant) {
    if tracing::enabled!(target: MODULE, tracing::Level::DEBUG) {
        let (flow, actions) = (format_record(r, now, &|_| None, true), format_record_actions(r, &|_| None));
        tracing::debug!(target: MODULE, "{DATAPATH}: flow_dump {flow}, actions:{actions}");
    }
}

/// Says in the log that a record does something else from now on.
pub(crate) fn tell_modified(r: &FlowRecord) {
    if tracing::enabled!(target: MODULE, tracing::Level::DEBUG) {
        let made_for = FlowOwner::of(r).and_then(FlowOwner::packet);
        let key = made_for.map_or_else(|| r.matches.key(), |m| m.key);
        let flow = format_flow_whole(&key, &r.matches.mask(), &|_| None);
        let actions = format_record_actions(r, &|_| None);
        tracing::debug!(target: MODULE, "{DATAPATH}: put[modify] {flow}, actions:{actions}");
    }
}

/// `SFPR.`: letters as Open vSwitch and tcpdump write them.
fn tcp_flags(flags: u16) -> String {
    let letters = [
        (0x02, 'S'),
        (0x01, 'F'),
        (0x08, 'P'),
        (0x04, 'R'),
        (0x20, 'U'),
        (0x10, '.'),
        (0x40, 'E'),
        (0x80, 'C'),
    ];
    letters.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, c)| c).collect()
}
