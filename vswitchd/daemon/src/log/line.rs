//! One line of the log.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::Event;
use tracing::field::{Field, Visit};

use super::level::{Level, ModuleName};

/// `2026-11-21T05:08:08.382Z|00126|module(thread)|LEVEL|message` and a newline.
pub(super) struct Line<'a> {
    pub at: SystemTime,
    pub sequence: u64,
    pub module: &'a str,
    /// `None` for the main thread.
    pub thread: Option<&'a str>,
    pub level: Level,
    pub message: &'a str,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{:05}|{}", Utc(self.at), self.sequence, ModuleName(self.module))?;
        if let Some(t) = self.thread {
            write!(f, "({t})")?;
        }
        write!(f, "|{}|", self.level.name())?;
        // Whatever a peer made us say stays on one line and harmless to a terminal.
        for c in self.message.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        f.write_str("\n")
    }
}

/// ISO 8601 in UTC with milliseconds.
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Days to a date of the Gregorian calendar, counting years from March and eras of 400 years.
        let z = days + 719_468;
        let (era, day_of_era) = (z / 146_097, z % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let m = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * m + 2) / 5 + 1;
        let month = if m < 10 { m + 3 } else { m - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            since.subsec_millis()
        )
    }
}

/// The event's message, followed by its other fields as `name=value`.
pub(super) fn message_of(event: &Event<'_>) -> String {
    #[derive(Default)]
    struct Collect {
        message: String,
        fields: String,
    }
    impl Visit for Collect {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            use fmt::Write;
            let _ = match field.name() {
                "message" => write!(self.message, "{value:?}"),
                name => write!(self.fields, " {name}={value:?}"),
            };
        }
        fn record_str(&mut self, field: &Field, value: &str) {
            use fmt::Write;
            let _ = match field.name() {
                "message" => write!(self.message, "{value}"),
                name => write!(self.fields, " {name}={value}"),
            };
        }
    }
    let mut c = Collect::default();
    event.record(&mut c);
    c.message.push_str(&c.fields);
    c.message
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_look_like_open_vswitchs() {
        let line = |thread| {
            Line {
                at: UNIX_EPOCH + Duration::from_millis(1_795_237_688_382),
                sequence: 126,
                module: "ofproto::bridge",
                thread,
                level: Level::Warn,
                message: "a\tb|c",
            }
            .to_string()
        };
        assert_eq!(line(Some("fwd0")), "2026-11-21T05:08:08.382Z|00126|ofproto_bridge(fwd0)|WARN|a\\tb|c\n");
        assert_eq!(line(None), "2026-11-21T05:08:08.382Z|00126|ofproto_bridge|WARN|a\\tb|c\n");
    }

    #[test]
    fn dates_are_right_at_the_edges() {
        let at = |s| Utc(UNIX_EPOCH + Duration::from_secs(s)).to_string();
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.000Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59.000Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000Z");
    }
}
