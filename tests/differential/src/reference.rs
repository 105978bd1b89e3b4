//! A plain linear interpreter of OpenFlow tables: what the switch is held against.
//!
//! Written for being obviously right: every table is a list searched from end to end, every action changes the packet's bytes
//! at once, nothing is cached, nothing is lazy. It shares the field table, the match type and the parser with the switch, and
//! nothing of translation, classification, or packet editing.
//!
//! The pipeline's view of a packet is that of its arrival, followed by what actions did to it: fields that an action wrote
//! read as written; a tag that is popped uncovers the one below. A frame that lacks a header (it is cut short, or contradicts
//! itself) is left alone by actions that write to that header. Two VLAN tags are seen on arrival; a third is payload.
//!
//! Nothing is learned: NORMAL floods. Groups, meters and queues are not generated, and ignored here.

use flow::field::METADATA;
use flow::{FieldId, PacketKey, PipelineKey, PipelineMatch, PortId};
use openflow::{Action, Instructions, PortNo, Subfield};

use crate::reference_edit::Frame;
use crate::reference_tracked::Tracking;
use crate::reference_tunnel::{Around, Below, look};
use crate::setup::Setup;

/// A flow, as far as the interpreter is concerned.
pub trait Flow {
    /// Its table.
    fn table(&self) -> u8;
    /// Its priority.
    fn priority(&self) -> u16;
    /// The packets.
    fn matches(&self) -> &PipelineMatch;
    /// What happens to them.
    fn instructions(&self) -> &Instructions;
}

/// What becomes of a packet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Port and frame, in order.
    pub out: Vec<(u32, Vec<u8>)>,
    /// Packets to controllers: ingress port, table, reason, bytes; in order.
    pub punts: Vec<(u32, u8, u8, Vec<u8>)>,
    /// Indexes of the flows met, with repetition.
    pub hits: Vec<usize>,
    /// Bytes that each of them has counted: the packet's length when it began to go through the tables.
    pub bytes: Vec<usize>,
}

impl Verdict {
    /// Whether the packet went nowhere.
    pub fn is_drop(&self) -> bool {
        self.out.is_empty() && self.punts.is_empty()
    }
}

/// What becomes of `frame`, which came in at `wire` of a switch that is set up like this.
pub fn interpret<F: Flow>(flows: &[F], setup: &Setup, wire: u32, frame: &[u8]) -> Verdict {
    interpret_tracked(flows, setup, wire, frame, None)
}

/// As [`interpret`], with connections; without them `ct` does nothing.
pub fn interpret_tracked<F: Flow>(
    flows: &[F],
    setup: &Setup,
    wire: u32,
    frame: &[u8],
    tracking: Option<Tracking<'_>>,
) -> Verdict {
    if setup.is_below(wire) {
        // Of the bridge below, whose ports lead to each other.
        return match look(setup, frame) {
            _ if flow::parse(frame, PortId(wire)).is_err() => Verdict::default(),
            Below::Out(port, a) if wire == Setup::BELOW => {
                enter(flows, setup, port, &a.inner, Some(&a), tracking)
            }
            Below::Bad if wire == Setup::BELOW => Verdict::default(),
            _ => Verdict { out: vec![(setup.beside(wire), frame.to_vec())], ..Verdict::default() },
        };
    }
    enter(flows, setup, setup.port(wire), frame, None, tracking)
}

/// A frame comes in by a port, out of a tunnel or by the port's wire.
fn enter<F: Flow>(
    flows: &[F],
    setup: &Setup,
    port: PortNo,
    frame: &[u8],
    around: Option<&Around>,
    tracking: Option<Tracking<'_>>,
) -> Verdict {
    let wire = setup.wire(port).unwrap_or(0);
    let Some(frame) = Frame::new(frame) else { return Verdict::default() };
    let Ok(parsed) = flow::parse(frame.bytes(), PortId(wire)) else { return Verdict::default() };
    let in_port = port.0;
    let mut key = PipelineKey::from_packet(&parsed.key, in_port);
    key.set(FieldId::ActsetOutput, PortNo::UNSET.0.into());
    let tags = tags_of(&parsed.key);
    let mut i = Interpreter {
        flows,
        setup,
        in_port,
        own_tags: 0,
        mirrored: Vec::new(),
        snaplen: None,
        frame,
        key,
        tags,
        set: Vec::new(),
        table: 0,
        miss_flow: false,
        in_set: false,
        done: false,
        list_ends: false,
        depth: 0,
        pass_bytes: 0,
        tracking,
        verdict: Verdict::default(),
    };
    i.own_tags = i.tags.len();
    i.pass_bytes = i.frame.bytes().len();
    if around.is_some_and(|a| !i.come_out(a)) {
        return i.verdict;
    }
    i.arrive(wire);
    i.go_round();
    i.verdict
}

/// VLAN tags that the parser found, outermost first: type and control.
pub(crate) fn tags_of(key: &PacketKey) -> Vec<(u16, u16)> {
    let tags = [(FieldId::VlanTpid, FieldId::VlanTci), (FieldId::VlanTpid2, FieldId::VlanTci2)];
    let tags = tags.iter().map(|(p, t)| (key.get64(*p) as u16, key.get64(*t) as u16));
    tags.filter(|(_, tci)| tci & 0x1000 != 0).collect()
}

pub(crate) struct Interpreter<'a, F> {
    flows: &'a [F],
    pub(crate) setup: &'a Setup,
    pub(crate) in_port: u32,
    pub(crate) frame: Frame,
    pub(crate) key: PipelineKey,
    /// VLAN tags, outermost first: type and control.
    pub(crate) tags: Vec<(u16, u16)>,
    /// How many of the innermost tags are those that the packet came with.
    pub(crate) own_tags: usize,
    /// Mirrors' outputs that have had a copy.
    pub(crate) mirrored: Vec<u64>,
    /// Bytes to which copies for a mirror are cut.
    pub(crate) snaplen: Option<u16>,
    /// The action set, in order of writing.
    pub(crate) set: Vec<Action>,
    table: u8,
    /// The flow being executed is a table-miss flow.
    miss_flow: bool,
    pub(crate) in_set: bool,
    pub(crate) done: bool,
    /// A time to live ran out: what follows in the list of actions is not executed, nor is the rest of its flow.
    pub(crate) list_ends: bool,
    depth: u32,
    /// The packet's length when this pass began.
    pub(crate) pass_bytes: usize,
    pub(crate) tracking: Option<Tracking<'a>>,
    pub(crate) verdict: Verdict,
}

impl<F: Flow> Interpreter<'_, F> {
    /// The packet comes in: what mirrors choose by that is copied before any action.
    fn arrive(&mut self, wire: u32) {
        let patched = self.setup.patched && wire == 3;
        if patched && self.has_half_a_tag() {
            // The bridge in between does not switch it.
            return;
        }
        if self.setup.mirrors.iter().any(|m| m.output == ofproto::MirrorOutput::Port(PortNo(self.in_port))) {
            // Taken by a mirror; the flow it would have met counts it all the same.
            if let Some(i) = self.find(0) {
                self.hit(i);
            }
            return;
        }
        if !patched {
            self.mirror(PortNo(self.in_port), false);
        }
        self.pipeline(0);
        self.execute_set();
    }

    /// Index of the flow of highest priority in `table` that matches.
    fn find(&self, table: u8) -> Option<usize> {
        let mut key = self.key;
        if key.get(FieldId::NwFrag) != 0 {
            // OFPC_FRAG_NORMAL: fragments are matched as if they had no ports.
            key.set(FieldId::TpSrc, 0);
            key.set(FieldId::TpDst, 0);
        }
        let candidates =
            self.flows.iter().enumerate().filter(|(_, f)| f.table() == table && f.matches().matches(&key));
        candidates.max_by_key(|(_, f)| f.priority()).map(|(i, _)| i)
    }

    /// Searches tables from `first` on. Afterwards the first flow met is the one under execution: whatever follows is its.
    pub(crate) fn pipeline(&mut self, first: u8) {
        let mut origin = None;
        self.search(first, &mut origin);
        if let Some(i) = origin.and_then(|hit: usize| self.verdict.hits.get(hit).copied()) {
            self.show_flow(i);
        }
    }

    fn hit(&mut self, i: usize) {
        self.verdict.hits.push(i);
        self.verdict.bytes.push(self.pass_bytes);
    }

    fn show_flow(&mut self, i: usize) {
        let f = &self.flows[i];
        self.table = f.table();
        self.miss_flow = f.priority() == 0 && *f.matches() == PipelineMatch::ANY;
    }

    fn search(&mut self, first: u8, origin: &mut Option<usize>) {
        let mut table = Some(first);
        while let Some(t) = table {
            if self.done {
                return;
            }
            let Some(i) = self.find(t) else {
                // Dropped, whatever the action set held (OpenFlow 1.3.5 5.4).
                self.set.clear();
                return;
            };
            origin.get_or_insert(self.verdict.hits.len());
            table = self.run_flow(i);
        }
    }

    /// Executes a flow's instructions; where it goes next.
    fn run_flow(&mut self, i: usize) -> Option<u8> {
        self.hit(i);
        self.show_flow(i);
        let ins = self.flows[i].instructions().clone();
        self.execute(&ins.apply);
        if std::mem::take(&mut self.list_ends) || self.done {
            return None;
        }
        if ins.clear {
            self.set.clear();
            self.key.set(FieldId::ActsetOutput, PortNo::UNSET.0.into());
        }
        for a in &ins.write {
            if let Action::Output { port, .. } = a {
                self.key.set(FieldId::ActsetOutput, port.0.into());
            }
            self.set.push(a.clone());
        }
        if let Some((value, mask)) = ins.metadata {
            let old = self.key.get64(FieldId::Metadata);
            self.key.set(FieldId::Metadata, (old & !mask | value & mask).into());
        }
        ins.goto_table.map(|t| t.0)
    }

    /// Executes the action set (OpenFlow 1.3.5 5.10): of each kind the last one written, writes to fields all in order.
    pub(crate) fn execute_set(&mut self) {
        if self.done {
            return;
        }
        self.in_set = true;
        let set = std::mem::take(&mut self.set);
        let kinds: [fn(&Action) -> bool; 6] = [
            |a| matches!(a, Action::PopVlan),
            |a| matches!(a, Action::PopMpls(_)),
            |a| matches!(a, Action::PushMpls(_)),
            |a| matches!(a, Action::PushVlan(_)),
            |a| matches!(a, Action::DecNwTtl { .. }),
            |a| matches!(a, Action::DecMplsTtl),
        ];
        for kind in kinds {
            if let Some(a) = set.iter().rfind(|a| kind(a)) {
                self.execute(std::slice::from_ref(a));
            }
        }
        for a in &set {
            use Action::*;
            if matches!(
                a,
                SetField { .. }
                    | RegLoad { .. }
                    | RegMove { .. }
                    | SetTunnel { .. }
                    | SetNwTtl(_)
                    | SetMplsTtl(_)
            ) {
                self.execute(std::slice::from_ref(a));
            }
        }
        let leaves = |a: &&Action| {
            use Action::*;
            matches!(a, Output { .. } | OutputReg { .. } | OutputTrunc { .. } | Controller { .. })
        };
        if let Some(a) = set.iter().rfind(leaves) {
            self.execute(std::slice::from_ref(a));
        }
    }

    fn execute(&mut self, actions: &[Action]) {
        for a in actions {
            if self.done || self.list_ends {
                return;
            }
            self.one(a);
        }
    }

    fn one(&mut self, a: &Action) {
        match a {
            Action::Output { port, max_len } => self.output(*port, *max_len),
            Action::OutputReg { src, max_len } => {
                let port = PortNo(self.read(*src) as u32);
                self.output(port, *max_len);
            }
            Action::OutputTrunc { port, max_len } => {
                let before = self.verdict.out.len();
                self.output(*port, 0);
                for (_, f) in &mut self.verdict.out[before..] {
                    f.truncate(*max_len as usize);
                }
            }
            Action::Controller { max_len, reason, .. } => self.punt(*reason, *max_len),
            Action::SetField { field, value, mask } => self.write(*field, *value, *mask),
            Action::RegLoad { dst, value } => {
                self.write(dst.field, u128::from(*value) << dst.offset, dst.mask());
            }
            Action::RegMove { src, dst } => {
                let v = self.read(*src);
                self.write(dst.field, v << dst.offset, dst.mask());
            }
            Action::SetTunnel { id, .. } => self.write(FieldId::TunId, (*id).into(), u128::MAX),
            Action::SetNwTtl(v) => self.write(FieldId::NwTtl, (*v).into(), u128::MAX),
            Action::DecNwTtl { .. } => self.dec_ttl(FieldId::NwTtl),
            Action::SetMplsTtl(v) => self.write(FieldId::MplsTtl, (*v).into(), u128::MAX),
            Action::DecMplsTtl => self.dec_ttl(FieldId::MplsTtl),
            Action::PushVlan(tpid) => {
                self.frame.push_vlan(*tpid);
                self.tags.insert(0, (*tpid, 0x1000));
                self.show_tags();
            }
            Action::PopVlan if !self.tags.is_empty() => {
                self.frame.pop_vlan();
                self.tags.remove(0);
                self.own_tags = self.own_tags.min(self.tags.len());
                self.show_tags();
            }
            Action::PushMpls(t) => self.push_mpls(*t),
            Action::PopMpls(t) if self.mpls() => {
                self.frame.pop_mpls(*t);
                self.look_again();
            }
            Action::Resubmit { port, table, .. } => self.resubmit(*port, table.map_or(self.table, |t| t.0)),
            Action::Exit => self.done = true,
            Action::Ct(c) => self.ct(c),
            Action::CtClear => self.ct_clear(),
            _ => {}
        }
    }

    fn resubmit(&mut self, port: PortNo, table: u8) {
        if self.depth >= 64 {
            return;
        }
        let (was_table, was_miss, was_port) = (self.table, self.miss_flow, self.key.get(FieldId::InPort));
        if port != PortNo::IN_PORT {
            self.key.set(FieldId::InPort, port.0.into());
        }
        let found = self.find(table);
        self.key.set(FieldId::InPort, was_port);
        self.depth += 1;
        if let Some(i) = found
            && let Some(next) = self.run_flow(i)
        {
            self.pipeline(next);
        }
        self.depth -= 1;
        (self.table, self.miss_flow) = (was_table, was_miss);
    }

    pub(crate) fn read(&self, s: Subfield) -> u128 {
        (self.key.get(s.field) & s.mask()) >> s.offset
    }

    fn mpls(&self) -> bool {
        matches!(self.key.get64(FieldId::EthType), 0x8847 | 0x8848)
    }

    /// Whether the packet has the field, by what the pipeline knows of it.
    fn has(&self, field: FieldId) -> bool {
        use flow::Prereq::*;
        let (t, proto) = (self.key.get64(FieldId::EthType), self.key.get64(FieldId::NwProto));
        let ip = t == 0x0800 || t == 0x86dd;
        let whole = ip && self.key.get(FieldId::NwFrag) & 2 == 0;
        let nd = |kinds: &[u64]| {
            whole && t == 0x86dd && proto == 58 && kinds.contains(&self.key.get64(FieldId::Icmp6Type))
        };
        match field.info().prereq {
            None => true,
            Vlan => !self.tags.is_empty(),
            Ipv4 => t == 0x0800,
            Ipv6 => t == 0x86dd,
            Ip => ip,
            Arp => t == 0x0806 || t == 0x8035,
            Mpls => self.mpls(),
            Nsh => t == 0x894f,
            Tcp => whole && proto == 6,
            Udp => whole && proto == 17,
            Sctp => whole && proto == 132,
            Ports => whole && matches!(proto, 1 | 6 | 17 | 58 | 132),
            Icmp4 => whole && t == 0x0800 && proto == 1,
            Icmp6 => whole && t == 0x86dd && proto == 58,
            Nd => nd(&[135, 136]),
            NdSolicit => nd(&[135]),
            NdAdvert => nd(&[136]),
        }
    }

    fn write(&mut self, field: FieldId, value: u128, mask: u128) {
        let mask = mask & field.info().max();
        if field.info().canon == FieldId::VlanTci {
            self.write_tag(field, value, mask);
        } else if self.has(field) {
            self.key.set_masked(field, value, mask);
            self.frame.set(field, value, mask);
        }
    }

    fn write_tag(&mut self, field: FieldId, value: u128, mask: u128) {
        let shift = u32::from(field.info().shift) - u32::from(FieldId::VlanTci.info().shift);
        let (value, mask) = ((value << shift) as u16, (mask << shift) as u16);
        if field == FieldId::VlanTci && mask & 0x1000 != 0 {
            match (self.tags.is_empty(), value & 0x1000 != 0) {
                (true, true) => self.one(&Action::PushVlan(0x8100)),
                (false, false) => return self.one(&Action::PopVlan),
                _ => {}
            }
        }
        let Some((_, tci)) = self.tags.first_mut() else { return };
        *tci = *tci & !mask | value & mask | 0x1000;
        let tci = *tci;
        self.frame.set_tci(tci & !0x1000, mask & !0x1000);
        self.show_tags();
    }

    /// The pipeline sees the two outermost tags.
    pub(crate) fn show_tags(&mut self) {
        let at = |i: usize| self.tags.get(i).copied().unwrap_or_default();
        let ((p, t), (p2, t2)) = (at(0), at(1));
        self.key.set(FieldId::VlanTpid, p.into());
        self.key.set(FieldId::VlanTci, t.into());
        self.key.set(FieldId::VlanTpid2, p2.into());
        self.key.set(FieldId::VlanTci2, t2.into());
    }

    fn dec_ttl(&mut self, field: FieldId) {
        if !self.has(field) {
            return;
        }
        match self.key.get(field) {
            0 | 1 => {
                self.punt(2, u16::MAX);
                self.list_ends = true;
            }
            ttl => self.write(field, ttl - 1, u128::MAX),
        }
    }

    fn push_mpls(&mut self, eth_type: u16) {
        let lse = if self.mpls() {
            self.key.get64(FieldId::MplsLse0) as u32 & !0x100
        } else {
            match self.key.get64(FieldId::EthType) {
                0x0800 => 0x100 | self.key.get64(FieldId::NwTtl) as u32,
                0x86dd => 2 << 12 | 0x100 | self.key.get64(FieldId::NwTtl) as u32,
                _ => 0x100 | 64,
            }
        };
        self.frame.push_mpls(eth_type, lse);
        self.look_again();
    }

    /// Parses the packet again, behind the tags that are known; what only the pipeline has stays.
    fn look_again(&mut self) {
        let bare = self.frame.bare();
        let Ok(p) = flow::parse(&bare, PortId(self.in_port)) else { return };
        // A tag that shows only now is payload.
        let payload = p.layout.vlans > 0;
        self.read_packet(&p.key);
        if payload {
            (3..METADATA.start).chain(METADATA.end..flow::PACKET_WORDS).for_each(|i| self.key.set_word(i, 0));
            self.key.set(FieldId::EthType, u16::from_be_bytes([bare[12], bare[13]]).into());
        }
        self.show_tags();
    }

    /// What the parser found; what only the pipeline has stays.
    pub(crate) fn read_packet(&mut self, found: &PacketKey) {
        for i in (1..METADATA.start).chain(METADATA.end..flow::PACKET_WORDS) {
            self.key.set_word(i, found.word(i));
        }
    }

    fn punt(&mut self, reason: u8, max_len: u16) {
        let mut data = self.frame.bytes().to_vec();
        if max_len != u16::MAX {
            data.truncate(max_len.into());
        }
        self.verdict.punts.push((self.in_port, self.table, reason, data));
    }

    fn output(&mut self, port: PortNo, max_len: u16) {
        let from = self.key.get64(FieldId::InPort) as u32;
        match port {
            PortNo::CONTROLLER => {
                // OpenFlow 1.4 names what later versions call so; older ones are told ACTION.
                let reason = match (self.in_set, self.miss_flow) {
                    (true, _) => 3,
                    (false, true) => 6,
                    (false, false) => 1,
                };
                self.punt(reason, max_len);
            }
            PortNo::IN_PORT => self.send_to(PortNo(from)),
            PortNo::NORMAL => self.normal(PortNo(from)),
            PortNo::ALL | PortNo::FLOOD => {
                for p in self.setup.in_order().filter(|p| p.0 != from) {
                    self.send_to(p);
                }
            }
            p if p.0 != from => self.send_to(p),
            _ => {}
        }
    }

    /// Sends the packet out of a port, as far as ports are allowed to reach each other, and copies it for mirrors.
    pub(crate) fn send_to(&mut self, port: PortNo) {
        if let Some(t) = self.setup.tunnel(port) {
            return self.go_in(&t.settings.clone());
        }
        let Some(wire) = self.setup.wire(port) else { return };
        let from = self.setup.wire(PortNo(self.key.get64(FieldId::InPort) as u32));
        let protected = |w: u32| self.setup.ports[w as usize - 1].protected;
        if protected(wire) && from.is_some_and(protected) {
            return;
        }
        let patch = self.setup.patched && wire == 3;
        if patch && (self.snaplen.is_some() || self.has_half_a_tag()) {
            // Nothing is cut on its way to another bridge, and that one does not switch half a tag.
            return;
        }
        let mut frame = self.frame.bytes().to_vec();
        frame.truncate(self.snaplen.map_or(usize::MAX, usize::from));
        self.verdict.out.push((wire, frame));
        if !patch {
            self.mirror(port, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::frame::FrameBuilder;
    use openflow::TableId;

    struct Row(u8, u16, PipelineMatch, Instructions);

    impl Flow for Row {
        fn table(&self) -> u8 {
            self.0
        }
        fn priority(&self) -> u16 {
            self.1
        }
        fn matches(&self) -> &PipelineMatch {
            &self.2
        }
        fn instructions(&self) -> &Instructions {
            &self.3
        }
    }

    fn output(port: u32) -> Action {
        Action::Output { port: PortNo(port), max_len: 0 }
    }

    fn set(field: FieldId, value: u128) -> Action {
        Action::SetField { field, value, mask: field.info().max() }
    }

    fn udp() -> FrameBuilder {
        FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1, 53).payload(b"hoist")
    }

    #[test]
    fn the_flow_of_highest_priority_is_executed_and_counted() {
        let mut m = PipelineMatch::ANY;
        m.set(FieldId::InPort, 1);
        let flows = [
            Row(0, 1, PipelineMatch::ANY, Instructions::apply(vec![output(3)])),
            Row(0, 2, m, Instructions::apply(vec![output(2), output(1)])),
        ];
        let f = udp().build();
        let v = interpret(&flows, &Setup::plain(), 1, &f);
        assert_eq!((v.out, v.hits), (vec![(2, f.clone())], vec![1]));
        assert_eq!(interpret(&flows, &Setup::plain(), 4, &f).out, [(3, f.clone())]);
        assert!(interpret(&flows, &Setup::plain(), 4, &f[..13]).is_drop());
    }

    #[test]
    fn actions_change_the_bytes_at_once_and_checksums_follow() {
        let mut m = PipelineMatch::ANY;
        m.set(FieldId::EthType, 0x800);
        let a = vec![
            set(FieldId::NwDst, 0x0a00_0009),
            set(FieldId::UdpDst, 99),
            Action::DecNwTtl { controllers: vec![] },
            Action::PushVlan(0x8100),
            set(FieldId::VlanVid, 0x1007),
            output(2),
        ];
        let flows = [Row(0, 1, m, Instructions::apply(a))];
        let v = interpret(&flows, &Setup::plain(), 1, &udp().ttl(64).build());
        let built = FrameBuilder::new().vlan(7, 0).ipv4([10, 0, 0, 1], [10, 0, 0, 9]).ttl(63);
        assert_eq!(v.out, [(2, built.udp(1, 99).payload(b"hoist").build())]);
        let v = interpret(&flows, &Setup::plain(), 1, &udp().ttl(1).build());
        assert!(v.out.is_empty() && v.punts.len() == 1 && v.punts[0].2 == 2);
    }

    #[test]
    fn a_label_that_is_pushed_and_popped_leaves_the_packet_as_it_was() {
        let mut m = PipelineMatch::ANY;
        m.set(FieldId::EthType, 0x800);
        let a = vec![Action::PushMpls(0x8847), output(3), Action::PopMpls(0x800), output(2)];
        let f = udp().build();
        let v = interpret(&[Row(0, 1, m, Instructions::apply(a))], &Setup::plain(), 1, &f);
        assert_eq!(v.out[1], (2, f.clone()));
        assert_eq!(v.out[0].1.len(), f.len() + 4);
    }

    #[test]
    fn a_miss_in_a_later_table_drops_the_action_set() {
        let go = Instructions { write: vec![output(2)], goto_table: Some(TableId(1)), ..Default::default() };
        let flows = [Row(0, 1, PipelineMatch::ANY, go.clone())];
        assert!(interpret(&flows, &Setup::plain(), 1, &udp().build()).is_drop());
        let flows =
            [Row(0, 1, PipelineMatch::ANY, go), Row(1, 0, PipelineMatch::ANY, Instructions::default())];
        assert_eq!(interpret(&flows, &Setup::plain(), 1, &udp().build()).out.len(), 1);
    }

    /// Two tags, and a third that is pushed: what comes round again has no IP header that a parser of two tags finds. Popped again before, it has.
    #[test]
    fn a_third_tag_hides_what_is_behind_it_from_the_next_pass() {
        use crate::reference_ct::Connections;
        use openflow::extension::{Ct, CtFlags, CtZone};
        let ip = {
            let mut m = PipelineMatch::ANY;
            m.set(FieldId::EthType, 0x800);
            m
        };
        let again = || {
            let (zone, table) = (CtZone::Value(1), Some(TableId(1)));
            Action::Ct(Ct { flags: CtFlags(0), zone, table, alg: 0, actions: vec![] }.into())
        };
        let f = FrameBuilder::new().vlan(5, 0).vlan(6, 0).ipv4([10, 0, 0, 1], [10, 0, 0, 2]);
        let f = f.udp(1, 53).payload(b"hoist").build();
        let met = |before: Vec<Action>| {
            let apply = Instructions::apply(before.into_iter().chain([again()]).collect());
            let flows = [
                Row(0, 1, ip, apply),
                Row(1, 2, ip, Instructions::apply(vec![output(2)])),
                Row(1, 1, PipelineMatch::ANY, Instructions::apply(vec![output(3)])),
            ];
            let mut connections = Connections::default();
            let t = Tracking::new(&mut connections, clock::Instant::default(), &|_, _| None);
            interpret_tracked(&flows, &Setup::plain(), 1, &f, Some(t)).out[0].0
        };
        assert_eq!(met(vec![]), 2);
        assert_eq!(met(vec![Action::PushVlan(0x8100)]), 3);
        assert_eq!(met(vec![Action::PushVlan(0x8100), Action::PopVlan]), 2);
    }
}
