//! Measurements in files, simulated row by row and compared.
//!
//! A file has a line of column names and rows of values, separated by commas, without quotes; lines that begin with `#` are comments. The key
//! columns are `system,bench,size_bytes,window_bytes,cache,numa,iommu,pattern,host_off,dev_off`; the measurement is in
//! `median_ns`, `p99_ns` or `gbps`, where there is one; how far runs of it were apart is in `spread_pct`.
//!
//! Neither cycle-level nor behavioural: it compares.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::experiment::{Bed, Bench, CacheState, Effort, Experiment, ExperimentError, Outcome};
use crate::system::{System, SystemError};

/// The key columns.
pub const KEY: [&str; 10] = [
    "system",
    "bench",
    "size_bytes",
    "window_bytes",
    "cache",
    "numa",
    "iommu",
    "pattern",
    "host_off",
    "dev_off",
];
const ANSWER: &str = "median_ns,avg_ns,min_ns,p95_ns,p99_ns,p999_ns,gbps";

/// What is wrong with a file.
#[derive(thiserror::Error, Debug)]
pub enum ValidateError {
    /// A column or a value of it.
    #[error("line {line}: {column}: {reason}")]
    Value {
        /// Line, from 1.
        line: usize,
        /// Column.
        column: String,
        /// What is wrong.
        reason: String,
    },
    /// The machine.
    #[error("line {line}: {source}")]
    System {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        source: SystemError,
    },
    /// The experiment.
    #[error("line {line}: {source}")]
    Experiment {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        source: ExperimentError,
    },
}

/// One row.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// Line in the file, from 1.
    pub line: usize,
    /// The key columns as they stand.
    pub key: Vec<String>,
    /// The system's name.
    pub system: String,
    /// What to do.
    pub experiment: Experiment,
    /// Measured: nanoseconds, or 10^9 bits per second.
    pub measured: Option<f64>,
    /// Measured 99th percentile in nanoseconds.
    pub p99_ns: Option<f64>,
    /// By how much runs of the same differed, in per cent of what is measured; `None` when it was run once.
    pub spread_pct: Option<f64>,
}

/// Reads a file's rows.
///
/// # Errors
/// The first line that is not what it should be.
pub fn parse(text: &str) -> Result<Vec<Row>, ValidateError> {
    let mut lines = text.lines().enumerate().filter(|(_, l)| !l.starts_with('#') && !l.trim().is_empty());
    let bad = |line: usize, column: &str, reason: String| ValidateError::Value {
        line: line + 1,
        column: column.into(),
        reason,
    };
    let Some((n, head)) = lines.next() else { return Err(bad(0, "system", "the file is empty".into())) };
    let columns: Vec<&str> = head.split(',').map(str::trim).collect();
    let at = |name: &str| columns.iter().position(|c| *c == name);
    for c in &KEY[..3] {
        if at(c).is_none() {
            return Err(bad(n, c, "no such column".into()));
        }
    }
    let index: Vec<Option<usize>> = KEY.iter().map(|c| at(c)).collect();
    let (median, p99, gbps) = (at("median_ns"), at("p99_ns"), at("gbps"));
    let spread = at("spread_pct");
    let mut rows = Vec::new();
    for (n, l) in lines {
        let values: Vec<&str> = l.split(',').map(str::trim).collect();
        if values.len() != columns.len() {
            return Err(bad(n, "system", format!("{} values in {} columns", values.len(), columns.len())));
        }
        let key: Vec<String> =
            index.iter().map(|i| i.map_or(String::new(), |i| values[i].to_string())).collect();
        let experiment = experiment(&key).map_err(|(column, reason)| bad(n, column, reason))?;
        let number = |i: Option<usize>, column: &str| match i.map_or("", |i| values[i]) {
            "" => Ok(None),
            v => v.parse::<f64>().map(Some).map_err(|e| bad(n, column, format!("{v:?}: {e}"))),
        };
        let measured =
            if experiment.bench.is_latency() { number(median, "median_ns")? } else { number(gbps, "gbps")? };
        let p99_ns = number(p99, "p99_ns")?;
        let spread_pct = number(spread, "spread_pct")?;
        rows.push(Row { line: n + 1, system: key[0].clone(), key, experiment, measured, p99_ns, spread_pct });
    }
    Ok(rows)
}

fn experiment(key: &[String]) -> Result<Experiment, (&'static str, String)> {
    let number = |i: usize, default: u64| match key[i].as_str() {
        "" => Ok(default),
        v => v.parse::<u64>().map_err(|e| (KEY[i], format!("{v:?}: {e}"))),
    };
    let small = |i: usize| {
        let v = number(i, 0)?;
        u32::try_from(v).map_err(|_| (KEY[i], format!("{v} is too large")))
    };
    let one_of = |i: usize, names: &str| Err((KEY[i], format!("{:?} is none of {names}", key[i])));
    let name = key[1].to_uppercase();
    let Some(bench) = Bench::ALL.into_iter().find(|b| b.name() == name) else {
        return one_of(1, "LAT_RD, LAT_WRRD, LAT_CMD_RD, LAT_CMD_WRRD, BW_RD, BW_WR, BW_RW");
    };
    let cache = match key[4].to_lowercase().as_str() {
        "" | "hwarm" => CacheState::HostWarm,
        "cold" => CacheState::Cold,
        "dwarm" => CacheState::DeviceWarm,
        "dthrash" => CacheState::DeviceThrash,
        _ => return one_of(4, "cold, hwarm, dwarm, dthrash"),
    };
    let page_bytes = match key[6].to_lowercase().as_str() {
        "" | "off" => None,
        "on-4k" => Some(4096),
        "on-sp" => Some(2 << 20),
        _ => return one_of(6, "off, on-4k, on-sp"),
    };
    let sequential = match key[7].to_lowercase().as_str() {
        "" | "rand" => false,
        "seq" => true,
        _ => return one_of(7, "rand, seq"),
    };
    let Some(sockets) = sockets(&key[5]) else { return one_of(5, "single, sX-sY-sZ") };
    Ok(Experiment {
        bench,
        size_bytes: small(2)?,
        window_bytes: number(3, 8192)?,
        cache,
        sockets,
        page_bytes,
        sequential,
        host_offset: small(8)?,
        device_offset: small(9)?,
    })
}

fn sockets(text: &str) -> Option<[u8; 3]> {
    let text = text.to_lowercase();
    if text.is_empty() || text == "single" {
        return Some([0; 3]);
    }
    let mut parts = text.split('-').map(|p| p.strip_prefix('s')?.parse().ok());
    let all = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(all)
}

/// The answer to a row.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// Nanoseconds: median, mean, least, 95th, 99th and 99.9th percentile; of a latency experiment.
    pub latency_ns: Option<[f64; 6]>,
    /// 10^9 bits per second; of a bandwidth experiment.
    pub gbps: Option<f64>,
}

impl Answer {
    fn of(bench: Bench, o: &Outcome) -> Self {
        if !bench.is_latency() {
            return Answer { latency_ns: None, gbps: Some(o.gbps) };
        }
        let q = |q| o.quantile_ns(q);
        Answer { latency_ns: Some([q(0.5), o.mean_ns(), q(0.0), q(0.95), q(0.99), q(0.999)]), gbps: None }
    }

    /// What is compared: the median, or the bandwidth.
    pub fn value(&self) -> f64 {
        self.latency_ns.map_or(self.gbps.unwrap_or(0.0), |l| l[0])
    }
}

/// A seed that a row alone decides, so that an answer does not depend on what else is in the file.
fn seed(row: &Row) -> u64 {
    // FNV-1a.
    let bytes = row.key.iter().flat_map(|k| k.bytes().chain([b',']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Simulates rows on the machines that `describe` names, on `threads` threads of this host. Answers are in the order of the rows and do not depend on the number of threads.
///
/// # Errors
/// The first row, in the file's order, that cannot be simulated.
pub fn simulate(
    rows: &[Row],
    describe: impl Fn(&str) -> Result<System, SystemError>,
    effort: Effort,
    threads: usize,
) -> Result<Vec<Answer>, ValidateError> {
    let machines: BTreeMap<&str, System> = rows
        .iter()
        .map(|r| {
            let s = describe(&r.system);
            Ok((r.system.as_str(), s.map_err(|source| ValidateError::System { line: r.line, source })?))
        })
        .collect::<Result<_, ValidateError>>()?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        let mut bed = None;
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(row) = rows.get(i) else { return done };
            if bed.is_none() {
                bed = Some(Bed::new());
            }
            let result = match (&bed, machines.get(row.system.as_str())) {
                (Some(Ok(b)), Some(m)) => b.run(&row.experiment, m, effort, seed(row)),
                _ => Err(ExperimentError::Value { key: "window_bytes", reason: "no memory for it" }),
            };
            let answer = result.map(|o| Answer::of(row.experiment.bench, &o));
            done.push((i, answer.map_err(|source| ValidateError::Experiment { line: row.line, source })));
        }
    };
    let mut all: Vec<(usize, Result<Answer, ValidateError>)> = std::thread::scope(|s| {
        let others: Vec<_> = (1..threads.max(1)).map(|_| s.spawn(work)).collect();
        let mut all = work();
        for o in others {
            match o.join() {
                Ok(done) => all.extend(done),
                Err(e) => std::panic::resume_unwind(e),
            }
        }
        all
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, a)| a).collect()
}

/// The answers as a file: the key columns as they stood, then ours.
pub fn to_csv(rows: &[Row], answers: &[Answer]) -> String {
    let mut out = format!("{},{ANSWER}\n", KEY.join(","));
    for (r, a) in rows.iter().zip(answers) {
        out.push_str(&r.key.join(","));
        match a.latency_ns {
            Some(l) => l.iter().for_each(|v| {
                let _ = write!(out, ",{v:.1}");
            }),
            None => out.push_str(",,,,,,"),
        }
        match a.gbps {
            Some(g) => {
                let _ = writeln!(out, ",{g:.3}");
            }
            None => out.push_str(",\n"),
        }
    }
    out
}

/// Relative errors of a group of rows.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Errors(Vec<f64>);

impl Errors {
    /// Of the rows that `which` takes and that were measured.
    pub fn of<'a>(rows: &'a [Row], answers: &'a [Answer], which: impl Fn(&Row) -> bool) -> Self {
        let pairs = rows.iter().zip(answers).filter(|(r, _)| which(r));
        let e = pairs.filter_map(|(r, a)| {
            let m = r.measured.filter(|m| *m > 0.0)?;
            Some((a.value() - m) / m)
        });
        Errors(e.collect())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The `q`-quantile of the absolute errors, in per cent.
    pub fn quantile(&self, q: f64) -> f64 {
        let mut e: Vec<f64> = self.0.iter().map(|e| e.abs()).collect();
        e.sort_by(f64::total_cmp);
        let Some(last) = e.len().checked_sub(1) else { return 0.0 };
        let at = q * last as f64;
        let (low, part) = (at.floor() as usize, at.fract());
        100.0 * (e[low] + (e[(low + 1).min(last)] - e[low]) * part)
    }

    /// The mean of the absolute errors, in per cent.
    pub fn mean(&self) -> f64 {
        100.0 * self.0.iter().map(|e| e.abs()).sum::<f64>() / self.0.len().max(1) as f64
    }

    /// The mean error with its sign, in per cent.
    pub fn bias(&self) -> f64 {
        100.0 * self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }
}

/// The errors by experiment and system, then by experiment, as a table.
pub fn report(rows: &[Row], answers: &[Answer]) -> String {
    report_of(rows, answers, |_| true)
}

/// The same of the rows that `which` takes.
pub fn report_of(rows: &[Row], answers: &[Answer], which: impl Fn(&Row) -> bool) -> String {
    let mut out = format!(
        "{:<14}{:<20}{:>6}{:>10}{:>10}{:>10}{:>10}{:>10}\n",
        "experiment", "system", "rows", "median %", "mean %", "90th %", "worst %", "bias %"
    );
    let mut line = |bench: &str, system: &str, e: &Errors| {
        let _ = writeln!(
            out,
            "{bench:<14}{system:<20}{:>6}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
            e.len(),
            e.quantile(0.5),
            e.mean(),
            e.quantile(0.9),
            e.quantile(1.0),
            e.bias()
        );
    };
    let mut systems: Vec<&str> = rows.iter().map(|r| r.system.as_str()).collect();
    systems.sort_unstable();
    systems.dedup();
    for b in Bench::ALL {
        for s in &systems {
            let e = Errors::of(rows, answers, |r| which(r) && r.experiment.bench == b && r.system == *s);
            if !e.is_empty() {
                line(b.name(), s, &e);
            }
        }
    }
    for b in Bench::ALL {
        let e = Errors::of(rows, answers, |r| which(r) && r.experiment.bench == b);
        if !e.is_empty() {
            line(b.name(), "all", &e);
        }
        let off = |r: &Row| which(r) && r.experiment.bench == b && r.experiment.page_bytes.is_none();
        let e = Errors::of(rows, answers, off);
        if !e.is_empty() {
            line(b.name(), "all, IOMMU off", &e);
        }
    }
    out
}
