//! What no filter catches: a last filter that hands every other frame over to an interface where software receives.
//!
//! It is there for as long as its [`Divert`] lives, and no flush of the provider takes it away. Without it a frame that nobody
//! forwards would go to the host's own stack.

use std::io;
use std::time::Duration;

use nix::errno::Errno;

use crate::ack::Ack;
use crate::action::{Cookie, MirredMode, TcAction};
use crate::filter::{FilterAt, Flower, Hook, flags};
use crate::message::{self, Add, kind, messages};
use crate::transport::Transport;
use crate::wire::Writer;

/// Behind every other priority but the very last.
const PRIO: u16 = 0xfffe;
/// Any protocol.
const ALL: u16 = 3;
/// How long the kernel's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// What its cookie is; not one of the provider's.
const COOKIE: &[u8] = b"HoiD";

/// See the module's text.
#[derive(Debug)]
pub struct Divert<T: Transport> {
    link: T,
    at: FilterAt,
}

impl<T: Transport> Divert<T> {
    /// Redirects what interface `ifindex` receives and no filter catches to interface `to`. A clsact qdisc is added if there is
    /// none; a filter that a former life has left is changed.
    ///
    /// # Errors
    /// The kernel's, with its words.
    pub fn install(mut link: T, ifindex: u32, to: u32) -> io::Result<Self> {
        let ack = ask(&mut link, |w| message::add_clsact(w, 1, ifindex, None))?;
        if ack.errno != 0 && Errno::from_raw(ack.errno) != Errno::EEXIST {
            return Err(said("clsact", &ack));
        }
        let mut f = Flower { flags: flags::SKIP_HW, ..Flower::default() };
        let mut a = TcAction::mirred(MirredMode::EgressRedirect, to);
        a.cookie = Cookie::new(COOKIE);
        f.actions.push(a);
        let at = FilterAt { hook: Hook::Ingress(ifindex), chain: 0, prio: PRIO, protocol: ALL, handle: 1 };
        let ack = ask(&mut link, |w| message::add_filter(w, 2, &at, &f, Add::Replace))?;
        if ack.errno != 0 {
            return Err(said("filter", &ack));
        }
        Ok(Divert { link, at })
    }
}

impl<T: Transport> Drop for Divert<T> {
    fn drop(&mut self) {
        let at = self.at;
        // With the interface gone the filter is, too.
        let _ = ask(&mut self.link, |w| message::delete_filter(w, 3, &at));
    }
}

fn said(what: &str, ack: &Ack) -> io::Error {
    let text = if ack.text.is_empty() { Errno::from_raw(ack.errno).desc() } else { &ack.text };
    io::Error::other(format!("{what}: {text}"))
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
    use flow::PortId;
    use offload::conformance::rules::{SHAPES, packet};

    #[test]
    fn what_no_filter_catches_is_diverted_for_as_long_as_it_lives() {
        let kernel = FakeKernel::new(&[1, 9]);
        let d = Divert::install(kernel.socket(), 1, 9).unwrap();
        let k = packet(SHAPES[2], 1, PortId(1));
        assert_eq!(kernel.receive(1, &k, 100).map(|out| out[0].0), Some(9));
        let again = Divert::install(kernel.socket(), 1, 9).unwrap();
        assert_eq!(kernel.filters().len(), 1, "one that was left is taken over");
        drop(again);
        assert!(kernel.filters().is_empty());
        drop(d);
        assert!(Divert::install(kernel.socket(), 7, 9).is_err());
    }
}
