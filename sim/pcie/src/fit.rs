//! Descriptions fitted anew to some rows, to see what they say of others.
//!
//! The description is taken as its text, TOML, so that whatever a description may say can be fitted. Coordinate descent: every fitted number
//! begins 20 % off, one up, the next down, so that nothing of an earlier fit is kept by standing still; then each is moved up or down by
//! a share that is halved from round to round, and stays where the error is less; where it makes no difference it is moved on, as what binds may lie beyond. The
//! same rows give the same result.
//!
//! Neither cycle-level nor behavioural: it looks for numbers of both.

use crate::experiment::Effort;
use crate::system::{SystemError, Systems};
use crate::validate::{Answer, Row, ValidateError, simulate};

/// Why there is no fit.
#[derive(thiserror::Error, Debug)]
pub enum FitError {
    /// The description.
    #[error("description: {0}")]
    Text(String),
    /// What it describes.
    #[error(transparent)]
    System(#[from] SystemError),
    /// A row.
    #[error(transparent)]
    Row(#[from] ValidateError),
}

/// Numbers of the device that were fitted, beside all of its engine.
const DEVICE: [&str; 2] = ["read_buffer_bytes", "read_reserve_bytes"];
/// Numbers of a microarchitecture that show without IOMMU and second socket.
const MICROARCHITECTURE: [&str; 6] =
    ["llc_ns", "snoop_ns", "dram_ns", "write_ns", "line_ns", "dllp_interval_bytes"];
/// How far off each begins.
const BEGIN: f64 = 0.2;
/// By what share they are moved, round by round.
const ROUNDS: [f64; 6] = [0.16, 0.08, 0.08, 0.04, 0.02, 0.01];

/// How often a number is moved on that does not show: the room for completions does not while there are fewer tags than would fill it.
const UNSEEN_STEPS: u32 = 3;

/// Where a number is in the text: keys, and the place in a list.
type Path = Vec<String>;

fn number<'a>(doc: &'a mut toml::Value, path: &[String]) -> Option<&'a mut toml::Value> {
    path.iter().try_fold(doc, |v, key| match v {
        toml::Value::Array(a) => a.get_mut(key.parse::<usize>().ok()?),
        v => v.get_mut(key.as_str()),
    })
}

/// Multiplies a number; says whether it was another one afterwards.
fn scale(doc: &mut toml::Value, path: &[String], by: f64) -> bool {
    match number(doc, path) {
        Some(toml::Value::Float(f)) => {
            let was = *f;
            *f *= by;
            *f != was
        }
        Some(toml::Value::Integer(i)) => {
            let was = *i;
            *i = (was as f64 * by).round() as i64;
            *i != was
        }
        _ => false,
    }
}

/// The numbers to be fitted, with the microarchitecture they belong to.
fn numbers(doc: &toml::Value) -> Vec<(Option<String>, Path)> {
    let path = |keys: &[&str]| keys.iter().map(|k| k.to_string()).collect::<Path>();
    let mut all: Vec<(Option<String>, Path)> = Vec::new();
    let engine = doc.get("device").and_then(|d| d.get("engine")).and_then(toml::Value::as_table);
    for (key, v) in engine.into_iter().flatten() {
        if v.is_float() {
            all.push((None, path(&["device", "engine", key])));
        }
    }
    all.extend(DEVICE.map(|key| (None, path(&["device", key]))));
    let micros = doc.get("microarchitecture").and_then(toml::Value::as_table);
    for (name, micro) in micros.into_iter().flatten() {
        for key in MICROARCHITECTURE {
            let at = ["microarchitecture", name.as_str(), key];
            match micro.get(key).and_then(toml::Value::as_array) {
                Some(list) => all.extend((0..list.len()).map(|i| {
                    let mut p = path(&at);
                    p.push(i.to_string());
                    (Some(name.clone()), p)
                })),
                None => all.push((Some(name.clone()), path(&at))),
            }
        }
    }
    all
}

struct Fit<'a> {
    doc: toml::Value,
    rows: &'a [Row],
    /// The microarchitecture of each row.
    micros: Vec<String>,
    effort: Effort,
    threads: usize,
}

impl Fit<'_> {
    fn systems(&self) -> Result<Systems, FitError> {
        let text = toml::to_string(&self.doc).map_err(|e| FitError::Text(e.to_string()))?;
        Ok(Systems::from_toml(&text)?)
    }

    /// Sum of the relative errors of the rows of a microarchitecture, or of all; without end where the description cannot be.
    fn error(&self, of: Option<&str>) -> Result<f64, FitError> {
        let Ok(systems) = self.systems() else { return Ok(f64::INFINITY) };
        let which = self.rows.iter().zip(&self.micros).filter(|(_, m)| of.is_none_or(|o| o == *m));
        let rows: Vec<Row> = which.map(|(r, _)| r.clone()).collect();
        let answers = simulate(&rows, |n| systems.get(n), self.effort, self.threads)?;
        // Means move where medians, multiples of a time stamp, do not.
        let value = |a: &Answer| a.latency_ns.map_or(a.value(), |l| l[1]);
        let errors = rows.iter().zip(&answers).filter_map(|(r, a)| {
            let m = r.measured.filter(|m| *m > 0.0)?;
            Some((value(a) / m - 1.0).abs())
        });
        Ok(errors.sum())
    }

    /// Moves a number until the error says something of it; whether it is less then.
    fn move_on(&mut self, of: Option<&str>, path: &Path, by: f64, before: f64) -> Result<bool, FitError> {
        for _ in 0..UNSEEN_STEPS {
            if !scale(&mut self.doc, path, by) {
                return Ok(false);
            }
            let error = self.error(of)?;
            if error != before {
                return Ok(error < before);
            }
        }
        Ok(false)
    }

    /// Moves the numbers of [`DEVICE`] together, by up to two steps of `share` each: of the room for completions and of what a read takes of it
    /// none shows alone while the other hides it.
    fn together(&mut self, share: f64) -> Result<(), FitError> {
        let by = |steps: i32| (1.0 + share).powi(steps);
        let [a, b] = DEVICE.map(|key| vec!["device".to_string(), key.to_string()]);
        let mut best = (self.error(None)?, self.doc.clone());
        let kept = self.doc.clone();
        for (x, y) in (-2..=2).flat_map(|x| (-2..=2).map(move |y| (x, y))) {
            self.doc = kept.clone();
            if scale(&mut self.doc, &a, by(x)) | scale(&mut self.doc, &b, by(y)) {
                let error = self.error(None)?;
                if error < best.0 {
                    best = (error, self.doc.clone());
                }
            }
        }
        self.doc = best.1;
        Ok(())
    }

    /// One round over all numbers.
    fn round(&mut self, all: &[(Option<String>, Path)], share: f64) -> Result<(), FitError> {
        for (of, path) in all {
            let of = of.as_deref();
            let before = self.error(of)?;
            if before == 0.0 {
                continue;
            }
            let kept = self.doc.clone();
            for by in [1.0 + share, 1.0 / (1.0 + share)] {
                if self.move_on(of, path, by, before)? {
                    break;
                }
                self.doc = kept.clone();
            }
        }
        Ok(())
    }
}

/// The description in `text` with its times fitted to `rows` alone.
///
/// # Errors
/// When the text is no description, or a row cannot be simulated.
pub fn fit(text: &str, rows: &[Row], effort: Effort, threads: usize) -> Result<Systems, FitError> {
    let doc: toml::Value = toml::from_str(text).map_err(|e| FitError::Text(e.to_string()))?;
    let micros = rows.iter().map(|r| {
        let m = doc.get("system").and_then(|s| s.get(&r.system)).and_then(|s| s.get("microarchitecture"));
        m.and_then(toml::Value::as_str).unwrap_or_default().to_string()
    });
    let mut f = Fit { micros: micros.collect(), doc, rows, effort, threads };
    let all = numbers(&f.doc);
    for (i, (_, path)) in all.iter().enumerate() {
        scale(&mut f.doc, path, if i % 2 == 0 { 1.0 + BEGIN } else { 1.0 - BEGIN });
    }
    for share in ROUNDS {
        f.together(share)?;
        f.round(&all, share)?;
    }
    f.systems()
}

/// Which half of the sizes a size belongs to: every second one, in order.
pub fn is_in_half(sizes: &[u32], size: u32, half: usize) -> bool {
    sizes.iter().position(|s| *s == size).is_some_and(|i| i % 2 == half)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fifth more room and a fifth less taken of it: 32 tags are fewer than would fill it, and a fifth less room changes nothing.
    #[test]
    fn numbers_that_hide_each_other_are_moved_together() {
        let text = "system,bench,size_bytes,window_bytes,cache,numa,iommu,pattern,host_off,dev_off,gbps\n\
                    snb-e5-2630,BW_RD,32,8192,hwarm,single,off,rand,0,0,16.77\n";
        let rows = crate::validate::parse(text).unwrap();
        let mut doc: toml::Value = toml::from_str(Systems::PUBLISHED).unwrap();
        let paths = DEVICE.map(|key| vec!["device".to_string(), key.to_string()]);
        scale(&mut doc, &paths[0], 1.2);
        scale(&mut doc, &paths[1], 0.8);
        let micros = vec!["sandy-bridge-ep".to_string()];
        let effort = Effort { samples: 1, transfers: 900 };
        let mut f = Fit { doc, rows: &rows, micros, effort, threads: 1 };
        let reads = |f: &mut Fit<'_>| {
            let [room, each] =
                [0, 1].map(|i| number(&mut f.doc, &paths[i]).and_then(|v| v.as_integer()).unwrap());
            room / (each + 64)
        };
        let before = f.error(None).unwrap();
        assert!(reads(&mut f) > 32 && before > 0.05, "{before}");
        f.together(0.2).unwrap();
        let after = f.error(None).unwrap();
        assert!(after < before / 2.0, "{before} and then {after}");
        assert!((24..=28).contains(&reads(&mut f)), "{}", reads(&mut f));
    }
}
