//! Patterns of log lines, as `vlog/set PATTERN:DESTINATION:PATTERN` takes them (see ovs-appctl(8)).
//!
//! ```text
//!   %A program   %B syslog priority   %c module     %D{..} %d{..} time   %E host name    %m message   %N line number
//!   %n newline   %p level             %P process    %r milliseconds since start   %t thread   %T "(thread)"   %% percent
//! ```
//! Between `%` and the letter: `-` to the left, `0` filled with zeros, a width. Of strftime's conversions in braces, those that
//! name parts of a date are there, and `#` stands for digits of a second's fraction. Both `%D` and `%d` are UTC here.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::level::{Level, ModuleName};

/// What a line is made of.
pub(super) struct Line<'a> {
    pub at: SystemTime,
    pub since_start: Duration,
    pub sequence: u64,
    pub module: &'a str,
    /// `None` for the main thread.
    pub thread: Option<&'a str>,
    pub level: Level,
    /// Syslog's facility and severity in one number.
    pub priority: u8,
    pub message: &'a str,
    /// Whether newlines of the message stay.
    pub lines: bool,
    pub program: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Item {
    Program,
    Priority,
    Module,
    Host,
    Message,
    Sequence,
    Level,
    Process,
    Elapsed,
    Thread,
    Subprogram,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    Time(String),
    Item { item: Item, left: bool, zero: bool, width: usize },
}

/// A pattern, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

/// A field wider than this is not.
const MAX_WIDTH: usize = 256;

impl Pattern {
    pub(super) fn parse(text: &str) -> Pattern {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            if c != '%' {
                plain.push(c);
                continue;
            }
            let left = rest.next_if_eq(&'-').is_some();
            let zero = rest.next_if_eq(&'0').is_some();
            let mut width = 0usize;
            while let Some(d) = rest.peek().and_then(|c| c.to_digit(10)) {
                rest.next();
                width = (width * 10 + d as usize).min(MAX_WIDTH);
            }
            let Some(letter) = rest.next() else { break };
            let item = match letter {
                'A' => Item::Program,
                'B' => Item::Priority,
                'c' => Item::Module,
                'E' => Item::Host,
                'm' => Item::Message,
                'N' => Item::Sequence,
                'p' => Item::Level,
                'P' => Item::Process,
                'r' => Item::Elapsed,
                't' => Item::Thread,
                'T' => Item::Subprogram,
                'd' | 'D' => {
                    let mut format = String::new();
                    if rest.next_if_eq(&'{').is_some() {
                        format.extend(rest.by_ref().take_while(|c| *c != '}'));
                    } else {
                        format.push_str("%Y-%m-%d %H:%M:%S.###");
                    }
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    pieces.push(Piece::Time(format));
                    continue;
                }
                'n' => {
                    plain.push('\n');
                    continue;
                }
                other => {
                    plain.push(other);
                    continue;
                }
            };
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
            pieces.push(Piece::Item { item, left, zero, width });
        }
        pieces.push(Piece::Text(plain));
        pieces.retain(|p| !matches!(p, Piece::Text(t) if t.is_empty()));
        Pattern { text: text.to_owned(), pieces }
    }

    /// As it was given.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The line, without a newline at its end.
    pub(super) fn format(&self, l: &Line<'_>) -> String {
        let mut out = String::with_capacity(96);
        for p in &self.pieces {
            match p {
                Piece::Text(t) => out.push_str(t),
                Piece::Time(f) => date(l.at, f, &mut out),
                Piece::Item { item, left, zero, width } => {
                    let begin = out.len();
                    put(*item, l, &mut out);
                    let missing = width.saturating_sub(out[begin..].chars().count());
                    let fill = if *zero { "0" } else { " " };
                    match (missing, left) {
                        (0, _) => {}
                        (n, true) => out.push_str(&" ".repeat(n)),
                        (n, false) => out.insert_str(begin, &fill.repeat(n)),
                    }
                }
            }
        }
        out
    }
}

fn put(item: Item, l: &Line<'_>, out: &mut String) {
    let _ = match item {
        Item::Program => out.write_str(l.program),
        Item::Priority => write!(out, "{}", l.priority),
        Item::Module => write!(out, "{}", ModuleName(l.module)),
        Item::Host => {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            out.write_str(host.trim())
        }
        Item::Message => {
            // Whatever a peer made us say stays on one line and harmless to a terminal.
            for c in l.message.chars() {
                let _ = match c {
                    '\n' if l.lines => out.write_char(c),
                    c if c.is_control() => write!(out, "{}", c.escape_default()),
                    c => out.write_char(c),
                };
            }
            Ok(())
        }
        Item::Sequence => write!(out, "{}", l.sequence),
        Item::Level => out.write_str(l.level.name()),
        Item::Process => write!(out, "{}", std::process::id()),
        Item::Elapsed => write!(out, "{}", l.since_start.as_millis()),
        Item::Thread => out.write_str(l.thread.unwrap_or_default()),
        Item::Subprogram => l.thread.map_or(Ok(()), |t| write!(out, "({t})")),
    };
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Writes a time by strftime's conversions, in UTC.
fn date(at: SystemTime, format: &str, out: &mut String) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date of the Gregorian calendar, counting years from March and eras of 400 years.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let name = |names: &[&'static str], i: u64| names.get(i as usize).copied().unwrap_or_default();
    let (month_name, day_name) = (name(&MONTHS, month - 1), name(&DAYS, (days + 4) % 7));
    let (h, min, s) = (second / 3600, second / 60 % 60, second % 60);
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '#' {
            let mut digits = 1;
            while digits < 9 && rest.next_if_eq(&'#').is_some() {
                digits += 1;
            }
            let nanos = format!("{:09}", since.subsec_nanos());
            out.push_str(&nanos[..digits]);
            continue;
        }
        if c != '%' {
            out.push(c);
            continue;
        }
        let _ = match rest.next() {
            Some('Y') => write!(out, "{year:04}"),
            Some('y') => write!(out, "{:02}", year % 100),
            Some('m') => write!(out, "{month:02}"),
            Some('d') => write!(out, "{day:02}"),
            Some('e') => write!(out, "{day:2}"),
            Some('H') => write!(out, "{h:02}"),
            Some('M') => write!(out, "{min:02}"),
            Some('S') => write!(out, "{s:02}"),
            Some('F') => write!(out, "{year:04}-{month:02}-{day:02}"),
            Some('T') => write!(out, "{h:02}:{min:02}:{s:02}"),
            Some('R') => write!(out, "{h:02}:{min:02}"),
            Some('b' | 'h') => out.write_str(month_name.get(..3).unwrap_or_default()),
            Some('B') => out.write_str(month_name),
            Some('a') => out.write_str(day_name.get(..3).unwrap_or_default()),
            Some('A') => out.write_str(day_name),
            Some('s') => write!(out, "{}", since.as_secs()),
            Some('Z') => out.write_str("UTC"),
            Some('z') => out.write_str("+0000"),
            Some('%') => out.write_char('%'),
            Some(other) => write!(out, "%{other}"),
            None => out.write_char('%'),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(thread: Option<&str>) -> Line<'_> {
        Line {
            at: UNIX_EPOCH + Duration::from_millis(1_795_237_688_382),
            since_start: Duration::from_millis(1234),
            sequence: 126,
            module: "ofproto::bridge",
            thread,
            level: Level::Warn,
            priority: 28,
            message: "a\tb|c",
            lines: false,
            program: "vswitchd",
        }
    }

    fn with(pattern: &str) -> String {
        Pattern::parse(pattern).format(&line(Some("fwd0")))
    }

    #[test]
    fn lines_look_like_open_vswitchs() {
        let p = Pattern::parse(super::super::FILE_PATTERN);
        assert_eq!(
            p.format(&line(Some("fwd0"))),
            "2026-11-21T05:08:08.382Z|00126|ofproto_bridge(fwd0)|WARN|a\\tb|c"
        );
        assert_eq!(p.format(&line(None)), "2026-11-21T05:08:08.382Z|00126|ofproto_bridge|WARN|a\\tb|c");
    }

    #[test]
    fn every_element_stands_for_its_part() {
        assert_eq!(with("%A %B %m"), "vswitchd 28 a\\tb|c");
        assert_eq!(with("[%6p][%-6p][%2p][%3N]"), "[  WARN][WARN  ][WARN][126]");
        assert_eq!(with("%r %t %T%n%%%q"), "1234 fwd0 (fwd0)\n%q");
        assert_eq!(with("%P"), std::process::id().to_string());
        assert_eq!(with("%d{%H:%M} %D{%a %b %e %T.######}"), "05:08 Sat Nov 21 05:08:08.382000");
        assert_eq!(with("%D"), "2026-11-21 05:08:08.382");
        assert!(!with("%E").is_empty());
    }

    #[test]
    fn a_cut_off_pattern_is_taken_as_far_as_it_goes() {
        for p in ["%", "%-", "%05", "%D{", "%D{%", "%99999999999999999999m", "x%"] {
            with(p);
        }
        assert!(with("%99999999999999999999m").len() <= MAX_WIDTH);
    }

    #[test]
    fn dates_are_right_at_the_edges() {
        let at = |s| {
            let mut out = String::new();
            date(UNIX_EPOCH + Duration::from_secs(s), "%FT%TZ %a", &mut out);
            out
        };
        assert_eq!(at(0), "1970-01-01T00:00:00Z Thu");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z Tue");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z Thu");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59Z Wed");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z Mon");
    }
}
