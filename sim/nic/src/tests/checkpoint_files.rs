//! Checkpoints as bytes: the run that goes on is the run that was never stopped, and bytes are not trusted.

use kernel::{Cycles, Reader, Rng, State, Writer};
use sha2::{Digest, Sha256};
use simnic_defs::cmd::{TABLE_LPM, TABLE_RANGE};
use simnic_defs::entry::key;
use simnic_defs::{CmdCpl, CmdDesc, EvictRecord, FlowEntry, HwAction, MeterSpec, Opcode, QueueReg, Reg};
use zerocopy::{FromZeros, IntoBytes};

use super::counters::Ring;
use super::properties::{PUSHED_VNI, busy_device, random_frame, tight};
use crate::raw_host::{HostRing, RawHost, key_of};
use crate::{
    Captured, Checkpoint, CheckpointError, Config, DriverFault, FrameAccount, PROFILES, SimHandle, SimNic,
    SimStats, Trail, Waves, parse_script,
};

/// What a host drives the device with.
struct Bench {
    sim: SimHandle,
    host: RawHost,
    rx: Vec<HostRing>,
    tx: HostRing,
    counters: Ring,
}

/// Everything that can be seen of a run.
#[derive(PartialEq, Debug)]
struct Seen {
    commands: Vec<CmdCpl>,
    received: Vec<Vec<(u16, Vec<u8>)>>,
    evicted: Vec<EvictRecord>,
    out: Vec<Vec<Vec<u8>>>,
    state: (SimStats, Vec<DriverFault>, Cycles, FrameAccount),
    trails: (Vec<Trail>, u64),
    waves: Waves,
    tap: (Vec<Captured>, u64),
}

/// Copies that the replication engine made.
fn copies(stats: &SimStats) -> u64 {
    stats.stages.iter().filter(|s| s.name == "groups").map(|s| s.accepted).sum()
}

impl Seen {
    /// For comparing it across processes.
    fn digest(&self) -> String {
        Sha256::digest(format!("{self:?}")).iter().map(|b| format!("{b:02x}")).collect()
    }

    fn replicated(&self) -> u64 {
        copies(&self.state.0)
    }

    /// Frames with the header of a tunnel in front that the device puts on.
    fn pushed(&self) -> usize {
        let vni = [0, 0, PUSHED_VNI, 0];
        let is = |f: &&Vec<u8>| f.len() > 50 && f[36..38] == 4789u16.to_be_bytes() && f[46..50] == vni;
        self.out.iter().flatten().filter(is).count()
    }
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
        let (k, m) = key_of(&[(key::ETH_TYPE, &[8, 0]), (key::IP4_DST, &[10, 0, 0, 6])]);
        for table in [TABLE_LPM, TABLE_RANGE] {
            let mut d = CmdDesc::new(Opcode::ProfileSet, 0);
            d.table = table;
            let _ = host.command_with(d, &m).unwrap();
            let mut d = CmdDesc::new(Opcode::Install, 0);
            (d.table, d.priority) = (table, 3.into());
            let e = FlowEntry::new(k, m, 1, &[HwAction::DecTtl, HwAction::Output { port: 2 }]).unwrap();
            let _ = host.command_with(d, e.as_bytes()).unwrap();
        }
        let counters = Ring::new(&mut host, 4);
        let mut script = parse_script(script).unwrap();
        let start = sim.cycle().0;
        script.iter_mut().for_each(|s| s.cycle += start);
        sim.play(&script);
        sim.watch_frames(Some(10_000));
        sim.watch_signals(100_000);
        sim.tap(1 << 20);
        Bench { sim, host, rx, tx, counters }
    }

    fn save(&self) -> Vec<u8> {
        let mut w = Writer::default();
        self.host.save(&mut w);
        self.rx.iter().for_each(|r| r.save(&mut w));
        self.tx.save(&mut w);
        self.counters.save(&mut w);
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
        let counters = Ring::load(&mut r, &mapped);
        r.end().unwrap();
        Bench { sim, host, rx, tx, counters }
    }

    /// Goes on with frames, commands and descriptors for a while; everything that can be seen of it.
    fn go_on(&mut self, seed: u64) -> Seen {
        let mut r = Rng::new(seed);
        let mut commands = Vec::new();
        let mut evicted = Vec::new();
        for _ in 0..60 {
            self.sim.inject(r.below(4) as u8, &random_frame(&mut r));
            if r.chance(1, 4) {
                self.tx.post_transmit(&random_frame(&mut r));
                self.host.write(QueueReg::TX_TAIL.of(2, 0), self.tx.tail);
            }
            if r.chance(1, 6) {
                self.host.submit(CmdDesc::new(Opcode::Nop, 0));
            }
            if r.chance(1, 8) {
                evicted.extend(self.counters.take());
                self.host.write(Reg::CTR_TAIL, self.counters.head);
            }
            self.sim.step(r.below(50));
        }
        self.sim.step(40_000);
        evicted.extend(self.counters.take());
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
        let state = (self.sim.stats(), self.sim.faults(), self.sim.cycle(), self.sim.account());
        let trails = self.sim.take_trails();
        let (waves, tap) = (self.sim.take_waves().unwrap(), self.sim.take_tap());
        assert!(out.iter().any(|f| !f.is_empty()), "nothing was forwarded");
        Seen { commands, received, evicted, out, state, trails, waves, tap }
    }

    /// Into the middle of something, `rounds` of it.
    fn warm_up(&mut self, r: &mut Rng, rounds: u64) {
        for _ in 0..rounds {
            self.sim.inject(r.below(4) as u8, &random_frame(r));
            self.tx.post_transmit(&random_frame(r));
            self.host.write(QueueReg::TX_TAIL.of(2, 0), self.tx.tail);
            self.host.submit(CmdDesc::new(Opcode::Nop, 0));
            self.sim.step(r.below(40));
        }
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
            let rounds = r.below(60);
            b.warm_up(&mut r, rounds);
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

/// Where a checkpoint is, and the seed of what comes after it, for another process.
const IN_ANOTHER: &str = "HOIST_TEST_CHECKPOINT";
/// What that process says in front of its digest.
const DIGEST: &str = "seen: ";

/// Nothing in a run of the tests; the second process of the next one.
#[test]
fn goes_on_in_another_process() {
    let Ok(said) = std::env::var(IN_ANOTHER) else { return };
    let (seed, path) = said.split_once(' ').unwrap();
    let mut b = Bench::resume(&std::fs::read(path).unwrap());
    println!("{DIGEST}{}", b.go_on(seed.parse().unwrap()).digest());
}

/// Counters narrow enough to be evicted all the time, frames replicated and put into tunnels and taken out of them: a run that is
/// stopped in the middle of it, as often as you like, and goes on in another process is the run that was never stopped.
#[test]
fn groups_evictions_and_tunnels_go_on_in_another_process_to_the_bit() {
    let path = std::env::temp_dir().join(format!("checkpoint-{}", std::process::id()));
    let (mut evicted, mut replicated, mut pushed) = (0, 0, 0);
    for seed in 0..12 {
        let mut r = Rng::new(0xc0de + seed);
        let mut config = match r.below(PROFILES.len() as u64 + 1) as usize {
            n if n < PROFILES.len() => Config::profile(PROFILES[n].name).unwrap(),
            _ => tight(),
        };
        config.counters.packet_bits = 1 + r.below(4) as u8;
        config.counters.byte_bits = 9 + r.below(6) as u8;
        config.groups.interval_cycles = 1 + r.below(20) as u32;
        let script = if r.chance(1, 2) { SCRIPT } else { "" };
        let mut never_stopped = Bench::new(config.clone(), script);
        let mut stopped = Bench::new(config.clone(), script);
        for _ in 0..1 + r.below(3) {
            let (mut a, rounds) = (Rng::new(r.next_u64()), r.below(40));
            let mut b = a.clone();
            never_stopped.warm_up(&mut a, rounds);
            stopped.warm_up(&mut b, rounds);
            stopped = Bench::resume(&stopped.save());
        }
        let before = never_stopped.sim.stats();
        std::fs::write(&path, stopped.save()).unwrap();
        let seen = never_stopped.go_on(seed);
        let o = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::checkpoint_files::goes_on_in_another_process", "--nocapture"])
            .env(IN_ANOTHER, format!("{seed} {}", path.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&o.stdout);
        let digest = said.lines().find_map(|l| l.split_once(DIGEST)).map(|(_, d)| d);
        assert_eq!(
            digest,
            Some(seen.digest().as_str()),
            "seed {seed}, {config:?}: {said}{}",
            String::from_utf8_lossy(&o.stderr)
        );
        evicted += seen.evicted.len();
        replicated += seen.replicated() - copies(&before);
        pushed += seen.pushed();
    }
    std::fs::remove_file(&path).unwrap();
    assert!(
        evicted > 50 && replicated > 50 && pushed > 10,
        "{evicted} evicted, {replicated} replicated, {pushed} put into tunnels"
    );
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
        b.counters.head,
    );
    let once = b.go_on(5);
    let (c, _) = Checkpoint::from_bytes(&bytes).unwrap();
    b.sim.restore(&c).unwrap();
    (b.host.cmd.tail, b.host.cmd.consumed, b.tx.tail) = (cursor.0, cursor.1, cursor.2);
    b.rx.iter_mut().zip(cursor.3).for_each(|(q, consumed)| q.consumed = consumed);
    b.counters.head = cursor.4;
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
