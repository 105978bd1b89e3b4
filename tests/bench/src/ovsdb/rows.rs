//! Many rows: inserted at once, held in memory, read from a file.

use std::path::Path;
use std::time::Instant;

use ovsdb::vswitch::DATABASE;

use super::Sizes;
use super::client::{bridge, fill, ports};
use crate::contender::{Contender, figures};
use crate::figure::{Figure, Unit};
use crate::part::BenchError;
use crate::target::Target;

pub fn run(all: &[Contender], dir: &Path, sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    let mut out = at_once(all, dir, sizes)?;
    // A port is two rows.
    let n = sizes.rows / 2;
    let (mut grown, mut empty) = (Vec::new(), Vec::new());
    let file = dir.join("filled.db");
    for c in all {
        let s = c.serve(dir, None)?;
        let mut client = s.connect()?;
        bridge(&mut client)?;
        let before = s.resident_bytes()?;
        empty.push(before as f64);
        fill(&mut client, n)?;
        grown.push(vec![(s.resident_bytes()?.saturating_sub(before)) as f64 / sizes.rows as f64]);
        drop(client);
        // Both open the same file, of the last: compacted, as servers do by themselves after a while.
        s.appctl(&["ovsdb-server/compact"])?;
        std::fs::copy(s.dir().join("conf.db"), &file)?;
    }
    let (mut opened, mut times) = (vec![Vec::new(); all.len()], vec![Vec::new(); all.len()]);
    for _ in 0..sizes.repeats.min(3) {
        for (i, c) in all.iter().enumerate() {
            let begin = Instant::now();
            let s = c.serve(dir, Some(&file))?;
            times[i].push(begin.elapsed().as_secs_f64() * 1e3);
            opened[i].push((s.resident_bytes()? as f64 - empty[i]) / sizes.rows as f64);
        }
    }
    let rows = crate::figure::number(sizes.rows as f64);
    let what = format!("memory of a row, {rows} inserted");
    out.extend(figures(all, &what, Unit::BytesPerRow, &grown, Some(Target::OvsdbMemory)));
    let what = format!("memory of a row, {rows} opened");
    out.extend(figures(all, &what, Unit::BytesPerRow, &opened, Some(Target::OvsdbMemory)));
    let what = format!("{rows} rows opened, to the first answer");
    out.extend(figures(all, &what, Unit::Milliseconds, &times, None));
    Ok(out)
}

/// All ports of `sizes` in one transaction.
fn at_once(all: &[Contender], dir: &Path, sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    let ops = ports(0..sizes.ports);
    let (mut times, mut cpu) = (vec![Vec::new(); all.len()], vec![Vec::new(); all.len()]);
    for _ in 0..sizes.repeats.min(3) {
        for (i, c) in all.iter().enumerate() {
            let s = c.serve(dir, None)?;
            let mut client = s.connect()?;
            bridge(&mut client)?;
            let (begin, before) = (Instant::now(), s.cpu()?);
            client.transact(DATABASE, &ops)?;
            times[i].push(begin.elapsed().as_secs_f64() * 1e3);
            cpu[i].push((s.cpu()? - before).as_secs_f64() * 1e3);
        }
    }
    let what = format!("{} in one transaction", crate::figure::counted(sizes.ports as u32, "port"));
    let mut out = figures(all, &what, Unit::Milliseconds, &times, None);
    out.extend(figures(all, &format!("{what}, server CPU"), Unit::Milliseconds, &cpu, None));
    Ok(out)
}
