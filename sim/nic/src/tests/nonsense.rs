//! A profile that no device can have is refused with the key, its line and the reason; one that is taken makes a device that works.

use kernel::Rng;

use crate::raw_host::LOG2;
use crate::{Bed, Config, ConfigError, Match, PROFILES, frames};

/// Keys where 0 has a meaning of its own ("none", "never", "at once"), as `default.toml` says.
const ZERO_MEANS_SOMETHING: [&str; 27] = [
    "port.strict_queues",
    "port.shared_frames",
    "port.pause_at_frames",
    "port.resume_at_frames",
    "exact.insert_cycles",
    "exact.write_cycles",
    "exact.cached_buckets",
    "lpm.entries",
    "lpm.insert_cycles",
    "lpm.write_cycles",
    "range.entries",
    "range.insert_cycles",
    "range.write_cycles",
    "ternary.insert_cycles",
    "ternary.move_cycles",
    "ternary.write_cycles",
    "meters.entries",
    "tunnels.headers",
    "again.buffer_frames",
    "connections.entries",
    "groups.entries",
    "counters.ring_log2_max",
    "command.decode_cycles",
    "command.remove_cycles",
    "command.record_cycles",
    "pcie.dllp_interval_bytes",
    "pcie.damaged_per_billion",
];

/// Every key with its default, as TOML.
fn keys() -> Vec<(String, String, toml::Value)> {
    let all: toml::Table = toml::from_str(&toml::to_string(&Config::default()).unwrap()).unwrap();
    let mut keys = Vec::new();
    for (section, table) in all {
        for (key, value) in table.as_table().unwrap() {
            keys.push((section.clone(), key.clone(), value.clone()));
        }
    }
    keys
}

/// `text` with `section.key = value`, and the line on which it says so.
fn with(text: &str, section: &str, key: &str, value: &str) -> (String, usize) {
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    let said = format!("{key} = {value}");
    let header = |l: &String| l.trim().starts_with('[');
    let Some(at) = lines.iter().position(|l| l.trim().starts_with(&format!("[{section}]"))) else {
        lines.extend([format!("[{section}]"), said]);
        return (lines.join("\n"), lines.len());
    };
    let end = lines[at + 1..].iter().position(header).map_or(lines.len(), |n| at + 1 + n);
    let old = (at + 1..end).find(|i| lines[*i].split('=').next().is_some_and(|k| k.trim() == key));
    let line = match old {
        Some(line) => {
            lines[line] = said;
            line
        }
        None => {
            lines.insert(at + 1, said);
            at + 1
        }
    };
    (lines.join("\n"), line + 1)
}

/// Values that `section.key` cannot have, whatever the rest of a profile says.
fn nonsense(name: &str, default: &toml::Value) -> Vec<String> {
    let said: &[&str] = match default {
        toml::Value::Integer(_) => {
            &["\"many\"", "true", "[1]", "{ of = 1 }", "1.5", "nan", "-1", "9223372036854775807"]
        }
        toml::Value::Boolean(_) => &["1", "\"yes\"", "[true]"],
        toml::Value::Array(_) => &["4", "\"1\"", "[0]", "[-1]", "[65536]", "[1, 1, 1, 1, 1, 1, 1, 1, 1]"],
        _ if name == "pcie.host" => &["7", "\"no such machine\"", "\"../ib-e5-2620v2\""],
        _ => &["7", "false", "[\"a NIC\"]"],
    };
    let mut all: Vec<String> = said.iter().map(|s| s.to_string()).collect();
    if default.is_integer() {
        if !ZERO_MEANS_SOMETHING.contains(&name) {
            all.push("0".into());
        }
        // A clock of 4 GHz is one.
        let most = if name == "device.clock_hz" { u64::from(u32::MAX) << 10 } else { u32::MAX.into() };
        all.push(most.to_string());
    }
    all
}

#[test]
fn a_nonsensical_value_of_any_key_of_any_profile_is_refused_by_its_name_with_the_reason() {
    let keys = keys();
    let names: Vec<String> = keys.iter().map(|(s, k, _)| format!("{s}.{k}")).collect();
    assert!(names.len() > 90, "{names:?}");
    for z in ZERO_MEANS_SOMETHING {
        assert!(names.iter().any(|n| n == z), "{z} is no key");
    }
    let mut refused = 0;
    for p in PROFILES {
        for ((section, key, default), name) in keys.iter().zip(&names) {
            for value in nonsense(name, default) {
                let (text, line) = with(p.text, section, key, &value);
                match Config::from_toml(&text) {
                    Ok(_) => panic!("{}: {name} = {value} is taken", p.name),
                    Err(e) => {
                        assert_eq!((&e.key, e.line), (name, line), "{}: {name} = {value}: {e}", p.name);
                        assert!(e.reason.len() > 5, "{}: {name} = {value}: {e}", p.name);
                        refused += 1;
                    }
                }
            }
            // 0 where it means something is taken, so that the list above says no more than is true.
            if ZERO_MEANS_SOMETHING.contains(&name.as_str()) {
                let (text, _) = with(p.text, section, key, "0");
                assert!(Config::from_toml(&text).is_ok(), "{}: {name} = 0", p.name);
            }
        }
    }
    assert!(refused > 4000, "{refused}");
}

#[test]
fn keys_that_do_not_exist_are_refused_in_every_section_of_every_profile() {
    let mut sections: Vec<String> = keys().into_iter().map(|(s, _, _)| s).collect();
    sections.dedup();
    for p in PROFILES {
        for section in &sections {
            let (text, line) = with(p.text, section, "colour", "1");
            let e = Config::from_toml(&text).unwrap_err();
            assert_eq!((e.key, e.line), (format!("{section}.colour"), line), "{}", p.name);
            assert!(e.reason.contains("unknown field"), "{}", e.reason);
        }
        let e = Config::from_toml(&format!("{}\n[colours]\nall = 1\n", p.text)).unwrap_err();
        assert!(e.key == "colours" && e.reason.contains("unknown field"), "{}: {e}", p.name);
    }
}

/// Somewhere in what the key's type holds, often at an edge or close to what it was.
fn random_value(r: &mut Rng, default: i64) -> u64 {
    match r.below(6) {
        0 => r.below(4),
        1 => 1 << r.below(17),
        2 => (1u64 << r.below(17)) - 1,
        3 => r.below(300),
        _ => (default as u64 / (1 + r.below(4))).saturating_add(r.below(3)),
    }
}

/// Several keys at a time: what contradicts itself is refused by the name of a key that was changed or that stands in the way, and
/// what is not refused forwards a frame and keeps its accounts.
#[test]
fn what_is_taken_makes_a_device_that_works() {
    let keys: Vec<_> = keys().into_iter().filter(|(_, _, d)| d.is_integer()).collect();
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..400 {
        let mut r = Rng::new(seed);
        let p = &PROFILES[r.below(PROFILES.len() as u64) as usize];
        let mut text = p.text.to_string();
        let mut said = String::new();
        for _ in 0..1 + r.below(3) {
            let (section, key, default) = &keys[r.below(keys.len() as u64) as usize];
            let value = match format!("{section}.{key}").as_str() {
                // Sizes of what is allocated at once, and of the time a frame takes.
                "device.clock_hz" => 1_000_000 << r.below(12),
                "port.speed_mbps" => 100 + r.below(400_000),
                "exact.log2_entries" => r.below(16),
                _ => random_value(&mut r, default.as_integer().unwrap()),
            };
            text = with(&text, section, key, &value.to_string()).0;
            said += &format!(" {section}.{key} = {value}");
        }
        let config = match Config::from_toml(&text) {
            Ok(c) => c,
            Err(ConfigError { key, reason, .. }) => {
                assert!(!reason.is_empty(), "{}:{said}", p.name);
                let known = keys.iter().any(|(s, k, _)| format!("{s}.{k}") == key) || key == "port.weights";
                assert!(known, "{}:{said}: {key}: {reason}", p.name);
                refused += 1;
                continue;
            }
        };
        if !(config.host.ring_log2_min..=config.host.command_log2_max).contains(&LOG2) {
            // Good for a driver with other rings than the test bed's, which says so.
            let e = Bed::new(config, seed).err().unwrap().to_string();
            assert!(e.contains("command_log2_max"), "{}:{said}: {e}", p.name);
            continue;
        }
        taken += 1;
        let frame = frames::udp4([10, 0, 0, 1], [10, 0, 0, 2], 5, 6);
        let mut bed = Bed::new(config.clone(), seed).unwrap_or_else(|e| panic!("{}:{said}: {e}", p.name));
        let m = Match::Prefix { dst: [10, 0, 0, 2], bits: 32, priority: 1 };
        let to = config.device.ports - 1;
        bed.install(m, &[to], false).unwrap().unwrap_or_else(|s| panic!("{}:{said}: {s:?}", p.name));
        assert!(bed.send(0, bed.sim().cycle().0 + 1, &frame), "{}:{said}", p.name);
        assert!(bed.sim().run_until_idle(100_000_000), "{}:{said}", p.name);
        let mut out = 0;
        bed.receive(to, |_, f| out += usize::from(f == frame));
        assert_eq!(out, 1, "{}:{said}: {:?}", p.name, bed.sim().drops());
        assert!(bed.sim().account().balances(), "{}:{said}", p.name);
    }
    assert!(taken > 100 && refused > 20, "{taken} taken, {refused} refused");
}
