use super::*;
use clock::ManualClock;
use proptest::prelude::*;

fn frames(bytes: Vec<u8>) -> Result<Vec<Captured>, CaptureError> {
    PcapReader::new(std::io::Cursor::new(bytes))?.collect()
}

/// A pcap file of one frame, in the given byte order and resolution.
fn legacy(magic: u32, big: bool, fraction: u32, link: u32) -> Vec<u8> {
    let w = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let h = |v: u16| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let mut f = Vec::new();
    f.extend(w(magic));
    f.extend(h(2));
    f.extend(h(4));
    f.extend([0; 8]);
    f.extend(w(65535));
    f.extend(w(link));
    for v in [7, fraction, 4, 60] {
        f.extend(w(v));
    }
    f.extend([1, 2, 3, 4]);
    f
}

/// A pcapng block.
fn block(kind: u32, big: bool, body: &[u8]) -> Vec<u8> {
    let w = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let len = w(12 + body.len() as u32);
    [&w(kind)[..], &len, body, &len].concat()
}

/// A pcapng file with one interface of nanosecond resolution and an enhanced and a simple packet.
fn next_generation(big: bool) -> Vec<u8> {
    let w = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let h = |v: u16| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let section = [&w(0x1a2b_3c4d)[..], &h(1), &h(0), &[0xff; 8]].concat();
    let resolution = [&h(9)[..], &h(1), &[9, 0, 0, 0], &h(0), &h(0)].concat();
    let interface = [&h(1)[..], &h(0), &w(0), &resolution].concat();
    let enhanced = [&w(0)[..], &w(1), &w(5), &w(3), &w(9), &[1, 2, 3, 0]].concat();
    let simple = [&w(4)[..], &[5, 6, 7, 8]].concat();
    [
        block(0x0a0d_0d0a, big, &section),
        block(1, big, &interface),
        block(6, big, &enhanced),
        block(3, big, &simple),
    ]
    .concat()
}

#[test]
fn pcap_is_read_in_both_byte_orders_and_resolutions() {
    for big in [false, true] {
        for (magic, fraction) in [(0xa1b2_c3d4, 5), (0xa1b2_3c4d, 5000)] {
            let f = frames(legacy(magic, big, fraction, 1)).unwrap();
            assert_eq!(f, [Captured { time_ns: 7_000_005_000, data: vec![1, 2, 3, 4], wire_bytes: 60 }]);
        }
    }
}

#[test]
fn pcapng_is_read_in_both_byte_orders() {
    for big in [false, true] {
        let f = frames(next_generation(big)).unwrap();
        assert_eq!(f[0], Captured { time_ns: (1 << 32) + 5, data: vec![1, 2, 3], wire_bytes: 9 });
        assert_eq!(f[1].data, [5, 6, 7, 8]);
        assert_eq!(f.len(), 2);
    }
}

#[test]
fn other_link_types_and_other_files_are_refused() {
    assert!(matches!(frames(legacy(0xa1b2_c3d4, false, 0, 101)), Err(CaptureError::NotEthernet(101))));
    assert!(matches!(
        frames(b"hello, this is no capture file at all".to_vec()),
        Err(CaptureError::NotACapture)
    ));
    assert!(matches!(frames(vec![]), Err(CaptureError::NotACapture)));
    assert!(matches!(PcapReader::open(Path::new("/nonexistent.pcap")), Err(CaptureError::Open { .. })));
}

#[test]
fn a_truncated_file_gives_its_whole_frames_and_then_an_error() {
    let mut f = legacy(0xa1b2_c3d4, false, 0, 1);
    let record = f[24..].to_vec();
    f.extend(&record[..10]);
    let mut r = PcapReader::new(std::io::Cursor::new(f)).unwrap();
    assert!(r.next_frame().unwrap().is_some());
    assert!(matches!(r.next_frame(), Err(CaptureError::Damaged { frames: 1, .. })));
}

#[test]
fn an_impossible_length_is_an_error() {
    let mut f = legacy(0xa1b2_c3d4, false, 0, 1);
    f[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(frames(f), Err(CaptureError::Damaged { .. })));
}

#[test]
fn what_is_sent_to_a_sink_is_replayed_by_a_source() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pcap");
    let pool = BufferPool::new(64).unwrap();
    let clock = Arc::new(ManualClock::new());
    clock.advance(std::time::Duration::from_nanos(3_000_000_007));
    let mut sink = PcapSink::new(PcapWriter::create(&path).unwrap(), clock);
    let mut b = PacketBatch::new();
    for i in 0..20u8 {
        b.push(pool.copy_from(&vec![i; 60 + usize::from(i)]).unwrap()).unwrap();
    }
    assert_eq!(sink.tx_burst(&mut b).unwrap(), 20);
    sink.flush().unwrap();
    let first = PcapReader::open(&path).unwrap().next_frame().unwrap().unwrap();
    assert_eq!(first.time_ns, 3_000_000_007);

    let small = BufferPool::new(8).unwrap();
    let mut source = PcapSource::new(PcapReader::open(&path).unwrap(), small);
    let mut out = PacketBatch::new();
    let mut lengths = Vec::new();
    while !source.is_finished() {
        assert!(source.rx_burst(&mut out).unwrap() <= 8, "more than the pool has");
        lengths.extend(out.drain_all().map(|p| p.len()));
    }
    assert_eq!(lengths, (60..80).collect::<Vec<_>>());
    assert!(source.error().is_none());
}

proptest! {
    #[test]
    fn written_frames_are_read_back(
        f in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20),
    ) {
        let mut w = PcapWriter::new(Vec::new()).unwrap();
        for (t, d) in &f {
            w.write(u64::from(*t) * 3, d).unwrap();
        }
        let back = frames(w.into_inner()).unwrap();
        let expected: Vec<_> = f
            .into_iter()
            .map(|(t, data)| Captured { time_ns: u64::from(t) * 3, wire_bytes: data.len() as u32, data })
            .collect();
        prop_assert_eq!(back, expected);
    }

    #[test]
    fn damaged_files_never_panic(at in 0usize..200, v in any::<u8>(), cut in 0usize..200, big in any::<bool>()) {
        for mut f in [legacy(0xa1b2_3c4d, big, 1, 1), next_generation(big)] {
            let n = f.len();
            f[at % n] ^= v;
            f.truncate(n - cut % n);
            let _ = frames(f);
        }
    }
}
