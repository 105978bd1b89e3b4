//! Malformed and semantically wrong requests in every version, against the real process: each gets the error that the version has for
//! it, under the numbers that the version has for the error.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use support::{DEADLINE, Daemon};

const BRIDGE: &str = "\
[[bridge]]
name = \"br0\"
datapath_id = \"00000000000000aa\"
[[bridge.port]]
name = \"one\"
ofport = 1
type = \"memory\"
";

/// Transaction id of the barrier behind each message.
const BEHIND: u32 = 0x77;
const ERROR: u8 = 1;
/// The types of errors that an experimenter has numbered: since OpenFlow 1.2, and Nicira's before.
const EXPERIMENTER: u16 = 0xffff;
const NICIRA: u16 = 0xb0c2;

fn frame(version: u8, kind: u8, xid: u32) -> Vec<u8> {
    [&[version, kind, 0, 8][..], &xid.to_be_bytes()].concat()
}

fn numbers(at: &[u8]) -> Vec<u16> {
    at.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect()
}

struct Peer {
    version: u8,
    stream: UnixStream,
}

impl Peer {
    fn connect(d: &Daemon, version: u8) -> Peer {
        let mut stream = UnixStream::connect(d.path("br0.mgmt")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&frame(version, 0, 1)).unwrap();
        let mut p = Peer { version, stream };
        p.receive();
        p
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut m = vec![0; 8];
        self.stream.read_exact(&mut m).unwrap();
        m.resize(usize::from(u16::from_be_bytes([m[2], m[3]])), 0);
        self.stream.read_exact(&mut m[8..]).unwrap();
        m
    }

    /// What a message is answered with, in the words of the list.
    fn ask(&mut self, message: &[u8]) -> String {
        self.stream.write_all(message).unwrap();
        let barrier = if self.version == 1 { 18 } else { 20 };
        self.stream.write_all(&frame(self.version, barrier, BEHIND)).unwrap();
        let mut said = Vec::new();
        loop {
            let m = self.receive();
            if m[4..8] == BEHIND.to_be_bytes() {
                return if said.is_empty() { "none".to_owned() } else { said.join(" ") };
            }
            said.push(if m[1] != ERROR {
                "reply".to_owned()
            } else {
                let n = numbers(&m[8..12]);
                let vendor = || u32::from_be_bytes([m[12], m[13], m[14], m[15]]);
                match n[0] {
                    EXPERIMENTER => format!("{:#x}:{}", vendor(), n[1]),
                    NICIRA => {
                        let own = numbers(&m[16..20]);
                        format!("{:#x}:{}/{}", vendor(), own[0], own[1])
                    }
                    t => format!("{t}/{}", n[1]),
                }
            });
        }
    }
}

#[test]
fn wrong_requests_get_the_error_that_their_version_has_for_them() {
    let d = Daemon::start(BRIDGE);
    let mut peers: Vec<Peer> = (1..=6).map(|v| Peer::connect(&d, v)).collect();
    let (mut name, mut n, mut wrong) = ("", 0, Vec::new());
    for line in include_str!("errors/ovs-3.1.0.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        if let Some(of) = line.strip_prefix("> ") {
            name = of;
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let version: usize = words[0].parse().unwrap();
        let hex = words[1];
        let message: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
        let got = peers[version - 1].ask(&message);
        if got != words[2] {
            wrong.push(format!("{name}, version {version}: {got} where {} is asked for", words[2]));
        }
        n += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(n > 300, "{n} cases");
}
