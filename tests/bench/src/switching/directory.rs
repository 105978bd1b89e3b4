//! A workload directory, read whole: see [`crate::workload`] for what is in it.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use flow::MacAddr;
use netio::pcap::PcapReader;
use openflow::FlowMod;
use openflow::text::parse_file;

use super::SwitchingError;

/// OpenFlow number of the port that frames come in on.
pub const N0: u32 = 10;
/// OpenFlow number of the port that they leave by.
pub const N1: u32 = 1;
/// OpenFlow number of the tunnel.
pub const TUN0: u32 = 9;

/// Frames one behind the other.
#[derive(Default)]
pub struct Frames {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Frames {
    /// Appends one.
    pub fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len() as u32);
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Frame `i`; empty when there are not so many.
    #[inline]
    pub fn get(&self, i: usize) -> &[u8] {
        let start = i.checked_sub(1).and_then(|b| self.ends.get(b)).map_or(0, |e| *e as usize);
        let end = self.ends.get(i).map_or(start, |e| *e as usize);
        &self.bytes[start..end]
    }
}

/// What a directory holds.
pub struct Directory {
    /// Name of the workload.
    pub name: String,
    /// `plain`, `l2`, `ct`, `encap`, `decap`.
    pub topo: String,
    /// What is received.
    pub frames: Arc<Frames>,
    /// Rules of the bridge.
    pub flows: Vec<FlowMod>,
    /// Static stations: port name and address.
    pub stations: Vec<(String, String)>,
    /// What is received once, on a port of its own, before anything else.
    pub prime: Option<Arc<Frames>>,
    /// Percent of the frames that leave by `n1`, with two decimals.
    pub expect_fwd: String,
    /// The tunnel, and what is below it.
    pub tunnel: Option<Underlay>,
}

/// The bridge below a tunnel, with what is preset there.
pub struct Underlay {
    /// Its rules.
    pub flows: Vec<FlowMod>,
    /// Address of this end and how much of it is the network's.
    pub local: (IpAddr, u8),
    /// Ethernet address of this end.
    pub local_mac: MacAddr,
    /// Address of the other end.
    pub remote: IpAddr,
    /// Ethernet address of the other end.
    pub remote_mac: MacAddr,
}

fn frames_of(path: &Path) -> Result<Frames, SwitchingError> {
    let mut frames = Frames::default();
    for f in PcapReader::open(path)? {
        frames.push(&f?.data);
    }
    Ok(frames)
}

/// The OpenFlow number of a port by its name.
pub fn port_number(name: &str) -> Option<u32> {
    match name {
        "n0" => Some(N0),
        "n1" => Some(N1),
        "tun0" => Some(TUN0),
        _ => None,
    }
}

fn is_supported(topo: &str) -> bool {
    matches!(topo, "plain" | "l2" | "ct" | "encap" | "decap")
}

impl Directory {
    /// Rules alone.
    pub fn of_flows(flows: Vec<FlowMod>) -> Self {
        Directory {
            tunnel: None,
            name: String::new(),
            topo: "plain".into(),
            frames: Arc::default(),
            flows,
            stations: Vec::new(),
            prime: None,
            expect_fwd: String::new(),
        }
    }

    /// Whether the bed has what the topology needs.
    pub fn is_supported(&self) -> bool {
        is_supported(&self.topo)
    }

    /// Reads `dir`.
    ///
    /// # Errors
    /// What cannot be read or is not understood.
    pub fn read(dir: &Path) -> Result<Self, SwitchingError> {
        let text = |file: &str| {
            let path = dir.join(file);
            fs::read_to_string(&path).map_err(|source| SwitchingError::Read { path, source })
        };
        let meta = text("meta")?;
        let meta: HashMap<&str, &str> = meta.lines().filter_map(|l| l.split_once('=')).collect();
        let of = |k: &str| meta.get(k).copied().unwrap_or("").to_owned();
        let frames = frames_of(&dir.join("in.pcap"))?;
        if frames.is_empty() {
            return Err(SwitchingError::NoFrames(dir.to_owned()));
        }
        let stations = match text("fdb.txt") {
            Ok(t) => t
                .lines()
                .filter_map(|l| l.split_once(' ').map(|(p, m)| (p.to_owned(), m.to_owned())))
                .collect(),
            Err(_) => Vec::new(),
        };
        let prime = dir.join("prime.pcap");
        let prime = if prime.exists() { Some(Arc::new(frames_of(&prime)?)) } else { None };
        let topo = of("topo");
        // What the topology needs is said to be missing before its rules are looked at.
        let flows =
            if is_supported(&topo) { parse_file(&text("rules.flows")?, &port_number)? } else { Vec::new() };
        let tunnel = if matches!(topo.as_str(), "encap" | "decap") {
            let missing = || SwitchingError::FlowMod("meta: vtep_* is missing or malformed".to_owned());
            let address = |k: &str| of(k).parse::<IpAddr>().map_err(|_| missing());
            let mac = |k: &str| of(k).parse::<MacAddr>().map_err(|_| missing());
            Some(Underlay {
                flows: parse_file(&text("phy.flows")?, &port_number)?,
                local: (address("vtep_local")?, of("vtep_plen").parse().map_err(|_| missing())?),
                local_mac: mac("vtep_local_mac")?,
                remote: address("vtep_remote")?,
                remote_mac: mac("vtep_remote_mac")?,
            })
        } else {
            None
        };
        Ok(Directory {
            tunnel,
            name: of("name"),
            topo,
            frames: Arc::new(frames),
            flows,
            stations,
            prime,
            expect_fwd: of("expect_fwd"),
        })
    }
}
