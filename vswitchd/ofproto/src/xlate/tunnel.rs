//! Into a tunnel and out of it.
//!
//! **In.** The tunnel's settings, and what the packet's metadata say where those leave it open, make the tunnel's metadata.
//! A route says which bridge the other end is behind, a neighbour which Ethernet address; that makes a header. The packet with
//! the header comes in on that bridge's LOCAL port, as a translation of its own: nothing that it looks at is the inner packet's,
//! but what the header was made of has been looked at here.
//!
//! **Out.** What a bridge sends to its LOCAL port and is addressed to that port and to a tunnel's UDP port, or is GRE, is
//! taken out; it comes back with the tunnel's metadata ([`Xlate::arrive_by_tunnel`]).

use std::net::IpAddr;
use std::ops::Range;

use flow::text::flags::{TUN_CSUM, TUN_DF, TUN_KEY, TUN_OAM};
use flow::tunnel::{ERSPAN_SESSION, HEADER_FIELDS, Special, TunnelHeader, TunnelKind, TunnelPush, options};
use flow::{Action, FieldId, MacAddr, PacketKey, PipelineMask, PortId};
use openflow::PortNo;

use super::{MAX_DEPTH, Misses, Outcome, Problem, Xlate};
use crate::port::Port;
use crate::record::Headed;
use crate::trace::StepKind;
use crate::tunnel::{End, Overheard, Tunnel, TunnelKey, TunnelSettings, ends};

/// The metadata of any tunnel.
const TUNNEL_FIELDS: [FieldId; 12] = {
    use FieldId::*;
    [
        TunId,
        TunSrc,
        TunDst,
        TunFlags,
        TunTos,
        TunTtl,
        TunTpSrc,
        TunTpDst,
        TunIpv6Src,
        TunIpv6Dst,
        TunGbpId,
        TunGbpFlags,
    ]
};

/// Whether few tunnels have it: it is not spoken of where it is zero and was.
fn is_rare(f: FieldId) -> bool {
    options::is_word(f) || HEADER_FIELDS.contains(&f)
}

/// The metadata of a tunnel: options and what few have among it.
pub(super) fn tunnel_fields() -> impl Iterator<Item = FieldId> {
    TUNNEL_FIELDS.into_iter().chain(HEADER_FIELDS).chain(options::words())
}

/// Congestion was experienced (RFC 3168 5).
const ECN_CE: u64 = 3;
/// Capable of saying so.
const ECN_ECT0: u64 = 2;

impl Xlate<'_> {
    fn is_ip(&self) -> bool {
        matches!(self.key.get64(FieldId::EthType), 0x0800 | 0x86dd)
    }

    /// Sends the packet into the tunnel that port `p` is an end of.
    pub(super) fn send_through_tunnel(&mut self, p: &Port, t: &Tunnel, max_len: Option<u32>) {
        let mark = self.key.get(FieldId::PktMark);
        let was = self.key;
        if !t.settings.kind.carries(self.packet_type()) {
            return self.warn("Tunneling decided against output");
        }
        if self.set_metadata(t) {
            self.out.credited.push(t.sent.clone());
            if self.env.peers.tunnels().foreign || t.settings.foreign {
                if let Some(n) = max_len {
                    self.emit(Action::Trunc(n));
                }
                self.commit_metadata();
                self.commit_packet();
                self.sample_departure(p);
                self.emit(Action::Output(p.dp));
            } else if max_len.is_some() {
                self.wrong(|| "Cannot truncate output to a tunnel that this switch carries out".into());
            } else {
                self.push(p, t);
            }
        }
        for f in tunnel_fields() {
            self.key.set(f, was.get(f));
        }
        self.key.set(FieldId::PktMark, mark);
    }

    /// Gives the datapath's packet the metadata that it will have in a tunnel which the datapath carries out.
    pub(super) fn show_tunnel(&mut self, t: &Tunnel) {
        let (was, mark) = (self.key, self.key.get(FieldId::PktMark));
        if self.set_metadata(t) && (self.env.peers.tunnels().foreign || t.settings.foreign) {
            self.commit_metadata();
        }
        for f in tunnel_fields() {
            self.key.set(f, was.get(f));
        }
        self.key.set(FieldId::PktMark, mark);
    }

    /// Makes the metadata those that the packet has in the tunnel; false when it is known that there is no such tunnel.
    fn set_metadata(&mut self, t: &Tunnel) -> bool {
        use FieldId::*;
        let s = &t.settings;
        for (end, v4, v6) in [(s.local, TunSrc, TunIpv6Src), (s.remote, TunDst, TunIpv6Dst)] {
            match end {
                End::Flow => {
                    self.wc.set_exact(v4);
                    self.wc.set_exact(v6);
                }
                End::Any | End::Address(_) => {
                    self.key.set(v4, 0);
                    self.key.set(v6, 0);
                    match end {
                        End::Address(IpAddr::V4(a)) => self.key.set(v4, u32::from(a).into()),
                        End::Address(IpAddr::V6(a)) => self.key.set(v6, a.into()),
                        _ => {}
                    }
                }
            }
        }
        if self.key.get(TunDst) == 0 && self.key.get(TunIpv6Dst) == 0 {
            self.warn("output to a tunnel without a remote address");
            return false;
        }
        match s.out_key {
            TunnelKey::Flow => self.wc.set_exact(TunId),
            TunnelKey::None => self.key.set(TunId, 0),
            TunnelKey::Value(k) => self.key.set(TunId, k.into()),
        }
        let ip = self.is_ip();
        let inherits = |own: Option<u8>| if ip { own } else { own.or(Some(0)) };
        let mut tos = match inherits(s.tos) {
            Some(tos) => u64::from(tos),
            None => {
                self.wc.set_exact(NwTos);
                self.key.get64(NwTos)
            }
        };
        let ttl = match inherits(s.ttl) {
            Some(0) if s.ttl.is_none() => 64,
            Some(ttl) => u64::from(ttl),
            None => {
                self.wc.set_exact(NwTtl);
                self.key.get64(NwTtl)
            }
        };
        if ip {
            // What the packet says of congestion is said outside too, but for that there was some (RFC 6040 4.1 has a
            // stricter mode; this is that of stock switches).
            self.wc.set_masked(NwTos, u128::MAX, 3);
            let ecn = self.key.get64(NwTos) & 3;
            tos |= if ecn == ECN_CE { ECN_ECT0 } else { ecn };
        }
        self.key.set(TunTos, tos.into());
        self.key.set(TunTtl, ttl.into());
        self.key.set(TunTpSrc, 0);
        self.key.set(TunTpDst, s.dst_port.into());
        let oam = self.key.get64(TunFlags) as u16 & TUN_OAM;
        let flag = |on, bit: u16| if on { bit } else { 0 };
        let flags = oam
            | flag(s.dont_fragment, TUN_DF)
            | flag(s.csum, TUN_CSUM)
            | flag(s.out_key != TunnelKey::None, TUN_KEY);
        self.key.set(TunFlags, flags.into());
        if s.kind != TunnelKind::Geneve {
            options::clear(&mut self.key);
        } else if !self.stock() {
            self.look_at_options();
        }
        self.set_special(s);
        if let Some(m) = s.egress_mark {
            self.key.set(PktMark, m.into());
            self.wc.set_exact(PktMark);
            self.written.set_exact(PktMark);
            self.ever_written.set_exact(PktMark);
        }
        true
    }

    /// What only headers of ERSPAN and GTP-U have: as the tunnel says, or the packet's metadata; nothing in other tunnels. As options,
    /// Open vSwitch does not look at it.
    fn set_special(&mut self, s: &TunnelSettings) {
        use FieldId::*;
        let own = |v: Option<u32>| v.map(u128::from);
        let m = &s.mirroring;
        let of_erspan = [
            (TunErspanVer, own(m.version.map(u32::from))),
            (TunErspanIdx, own(m.index)),
            (TunErspanDir, own(m.dir.map(u32::from))),
            (TunErspanHwid, own(m.hwid.map(u32::from))),
        ];
        for (field, own) in of_erspan {
            let own = if s.kind == TunnelKind::Erspan { own } else { Some(0) };
            self.set_or_look(field, own);
        }
        let version = self.key.get64(TunErspanVer);
        for (field, of) in [(TunErspanIdx, 1), (TunErspanDir, 2), (TunErspanHwid, 2)] {
            if version != of {
                self.key.set(field, 0);
            }
        }
        for field in [TunGtpuFlags, TunGtpuMsgtype] {
            self.set_or_look(field, (s.kind != TunnelKind::Gtpu).then_some(0));
        }
    }

    fn set_or_look(&mut self, field: FieldId, own: Option<u128>) {
        match own {
            Some(v) => self.key.set(field, v),
            None if self.stock() => {}
            None => self.wc.set_exact(field),
        }
    }

    /// Options that the packet came with go out again: which it has, and what is in them, is looked at. Open vSwitch looks at what rules
    /// look at, and so sends the options of one packet with another.
    fn look_at_options(&mut self) {
        for o in self.env.pipeline.options.values() {
            let mut of_it = PipelineMask::ZERO;
            options::cover(&mut of_it, o.index);
            if !options::is_there(&self.orig, o.index) {
                options::require_presence(&mut self.wc, o.index);
            } else if !of_it.resize().is_subset_of(&self.ever_written) {
                options::cover(&mut self.wc, o.index);
            }
        }
    }

    /// Makes the datapath's metadata of a tunnel what they are here, whole.
    fn commit_metadata(&mut self) {
        if tunnel_fields().all(|f| self.base.get(f) == self.key.get(f)) {
            return;
        }
        for field in tunnel_fields() {
            let value = self.key.get(field);
            if is_rare(field) && value == 0 && self.base.get(field) == 0 {
                continue;
            }
            self.emit(Action::SetField { field, value, mask: field.info().max() });
            self.base.set(field, value);
        }
    }

    /// Puts the packet behind a header and has it come in on the bridge below.
    fn push(&mut self, p: &Port, t: &Tunnel) {
        let peers = self.env.peers;
        let tunnels = peers.tunnels();
        self.detail("output to native tunnel");
        let (to, from) = ends(&self.packet_key());
        let mark = self.key.get64(FieldId::PktMark) as u32;
        let Some(hop) = tunnels.routing.lookup(to, mark) else {
            return self.warn("native tunnel routing failed");
        };
        let source = if from.is_unspecified() { hop.source } else { Some(from) };
        let below = peers.by_name(&hop.device);
        let local = below.and_then(|(_, p)| p.ports.get(PortNo::LOCAL));
        let (Some(src), Some((bridge, pipeline)), Some(local)) = (source, below, local) else {
            return self.warn("native tunnel routing failed");
        };
        let via = hop.gateway.map_or(String::new(), |g| format!("{g} "));
        self.detail(&format!("tunneling to {to} via {via}{}", hop.device));
        self.out.deps.configs.push((bridge.index(), pipeline.config_generation));
        let Some(eth_dst) = tunnels.neighbours.get(&hop.device, hop.next) else {
            let what = if hop.next.is_ipv4() { "ARP" } else { "ND" };
            self.warn(&format!(
                "neighbor cache miss for {} on bridge {}, sending {what} request",
                hop.next, hop.device
            ));
            self.out.wanted.push((bridge.index(), src, hop.next));
            return;
        };
        let eth_src = MacAddr(local.hw_addr.0);
        self.detail(&format!("tunneling from {eth_src} {src} to {eth_dst} {to}"));
        let s = &t.settings;
        let Some(special) = self.special_of(s) else { return };
        let flags = self.key.get64(FieldId::TunFlags) as u16;
        let id = self.key.get64(FieldId::TunId) as u32;
        let gbp = (self.key.get64(FieldId::TunGbpId) as u16, self.key.get64(FieldId::TunGbpFlags) as u8);
        if s.gbp {
            self.wc.set_exact(FieldId::TunGbpId);
            self.wc.set_exact(FieldId::TunGbpFlags);
        }
        if s.kind == TunnelKind::Geneve {
            self.wc.set_masked(FieldId::TunFlags, u128::MAX, TUN_OAM.into());
        }
        let header = TunnelHeader {
            kind: s.kind,
            eth_src,
            eth_dst,
            src,
            dst: to,
            tos: self.key.get64(FieldId::TunTos) as u8,
            ttl: self.key.get64(FieldId::TunTtl) as u8,
            dont_fragment: flags & TUN_DF != 0,
            csum: flags & TUN_CSUM != 0,
            key: (s.kind != TunnelKind::Gre || flags & TUN_KEY != 0).then_some(id),
            tp_dst: s.dst_port,
            gbp: (s.gbp && gbp != (0, 0)).then_some(gbp),
            oam: flags & TUN_OAM != 0,
            packet_type: self.packet_type(),
            special,
        };
        let push = TunnelPush::with_options(&header, &options::header(&self.key), p.dp, local.dp);
        let Some(outer) = outer_key(&push, local.dp) else { return };
        if self.depth >= MAX_DEPTH {
            return self.fail(Problem::TooDeep);
        }
        // What it is told of tunnels is in the header, and is told to nobody else but by another action.
        self.commit_packet();
        let env = bridge.environment(pipeline, peers);
        let mut x = Xlate::new(env, &outer, PortNo::LOCAL, self.record);
        x.depth = self.depth + 1;
        x.lookups = self.lookups;
        x.nest = self.nest;
        x.key.set(FieldId::PktMark, mark.into());
        x.base.set(FieldId::PktMark, mark.into());
        x.step(|| StepKind::Bridge(env.name.into()));
        x.nest += 1;
        if local.receives() {
            x.table_chain(0, None, Misses::Told);
            x.execute_action_set();
            x.finish_freezing();
        }
        self.lookups = x.lookups;
        let actions = self.absorb(x.finish(), push.bytes().len());
        if !actions.is_empty() {
            let list = std::iter::once(Action::TunnelPush(Box::new(push))).chain(actions);
            self.emit(Action::Clone(list.collect()));
        }
    }

    /// What only headers of this tunnel have; `None` when it can have no header.
    fn special_of(&mut self, s: &TunnelSettings) -> Option<Special> {
        let why = match s.kind {
            TunnelKind::Gre if s.numbered => return Some(Special::Numbered),
            TunnelKind::Gtpu => return Some(Special::gtpu(&self.packet_key())),
            TunnelKind::Erspan if self.key.get64(FieldId::TunId) > ERSPAN_SESSION.into() => {
                "its session is beyond 1023".to_owned()
            }
            TunnelKind::Erspan => match Special::erspan(&self.packet_key()) {
                Some(special) => return Some(special),
                None => format!("ERSPAN has no version {}", self.key.get(FieldId::TunErspanVer)),
            },
            kind if kind.has_header() => return Some(Special::None),
            kind => format!("this switch does not carry {} out", kind.name()),
        };
        self.warn(&format!("native tunnel header build failed: {why}"));
        None
    }

    /// Takes over what another translation, of the packet within its header, came to; its actions.
    fn absorb(&mut self, o: Outcome, header_bytes: usize) -> Vec<Action> {
        let out = &mut self.out;
        let (rules, credited) = (out.rules.len(), out.credited.len());
        out.rules.extend(o.rules);
        out.credited.extend(o.credited);
        let moved = |r: &Range<usize>, by: usize| r.start + by..r.end + by;
        out.headed.extend(o.headed.iter().map(|h| Headed {
            rules: moved(&h.rules, rules),
            credited: moved(&h.credited, credited),
            bytes: h.bytes,
        }));
        out.headed.push(Headed {
            rules: rules..out.rules.len(),
            credited: credited..out.credited.len(),
            bytes: header_bytes as u64,
        });
        out.provenance.extend(o.provenance);
        out.recircs.extend(o.recircs);
        out.learned.extend(o.learned);
        out.fin_timeouts.extend(o.fin_timeouts);
        out.wanted.extend(o.wanted);
        out.overheard.extend(o.overheard);
        out.forks.extend(o.forks);
        out.steps.extend(o.steps);
        let (d, more) = (&mut out.deps, o.deps);
        d.visits.extend(more.visits);
        d.configs.extend(more.configs);
        d.macs.extend(more.macs);
        d.mcast.extend(more.mcast);
        d.groups.extend(more.groups);
        d.learns.extend(more.learns);
        // What goes wrong there is no concern of this bridge.
        if o.problem.is_some() { Vec::new() } else { o.actions }
    }

    fn packet_key(&self) -> PacketKey {
        self.key.packet()
    }

    /// A packet for the LOCAL port: hears what it says of neighbours, and takes it out of its tunnel if it is one for this host.
    /// Whether it was.
    pub(super) fn out_of_tunnel(&mut self) -> bool {
        let tunnels = self.env.peers.tunnels();
        if !tunnels.are_native()
            || self.env.pipeline.settings.kernel_datapath
            || self.key.get64(FieldId::NwFrag) != 0 && self.is_ip()
        {
            return false;
        }
        let key = self.packet_key();
        let (routing, name) = (&tunnels.routing, self.env.name);
        let mine = |a| routing.is_local(name, a) || routing.is_solicited(name, a);
        if let Some((heard, fields)) = Overheard::of(&key, self.env.index, mine) {
            fields.iter().for_each(|f| self.wc.set_exact(*f));
            if !self.packet_out {
                self.out.overheard.push(heard);
            }
            return false;
        }
        use FieldId::{EthDst, EthType, Ipv6Dst, Ipv6Src, NwDst, NwProto, NwSrc, TpDst, TpSrc};
        let (to, field) = match key.get64(EthType) {
            0x0800 => (IpAddr::V4((key.get64(NwDst) as u32).into()), NwDst),
            0x86dd => (IpAddr::V6(key.get(Ipv6Dst).into()), Ipv6Dst),
            // Whether it is ARP's answer, and for whom, has been looked at.
            0x0806 => {
                [NwProto, NwSrc, NwDst].iter().for_each(|f| self.wc.set_exact(*f));
                return false;
            }
            _ => return false,
        };
        if self.headers.reparse_needed
            || !tunnels.routing.addresses().iter().any(|a| a.device == self.env.name)
        {
            return false;
        }
        self.wc.set_exact(NwProto);
        self.wc.set_exact(field);
        if key.get64(EthType) == 0x86dd && key.get(NwProto) == 58 {
            self.wc.set_exact(TpSrc);
        }
        if !tunnels.routing.is_local(self.env.name, to) {
            return false;
        }
        self.wc.set_exact(EthDst);
        if tunnels.has_ports(key.get64(NwProto) as u8) {
            self.wc.set_exact(TpDst);
        }
        let mac = self.env.pipeline.ports.get(PortNo::LOCAL).map(|p| p.hw_addr);
        let mine = mac.is_some_and(|m| key.get64(EthDst).to_be_bytes()[2..] == m.0);
        let Some((port, kind)) = tunnels.listener(&key).filter(|_| mine) else { return false };
        // Who sends packets in tunnels is where they come from; as Open vSwitch, without a look at it for those that come after.
        let from = match to {
            IpAddr::V4(_) => IpAddr::V4((key.get64(NwSrc) as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(key.get(Ipv6Src).into()),
        };
        let next = tunnels.routing.lookup(from, 0);
        let is_next = next.is_some_and(|hop| hop.gateway.is_none() && hop.device == self.env.name);
        if let Some(heard) = Overheard::of_tunnelled(&key, self.env.index, from)
            && is_next
            && !self.packet_out
        {
            self.out.overheard.push(heard);
        }
        self.commit();
        self.emit(Action::TunnelPop { port, kind });
        true
    }

    /// Which tunnel a packet is from depends on its ends and key.
    pub(super) fn look_at_tunnel(&mut self) {
        use FieldId::*;
        for f in [TunId, TunSrc, TunDst, TunIpv6Src, TunIpv6Dst] {
            let other = match f {
                TunId => false,
                TunSrc | TunDst => self.orig.get(TunIpv6Dst) != 0,
                _ => self.orig.get(TunIpv6Dst) == 0,
            };
            if !self.stock() || !other {
                self.wc.set_exact(f);
            }
        }
        // Nothing depends on them. Filters above the kernel's datapath cannot match them before Linux 6.11.
        if self.stock() && !self.env.pipeline.settings.kernel_datapath {
            self.wc.set_masked(TunFlags, u128::MAX, u128::from(TUN_DF | TUN_CSUM | TUN_KEY));
        }
    }

    /// The packet has come out of a tunnel by port `p`. What it is told of congestion outside is said inside (RFC 6040 4.2);
    /// false when it is to be dropped for it.
    pub(super) fn arrive_by_tunnel(&mut self, t: &Tunnel) -> bool {
        use FieldId::*;
        self.look_at_tunnel();
        let dp = PortId(self.orig.get64(DpPort) as u32);
        if t.settings.kind.carries_others() || self.env.peers.tunnels().carries_others(dp) {
            // By it the port was found.
            self.wc.set_exact(PacketType);
        }
        self.out.credited.push(t.received.clone());
        self.key.set(PktMark, 0);
        if self.stock() {
            self.wc.set_exact(TunTos);
        }
        if !self.is_ip() {
            return true;
        }
        let congested = self.orig.get64(TunTos) & 3 == ECN_CE;
        self.wc.set_masked(TunTos, u128::MAX, 3);
        if !congested {
            return true;
        }
        self.wc.set_masked(NwTos, u128::MAX, 3);
        if self.key.get64(NwTos) & 3 == 0 {
            tracing::warn!(
                target: "tunnel",
                "dropping tunnel packet marked ECN CE but is not ECN capable"
            );
            self.fail(Problem::Congestion);
            return false;
        }
        self.key.set_masked(NwTos, 3, 3);
        self.written.set_masked(NwTos, u128::MAX, 3);
        self.ever_written.set_masked(NwTos, u128::MAX, 3);
        true
    }
}

/// What a datapath sees of a packet behind this header.
fn outer_key(push: &TunnelPush, port: PortId) -> Option<PacketKey> {
    use FieldId::TpSrc;
    // Room for an inner frame; its contents are of no consequence.
    let mut frame = push.bytes().to_vec();
    frame.resize(frame.len() + 60, 0);
    let (l3, l4) = (14, push.l4());
    let at = if push.v6 { 18 } else { 16 };
    let len = frame.len() - if push.v6 { l4 } else { l3 };
    frame.get_mut(at..at + 2)?.copy_from_slice(&(len as u16).to_be_bytes());
    if push.kind.is_udp() {
        let len = (frame.len() - l4) as u16;
        frame.get_mut(l4 + 4..l4 + 6)?.copy_from_slice(&len.to_be_bytes());
    }
    let mut key = flow::parse(&frame, port).ok()?.key;
    // It is chosen by packet.
    key.set(TpSrc, 0);
    Some(key)
}
