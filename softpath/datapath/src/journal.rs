//! What the datapath says at debug level of misses and of the records that they make, in Open vSwitch's words and under its
//! module's name: what people and tests that know it look for in a log. Nothing is made ready unless somebody listens.

use std::fmt;

use datapath_api::FlowRecord;
use flow::text::odp::{Context, format_actions, format_flow, format_key};
use flow::{FlowId, PacketKey};

const MODULE: &str = "dpif_netdev";

/// A record's name as Open vSwitch's tools have it: a UUID, whose second half is the number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ufid(pub FlowId);

impl Ufid {
    fn parts(self) -> [u64; 2] {
        // Spread, so that numbers in a row do not look alike.
        [self.0.0.wrapping_mul(0x9e37_79b9_7f4a_7c15), self.0.0]
    }

    /// Reads what the other way wrote, with or without `ufid:`; `None` when it is none of ours.
    pub fn parse(text: &str) -> Option<Ufid> {
        let text = text.trim();
        let digits: String = text.strip_prefix("ufid:").unwrap_or(text).split('-').collect();
        let n = (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok())??;
        let id = Ufid(FlowId(n as u64));
        (id.parts()[0] == (n >> 64) as u64).then_some(id)
    }
}

impl fmt::Display for Ufid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.parts();
        let (a1, a2, a3) = (a >> 32, a >> 16 & 0xffff, a & 0xffff);
        write!(f, "ufid:{a1:08x}-{a2:04x}-{a3:04x}-{:04x}-{:012x}", b >> 48, b & 0xffff_ffff_ffff)
    }
}

/// A packet that no cache knew.
#[cold]
pub(crate) fn missed(key: &PacketKey) {
    if tracing::enabled!(target: MODULE, tracing::Level::DEBUG) {
        let key = format_key(key, &|_| None);
        tracing::debug!(target: MODULE, lines = true, "ovs-dummy: miss upcall:\n{key}");
    }
}

/// A record that a packet with `key` has made.
#[cold]
pub(crate) fn added(r: &FlowRecord, key: &PacketKey) {
    if tracing::enabled!(target: MODULE, tracing::Level::DEBUG) {
        let (flow, actions) = texts(r, key);
        let ufid = Ufid(r.id);
        tracing::debug!(target: MODULE, "flow_add: {ufid} mega_{ufid} {flow}, actions:{actions}");
    }
}

fn texts(r: &FlowRecord, key: &PacketKey) -> (String, String) {
    let flow = format_flow(key, &r.matches.mask(), &|_| None);
    (flow, format_actions(&r.actions, Context::of(key), &|_| None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back() {
        for n in [1, 77, u64::MAX] {
            let text = Ufid(FlowId(n)).to_string();
            assert_eq!(text.len(), "ufid:".len() + 36);
            assert_eq!(Ufid::parse(&text), Some(Ufid(FlowId(n))));
        }
        assert_eq!(Ufid::parse("ufid:00000000-0000-0000-0000-000000000001"), None, "somebody else's");
        assert_eq!(Ufid::parse("x"), None);
    }
}
