//! Packets that begin with something else than Ethernet: headers pushed before everything, taken off again, and what ports and counters
//! see of it. Frames are put together by hand.

#![allow(clippy::unwrap_used)]

mod rig;

use std::sync::{Arc, Mutex};

use datapath_api::{DropReason, FlowCounters, FlowRecord, Miss, MissHandler, Translation, Translations};
use flow::frame::FrameBuilder;
use flow::nsh::next_protocol;
use flow::{Action, FieldId, FlowId, MacAddr, NshHeader, NshMetadata, PacketMask, PacketMatch, packet_type};
use rig::{Rig, drops, output};

/// Answers by recirculation id, under a mask with what the packet begins with, and keeps what it was asked.
struct Passes {
    lists: Vec<Vec<Action>>,
    asked: Mutex<Vec<Miss>>,
    records: Mutex<Vec<Arc<FlowRecord>>>,
}

impl MissHandler for Passes {
    fn translate(&self, misses: &[Miss], now: clock::Instant, out: &mut Translations) {
        let mask: PacketMask = [FieldId::RecircId, FieldId::PacketType].into_iter().collect();
        for m in misses {
            self.asked.lock().unwrap().push(m.clone());
            let id = m.key.get64(FieldId::RecircId);
            let record = Arc::new(FlowRecord {
                id: FlowId(id),
                matches: PacketMatch::new(&m.key, &mask).into(),
                actions: self.lists[id as usize].clone().into(),
                counters: Arc::new(FlowCounters::default()),
                owner: Arc::new(()),
                created: now,
            });
            self.records.lock().unwrap().push(record.clone());
            out.push(Translation::Keep(record));
        }
    }
}

fn rig(lists: &[&[Action]]) -> (Rig, Arc<Passes>) {
    let lists = lists.iter().map(|l| l.to_vec()).collect();
    let h = Arc::new(Passes { lists, asked: Mutex::default(), records: Mutex::default() });
    (Rig::with_handler(4, h.clone(), |_| ()), h)
}

/// What leaves by port 2 of a frame that comes in by port 1.
fn through(lists: &[&[Action]], frame: &[u8]) -> (Vec<Vec<u8>>, Vec<(DropReason, u64)>) {
    let (mut rig, _) = rig(lists);
    rig.send(1, frame);
    rig.poll();
    let out = (rig.received(2), drops(&rig));
    assert_eq!(rig.pool.free_cells(), rig.pool.cells() as usize);
    out
}

fn out() -> Action {
    output(2).remove(0)
}

fn inner() -> Vec<u8> {
    FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(5, 6).payload(b"payload").build()
}

fn header(next: u8) -> NshHeader {
    NshHeader { spi: 0x12_3456, next, metadata: NshMetadata::Fixed([1, 2, 3, 4]), ..NshHeader::default() }
}

fn push_nsh(next: u8) -> Action {
    Action::PushNsh(Box::new(header(next)))
}

fn push_eth() -> Action {
    Action::PushEth { src: MacAddr([2, 0, 0, 0, 0, 9]), dst: MacAddr([2, 0, 0, 0, 0, 8]) }
}

/// An Ethernet header of `push_eth` with this type.
fn ethernet(eth_type: u16) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 9][..], &eth_type.to_be_bytes()].concat()
}

#[test]
fn a_frame_goes_behind_a_service_header_and_comes_out_as_it_went_in() {
    let f = inner();
    let (sent, _) = through(&[&[push_nsh(3), push_eth(), out()]], &f);
    assert_eq!(sent, [[ethernet(0x894f), header(3).bytes(), f.clone()].concat()]);
    let again = [push_nsh(3), push_eth(), Action::PopEth, Action::PopNsh, Action::Recirc(1)];
    assert_eq!(through(&[&again, &[out()]], &f), (vec![f.clone()], vec![]));
    // One service header within another.
    let twice = [push_nsh(3), push_nsh(4), Action::PopNsh, Action::PopNsh, Action::Recirc(1)];
    assert_eq!(through(&[&twice, &[out()]], &f), (vec![f], vec![]));
}

#[test]
fn an_ip_packet_has_no_ethernet_header_until_it_is_given_one() {
    let f = inner();
    let lists: [&[Action]; 2] = [&[Action::PopEth, Action::Recirc(1)], &[push_eth(), out()]];
    let (mut rig, h) = rig(&lists);
    for _ in 0..3 {
        rig.send(1, &f);
    }
    rig.poll();
    let want = [&ethernet(0x0800), &f[14..]].concat();
    assert_eq!(rig.received(2), vec![want; 3]);
    let asked = h.asked.lock().unwrap();
    let second = &asked[1];
    assert_eq!(second.key.get64(FieldId::PacketType) as u32, packet_type::of_type(0x0800));
    assert_eq!((second.key.get(FieldId::EthSrc), second.key.get(FieldId::EthDst)), (0, 0));
    assert_eq!((second.key.get64(FieldId::EthType), second.key.get64(FieldId::TpDst)), (0x0800, 6));
    assert_eq!(second.len_bytes as usize, f.len() - 14);
    let counted: Vec<_> = h.records.lock().unwrap().iter().map(|r| r.counters.read()).collect();
    assert_eq!((counted[0].packets, counted[0].bytes), (3, 3 * f.len() as u64));
    assert_eq!((counted[1].packets, counted[1].bytes), (3, 3 * (f.len() as u64 - 14)));
}

#[test]
fn a_service_header_before_an_ip_packet_says_so_and_is_taken_off_again() {
    let f = inner();
    let (sent, _) = through(&[&[Action::PopEth, push_nsh(1), push_eth(), out()]], &f);
    assert_eq!(sent, [[&ethernet(0x894f), &header(1).bytes()[..], &f[14..]].concat()]);
    let back = [Action::PopEth, Action::PopNsh, Action::Recirc(1)];
    let (sent, _) = through(&[&back, &[push_eth(), out()]], &sent[0]);
    assert_eq!(sent, [[&ethernet(0x0800), &f[14..]].concat()]);
}

#[test]
fn fields_of_a_service_header_are_written_where_they_are_and_nowhere_else() {
    let set = |field: FieldId, value| Action::SetField { field, value, mask: field.info().max() };
    let list = [
        push_nsh(3),
        push_eth(),
        set(FieldId::NshFlags, 2),
        set(FieldId::NshTtl, 9),
        set(FieldId::NshSpi, 0xab_cdef),
        set(FieldId::NshSi, 4),
        set(FieldId::NshC1, 0xdead_beef),
        Action::SetField { field: FieldId::NshC4, value: 0xff, mask: 0xf0 },
        out(),
    ];
    let (sent, _) = through(&[&list], &inner());
    let want = NshHeader {
        flags: 2,
        ttl: 9,
        spi: 0xab_cdef,
        si: 4,
        metadata: NshMetadata::Fixed([0xdead_beef, 2, 3, 0xf4]),
        ..header(3)
    };
    assert_eq!(sent[0][14..38], want.bytes());
    // A frame without such a header, and a header without context words, stay as they are.
    assert_eq!(through(&[&[set(FieldId::NshSi, 4), out()]], &inner()).0, [inner()]);
    let bare = NshHeader { metadata: NshMetadata::Options([0; 16].into()), ..header(3) };
    let bare = [ethernet(0x894f), bare.bytes(), inner()].concat();
    assert_eq!(through(&[&[set(FieldId::NshC1, 4), out()]], &bare).0, [bare]);
}

#[test]
fn a_label_before_a_frame_is_taken_off_again() {
    let add = Action::AddMpls { eth_type: 0x8847, lse: 0x0001_4140 };
    let f = inner();
    let (sent, _) = through(&[&[add.clone(), push_eth(), out()]], &f);
    assert_eq!(sent, [[&ethernet(0x8847), &[0, 1, 0x41, 0x40][..], &f].concat()]);
    let back = [add, Action::PopMpls { eth_type: 0x6558 }, Action::Recirc(1)];
    assert_eq!(through(&[&back, &[out()]], &f), (vec![f], vec![]));
}

#[test]
fn what_does_not_suit_the_packet_drops_it_and_is_counted() {
    let f = inner();
    let tagged = FrameBuilder::new().vlan(5, 0).ipv4([1, 1, 1, 1], [2, 2, 2, 2]).udp(5, 6).build();
    let wrong = |list: &[Action], f: &[u8]| through(&[list, &[out()]], f);
    let dropped = (vec![], vec![(DropReason::PacketType, 1)]);
    assert_eq!(wrong(&[Action::PopEth, out()], &f), dropped, "a port is for Ethernet");
    assert_eq!(wrong(&[Action::PopEth, Action::Recirc(1)], &f), dropped, "later too");
    assert_eq!(wrong(&[push_eth(), out()], &f), dropped, "it has a header");
    assert_eq!(wrong(&[Action::PopEth, Action::PopEth, out()], &f), dropped, "it has none");
    assert_eq!(wrong(&[Action::PopEth, out()], &tagged), dropped, "a tag");
    assert_eq!(wrong(&[Action::PopNsh, out()], &f), dropped, "no service header");
    assert_eq!(wrong(&[push_nsh(7), Action::PopNsh, out()], &f), dropped, "nobody knows what follows");
}

#[test]
fn headers_that_are_cut_short_drop_the_packet_and_nothing_is_lost() {
    let f = [ethernet(0x894f), header(next_protocol::ETHERNET).bytes(), inner()].concat();
    let list = [Action::PopEth, Action::PopNsh, Action::Recirc(1)];
    for len in 14..f.len() {
        let (sent, why) = through(&[&list, &[out()]], &f[..len]);
        match len - 14 {
            0..24 => assert_eq!((sent, why), (vec![], vec![(DropReason::Malformed, 1)]), "{len}"),
            24..38 => assert_eq!((sent, why), (vec![], vec![(DropReason::Runt, 1)]), "{len}"),
            _ => assert_eq!(sent, [f[38..len].to_vec()], "{len}"),
        }
    }
}
