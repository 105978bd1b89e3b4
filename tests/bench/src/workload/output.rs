//! The directory a workload is written to, and the frames that several workloads share.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flow::MacAddr;
use flow::frame::{DEFAULT_DST, DEFAULT_SRC, FrameBuilder, MIN_FRAME_BYTES};

/// A workload that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// No workload has this name.
    #[error("unknown workload {name}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A pcap file (microseconds, little-endian, Ethernet) whose packets all have time zero.
pub(super) struct Pcap {
    path: PathBuf,
    file: BufWriter<File>,
    packets: usize,
}

impl Pcap {
    fn create(path: PathBuf) -> Result<Self, WorkloadError> {
        let open = || {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
            file.write_all(&0xa1b2_c3d4u32.to_le_bytes())?;
            file.write_all(&2u16.to_le_bytes())?;
            file.write_all(&4u16.to_le_bytes())?;
            for word in [0u32, 0, 65_535, 1] {
                file.write_all(&word.to_le_bytes())?;
            }
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Pcap { path, file, packets: 0 }),
            Err(source) => Err(WorkloadError::Io { path, source }),
        }
    }

    /// Appends a frame, padded to the least frame length.
    pub(super) fn add(&mut self, frame: &[u8]) -> Result<(), WorkloadError> {
        let len = frame.len().max(MIN_FRAME_BYTES);
        let padding = [0; MIN_FRAME_BYTES];
        let mut record = [0; 16];
        record[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        record[12..].copy_from_slice(&(len as u32).to_le_bytes());
        self.packets += 1;
        self.file
            .write_all(&record)
            .and_then(|()| self.file.write_all(frame))
            .and_then(|()| self.file.write_all(&padding[..len - frame.len()]))
            .map_err(|source| WorkloadError::Io { path: self.path.clone(), source })
    }
}

/// A workload's directory while it is being written.
pub(super) struct Output {
    dir: PathBuf,
    meta: Vec<(&'static str, String)>,
    input: Pcap,
    prime: Option<Pcap>,
    texts: Vec<(&'static str, Vec<String>)>,
}

impl Output {
    /// Makes `dir/name`, empty but for the start of `in.pcap`.
    pub(super) fn create(dir: &Path, name: &'static str, topo: &str) -> Result<Self, WorkloadError> {
        let dir = dir.join(name);
        let prepare = || {
            fs::create_dir_all(&dir)?;
            for old in fs::read_dir(&dir)? {
                fs::remove_file(old?.path())?;
            }
            Ok(())
        };
        prepare().map_err(|source| WorkloadError::Io { path: dir.clone(), source })?;
        let input = Pcap::create(dir.join("in.pcap"))?;
        let meta = vec![("name", name.to_owned()), ("topo", topo.to_owned())];
        Ok(Output { dir, meta, input, prime: None, texts: Vec::new() })
    }

    pub(super) fn meta(&mut self, key: &'static str, value: impl ToString) {
        self.meta.push((key, value.to_string()));
    }

    /// Appends a frame to `in.pcap`.
    pub(super) fn add(&mut self, frame: &[u8]) -> Result<(), WorkloadError> {
        self.input.add(frame)
    }

    /// Appends a frame to `prime.pcap`.
    pub(super) fn prime(&mut self, frame: &[u8]) -> Result<(), WorkloadError> {
        if self.prime.is_none() {
            self.prime = Some(Pcap::create(self.dir.join("prime.pcap"))?);
        }
        self.prime.as_mut().map_or(Ok(()), |p| p.add(frame))
    }

    /// Appends a line to `rules.flows`.
    pub(super) fn rule(&mut self, line: impl Into<String>) {
        self.line("rules.flows", line);
    }

    /// Appends a line to a text file.
    pub(super) fn line(&mut self, file: &'static str, line: impl Into<String>) {
        match self.texts.iter_mut().find(|(f, _)| *f == file) {
            Some((_, lines)) => lines.push(line.into()),
            None => self.texts.push((file, vec![line.into()])),
        }
    }

    /// Writes what is left, `meta` last.
    pub(super) fn finish(mut self) -> Result<(), WorkloadError> {
        for p in std::iter::once(&mut self.input).chain(self.prime.as_mut()) {
            p.file.flush().map_err(|source| WorkloadError::Io { path: p.path.clone(), source })?;
        }
        let rules: usize =
            self.texts.iter().filter(|(f, _)| f.ends_with(".flows")).map(|(_, l)| l.len()).sum();
        let packets = self.input.packets;
        self.meta("packets", packets);
        self.meta("rules", rules);
        let meta = self.meta.iter().map(|(k, v)| format!("{k}={v}")).collect();
        for (file, lines) in self.texts.iter().chain([&("meta", meta)]) {
            let path = self.dir.join(file);
            fs::write(&path, lines.join("\n") + "\n").map_err(|source| WorkloadError::Io { path, source })?;
        }
        Ok(())
    }
}

/// The `i`-th of `n` flows: distinct 5-tuples without a structure that a prefix could exploit. Source and destination
/// address, source and destination port; UDP.
pub(super) fn flow_tuple(i: u32, n: u32) -> (u32, u32, u16, u16) {
    debug_assert!(i < n);
    let src = 0x0a00_0000 + (i.wrapping_mul(2_654_435_761) & 0xff_ffff);
    let dst = 0x0b00_0000 + (i.wrapping_mul(40_503) & 0xffff);
    (src, dst, 1024 + (i % 60_000) as u16, if i & 1 == 1 { 80 } else { 443 })
}

/// A 60-byte UDP frame of that flow, with `i` as its identification.
pub(super) fn flow_frame(i: u32, n: u32) -> Vec<u8> {
    let (src, dst, sp, dp) = flow_tuple(i, n);
    frame4((DEFAULT_DST, DEFAULT_SRC), src, dst, 17, sp, dp, i)
}

/// A 60-byte IPv4 frame with UDP (17) or TCP; `eth` is destination and source.
pub(super) fn frame4(
    eth: (MacAddr, MacAddr),
    src: u32,
    dst: u32,
    proto: u8,
    sp: u16,
    dp: u16,
    ident: u32,
) -> Vec<u8> {
    let f = FrameBuilder::new().eth(eth.0, eth.1).ipv4(src, dst).ident(ident as u16);
    if proto == 17 { f.udp(sp, dp).payload(&[0; 18]) } else { f.tcp(sp, dp).payload(&[0; 6]) }.build()
}

/// Default Ethernet addresses: from the host behind `n0` to the one behind `n1`.
pub(super) const ETH: (MacAddr, MacAddr) = (DEFAULT_DST, DEFAULT_SRC);
