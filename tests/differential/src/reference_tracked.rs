//! `ct` of the reference interpreter: the packet is tracked at once; a copy that goes on in another table is put aside and goes through
//! the tables when the packet itself is done with, as a datapath's packets do that come round again.
//!
//! What a packet is told of its connection stays with it in the datapath when rules do not see it any more; the next `ct` may know
//! it by that.

use std::collections::VecDeque;

use clock::Instant;
use flow::{FieldId, PipelineKey, PortId};
use openflow::Action;
use openflow::extension::{Ct, CtZone};

use crate::reference::{Flow, Interpreter, tags_of};
use crate::reference_ct::{Choice, Connections, Known, Marks, Order};
use crate::reference_edit::Frame;

/// The connections that packets belong to, and what else `ct` needs.
pub struct Tracking<'a> {
    connections: &'a mut Connections,
    now: Instant,
    choice: &'a Choice<'a>,
    known: Known,
    /// Rules see it.
    shown: bool,
    aside: VecDeque<Aside>,
}

/// A packet that comes round again.
struct Aside {
    table: u8,
    frame: Frame,
    key: PipelineKey,
    set: Vec<Action>,
    known: Known,
}

impl<'a> Tracking<'a> {
    /// A packet that comes now and has no connection yet.
    pub fn new(connections: &'a mut Connections, now: Instant, choice: &'a Choice<'a>) -> Self {
        Tracking { connections, now, choice, known: Known::default(), shown: false, aside: VecDeque::new() }
    }
}

const CT_FIELDS: [FieldId; 11] = {
    use FieldId::*;
    [CtState, CtZone, CtMark, CtLabel, CtNwSrc, CtNwDst, CtIpv6Src, CtIpv6Dst, CtTpSrc, CtTpDst, CtNwProto]
};

fn hide(key: &mut PipelineKey) {
    CT_FIELDS.iter().for_each(|f| key.set(*f, 0));
}

fn show(key: &mut PipelineKey, k: &Known) {
    use FieldId::*;
    hide(key);
    key.set(CtState, k.state.into());
    key.set(CtZone, k.zone.into());
    key.set(CtMark, k.mark.into());
    key.set(CtLabel, k.label);
    let Some(e) = &k.ends else { return };
    let (src, dst) = if e.v6 { (CtIpv6Src, CtIpv6Dst) } else { (CtNwSrc, CtNwDst) };
    key.set(src, e.src);
    key.set(dst, e.dst);
    key.set(CtNwProto, e.proto.into());
    let icmp = e.proto == if e.v6 { 58 } else { 1 };
    key.set(CtTpSrc, if icmp { e.kind.into() } else { e.sport.into() });
    key.set(CtTpDst, if icmp { 0 } else { e.dport.into() });
}

impl<F: Flow> Interpreter<'_, F> {
    pub(crate) fn ct(&mut self, ct: &Ct) {
        let zone = match ct.zone {
            CtZone::Value(z) => z,
            CtZone::Field(s) => self.read(s) as u16,
        };
        let mut order = Order { ct, zone, marks: Marks::default(), nat: None };
        for a in &ct.actions {
            match a {
                Action::Nat(n) => order.nat = Some(**n),
                Action::SetField { field: FieldId::CtMark, value, mask } => {
                    let (v, m) = (*value as u32, *mask as u32);
                    order.marks.mark = (order.marks.mark.0 & !m | v & m, order.marks.mark.1 | m);
                }
                Action::SetField { field: FieldId::CtLabel, value, mask } => {
                    let (v, m) = order.marks.label;
                    order.marks.label = (v & !mask | value & mask, m | mask);
                }
                _ => {}
            }
        }
        let Some(t) = &mut self.tracking else { return };
        t.connections.track(&mut self.frame, &mut t.known, &order, t.now, t.choice);
        if let Some(table) = ct.table {
            let mut key = self.key;
            show(&mut key, &t.known);
            t.aside.push_back(Aside {
                table: table.0,
                frame: self.frame.clone(),
                key,
                set: self.set.clone(),
                known: t.known.clone(),
            });
        }
        t.shown = false;
        hide(&mut self.key);
    }

    pub(crate) fn ct_clear(&mut self) {
        if let Some(t) = &mut self.tracking
            && std::mem::take(&mut t.shown)
        {
            t.known = Known::default();
            hide(&mut self.key);
        }
    }

    /// What was put aside goes on.
    pub(crate) fn go_round(&mut self) {
        while let Some(a) = self.tracking.as_mut().and_then(|t| t.aside.pop_front()) {
            (self.frame, self.key, self.set) = (a.frame, a.key, a.set);
            (self.done, self.list_ends, self.in_set) = (false, false, false);
            if let Some(t) = &mut self.tracking {
                (t.known, t.shown) = (a.known, true);
            }
            self.pass_bytes = self.frame.bytes().len();
            self.read_again();
            self.pipeline(a.table);
            self.execute_set();
        }
    }

    /// The packet comes into the datapath's parser again, which takes it as any that comes in: addresses and ports may have been
    /// translated, a third tag that was pushed hides what two did not, one that was popped shows what it had hidden.
    fn read_again(&mut self) {
        let bytes = self.frame.bytes();
        let (Some(frame), Ok(p)) = (Frame::new(bytes), flow::parse(bytes, PortId(self.in_port))) else {
            return;
        };
        self.frame = frame;
        self.read_packet(&p.key);
        self.tags = tags_of(&p.key);
        self.own_tags = self.tags.len();
    }
}
