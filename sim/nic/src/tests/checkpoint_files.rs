//! Checkpoints as bytes: the run that goes on is the run that was never stopped, and bytes are not trusted.

use kernel::{Reader, Rng, State, Writer};
use sha2::{Digest, Sha256};
use simnic_defs::cmd::{TABLE_LPM, TABLE_RANGE};
use simnic_defs::entry::key;
use simnic_defs::{CmdDesc, FlowEntry, HeaderSpec, HwAction, MeterSpec, Opcode, QueueReg};
use zerocopy::{FromZeros, IntoBytes};

use super::properties::{busy_device, random_frame, tight};
use crate::raw_host::{HostRing, RawHost, key_of};
use crate::{Checkpoint, CheckpointError, Config, SimHandle, SimNic, parse_script};

/// What a host drives the device with.
struct Bench {
    sim: SimHandle,
    host: RawHost,
    rx: Vec<HostRing>,
    tx: HostRing,
}

impl Bench {
    /// A device with something in every table it has, and failures to come.
    fn new(config: Config, script: &str) -> Bench {
        let (sim, mut host, rx, tx) = busy_device(config.clone());
        if config.meters.entries > 0 {
            let spec = MeterSpec { rate_pps: 1_000_000.into(), burst: 4.into(), ..MeterSpec::new_zeroed() };
            let mut d = CmdDesc::new(Opcode::MeterSet, 0);
            d.arg = 0.into();
            let _ = host.command_with(d, spec.as_bytes()).unwrap();
        }
        if config.tunnels.headers > 0 {
            let header = HeaderSpec { len: 8, ..HeaderSpec::new_zeroed() };
            let _ = host.command_with(CmdDesc::new(Opcode::HeaderSet, 0), header.as_bytes()).unwrap();
        }
        let (k, m) = key_of(&[(key::ETH_TYPE, &[8, 0]), (key::IP4_DST, &[10, 0, 0, 7])]);
        for table in [TABLE_LPM, TABLE_RANGE] {
            let mut d = CmdDesc::new(Opcode::ProfileSet, 0);
            d.table = table;
            let _ = host.command_with(d, &m).unwrap();
            let mut d = CmdDesc::new(Opcode::Install, 0);
            (d.table, d.priority) = (table, 3.into());
            let e = FlowEntry::new(k, m, 1, &[HwAction::DecTtl, HwAction::Output { port: 2 }]).unwrap();
            let _ = host.command_with(d, e.as_bytes()).unwrap();
        }
        let mut script = parse_script(script).unwrap();
        let start = sim.cycle().0;
        script.iter_mut().for_each(|s| s.cycle += start);
        sim.play(&script);
        sim.watch_frames(Some(10_000));
        sim.watch_signals(100_000);
        sim.tap(1 << 20);
        Bench { sim, host, rx, tx }
    }

    fn save(&self) -> Vec<u8> {
        let mut w = Writer::default();
        self.host.save(&mut w);
        self.rx.iter().for_each(|r| r.save(&mut w));
        self.tx.save(&mut w);
        self.sim.checkpoint().unwrap().to_bytes(&w.finish()).unwrap()
    }

    fn resume(bytes: &[u8]) -> Bench {
        let (c, beside) = Checkpoint::from_bytes(bytes).unwrap();
        let sim = SimNic::resume("sim:1", &c).unwrap();
        let mut r = Reader::new(&beside);
        let host = RawHost::resume(&sim, &mut r).unwrap();
        let mapped = sim.mapped();
        let rx = (0..4).map(|_| HostRing::load(&mut r, &mapped).unwrap()).collect();
        let tx = HostRing::load(&mut r, &mapped).unwrap();
        r.end().unwrap();
        Bench { sim, host, rx, tx }
    }

    /// Goes on with frames, commands and descriptors for a while; everything that can be seen of it.
    fn go_on(&mut self, seed: u64) -> impl PartialEq + use<> {
        let mut r = Rng::new(seed);
        let mut commands = Vec::new();
        for _ in 0..60 {
            self.sim.inject(r.below(4) as u8, &random_frame(&mut r));
            if r.chance(1, 4) {
                self.tx.post_transmit(&random_frame(&mut r));
                self.host.write(QueueReg::TX_TAIL.of(2, 0), self.tx.tail);
            }
            if r.chance(1, 6) {
                self.host.submit(CmdDesc::new(Opcode::Nop, 0));
            }
            self.sim.step(r.below(50));
        }
        self.sim.step(40_000);
        while let Some(c) = self.host.cmd.take_command() {
            commands.push(c);
        }
        let rings = self.rx.iter_mut();
        let received: Vec<_> = rings
            .map(|q| {
                std::iter::from_fn(|| q.take_received()).map(|(c, f)| (c.len.get(), f)).collect::<Vec<_>>()
            })
            .collect();
        let out: Vec<_> = (0..4).map(|p| self.sim.collect(p)).collect();
        let seen = (self.sim.stats(), self.sim.faults(), self.sim.cycle(), self.sim.account());
        let traces = (self.sim.take_trails(), self.sim.take_waves(), self.sim.take_tap());
        assert!(out.iter().any(|f| !f.is_empty()), "nothing was forwarded");
        (commands, received, out, seen, traces)
    }
}

const SCRIPT: &str = "100 bit-errors 0 2
    300 link-down 1
    700 link-up 1
    800 stick rx 0 0
    900 slow-commands 5
    1000 fail-commands 1
    1100 parity exact 1
    1200 lose-interrupts 2
    1400 release rx 0 0
    1500 slow-commands 1
    9000 reset
    20000 remove
    30000 repair";

#[test]
fn a_run_from_a_file_is_identical_to_the_bit() {
    let profiles = ["default", "flow-engine", "match-action", "small-nic", "tcam-poor-asic"];
    let mut configs: Vec<Config> = profiles.iter().map(|p| Config::profile(p).unwrap()).collect();
    configs.retain(|c| c.device.ports >= 4);
    configs.push(tight());
    let mut hosted = Config::default();
    hosted.pcie.host = "ib-e5-2620v2".into();
    configs.push(hosted);
    assert!(configs.len() >= 4);
    for (i, config) in configs.into_iter().enumerate() {
        for seed in 0..3 {
            let mut b = Bench::new(config.clone(), SCRIPT);
            let mut r = Rng::new(seed);
            // Into the middle of something.
            for _ in 0..r.below(60) {
                b.sim.inject(r.below(4) as u8, &random_frame(&mut r));
                b.tx.post_transmit(&random_frame(&mut r));
                b.host.write(QueueReg::TX_TAIL.of(2, 0), b.tx.tail);
                b.host.submit(CmdDesc::new(Opcode::Nop, 0));
                b.sim.step(r.below(40));
            }
            let bytes = b.save();
            assert!(bytes == b.save(), "saving twice gives two files");
            let mut again = Bench::resume(&bytes);
            assert!(
                bytes == again.save(),
                "configuration {i}, seed {seed}: what was read is not what was written"
            );
            assert!(b.go_on(seed) == again.go_on(seed), "configuration {i}, seed {seed}: the runs differ");
        }
    }
}

#[test]
fn a_checkpoint_from_a_file_goes_back_into_the_device_it_was_taken_from() {
    let mut b = Bench::new(Config::default(), "");
    let bytes = b.save();
    let cursor = (
        b.host.cmd.tail,
        b.host.cmd.consumed,
        b.tx.tail,
        b.rx.iter().map(|q| q.consumed).collect::<Vec<_>>(),
    );
    let once = b.go_on(5);
    let (c, _) = Checkpoint::from_bytes(&bytes).unwrap();
    b.sim.restore(&c).unwrap();
    (b.host.cmd.tail, b.host.cmd.consumed, b.tx.tail) = (cursor.0, cursor.1, cursor.2);
    b.rx.iter_mut().zip(cursor.3).for_each(|(q, consumed)| q.consumed = consumed);
    let mut again = Bench::resume(&bytes);
    assert!(once == again.go_on(5));
    assert_eq!(b.sim.cycle().0, c.cycle());
}

#[test]
fn files_that_are_damaged_cut_off_or_of_another_version_are_refused() {
    let bytes = Bench::new(Config::default(), SCRIPT).save();
    let err = |b: &[u8]| Checkpoint::from_bytes(b).err().unwrap();
    let mut r = Rng::new(3);
    for _ in 0..200 {
        let mut b = bytes.clone();
        let at = r.below(b.len() as u64) as usize;
        b[at] ^= 1 << r.below(8);
        assert!(Checkpoint::from_bytes(&b).is_err(), "a bit of byte {at}");
    }
    for n in (0..60).chain([1000, bytes.len() - 1]) {
        assert!(Checkpoint::from_bytes(&bytes[..n]).is_err(), "the first {n} bytes");
    }
    assert_eq!(err(b"no checkpoint at all"), CheckpointError::Other);
    let mut other = bytes.clone();
    other[8] = 77;
    assert_eq!(err(&other), CheckpointError::Version { found: 77 });
    assert!(err(&other).to_string().starts_with("a checkpoint of format 77; this program has format"));
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(err(&longer), CheckpointError::Length { .. }));
}

/// With a checksum that is right.
#[test]
fn files_that_were_made_up_are_held_against_their_configuration() {
    let bytes = Bench::new(Config::default(), SCRIPT).save();
    let with = |contents: &[u8]| {
        let mut b = bytes[..12].to_vec();
        b.extend_from_slice(&(contents.len() as u64).to_le_bytes());
        b.extend_from_slice(&Sha256::digest(contents));
        b.extend_from_slice(contents);
        Checkpoint::from_bytes(&b)
    };
    let contents = &bytes[52..];
    assert!(with(contents).is_ok());
    let toml = String::load(&mut Reader::new(contents)).unwrap();
    let edited = |from: &str, to: &str| {
        assert!(toml.contains(from), "{from} in {toml}");
        let mut w = Writer::default();
        toml.replacen(from, to, 1).save(&mut w);
        w.bytes(&contents[8 + toml.len()..]);
        with(&w.finish()).err().unwrap().to_string()
    };
    assert!(edited("ports = 4", "ports = 3").starts_with("inconsistent: no "));
    assert!(edited("ports = 4", "ports = 200").starts_with("its configuration: "));
    assert!(edited("read_tags = 64", "read_tags = 63").contains("DMA engine of this configuration"));
    let mut r = Rng::new(4);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..300 {
        let mut c = contents.to_vec();
        // The state is in front; what follows is memory.
        let at = r.below(30_000.min(c.len() as u64)) as usize;
        c[at] = r.below(256) as u8;
        match with(&c) {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 30 && taken > 0, "{refused} refused, {taken} taken");
}
