//! Captures of simulated ports as pcapng (draft-ietf-opsawg-pcapng): one interface per port, nanoseconds of simulated time,
//! the direction in the packet's flags. And the frames of a classic pcap or pcapng file, to be sent.

use nic::Captured;

/// Link type Ethernet.
const ETHERNET: u32 = 1;

fn block(kind: u32, body: &[u8], out: &mut Vec<u8>) {
    let len = (12 + body.len().next_multiple_of(4)) as u32;
    out.extend(kind.to_le_bytes());
    out.extend(len.to_le_bytes());
    out.extend(body);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(len.to_le_bytes());
}

fn option(code: u16, value: &[u8], out: &mut Vec<u8>) {
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The frames as a file, of a device with `ports` ports and that clock.
pub fn write(frames: &[Captured], ports: u8, clock_hz: u64) -> Vec<u8> {
    let mut out = Vec::new();
    // Section header: byte order, version 1.0, length unknown.
    let mut b = 0x1a2b_3c4du32.to_le_bytes().to_vec();
    b.extend([1, 0, 0, 0]);
    b.extend([0xff; 8]);
    option(4, b"hoist simulator", &mut b);
    option(0, &[], &mut b);
    block(0x0a0d_0d0a, &b, &mut out);
    for p in 0..ports {
        let mut b = (ETHERNET as u16).to_le_bytes().to_vec();
        b.extend([0; 6]);
        option(2, format!("port{p}").as_bytes(), &mut b);
        option(9, &[9], &mut b); // nanoseconds
        option(0, &[], &mut b);
        block(1, &b, &mut out);
    }
    for f in frames {
        let ns = (u128::from(f.cycle) * 1_000_000_000 / u128::from(clock_hz.max(1))) as u64;
        let mut b = u32::from(f.port).to_le_bytes().to_vec();
        b.extend(((ns >> 32) as u32).to_le_bytes());
        b.extend((ns as u32).to_le_bytes());
        b.extend((f.bytes.len() as u32).to_le_bytes());
        b.extend((f.bytes.len() as u32).to_le_bytes());
        b.extend(&f.bytes);
        b.resize(b.len().next_multiple_of(4), 0);
        let direction: u32 = if f.received { 1 } else { 2 };
        option(2, &direction.to_le_bytes(), &mut b);
        option(0, &[], &mut b);
        block(6, &b, &mut out);
    }
    out
}

/// Frames with their nanoseconds as a classic pcap file of nanosecond resolution, little-endian, which every tool reads.
pub fn classic_file(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out: Vec<u8> =
        [0xa1b2_3c4d, 0x0004_0002, 0, 0, 0x4_0000, ETHERNET].into_iter().flat_map(u32::to_le_bytes).collect();
    for (ns, f) in frames {
        let len = f.len() as u32;
        let head = [(ns / 1_000_000_000) as u32, (ns % 1_000_000_000) as u32, len, len];
        out.extend(head.into_iter().flat_map(u32::to_le_bytes));
        out.extend(f);
    }
    out
}

/// What is wrong with a capture.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum CaptureError {
    /// It is neither classic pcap nor pcapng.
    #[error("not a capture: it begins with neither the magic of pcap nor that of pcapng")]
    Magic,
    /// It ends within a packet or block.
    #[error("ends within a packet at byte {0}")]
    Truncated(usize),
    /// Frames that are not Ethernet.
    #[error("link type {0}, only Ethernet (1) can be sent")]
    LinkType(u32),
}

/// The frames of a capture: nanoseconds after the first, and bytes. Truncated packets are given as they are.
///
/// # Errors
/// [`CaptureError`].
pub fn read(bytes: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, CaptureError> {
    let magic = bytes.first_chunk::<4>().ok_or(CaptureError::Magic)?;
    let mut all = match u32::from_le_bytes(*magic) {
        0xa1b2_c3d4 => classic(bytes, u32::from_le_bytes, 1000)?,
        0xa1b2_3c4d => classic(bytes, u32::from_le_bytes, 1)?,
        0xd4c3_b2a1 => classic(bytes, u32::from_be_bytes, 1000)?,
        0x4d3c_b2a1 => classic(bytes, u32::from_be_bytes, 1)?,
        0x0a0d_0d0a => blocks(bytes)?,
        _ => return Err(CaptureError::Magic),
    };
    let first = all.first().map_or(0, |f: &(u64, Vec<u8>)| f.0);
    all.iter_mut().for_each(|f| f.0 = f.0.saturating_sub(first));
    Ok(all)
}

fn word(b: &[u8], at: usize, order: fn([u8; 4]) -> u32) -> Result<u32, CaptureError> {
    let w = b.get(at..).and_then(|b| b.first_chunk()).ok_or(CaptureError::Truncated(at))?;
    Ok(order(*w))
}

fn classic(b: &[u8], order: fn([u8; 4]) -> u32, unit_ns: u64) -> Result<Vec<(u64, Vec<u8>)>, CaptureError> {
    let link = word(b, 20, order)? & 0xffff;
    if link != ETHERNET {
        return Err(CaptureError::LinkType(link));
    }
    let (mut at, mut out) = (24, Vec::new());
    while at < b.len() {
        let ns =
            u64::from(word(b, at, order)?) * 1_000_000_000 + u64::from(word(b, at + 4, order)?) * unit_ns;
        let len = word(b, at + 8, order)? as usize;
        let data = b.get(at + 16..).and_then(|d| d.get(..len)).ok_or(CaptureError::Truncated(at))?;
        out.push((ns, data.to_vec()));
        at += 16 + len;
    }
    Ok(out)
}

/// Enhanced packet blocks of little-endian sections; other blocks are passed over.
fn blocks(b: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, CaptureError> {
    let (mut at, mut out) = (0, Vec::new());
    // Nanoseconds of a unit of time, by interface.
    let mut units: Vec<f64> = Vec::new();
    let order = u32::from_le_bytes;
    while at < b.len() {
        let (kind, len) = (word(b, at, order)?, word(b, at + 4, order)? as usize);
        if len < 12 || !len.is_multiple_of(4) {
            return Err(CaptureError::Truncated(at));
        }
        let body = b.get(at + 8..at + len - 4).ok_or(CaptureError::Truncated(at))?;
        match kind {
            0x0a0d_0d0a if word(body, 0, order)? != 0x1a2b_3c4d => return Err(CaptureError::Magic),
            0x0a0d_0d0a => units.clear(),
            1 => {
                let link = word(body, 0, order)? & 0xffff;
                if link != ETHERNET {
                    return Err(CaptureError::LinkType(link));
                }
                units.push(unit_ns(body.get(8..).unwrap_or(&[])));
            }
            6 => {
                let unit = units.get(word(body, 0, order)? as usize).copied().unwrap_or(1000.0);
                let time = u64::from(word(body, 4, order)?) << 32 | u64::from(word(body, 8, order)?);
                let len = word(body, 12, order)? as usize;
                let data = body.get(20..).and_then(|d| d.get(..len)).ok_or(CaptureError::Truncated(at))?;
                out.push(((time as f64 * unit) as u64, data.to_vec()));
            }
            _ => {}
        }
        at += len;
    }
    Ok(out)
}

/// Nanoseconds of a unit of time, from an interface's options; microseconds when they do not say.
fn unit_ns(mut options: &[u8]) -> f64 {
    while let Some((head, rest)) = options.split_first_chunk::<4>() {
        let (code, len) = (u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]));
        let Some(v) = rest.get(..usize::from(len)) else { break };
        if code == 9
            && let Some(v) = v.first()
        {
            let n = i32::from(v & 0x7f);
            return 1e9 * if v & 0x80 != 0 { 2f64.powi(-n) } else { 10f64.powi(-n) };
        }
        options = rest.get(usize::from(len).next_multiple_of(4)..).unwrap_or(&[]);
    }
    1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let all = [(0, vec![1; 60]), (7_000_000_001, vec![2; 61])];
        assert_eq!(read(&classic_file(&all)).unwrap(), all);
        let f = |cycle, port, n: usize| Captured { cycle, port, received: port == 0, bytes: vec![port; n] };
        let file = write(&[f(250, 0, 60), f(500, 1, 61)], 2, 250_000_000);
        assert_eq!(read(&file).unwrap(), [(0, vec![0; 60]), (1000, vec![1; 61])]);
        for n in 1..file.len() {
            let _ = read(&file[..n]);
        }
        assert_eq!(read(b"nonsense"), Err(CaptureError::Magic));
    }

    #[test]
    fn classic_captures_are_read_in_both_byte_orders() {
        for big in [false, true] {
            let w = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
            let mut b: Vec<u8> = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1].into_iter().flat_map(w).collect();
            for (us, n) in [(5, 3), (7, 1)] {
                b.extend([1, us, n, n].into_iter().flat_map(w));
                b.extend(vec![9; n as usize]);
            }
            assert_eq!(read(&b).unwrap(), [(0, vec![9; 3]), (2000, vec![9])]);
            assert_eq!(read(&b[..b.len() - 1]), Err(CaptureError::Truncated(43)));
        }
    }
}
