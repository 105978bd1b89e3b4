//! What no filter catches: a last filter that hands every other frame over to an interface where software receives, with a tag
//! that says that it is at the beginning ([`crate::misses`]).
//!
//! A bond's frames are caught where its members receive them: those share a block of filters, whose number is the bond's. What the
//! members say to their peers about the bond itself (LACP) goes on to the bond. The bond itself has the block as well: frames of a member
//! that has joined it meanwhile are caught there, until that shares the block, too ([`Divert::refresh`]).
//!
//! It is there for as long as its [`Divert`] lives, no flush of the provider takes it away, and what somebody else takes away is put back
//! ([`Divert::restore`]). Without it a frame that nobody
//! forwards would go to the host's own stack.

use std::io;
use std::time::Duration;

use nix::errno::Errno;

use crate::ack::Ack;
use crate::action::{Cookie, TcAction, Verdict};
use crate::filter::{FilterAt, Flower, Hook, flags};
use crate::links::links;
use crate::message::{self, Add, kind, messages};
use crate::misses::{LAST, Misses, hand_over};
use crate::transport::Transport;
use crate::wire::Writer;

/// Any protocol.
const ALL: u16 = 3;
/// "Slow protocols" (IEEE 802.3 annex 57A), LACP among them.
const SLOW: u16 = 0x8809;
/// How long the kernel's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// What its cookie is; not one of the provider's.
const COOKIE: &[u8] = b"HoiD";

/// See the module's text.
#[derive(Debug)]
pub struct Divert<T: Transport> {
    link: T,
    filters: Vec<(FilterAt, Flower)>,
    ifindex: u32,
    /// A bond and its members that were given a qdisc.
    members: Vec<u32>,
    /// It is a bond.
    bond: bool,
    misses: Misses,
}

impl<T: Transport> Divert<T> {
    /// Redirects what interface `ifindex` receives and no filter catches to interface `to`, and has `misses` know. A clsact
    /// qdisc is added if there is none; a filter that a former life has left is changed.
    ///
    /// # Errors
    /// The kernel's, with its words.
    pub fn install(mut link: T, ifindex: u32, to: u32, misses: &Misses) -> io::Result<Self> {
        let (hook, members) = attach(&mut link, ifindex)?;
        let bond = matches!(hook, Hook::Block(_));
        let mut d = Divert { link, filters: Vec::new(), ifindex, members, bond, misses: misses.clone() };
        if bond {
            let mut f = Flower { flags: flags::SKIP_HW, ..Flower::default() };
            f.actions = vec![TcAction::verdict(Verdict::Pass)];
            if let Some(a) = f.actions.first_mut() {
                a.cookie = Cookie::new(COOKIE);
            }
            d.add(FilterAt { hook, chain: 0, prio: LAST - 1, protocol: SLOW, handle: 1 }, f)?;
        }
        let actions = hand_over(0, 0, to, Cookie::new(COOKIE));
        let f = Flower { flags: flags::SKIP_HW, actions, ..Flower::default() };
        d.add(FilterAt { hook, chain: 0, prio: LAST, protocol: ALL, handle: 1 }, f)?;
        misses.open(ifindex, to, hook);
        Ok(d)
    }

    /// Has members that have joined the bond share its filters. How many there were.
    ///
    /// # Errors
    /// The kernel's; the next call tries again.
    pub fn refresh(&mut self) -> io::Result<usize> {
        if !self.bond {
            return Ok(0);
        }
        let (_, given) = attach(&mut self.link, self.ifindex)?;
        // Those that have left are given back theirs, wherever they are now.
        let all = links(&mut self.link)?;
        let ours =
            |i: u32| i == self.ifindex || all.iter().any(|l| l.index == i && l.master == Some(self.ifindex));
        let (stay, left): (Vec<u32>, Vec<u32>) = self.members.iter().copied().partition(|i| ours(*i));
        self.members = stay;
        for i in left {
            let _ = ask(&mut self.link, |w| message::delete_clsact(w, 4, i));
        }
        let n = given.len();
        self.members.extend(given);
        Ok(n)
    }

    fn add(&mut self, at: FilterAt, f: Flower) -> io::Result<()> {
        put(&mut self.link, &at, &f)?;
        self.filters.push((at, f));
        Ok(())
    }

    /// Puts back what somebody else has removed, with the qdisc if need be: without it software sees nothing any more. How much it was.
    ///
    /// # Errors
    /// The kernel's; the next call tries again.
    pub fn restore(&mut self) -> io::Result<usize> {
        let mut n = 0;
        for (at, f) in &self.filters {
            if ask(&mut self.link, |w| message::get_filter(w, 5, at))?.errno == 0 {
                continue;
            }
            attach(&mut self.link, self.ifindex)?;
            put(&mut self.link, at, f)?;
            n += 1;
        }
        Ok(n)
    }
}

impl<T: Transport> Drop for Divert<T> {
    fn drop(&mut self) {
        self.misses.close(self.ifindex);
        for (at, _) in std::mem::take(&mut self.filters) {
            // With the interface gone the filter is, too.
            let _ = ask(&mut self.link, |w| message::delete_filter(w, 3, &at));
        }
        for m in std::mem::take(&mut self.members) {
            let _ = ask(&mut self.link, |w| message::delete_clsact(w, 4, m));
        }
    }
}

/// What the filters of an interface hang on: a qdisc is added where there is none. And the bond and members of it that were given one.
fn attach<T: Transport>(link: &mut T, ifindex: u32) -> io::Result<(Hook, Vec<u32>)> {
    let all = links(link)?;
    let bond = all.iter().any(|l| l.index == ifindex && l.is_bond());
    let members = all.iter().filter(|l| bond && l.master == Some(ifindex)).map(|l| l.index);
    let mut given = Vec::new();
    let block = bond.then_some(ifindex);
    for i in std::iter::once(ifindex).chain(members) {
        let ack = ask(link, |w| message::add_clsact(w, 1, i, block))?;
        match Errno::from_raw(ack.errno) {
            _ if ack.errno == 0 => given.push(i),
            Errno::EEXIST => {}
            _ => return Err(said("clsact", &ack)),
        }
    }
    Ok(match block {
        Some(b) => (Hook::Block(b), given),
        // That of a plain interface is the provider's to give back.
        None => (Hook::Ingress(ifindex), Vec::new()),
    })
}

fn put<T: Transport>(link: &mut T, at: &FilterAt, f: &Flower) -> io::Result<()> {
    let ack = ask(link, |w| message::add_filter(w, 2, at, f, Add::Replace))?;
    if ack.errno == 0 { Ok(()) } else { Err(said("filter", &ack)) }
}

fn said(what: &str, ack: &Ack) -> io::Error {
    io::Error::other(format!("{what}: {}", ack.words()))
}

fn ask<T: Transport>(link: &mut T, put: impl FnOnce(&mut Writer)) -> io::Result<Ack> {
    let mut w = Writer::new();
    put(&mut w);
    link.send(w.bytes())?;
    let mut buf = Vec::new();
    while link.receive(&mut buf, PATIENCE)? {
        if let Some(m) = messages(&buf).flatten().find(|m| m.kind == kind::ERROR) {
            return Ack::read(m.flags, m.body).map_err(|e| io::Error::other(e.to_string()));
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeKernel;
    use crate::links::LinkInfo;
    use crate::misses::{Place, TAG};
    use flow::{FieldId, PortId};
    use offload::conformance::rules::{SHAPES, packet};

    #[test]
    fn the_members_of_a_bond_share_their_filters_and_lacp_is_left_to_the_bond() {
        let kernel = FakeKernel::new(&[1, 2, 3, 9]);
        let of =
            |index, kind: &str, master| LinkInfo { index, kind: kind.into(), master, ..LinkInfo::default() };
        kernel.set_link(of(1, "bond", None));
        kernel.set_link(of(2, "", Some(1)));
        kernel.set_link(of(3, "", Some(1)));
        let misses = Misses::new();
        let d = Divert::install(kernel.socket(), 1, 9, &misses).unwrap();
        assert_eq!((misses.hook(1), misses.tap(1)), (Hook::Block(1), Some(9)));
        assert_eq!(kernel.filters().len(), 2);
        let k = packet(SHAPES[0], 1, PortId(1));
        for member in [2, 3] {
            assert_eq!(kernel.receive(member, &k, 100).map(|out| out[0].0), Some(9));
            let mut lacp = k;
            lacp.set(FieldId::EthType, SLOW.into());
            assert_eq!(kernel.receive(member, &lacp, 100), None);
        }
        drop(d);
        assert!(kernel.filters().is_empty());
    }

    #[test]
    fn a_member_that_joins_a_bond_later_shares_its_filters_and_one_that_leaves_does_not() {
        let kernel = FakeKernel::new(&[1, 2, 3, 9]);
        let of =
            |index, kind: &str, master| LinkInfo { index, kind: kind.into(), master, ..LinkInfo::default() };
        kernel.set_link(of(1, "bond", None));
        let misses = Misses::new();
        let mut d = Divert::install(kernel.socket(), 1, 9, &misses).unwrap();
        let k = packet(SHAPES[0], 1, PortId(1));
        let goes = |member| kernel.receive(member, &k, 100).map(|out| out[0].0);
        assert_eq!((goes(1), goes(2)), (Some(9), None), "a bond without members");
        kernel.set_link(of(2, "", Some(1)));
        kernel.set_link(of(3, "", Some(1)));
        assert_eq!((d.refresh().unwrap(), d.refresh().unwrap()), (2, 0));
        assert_eq!((goes(2), goes(3)), (Some(9), Some(9)));
        kernel.set_link(of(3, "", None));
        assert_eq!(d.refresh().unwrap(), 0);
        assert_eq!((goes(2), goes(3)), (Some(9), None));
        drop(d);
        assert!(kernel.filters().is_empty());
        assert_eq!(goes(2), None);
    }

    #[test]
    fn what_somebody_removes_of_it_is_put_back_with_the_qdisc() {
        let kernel = FakeKernel::new(&[1, 9]);
        let mut d = Divert::install(kernel.socket(), 1, 9, &Misses::new()).unwrap();
        assert_eq!(d.restore().unwrap(), 0);
        let at = kernel.filters()[0].0;
        assert!(kernel.remove_filter(&at));
        assert_eq!((d.restore().unwrap(), kernel.filters().len()), (1, 1));
        kernel.remove_qdisc(1);
        assert_eq!((d.restore().unwrap(), kernel.filters().len()), (1, 1));
        let k = packet(SHAPES[2], 1, PortId(1));
        assert_eq!(kernel.receive(1, &k, 100).map(|out| out[0].0), Some(9));
        kernel.remove_interface(1);
        assert!(d.restore().is_err());
        drop(d);
        assert!(kernel.filters().is_empty());
    }

    #[test]
    fn what_no_filter_catches_is_diverted_for_as_long_as_it_lives() {
        let kernel = FakeKernel::new(&[1, 9]);
        let misses = Misses::new();
        let d = Divert::install(kernel.socket(), 1, 9, &misses).unwrap();
        assert_eq!(misses.tap(1), Some(9));
        let k = packet(SHAPES[2], 1, PortId(1));
        let out = kernel.receive(1, &k, 100).unwrap();
        assert_eq!((out[0].0, out[0].1.get(FieldId::VlanTpid)), (9, TAG.into()));
        assert_eq!(misses.place(out[0].1.get(FieldId::VlanTci) as u16 & 0xefff), Some(Place::default()));
        let again = Divert::install(kernel.socket(), 1, 9, &misses).unwrap();
        assert_eq!(kernel.filters().len(), 1, "one that was left is taken over");
        drop(again);
        assert!(kernel.filters().is_empty());
        drop(d);
        assert!(Divert::install(kernel.socket(), 7, 9, &misses).is_err());
        assert_eq!((misses.tap(1), misses.tap(7)), (None, None));
    }
}
