//! Programs that are measured in turn: ours and Debian's.

use std::path::{Path, PathBuf};

use crate::figure::{Figure, Unit};
use crate::part::BenchError;
use crate::target::Target;

/// What figures call our program.
pub(crate) const OURS: &str = "ours";
/// What they call Debian's.
const THEIRS: &str = "Open vSwitch";

/// A program that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    /// As figures call it.
    pub name: &'static str,
    pub program: PathBuf,
}

/// Ours, `program` of `package`, built beside this program, and Debian's, at `theirs`, if it is there; `what` measures them.
///
/// # Errors
/// When ours is not built.
pub(crate) fn contenders(
    what: &str,
    (program, package): (&str, &str),
    theirs: &str,
) -> Result<Vec<Contender>, BenchError> {
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|d| d.join(program)).find(|p| p.is_file());
    let Some(ours) = beside else {
        return Err(anyhow::anyhow!("{program} is not built: cargo build --release -p {package}").into());
    };
    let mut all = vec![Contender { name: OURS, program: ours }];
    if Path::new(theirs).is_file() {
        all.push(Contender { name: THEIRS, program: theirs.into() });
    } else {
        eprintln!("bench: {what}: {theirs} is not there (openvswitch-switch): no comparison");
    }
    Ok(all)
}

/// Debian's `program` as both contenders, for tests: what is tested is the measuring. `None`, which is said, where it is not there.
#[cfg(test)]
pub(crate) fn stock_twice(program: &str) -> Option<[Contender; 2]> {
    if !Path::new(program).is_file() {
        println!("skip: {program} is not there (openvswitch-switch)");
        return None;
    }
    Some([OURS, THEIRS].map(|name| Contender { name, program: program.into() }))
}

/// What was measured of each contender, in their order.
pub(crate) type Values = Vec<Vec<f64>>;

/// The figures of each contender and, where there are two, how many times the first has what the second has.
pub(crate) fn figures(
    all: &[Contender],
    what: &str,
    unit: Unit,
    values: &Values,
    ratio: Option<Target>,
) -> Vec<Figure> {
    let figure = |(c, v): (&Contender, &Vec<f64>)| Figure::of(format!("{what}: {}", c.name), unit, v.clone());
    let mut out: Vec<Figure> = all.iter().zip(values).map(figure).collect();
    if let [ours, theirs] = &values[..] {
        let paired = ours.iter().zip(theirs).map(|(a, b)| a / b.max(f64::MIN_POSITIVE)).collect();
        let mut f = Figure::of(format!("{what}: ours / theirs"), Unit::Ratio, paired);
        f.target = ratio;
        out.push(f);
    }
    out
}

/// Measures with a folder that is gone afterwards.
///
/// # Errors
/// As `measure`, and when the folder cannot be made.
pub(crate) fn in_scratch(
    measure: impl FnOnce(&Path) -> Result<Vec<Figure>, BenchError>,
) -> Result<Vec<Figure>, BenchError> {
    // Short, for what sockets are called.
    let dir = tempfile::Builder::new().prefix("hoist-bench-").tempdir()?;
    measure(dir.path())
}
