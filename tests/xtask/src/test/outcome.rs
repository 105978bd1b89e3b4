//! What the test programs say, line by line: counts, skips, and which tests of which program failed.

/// A test program with tests that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// How `cargo test` finds it: `-p e2e --test ovsdb`.
    pub arguments: String,
    /// Its tests that failed; none when the program itself ended in the middle.
    pub tests: Vec<String>,
}

/// Totals over all test programs.
#[derive(Default)]
pub struct Outcome {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
    /// Lines of tests that could not run here.
    pub skips: Vec<String>,
    /// Programs with failures, in the order in which they ran.
    pub programs: Vec<Program>,
    /// Where and why failed tests panicked.
    pub reasons: Vec<String>,
    /// Tests of the program that is running now which failed.
    current: Vec<String>,
    /// Output of tests that failed is coming, not of those that passed.
    in_failures: bool,
    /// Lines after a panic that still belong to its message.
    of_message: u8,
}

/// Lines of a panic's message that are kept.
const MESSAGE_LINES: u8 = 3;
/// Reasons that are kept.
const MAX_REASONS: usize = 60;

impl Outcome {
    /// Takes in a line of cargo's or libtest's output.
    pub fn see(&mut self, line: &str) {
        let t = line.trim();
        if let Some(rest) = t.strip_prefix("test result:") {
            self.in_failures = false;
            self.add(rest);
        } else if is_skip(t) {
            self.skips.push(t.to_string());
        } else if let Some(name) = t.strip_prefix("test ").and_then(|t| t.strip_suffix(" ... FAILED")) {
            self.current.push(name.split(" - should panic").next().unwrap_or(name).to_string());
        } else if t.starts_with("Running ") || t.starts_with("Doc-tests ") {
            self.current.clear();
        } else if let Some(rest) = t.strip_prefix("error: test failed, to rerun pass `") {
            let tests = std::mem::take(&mut self.current);
            self.programs.push(Program { arguments: rest.trim_end_matches('`').to_string(), tests });
        } else {
            self.explain(t);
        }
    }

    fn add(&mut self, counts: &str) {
        for part in counts.split([';', '.']) {
            let mut w = part.split_whitespace();
            let (Some(n), Some(what)) = (w.next().and_then(|n| n.parse::<u64>().ok()), w.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += n,
                "failed" => self.failed += n,
                "ignored" => self.ignored += n,
                _ => {}
            }
        }
    }

    fn explain(&mut self, line: &str) {
        if line == "failures:" || line == "successes:" {
            (self.in_failures, self.of_message) = (line == "failures:", 0);
        }
        let begins = line.starts_with("thread '") && line.contains(" panicked at ");
        if begins {
            self.of_message = 1 + MESSAGE_LINES;
        }
        if self.of_message > 0 {
            self.of_message -= 1;
            if self.in_failures && !line.is_empty() && self.reasons.len() < MAX_REASONS {
                self.reasons.push(line.to_string());
            }
        }
    }
}

/// Whether a test says that it could not run here: `skip` or `skipped`, then a colon or a blank. A name that begins so is none.
pub fn is_skip(line: &str) -> bool {
    let word = line.split([' ', ':']).next().unwrap_or_default();
    word.len() < line.len() && ["skip", "skipped"].iter().any(|s| word.eq_ignore_ascii_case(s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let mut c = Outcome::default();
        c.see(
            "test result: ok. 7 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        c.see("test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out");
        c.see("SKIP no namespace here");
        c.see("skipped: no ovs-ofctl");
        c.see("skip_sw_is_refused_where_the_driver_takes_no_filters");
        assert_eq!((c.passed, c.failed, c.ignored, c.skips.len()), (8, 3, 2, 2));
    }

    #[test]
    fn failures_are_told_by_program_with_their_reasons_and_not_those_of_expected_panics() {
        let mut c = Outcome::default();
        for line in "
     Running unittests src/lib.rs (target/debug/deps/a-1)
test beyond - should panic ... ok
successes:
thread 'beyond' (3) panicked at a.rs:1:1:
as it should
test result: ok. 1 passed; 0 failed; 0 ignored
     Running tests/two/main.rs (target/debug/deps/two-1)
test m::first ... FAILED
test m::second ... ok
failures:
---- m::first stdout ----
thread 'm::first' (7) panicked at two.rs:3:9:
called `unwrap()` on nothing

test result: FAILED. 1 passed; 1 failed; 0 ignored
error: test failed, to rerun pass `-p b --test two`
     Running tests/three.rs (target/debug/deps/three-1)
test that_ends_the_program ...
error: test failed, to rerun pass `-p b --test three`"
            .lines()
        {
            c.see(line);
        }
        let program =
            |arguments: &str, tests: Vec<String>| Program { arguments: arguments.to_string(), tests };
        let expected =
            [program("-p b --test two", vec!["m::first".to_string()]), program("-p b --test three", vec![])];
        assert_eq!(c.programs, expected);
        assert_eq!(
            c.reasons,
            ["thread 'm::first' (7) panicked at two.rs:3:9:", "called `unwrap()` on nothing"]
        );
        assert_eq!((c.passed, c.failed), (2, 1));
    }
}
