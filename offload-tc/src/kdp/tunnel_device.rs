//! Devices for tunnels, where the kernel's datapath makes none.
//!
//! Until now a port of type VXLAN, Geneve or GRE made a device of its own (`vport-vxlan.ko` and its like). Newer kernels have these
//! modules no more: the device is made by rtnetlink, told that packets say where to, and becomes a port like any other interface
//! (`datapath_type=system` of a stock ovs-vswitchd does the same on every kernel). Nobody removes it then but who made it.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{KdpError, VportKind};
use crate::ack::Ack;
use crate::links;
use crate::message::{flag, kind, messages};
use crate::transport::Transport;
use crate::wire::{NESTED, Writer};

const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
/// What goes through is as long as it is; every kind takes this.
const MTU: u32 = 65_000;
/// How long the kernel's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Apart from those of dumps of interfaces.
const SEQ: u32 = 1 << 29;

/// Whether a kernel that refused a port with this number may take a device instead.
pub(super) fn may_be_device(errno: i32) -> bool {
    matches!(Errno::from_raw(errno), Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP | Errno::EINVAL)
}

/// Whether a port's interface is one that we make.
pub(super) fn is_ours(name: &str) -> bool {
    ["vxlan_sys", "genev_sys", "gre_sys", "ip6gre_sys"].iter().any(|p| name.starts_with(p))
}

fn put_options(w: &mut Writer, vport: &VportKind) {
    match vport {
        VportKind::Vxlan(udp) | VportKind::VxlanGbp(udp) => {
            // Nothing is learned, packets say where to, checksums of UDP over IPv6 may be zero.
            w.u8(7, 0);
            w.u8(25, 1);
            w.u8(20, 1);
            w.attr(15, &udp.to_be_bytes());
            if let VportKind::VxlanGbp(_) = vport {
                w.attr(23, &[]);
            }
        }
        VportKind::Geneve(udp) => {
            w.attr(6, &[]);
            w.u8(10, 1);
            w.attr(5, &udp.to_be_bytes());
        }
        VportKind::Gre | VportKind::Ip6Gre => w.attr(18, &[]),
        _ => {}
    }
}

fn put_new(w: &mut Writer, name: &str, vport: &VportKind) -> bool {
    let kind = match vport {
        VportKind::Vxlan(_) | VportKind::VxlanGbp(_) => "vxlan",
        VportKind::Geneve(_) => "geneve",
        VportKind::Gre => "gretap",
        VportKind::Ip6Gre => "ip6gretap",
        _ => return false,
    };
    let m = w.message(kind::NEW_LINK, flag::REQUEST | flag::ACK | flag::CREATE | flag::EXCL, SEQ);
    for v in [0, 0, IFF_UP, IFF_UP] {
        w.raw(&u32::to_ne_bytes(v));
    }
    w.text(IFLA_IFNAME, name);
    w.u32(IFLA_MTU, MTU);
    let info = w.nest(IFLA_LINKINFO | NESTED);
    w.text(INFO_KIND, kind);
    let data = w.nest(INFO_DATA | NESTED);
    put_options(w, vport);
    w.end(data);
    w.end(info);
    w.end_message(m);
    true
}

fn put_delete(w: &mut Writer, name: &str) {
    let m = w.message(kind::DEL_LINK, flag::REQUEST | flag::ACK, SEQ);
    w.raw(&[0; 16]);
    w.text(IFLA_IFNAME, name);
    w.end_message(m);
}

/// Sends a request and waits for its acknowledgement.
fn ask<T: Transport + ?Sized>(link: &mut T, w: &Writer) -> io::Result<Ack> {
    link.send(w.bytes())?;
    let (mut buf, began) = (Vec::new(), Instant::now());
    while began.elapsed() < PATIENCE && link.receive(&mut buf, PATIENCE)? {
        let ack = messages(&buf).flatten().find(|m| m.seq == SEQ && m.kind == kind::ERROR);
        if let Some(m) = ack {
            return Ack::read(m.flags, m.body).map_err(|e| io::Error::other(e.to_string()));
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Makes the device of a port. One of that name that is left from before is made anew.
///
/// # Errors
/// [`KdpError`].
pub(super) fn make<T: Transport + ?Sized>(
    link: &mut T,
    name: &str,
    vport: &VportKind,
) -> Result<(), KdpError> {
    let mut w = Writer::new();
    if !put_new(&mut w, name, vport) {
        return Err(KdpError::Unsupported("such port"));
    }
    let mut ack = ask(link, &w)?;
    if Errno::from_raw(ack.errno) == Errno::EEXIST && remove(link, name)? {
        ack = ask(link, &w)?;
    }
    match ack.errno {
        0 => Ok(()),
        errno => Err(KdpError::Refused { what: "tunnel device", errno, text: ack.words().to_owned() }),
    }
}

/// Removes the device of a port, if it is one of these. Whether it was.
///
/// # Errors
/// [`KdpError`].
pub(super) fn remove<T: Transport + ?Sized>(link: &mut T, name: &str) -> Result<bool, KdpError> {
    if !is_ours(name) || !links::links(link)?.iter().any(|l| l.name == name && l.is_tunnel()) {
        return Ok(false);
    }
    let mut w = Writer::new();
    put_delete(&mut w, name);
    let ack = ask(link, &w)?;
    match Errno::from_raw(ack.errno) {
        // Somebody was faster.
        _ if ack.errno == 0 => Ok(true),
        Errno::ENODEV => Ok(true),
        _ => Err(KdpError::Refused { what: "tunnel device", errno: ack.errno, text: ack.words().to_owned() }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test may panic
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::wire::{attrs, find};

    /// What `ip link add name x_sys mtu 65000 up type ...` of iproute2 6.1.0 sends, as strace saw it.
    const STOCK: &[(&str, VportKind, &str)] = &[
        (
            "vxlan external dstport 4789 nolearning udp6zerocsumrx",
            VportKind::Vxlan(4789),
            "68000000100005068a43096b000000000000000000000000010000000100000008000400e8fd00000a000300785f7379730000003400\
             12000900010076786c616e0000002400020005001900010000000500140001000000050007000000000006000f0012b50000",
        ),
        (
            "vxlan external dstport 4790 nolearning udp6zerocsumrx gbp",
            VportKind::VxlanGbp(4790),
            "6c000000100005068a43096b000000000000000000000000010000000100000008000400e8fd00000a000300785f7379730000003800\
             12000900010076786c616e000000280002000500190001000000050014000100000004001700050007000000000006000f0012b60000",
        ),
        (
            "geneve external dstport 6081 udp6zerocsumrx",
            VportKind::Geneve(6081),
            "7c000000100005068a43096b000000000000000000000000010000000100000008000400e8fd00000a000300785f7379730000004800\
             12000a00010067656e657665000038000200080001000000000008000b0000000000050003000000000005000400000000000600050017c10000\
             0400060005000a0001000000",
        ),
        (
            "gretap external",
            VportKind::Gre,
            "4c000000100005068a43096b000000000000000000000000010000000100000008000400e8fd00000a000300785f7379730000001800\
             12000a00010067726574617000000800020004001200",
        ),
    ];

    type Options = Vec<(u16, Vec<u8>)>;

    fn parts(b: &[u8]) -> (Message<'_>, Vec<u8>, Options) {
        let m = messages(b).next().unwrap().unwrap();
        let info = find(&m.body[16..], IFLA_LINKINFO).unwrap().unwrap();
        let data = find(info, INFO_DATA).unwrap().unwrap();
        let mut options: Vec<_> = attrs(data).map(|a| a.unwrap()).map(|(k, v)| (k, v.to_vec())).collect();
        options.sort();
        // `ip` leaves out the zero at its end, which counts for nothing.
        let kind = find(info, INFO_KIND).unwrap().unwrap();
        (m, kind.strip_suffix(&[0]).unwrap_or(kind).to_vec(), options)
    }

    #[test]
    fn a_device_is_asked_for_as_a_stock_ip_does() {
        for (command, vport, hex) in STOCK {
            let hex: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
            let theirs: Vec<u8> = hex
                .chunks(2)
                .map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap())
                .collect();
            let mut w = Writer::new();
            assert!(put_new(&mut w, "x_sys", vport));
            let (our, our_kind, our_options) = parts(w.bytes());
            let (their, their_kind, mut their_options) = parts(&theirs);
            // `ip` says of Geneve that the id, the label, the TTL and the ToS are zero, which they are where packets say them.
            their_options.retain(|(k, v)| our_options.iter().any(|o| o.0 == *k) || v.iter().any(|b| *b != 0));
            assert_eq!((our.kind, our.flags), (their.kind, their.flags), "{command}");
            assert_eq!(our.body[..16], their.body[..16], "{command}");
            for k in [IFLA_IFNAME, IFLA_MTU] {
                assert_eq!(find(&our.body[16..], k), find(&their.body[16..], k), "{command}");
            }
            assert_eq!((our_kind, our_options), (their_kind, their_options), "{command}");
        }
    }

    #[test]
    fn devices_of_others_are_not_ours() {
        assert!(
            is_ours("vxlan_sys_4789")
                && is_ours("genev_sys_6081")
                && is_ours("gre_sys")
                && is_ours("ip6gre_sys")
        );
        assert!(!is_ours("vxlan0") && !is_ours("eth0"));
    }
}
