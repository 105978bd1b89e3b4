//! What a run gave: by file, and group by group for what did not pass.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::groups::{Groups, Outcome};

/// Counts of a file, or of all.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Groups that passed.
    pub passed: u32,
    /// Groups that failed, or had not ended when time was up.
    pub failed: u32,
    /// Groups that could not run.
    pub skipped: u32,
}

impl Counts {
    fn add(&mut self, o: &Outcome) {
        match o {
            Outcome::Passed => self.passed += 1,
            Outcome::Skipped => self.skipped += 1,
            Outcome::Failed(_) | Outcome::Unfinished => self.failed += 1,
        }
    }
}

/// Outcomes of the groups that were asked for.
pub struct Report<'a> {
    groups: &'a Groups,
    outcomes: BTreeMap<u32, Outcome>,
    /// Folder that holds the logs of failures, one a group.
    pub logs: String,
}

impl<'a> Report<'a> {
    /// Of what `chosen` gave; a group that told nothing is unfinished.
    pub fn new(groups: &'a Groups, chosen: &[u32], told: &BTreeMap<u32, Outcome>, logs: String) -> Self {
        let of = |n: &u32| (*n, told.get(n).cloned().unwrap_or(Outcome::Unfinished));
        Report { groups, outcomes: chosen.iter().map(of).collect(), logs }
    }

    /// Over all files.
    pub fn total(&self) -> Counts {
        self.outcomes.values().fold(Counts::default(), |mut c, o| {
            c.add(o);
            c
        })
    }

    /// By file, in the suite's order.
    pub fn files(&self) -> Vec<(&'a str, Counts)> {
        let mut files: Vec<(&str, Counts)> = Vec::new();
        for (n, o) in &self.outcomes {
            let name = self.groups.get(n).map_or("?", |g| g.file.as_str());
            match files.iter_mut().find(|(f, _)| *f == name) {
                Some((_, c)) => c.add(o),
                None => {
                    let mut c = Counts::default();
                    c.add(o);
                    files.push((name, c));
                }
            }
        }
        files
    }

    fn not_passed(&self) -> impl Iterator<Item = (u32, &'a str, &'a str, &Outcome)> {
        self.outcomes.iter().filter(|(_, o)| **o != Outcome::Passed).map(|(n, o)| {
            let g = self.groups.get(n);
            (*n, g.map_or("?", |g| &g.file), g.map_or("?", |g| &g.title), o)
        })
    }

    /// The failed groups, one a line, with the place where each failed.
    pub fn failures(&self) -> String {
        let mut out = String::new();
        for (n, file, title, o) in self.not_passed() {
            let why = match o {
                Outcome::Failed(place) => place,
                Outcome::Unfinished => "had not ended",
                Outcome::Passed | Outcome::Skipped => continue,
            };
            let _ = writeln!(out, "{n:>5} {file}  {title}  ({why})");
        }
        out
    }

    /// The table by file, and as last line `TOTAL n passed, n failed, n skipped`.
    pub fn table(&self) -> String {
        let files = self.files();
        let width = files.iter().map(|(f, _)| f.len()).max().unwrap_or(0).max(4);
        let mut out = format!("{:<width$} {:>7} {:>7} {:>7}\n", "file", "passed", "failed", "skipped");
        for (f, c) in files {
            let _ = writeln!(out, "{f:<width$} {:>7} {:>7} {:>7}", c.passed, c.failed, c.skipped);
        }
        let t = self.total();
        let _ = write!(out, "TOTAL {} passed, {} failed, {} skipped", t.passed, t.failed, t.skipped);
        out
    }

    /// Everything, for programs.
    pub fn json(&self) -> Value {
        let counts = |c: Counts| json!({"passed": c.passed, "failed": c.failed, "skipped": c.skipped});
        let files = self.files().into_iter().map(|(f, c)| (f.to_owned(), counts(c)));
        let rest = self.not_passed().map(|(n, file, title, o)| {
            let (outcome, place) = match o {
                Outcome::Failed(place) => ("failed", Some(place)),
                Outcome::Unfinished => ("unfinished", None),
                Outcome::Skipped => ("skipped", None),
                Outcome::Passed => ("passed", None),
            };
            json!({"number": n, "file": file, "title": title, "outcome": outcome, "place": place})
        });
        json!({
            "files": files.collect::<serde_json::Map<_, _>>(),
            "not_passed": rest.collect::<Vec<_>>(),
            "total": counts(self.total()),
            "logs": self.logs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::groups::parse_list;
    use super::*;

    #[test]
    fn the_last_line_is_the_total_and_what_told_nothing_is_unfinished() {
        let groups =
            parse_list("  1: b.at:1  one\n  2: b.at:2  two\n  3: a.at:3  three\n  4: a.at:9  four\n");
        let told = [
            (1, Outcome::Passed),
            (2, Outcome::Failed("b.at:5".into())),
            (3, Outcome::Skipped),
            (9, Outcome::Passed),
        ];
        let r = Report::new(&groups, &[1, 2, 3, 4], &told.into(), "/logs".into());
        assert_eq!(r.total(), Counts { passed: 1, failed: 2, skipped: 1 });
        let table = r.table();
        assert_eq!(table.lines().last(), Some("TOTAL 1 passed, 2 failed, 1 skipped"));
        assert!(table.lines().nth(1).is_some_and(|l| l.starts_with("b.at")), "{table}");
        let failures = r.failures();
        assert_eq!(failures.lines().count(), 2);
        assert!(
            failures.contains("two  (b.at:5)") && failures.contains("four  (had not ended)"),
            "{failures}"
        );
        let j = r.json();
        assert_eq!(
            (&j["files"]["a.at"]["skipped"], &j["not_passed"][2]["outcome"]),
            (&json!(1), &json!("unfinished"))
        );
    }
}
