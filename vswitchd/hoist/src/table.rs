//! Tables for people: plain columns, no colours, no box drawing, so that `grep` and `awk` are people too.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// Columns with a heading; those named in `right` are aligned right.
pub fn render(headings: &[&str], right: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut t = Table::new();
    t.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
    t.set_header(headings);
    for r in rows {
        t.add_row(r);
    }
    for (i, c) in t.column_iter_mut().enumerate() {
        c.set_padding((0, 2));
        if right.contains(&i) {
            c.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut out = String::new();
    for line in t.to_string().lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A duration as people say it: `1d 2h 3m`, `4m 5s`, `6.789s`.
pub fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s}.{:03}s", ms % 1000),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {}h {}m", s / 86_400, s / 3600 % 24, s / 60 % 60),
    }
}

/// `1 flow`, `2 flows`.
pub fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let t =
            render(&["ID", "NAME"], &[0], [vec!["1".into(), "x".into()], vec!["100".into(), "long".into()]]);
        assert_eq!(t, " ID  NAME\n  1  x\n100  long\n");
    }

    #[test]
    fn durations_are_readable() {
        assert_eq!(duration(0), "0.000s");
        assert_eq!(duration(59_999), "59.999s");
        assert_eq!(duration(61_000), "1m 1s");
        assert_eq!(duration(3_661_000), "1h 1m");
        assert_eq!(duration(90_061_000), "1d 1h 1m");
    }
}
