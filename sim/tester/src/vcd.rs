//! Waveforms as a Value Change Dump (IEEE 1364-2005, 18), for GTKWave and its like. One time unit is one cycle of the device.

use std::fmt::Write;

use nic::Waves;

/// Identifier of signal `i`: printable characters, shortest first.
fn identifier(mut i: usize) -> String {
    let mut s = String::new();
    loop {
        s.push(char::from(b'!' + (i % 94) as u8));
        i /= 94;
        if i == 0 {
            return s;
        }
        i -= 1;
    }
}

/// The file. `clock_hz` goes into its comment: VCD has only powers of ten for time units.
pub fn write(w: &Waves, clock_hz: u64) -> String {
    let mut out = format!(
        "$comment cycles of a clock of {clock_hz} Hz; one unit is one cycle $end\n$timescale 1 ns $end\n"
    );
    let mut scope = "";
    for (i, name) in w.signals.iter().enumerate() {
        let (s, v) = name.split_once('.').unwrap_or(("device", name));
        if s != scope {
            if !scope.is_empty() {
                out.push_str("$upscope $end\n");
            }
            let _ = writeln!(out, "$scope module {s} $end");
            scope = s;
        }
        let _ = writeln!(out, "$var wire 32 {} {v} $end", identifier(i));
    }
    if !scope.is_empty() {
        out.push_str("$upscope $end\n");
    }
    let _ = writeln!(out, "$enddefinitions $end\n#{}\n$dumpvars", w.from_cycle);
    for (i, v) in w.initial.iter().enumerate() {
        let _ = writeln!(out, "b{v:b} {}", identifier(i));
    }
    out.push_str("$end\n");
    let mut time = w.from_cycle;
    for c in &w.changes {
        if c.cycle != time {
            time = c.cycle;
            let _ = writeln!(out, "#{time}");
        }
        let _ = writeln!(out, "b{:b} {}", c.value, identifier(c.signal.into()));
    }
    let _ = writeln!(out, "#{}", w.to_cycle.max(time));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use nic::Change;

    #[test]
    fn identifiers_are_unique_and_changes_are_in_their_cycles() {
        let ids: std::collections::BTreeSet<_> = (0..20_000).map(identifier).collect();
        assert_eq!(ids.len(), 20_000);
        let w = Waves {
            signals: vec!["a.x".into(), "b.y".into()],
            initial: vec![1, 0],
            from_cycle: 5,
            to_cycle: 9,
            changes: vec![Change { cycle: 7, signal: 1, value: 6 }],
            lost: 0,
        };
        let t = write(&w, 250_000_000);
        assert!(t.contains("$scope module b $end\n$var wire 32 \" y $end"), "{t}");
        assert!(t.ends_with("#5\n$dumpvars\nb1 !\nb0 \"\n$end\n#7\nb110 \"\n#9\n"), "{t}");
        let d = w.durations(1);
        assert_eq!(d.into_iter().collect::<Vec<_>>(), [(0, 2), (6, 2)]);
    }
}
