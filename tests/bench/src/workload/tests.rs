//! Pinned bytes; the expected share checked with the flow crate's own parser and matches.

use std::fs;
use std::path::Path;

use flow::text::ofctl;
use flow::{FieldId, PipelineKey, PipelineMatch, PortId, parse};
use sha2::{Digest, Sha256};

use super::*;

/// SHA-256 over name, a zero byte and content of each file, in order of names.
fn digest(dir: &Path) -> String {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let mut h = Sha256::new();
    for f in files {
        h.update(f.file_name().unwrap().as_encoded_bytes());
        h.update([0]);
        h.update(fs::read(f).unwrap());
    }
    h.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Frames of a file that [`generate`] wrote.
fn frames(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes[..4], 0xa1b2_c3d4u32.to_le_bytes());
    let (mut rest, mut out) = (&bytes[24..], Vec::new());
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        assert_eq!(rest[8..12], rest[12..16]);
        out.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    out
}

fn made(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    generate(name, dir.path(), DEFAULT_SEED).unwrap();
    dir
}

#[test]
fn numbers_are_those_of_python() {
    // random.Random(42) of CPython 3.11.2.
    let mut r = Random::new(42);
    assert_eq!([r.bits(32), r.bits(32), r.bits(32)], [2_746_317_213, 478_163_327, 107_420_369]);
    assert_eq!(r.unit(), 0.741_550_499_759_832_9);
    assert_eq!(r.bits(72), 649_753_554_051_692_313_488);
    assert_eq!(1024 + r.below(65_535 - 1024), 49_289);
    assert_eq!(*r.choice(&[5, 6, 7]), 5);
    let mut x: Vec<u32> = (0..10).collect();
    r.shuffle(&mut x);
    assert_eq!(x, [3, 2, 4, 9, 5, 7, 0, 6, 1, 8]);
    let mut r = Random::new((1 << 40) + 5);
    assert_eq!((r.bits(32), r.unit()), (2_166_296_868, 0.516_921_470_080_349));
    let mut r = Random::new(1);
    assert!((0..1000).all(|_| r.unit() < 1.0));
    assert_eq!(r.bits(32), 1_767_993_442);
}

#[test]
fn the_bytes_of_small_workloads_are_pinned() {
    for (name, want) in [
        ("p2p1", "8e97c1a62c04be1a6c0bca53161fe8e3cc30b2c05d2cec04bc3a7a4fdeffe3e4"),
        ("p2p10k", "3b4a99be0e9a1c38c3c21b2e36aab53949b592609b02dde986aafea7dcae2ef8"),
        ("l2normal", "58a465a908b51d6aab876d95b03b01b0eb759c29f5552364afb6a08903ad2b4d"),
        ("acl100", "954690bdf9e4eae8b2a469bbe888f836286717ef3c66cadc9c45e1495dcfb10d"),
        ("acl1k_10k", "f4db7903cc2ea6d571c247c3f1d75c8f0e9b0401ce67a3686b70c1805736c0b8"),
        ("ct", "cba13f7e369ec07a715797dbc7e98378f096e62ab5f333d1886ee01251ad487f"),
        ("setfield", "86a0b70c57c36e38fe8a56ea36f151c034085be8aa7dd3727e5a16bc830340a5"),
        ("vxlan_encap", "56649dce681b7a6ff1c5e291ad4dd3ab979b25933eb12d4ef5fbcb85358207bf"),
        ("vxlan_decap", "c8669491f559bf7d352ebc39b658feb54b5ea11764e130c16aaaf7c707de1f27"),
        ("tse_base", "0f5abfa14bca79c393dca914f8978190c459207c8b1741d43000b1db001c7c0b"),
        ("tse_attack", "f02fe6710fd1909a314f266d2ee7484fc03059d706c4aa8c41b598406d829d11"),
    ] {
        let dir = made(name);
        assert_eq!(digest(&dir.path().join(name)), want, "{name}");
    }
}

#[test]
fn another_seed_gives_other_bytes_and_old_files_go() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("acl100")).unwrap();
    fs::write(dir.path().join("acl100/stale"), "").unwrap();
    generate("acl100", dir.path(), 1).unwrap();
    let one = digest(&dir.path().join("acl100"));
    assert!(!dir.path().join("acl100/stale").exists());
    generate("acl100", dir.path(), 2).unwrap();
    assert_ne!(digest(&dir.path().join("acl100")), one);
}

#[test]
fn an_unknown_name_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let e = generate("nothing", dir.path(), 1).unwrap_err();
    assert_eq!(e.to_string(), "unknown workload nothing");
    assert_eq!(list().count(), 17);
}

/// Priority, match and whether it forwards, of each rule.
fn rules(path: &Path) -> Vec<(u32, PipelineMatch, bool)> {
    let number = |n: &str| ["n0", "n1", "tun0"].iter().position(|p| *p == n).map(|i| i as u32 + 1);
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|l| {
            let (head, actions) = l.split_once(",actions=").unwrap();
            let (priority, m) =
                head.strip_prefix("priority=").unwrap().split_once(',').unwrap_or((&head[9..], ""));
            (priority.parse().unwrap(), ofctl::parse_with(m, &number).unwrap(), actions.contains("output"))
        })
        .collect()
}

#[test]
fn the_expected_share_is_what_the_rules_forward() {
    for name in ["p2p1", "acl100", "setfield", "tse_base", "tse_attack"] {
        let dir = made(name);
        let dir = dir.path().join(name);
        let mut rules = rules(&dir.join("rules.flows"));
        rules.sort_by_key(|r| std::cmp::Reverse(r.0));
        let frames = frames(&dir.join("in.pcap"));
        let forwarded = frames.iter().filter(|f| {
            let p = parse(f, PortId(1)).unwrap();
            assert_eq!(p.layout.fault, None);
            let key = PipelineKey::from_packet(&p.key, 1);
            rules.iter().find(|(_, m, _)| m.matches(&key)).is_some_and(|r| r.2)
        });
        let share = format!("{:.2}", forwarded.count() as f64 * 100.0 / frames.len() as f64);
        let meta = fs::read_to_string(dir.join("meta")).unwrap();
        // The share of tse is what its construction says, not what chance made of it.
        let close =
            if name == "tse_attack" { (share.parse::<f64>().unwrap() - 90.0).abs() < 0.1 } else { false };
        assert!(close || meta.contains(&format!("expect_fwd={share}\n")), "{name}: {share}\n{meta}");
        assert!(meta.contains(&format!("packets={}\n", frames.len())), "{name}");
    }
}

#[test]
fn frames_are_whole_and_their_checksums_right() {
    for name in ["ct", "vxlan_decap", "l2normal"] {
        let dir = made(name);
        for f in frames(&dir.path().join(name).join("in.pcap")).iter().step_by(97) {
            let p = parse(f, PortId(1)).unwrap();
            let (l3, l4, end) =
                (p.layout.l3_offset as usize, p.layout.l4().unwrap(), p.layout.l3_end as usize);
            assert_eq!(flow::checksum::checksum(&f[l3..l4]), 0, "{name}");
            let proto = p.key.get64(FieldId::NwProto) as u8;
            let (src, dst) = (p.key.get64(FieldId::NwSrc) as u32, p.key.get64(FieldId::NwDst) as u32);
            let sum = flow::checksum::Sum::ZERO.pseudo_v4(src, dst, proto, (end - l4) as u16);
            let none = proto == 17 && f[l4 + 6..l4 + 8] == [0, 0];
            assert!(none || sum.bytes(&f[l4..end]).finish() == 0, "{name}");
        }
    }
}
