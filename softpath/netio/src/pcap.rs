//! Capture files: reading pcap and pcapng in either byte order and resolution, writing nanosecond pcap.
//!
//! [`PcapSource`] replays a file as a receive queue, [`PcapSink`] records what is sent to it. Frames must be Ethernet.
//! Files are read as a stream in bounded memory.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clock::{Clock, Instant};
use device::{BufferPool, IoError, PacketBatch, RxQueue, TxQueue};
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError};

/// Bytes read ahead; a record must fit.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// Interfaces of one pcapng section; more are an error.
const MAX_INTERFACES: usize = 4096;

/// Why a capture file could not be read.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum CaptureError {
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("neither pcap nor pcapng")]
    NotACapture,
    #[error("link type {0} is not Ethernet")]
    NotEthernet(i32),
    #[error("truncated or damaged after {frames} frames: {what}")]
    Damaged { frames: u64, what: String },
}

/// A captured frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Captured {
    /// Nanoseconds since the epoch of the file.
    pub time_ns: u64,
    /// The bytes that were captured.
    pub data: Vec<u8>,
    /// Length of the frame on the wire in bytes; more than `data` when the capture cut it.
    pub wire_bytes: u32,
}

#[derive(Clone, Copy)]
struct Interface {
    ethernet: i32,
    units_per_second: u64,
    offset_seconds: i64,
}

/// Reads frames from a capture.
pub struct PcapReader {
    reader: Box<dyn PcapReaderIterator + Send>,
    interfaces: Vec<Interface>,
    nanoseconds: bool,
    frames: u64,
}

/// What one block of the file gave.
enum Step {
    Frame(Captured),
    Other,
}

impl PcapReader {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let f = File::open(path).map_err(|source| CaptureError::Open { path: path.to_owned(), source })?;
        Self::new(f)
    }

    /// Reads from `source`.
    ///
    /// # Errors
    /// [`CaptureError::NotACapture`].
    pub fn new(source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let reader =
            pcap_parser::create_reader(READ_AHEAD_BYTES, source).map_err(|_| CaptureError::NotACapture)?;
        Ok(PcapReader { reader, interfaces: Vec::new(), nanoseconds: false, frames: 0 })
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// [`CaptureError::Damaged`], [`CaptureError::NotEthernet`]; nothing can be read after an error.
    pub fn next_frame(&mut self) -> Result<Option<Captured>, CaptureError> {
        let mut refills = 0;
        loop {
            let frames = self.frames;
            let damaged = |what: &str| CaptureError::Damaged { frames, what: what.to_owned() };
            match self.reader.next() {
                Ok((n, block)) => {
                    refills = 0;
                    let step = take_block(block, &mut self.interfaces, &mut self.nanoseconds, frames)?;
                    self.reader.consume(n);
                    if let Step::Frame(f) = step {
                        self.frames += 1;
                        return Ok(Some(f));
                    }
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) if refills < READ_AHEAD_BYTES => {
                    refills += 1;
                    let before = self.reader.reader_exhausted();
                    self.reader.refill().map_err(|_| damaged("read error"))?;
                    if before {
                        return Err(damaged("it ends within a record"));
                    }
                }
                Err(PcapError::BufferTooSmall) => return Err(damaged("a record is longer than 1 MiB")),
                Err(PcapError::UnexpectedEof | PcapError::Incomplete(_)) => {
                    return Err(damaged("it ends within a record"));
                }
                Err(PcapError::ReadError) => return Err(damaged("read error")),
                Err(_) => return Err(damaged("a record cannot be decoded")),
            }
        }
    }
}

impl Iterator for PcapReader {
    type Item = Result<Captured, CaptureError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.next_frame().transpose()
    }
}

fn ethernet(l: Linktype) -> Result<(), CaptureError> {
    if l == Linktype::ETHERNET { Ok(()) } else { Err(CaptureError::NotEthernet(l.0)) }
}

fn take_block(
    block: PcapBlockOwned<'_>,
    interfaces: &mut Vec<Interface>,
    nanoseconds: &mut bool,
    frames: u64,
) -> Result<Step, CaptureError> {
    let damaged = |what: &str| CaptureError::Damaged { frames, what: what.to_owned() };
    match block {
        PcapBlockOwned::LegacyHeader(h) => {
            ethernet(h.network)?;
            *nanoseconds = h.is_nanosecond_precision();
        }
        PcapBlockOwned::Legacy(r) => {
            let fraction = u64::from(r.ts_usec) * if *nanoseconds { 1 } else { 1000 };
            return Ok(Step::Frame(Captured {
                time_ns: u64::from(r.ts_sec) * 1_000_000_000 + fraction,
                data: r.data.to_vec(),
                wire_bytes: r.origlen,
            }));
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
        PcapBlockOwned::NG(Block::InterfaceDescription(i)) => {
            if interfaces.len() >= MAX_INTERFACES {
                return Err(damaged("too many interfaces"));
            }
            interfaces.push(Interface {
                ethernet: i.linktype.0,
                units_per_second: i.ts_resolution().unwrap_or(1_000_000).max(1),
                offset_seconds: i.ts_offset(),
            });
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(p)) => {
            let Some(i) = interfaces.get(p.if_id as usize) else {
                return Err(damaged("a packet of an interface that was not described"));
            };
            ethernet(Linktype(i.ethernet))?;
            let units = u128::from(p.ts_high) << 32 | u128::from(p.ts_low);
            let ns =
                i128::try_from(units * 1_000_000_000 / u128::from(i.units_per_second)).unwrap_or(i128::MAX);
            let ns = ns.saturating_add(i128::from(i.offset_seconds) * 1_000_000_000);
            let len = (p.caplen as usize).min(p.data.len());
            return Ok(Step::Frame(Captured {
                time_ns: u64::try_from(ns.max(0)).unwrap_or(u64::MAX),
                data: p.data[..len].to_vec(),
                wire_bytes: p.orig_len(),
            }));
        }
        PcapBlockOwned::NG(Block::SimplePacket(p)) => {
            let Some(i) = interfaces.first() else {
                return Err(damaged("a packet of an interface that was not described"));
            };
            ethernet(Linktype(i.ethernet))?;
            let len = (p.origlen as usize).min(p.data.len());
            return Ok(Step::Frame(Captured {
                time_ns: 0,
                data: p.data[..len].to_vec(),
                wire_bytes: p.origlen,
            }));
        }
        PcapBlockOwned::NG(_) => {}
    }
    Ok(Step::Other)
}

/// Writes nanosecond pcap, little-endian, link type Ethernet.
pub struct PcapWriter<W: Write> {
    out: W,
}

impl PcapWriter<BufWriter<File>> {
    /// Makes or empties the file at `path`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        Self::new(BufWriter::new(File::create(path)?))
    }

    /// Goes on with the file at `path`, if it is one of these; makes or empties it otherwise.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn append(path: &Path) -> std::io::Result<Self> {
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        let mut there = [0; HEADER_BYTES];
        if file.read_exact(&mut there).is_ok() && there == header() {
            return Ok(PcapWriter { out: BufWriter::new(file) });
        }
        Self::create(path)
    }
}

/// Bytes of a file's header.
const HEADER_BYTES: usize = 24;

/// The header of files that are written here: nanoseconds, Ethernet.
fn header() -> [u8; HEADER_BYTES] {
    let mut h = [0; HEADER_BYTES];
    h[..4].copy_from_slice(&0xa1b2_3c4du32.to_le_bytes());
    h[4..6].copy_from_slice(&2u16.to_le_bytes());
    h[6..8].copy_from_slice(&4u16.to_le_bytes());
    h[16..20].copy_from_slice(&262_144u32.to_le_bytes());
    h[20..].copy_from_slice(&1u32.to_le_bytes());
    h
}

impl<W: Write> PcapWriter<W> {
    /// Writes the file header.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W) -> std::io::Result<Self> {
        out.write_all(&header())?;
        Ok(PcapWriter { out })
    }

    /// Writes one frame, which was captured whole `time_ns` nanoseconds after the epoch. The seconds wrap in 2106.
    ///
    /// # Errors
    /// Those of `out`; [`std::io::ErrorKind::InvalidInput`] for a frame of more than 262144 bytes.
    pub fn write(&mut self, time_ns: u64, frame: &[u8]) -> std::io::Result<()> {
        if frame.len() > 262_144 {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let words = [
            (time_ns / 1_000_000_000) as u32,
            (time_ns % 1_000_000_000) as u32,
            frame.len() as u32,
            frame.len() as u32,
        ];
        for w in words {
            self.out.write_all(&w.to_le_bytes())?;
        }
        self.out.write_all(frame)
    }

    /// Hands over what is buffered.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }

    /// What it writes to.
    pub fn into_inner(self) -> W {
        self.out
    }
}

/// Replays a capture as a receive queue, as fast as it is polled.
pub struct PcapSource {
    reader: Option<PcapReader>,
    pool: BufferPool,
    /// A frame read before there was a buffer for it.
    waiting: Option<Captured>,
    too_long: u64,
    error: Option<CaptureError>,
}

impl PcapSource {
    /// Replays what `reader` gives, in buffers of `pool`. Frames longer than a buffer are dropped and counted.
    pub fn new(reader: PcapReader, pool: BufferPool) -> Self {
        PcapSource { reader: Some(reader), pool, waiting: None, too_long: 0, error: None }
    }

    /// Whether everything has been handed out.
    pub fn is_finished(&self) -> bool {
        self.reader.is_none() && self.waiting.is_none()
    }

    /// What ended the replay early, if anything did.
    pub fn error(&self) -> Option<&CaptureError> {
        self.error.as_ref()
    }

    fn next_frame(&mut self) -> Option<Captured> {
        if let Some(f) = self.waiting.take() {
            return Some(f);
        }
        match self.reader.as_mut()?.next_frame() {
            Ok(Some(f)) => return Some(f),
            Ok(None) => {}
            Err(e) => self.error = Some(e),
        }
        self.reader = None;
        None
    }
}

impl RxQueue for PcapSource {
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        let had = out.len();
        while out.room() > 0 {
            let Some(f) = self.next_frame() else { break };
            match self.pool.copy_from(&f.data) {
                Some(p) => {
                    // There is room.
                    let _ = out.push(p);
                }
                None if f.data.len() > self.pool.data_bytes() => self.too_long += 1,
                None => {
                    self.waiting = Some(f);
                    break;
                }
            }
        }
        Ok(out.len() - had)
    }

    /// Frames that were longer than a buffer.
    fn dropped(&self) -> u64 {
        self.too_long
    }
}

/// Records what is sent to it. Times are those of its clock.
pub struct PcapSink<W: Write + Send> {
    writer: PcapWriter<W>,
    clock: Arc<dyn Clock>,
    epoch: Instant,
}

impl<W: Write + Send> PcapSink<W> {
    /// Records to `writer`; time zero of the file is the clock's origin.
    pub fn new(writer: PcapWriter<W>, clock: Arc<dyn Clock>) -> Self {
        PcapSink { writer, clock, epoch: Instant::ZERO }
    }

    /// What it writes with.
    pub fn into_inner(self) -> PcapWriter<W> {
        self.writer
    }
}

impl<W: Write + Send> TxQueue for PcapSink<W> {
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        let now = self.clock.now().since(self.epoch).as_nanos() as u64;
        let mut n = 0;
        for p in pkts.iter() {
            self.writer.write(now, p).map_err(|source| IoError::Os { op: "write capture", source })?;
            n += 1;
        }
        pkts.clear();
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.writer.flush().map_err(|source| IoError::Os { op: "write capture", source })
    }
}

#[cfg(test)]
mod tests;
