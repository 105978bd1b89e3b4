//! What a suite is made of, and what came of it: its groups as `testsuite --list` names them, and the lines in which
//! autotest tells how each ended.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

/// One test group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// The .at file that it is written in.
    pub file: String,
    /// What it says it tests.
    pub title: String,
    /// Its keywords, in lower case.
    pub keywords: BTreeSet<String>,
}

/// Groups by number.
pub type Groups = BTreeMap<u32, Group>;

/// How a group ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// As it should, or failed where the suite expects that.
    Passed,
    /// It could not run here, or does not want to.
    Skipped,
    /// Something was not as it should be; where.
    Failed(String),
    /// It had not ended when time was up.
    Unfinished,
}

/// Reads what `testsuite --list` prints: `NUM: FILE:LINE  TITLE`, and the keywords in deeper lines after it.
pub fn parse_list(text: &str) -> Groups {
    let mut groups = Groups::new();
    let mut last = None;
    for line in text.lines() {
        if let Some((number, group)) = parse_list_line(line) {
            groups.insert(number, group);
            last = Some(number);
        } else if let (true, Some(g)) = (line.starts_with("      "), last.and_then(|n| groups.get_mut(&n))) {
            g.keywords.extend(line.split_whitespace().map(str::to_lowercase));
        }
    }
    groups
}

fn parse_list_line(line: &str) -> Option<(u32, Group)> {
    let (number, rest) = line.split_once(": ")?;
    let number = number.trim().parse().ok()?;
    let (place, title) = rest.trim_start().split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (file, line) = place.rsplit_once(':')?;
    line.parse::<u32>().ok()?;
    let title = title.trim().to_owned();
    Some((number, Group { file: file.to_owned(), title, keywords: BTreeSet::new() }))
}

/// Reads a line that tells how a group ended, in the form that autotest uses: `NUM: TITLE  ok`, `FAILED (FILE:LINE)`,
/// `skipped (FILE:LINE)`, `expected failure (...)`.
pub fn parse_outcome(line: &str) -> Option<(u32, Outcome)> {
    let (number, rest) = line.split_once(": ")?;
    let number = number.trim().parse().ok()?;
    let rest = rest.trim_end();
    if rest.ends_with(" ok") {
        return Some((number, Outcome::Passed));
    }
    let words = [" FAILED (", " skipped (", " expected failure (", " UNEXPECTED PASS", " hard failure"];
    let (at, word) = words.iter().filter_map(|w| rest.rfind(w).map(|at| (at, *w))).max()?;
    let outcome = match word {
        " skipped (" => Outcome::Skipped,
        " expected failure (" => Outcome::Passed,
        " FAILED (" => {
            let place = rest[at..].trim_start_matches(word);
            Outcome::Failed(place.trim_end_matches(')').to_owned())
        }
        _ => Outcome::Failed(rest[at..].trim().to_owned()),
    };
    Some((number, outcome))
}

/// The groups of which the `script` starts `program`, by the lines that autotest puts around each: a word of a command line that is
/// the program's name, with an option or a variable behind it, where it is not only asked for its version.
pub fn starting(script: &str, program: &str) -> BTreeSet<u32> {
    let mut out = BTreeSet::new();
    let mut group = None;
    for line in script.lines() {
        if let Some(n) = line.strip_prefix("#AT_START_") {
            group = n.trim().parse().ok();
        } else if line.starts_with("#AT_STOP_") {
            group = None;
        } else if let Some(n) = group
            && !line.contains("--version")
            && starts(line, program)
        {
            out.insert(n);
        }
    }
    out
}

fn starts(line: &str, program: &str) -> bool {
    line.match_indices(program).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + program.len()..];
        before.is_none_or(|c| c.is_whitespace() || matches!(c, '"' | '`' | '('))
            && after.starts_with(char::is_whitespace)
            && after.trim_start().starts_with(['$', '-', '`'])
    })
}

/// Which groups are wanted. What is empty does not restrict.
#[derive(Default, Debug)]
pub struct Selection {
    /// .at files.
    pub files: Vec<String>,
    /// All of these, in any case.
    pub keywords: Vec<String>,
    /// None of these.
    pub without: Vec<String>,
    /// Numbers and ranges `N-M`.
    pub tests: Vec<String>,
    /// Only these; `None` does not restrict.
    pub among: Option<BTreeSet<u32>>,
}

impl Selection {
    /// The numbers of the groups that are wanted.
    ///
    /// # Errors
    /// When a file or number is not in the suite, or nothing is left.
    pub fn choose(&self, groups: &Groups) -> Result<Vec<u32>> {
        for f in &self.files {
            if !groups.values().any(|g| g.file == *f) {
                bail!("no group of the suite is in {f}");
            }
        }
        let ranges: Vec<(u32, u32)> = self.tests.iter().map(|t| range(t)).collect::<Result<_>>()?;
        for (from, to) in &ranges {
            if groups.range(*from..=*to).next().is_none() {
                bail!("the suite has no group {from}");
            }
        }
        let about = |g: &Group, word: &String| {
            let word = word.to_lowercase();
            g.keywords.contains(&word) || g.title.to_lowercase().split_whitespace().any(|w| w == word)
        };
        let wanted = |(n, g): &(&u32, &Group)| {
            (self.files.is_empty() || self.files.contains(&g.file))
                && (ranges.is_empty() || ranges.iter().any(|(from, to)| (from..=to).contains(n)))
                && self.keywords.iter().all(|k| about(g, k))
                && !self.without.iter().any(|k| about(g, k))
                && self.among.as_ref().is_none_or(|a| a.contains(n))
        };
        let chosen: Vec<u32> = groups.iter().filter(wanted).map(|(n, _)| *n).collect();
        if chosen.is_empty() {
            bail!("no group of the suite is what was asked for");
        }
        Ok(chosen)
    }
}

fn range(text: &str) -> Result<(u32, u32)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number = |s: &str| s.trim().parse().with_context(|| format!("{text}: not N or N-M"));
    let (from, to) = (number(from)?, number(to)?);
    if from > to {
        bail!("{text}: ends before it begins");
    }
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "A test suite test groups:\n\n NUM: FILE-NAME:LINE     TEST-GROUP-NAME\n      KEYWORDS\n\n   \
                        1: alpha.at:21   first thing - unix\n      Server positive\n   2: beta.at:7     second: with a colon\n  \
                        10: beta.at:70    tenth\n      server\n      relay tcp\n";

    #[test]
    fn a_list_is_read_with_keywords() {
        let g = parse_list(LIST);
        assert_eq!(g.keys().copied().collect::<Vec<_>>(), [1, 2, 10]);
        assert_eq!((g[&2].file.as_str(), g[&2].title.as_str()), ("beta.at", "second: with a colon"));
        assert!(g[&1].keywords.contains("server") && g[&10].keywords.contains("tcp"));
    }

    #[test]
    fn outcomes_are_read_from_what_autotest_prints() {
        let of = |s| parse_outcome(s);
        assert_eq!(of("  9: a title                ok"), Some((9, Outcome::Passed)));
        assert_eq!(
            of("1843: multiplexing     FAILED (some.at:164)"),
            Some((1843, Outcome::Failed("some.at:164".into())))
        );
        assert_eq!(of("12: x   skipped (some.at:3)"), Some((12, Outcome::Skipped)));
        assert_eq!(of("12: x   expected failure (some.at:3)"), Some((12, Outcome::Passed)));
        assert!(matches!(of("12: x   UNEXPECTED PASS"), Some((12, Outcome::Failed(_)))));
        assert_eq!(of("## Test results. ##"), None);
        assert_eq!(of("ERROR: 217 tests were run,"), None);
    }

    #[test]
    fn groups_that_start_a_program_are_found_in_the_script() {
        let script = "ovs-switchd --detach\n#AT_START_1\n( $at_check_trace; ovs-switchd --detach --pidfile\n#AT_STOP_1\n\
                      #AT_START_2\novs-switchd --version\novs-appctl -t ovs-switchd exit\n#AT_STOP_2\n\
                      #AT_START_10\nstart_daemon ovs-switchd $args\n#AT_STOP_10\n";
        assert_eq!(starting(script, "ovs-switchd"), BTreeSet::from([1, 10]));
        let s = Selection { among: Some(BTreeSet::from([2, 10])), ..Selection::default() };
        assert_eq!(s.choose(&parse_list(LIST)).unwrap(), [2, 10]);
    }

    #[test]
    fn selections_are_combined() {
        let g = parse_list(LIST);
        let choose = |files: &[&str], keywords: &[&str], without: &[&str], tests: &[&str]| {
            let own = |s: &[&str]| s.iter().map(|s| s.to_string()).collect();
            let s = Selection {
                files: own(files),
                keywords: own(keywords),
                without: own(without),
                tests: own(tests),
                among: None,
            };
            s.choose(&g)
        };
        assert_eq!(choose(&[], &[], &[], &[]).unwrap(), [1, 2, 10]);
        assert_eq!(choose(&["beta.at"], &["SERVER"], &[], &[]).unwrap(), [10]);
        assert_eq!(choose(&[], &["server"], &["relay"], &[]).unwrap(), [1]);
        assert_eq!(choose(&[], &[], &[], &["2-9", "10"]).unwrap(), [2, 10]);
        assert!(choose(&["gamma.at"], &[], &[], &[]).is_err());
        assert!(choose(&[], &[], &[], &["11"]).is_err());
        assert!(choose(&[], &[], &[], &["9-2"]).is_err());
        assert!(choose(&["alpha.at"], &["relay"], &[], &[]).is_err());
    }
}
