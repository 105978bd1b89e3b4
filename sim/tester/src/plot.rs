//! Line and bar charts as SVG.

use std::fmt::Write;

use crate::picture::escape;
use crate::rfc2544::Report;

/// A line of a chart.
pub struct Series {
    /// What it is.
    pub name: String,
    /// Its points, x ascending.
    pub points: Vec<(f64, f64)>,
}

const COLOURS: [&str; 8] =
    ["#1b6ca8", "#c8553d", "#3a7d44", "#8e5aa8", "#b8860b", "#2a9d8f", "#6b4f4f", "#444444"];
const W: f64 = 620.0;
const H: f64 = 300.0;
const LEFT: f64 = 70.0;

/// One chart at height `top` of a picture; both axes begin at zero.
fn chart(out: &mut String, top: f64, title: &str, x_name: &str, y_name: &str, series: &[Series]) {
    let all = || series.iter().flat_map(|s| &s.points);
    let most = |v: f64| if v > 0.0 { v * 1.05 } else { 1.0 };
    let (mx, my) =
        (most(all().map(|p| p.0).fold(0.0, f64::max)), most(all().map(|p| p.1).fold(0.0, f64::max)));
    let x = |v: f64| LEFT + v / mx * (W - LEFT - 20.0);
    let y = |v: f64| top + H - 40.0 - v / my * (H - 90.0);
    let _ =
        writeln!(out, "<text x=\"{LEFT}\" y=\"{:.0}\" font-size=\"14\">{}</text>", top + 22.0, escape(title));
    let _ = writeln!(
        out,
        "<path d=\"M{LEFT} {:.0}V{:.0}H{:.0}\" fill=\"none\" stroke=\"#444\"/><text x=\"{:.0}\" y=\"{:.0}\">{}</text><text x=\"4\" y=\"{:.0}\">{}</text>",
        top + 40.0,
        y(0.0),
        W - 10.0,
        W / 2.0,
        top + H - 8.0,
        escape(x_name),
        top + 38.0,
        escape(y_name),
    );
    for i in 0..=4 {
        let (vx, vy) = (mx * f64::from(i) / 4.0, my * f64::from(i) / 4.0);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {:.1}H{:.0}\" stroke=\"#eee\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            y(vy),
            W - 10.0,
            LEFT - 5.0,
            y(vy) + 4.0,
            short(vy),
            x(vx),
            y(0.0) + 15.0,
            short(vx),
        );
    }
    for (i, s) in series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let path: Vec<String> = s.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for p in &s.points {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(p.0),
                y(p.1)
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" fill=\"{colour}\" text-anchor=\"end\">{}</text>",
            W - 14.0,
            top + 36.0 + 13.0 * i as f64,
            escape(&s.name),
        );
    }
}

/// Bars beside each other in groups, at height `top` of a picture; the axis begins at zero.
fn bars(out: &mut String, top: f64, title: &str, unit: &str, names: &[&str], groups: &[(String, Vec<f64>)]) {
    let most = groups.iter().flat_map(|g| &g.1).copied().fold(0.0, f64::max);
    let most = if most > 0.0 { most * 1.05 } else { 1.0 };
    let (floor, height) = (top + H - 40.0, H - 90.0);
    let _ =
        writeln!(out, "<text x=\"{LEFT}\" y=\"{:.0}\" font-size=\"14\">{}</text>", top + 22.0, escape(title));
    let _ = writeln!(out, "<text x=\"4\" y=\"{:.0}\">{}</text>", top + 38.0, escape(unit));
    for i in 0..=4 {
        let v = most * f64::from(i) / 4.0;
        let y = floor - v / most * height;
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {y:.1}H{:.0}\" stroke=\"#eee\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            W - 10.0,
            LEFT - 5.0,
            y + 4.0,
            short(v),
        );
    }
    let each = (W - LEFT - 20.0) / groups.len().max(1) as f64;
    for (g, (name, values)) in groups.iter().enumerate() {
        let left = LEFT + each * (g as f64 + 0.1);
        let wide = 0.8 * each / values.len().max(1) as f64;
        for (i, v) in values.iter().enumerate() {
            let (x, tall) = (left + wide * i as f64, v / most * height);
            let _ = writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                floor - tall,
                wide * 0.9,
                COLOURS[i % COLOURS.len()],
                x + wide * 0.45,
                floor - tall - 3.0,
                short(*v),
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            left + 0.4 * each,
            floor + 15.0,
            escape(name)
        );
    }
    for (i, name) in names.iter().enumerate() {
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" fill=\"{}\" text-anchor=\"end\">{}</text>",
            W - 14.0,
            top + 36.0 + 13.0 * i as f64,
            COLOURS[i % COLOURS.len()],
            escape(name),
        );
    }
}

/// Forwarding rates, loss, latency and table insertion of an RFC 2889 run (RFC 2889 5.1, 5.2, 5.5, 5.7, 5.8).
pub fn rfc2889(r: &crate::rfc2889::Report) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {W} {:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        4.0 * H + 20.0
    );
    let runs = [("fully meshed", &r.fully_meshed), ("many to one", &r.many_to_one)];
    let of = |f: &dyn Fn(&crate::rfc2889::Rate) -> Vec<f64>| {
        runs.iter().map(|(name, rate)| (name.to_string(), f(rate))).collect::<Vec<_>>()
    };
    let title = format!("Forwarding, frames of {} bytes: {}", r.size_bytes, r.device);
    bars(
        &mut out,
        0.0,
        &title,
        "frames/s",
        &["offered", "forwarded"],
        &of(&|x| vec![x.offered_fps, x.forwarded_fps]),
    );
    let mut loss = of(&|x| vec![100.0 * x.loss]);
    loss.push(("congested output".into(), vec![100.0 * r.congestion.loss_congested]));
    loss.push(("free output".into(), vec![100.0 * r.congestion.loss_uncongested]));
    bars(&mut out, H, "Frames lost", "%", &["lost"], &loss);
    let latency = of(&|x| vec![x.latency.min, x.latency.mean, x.latency.p99]);
    bars(&mut out, 2.0 * H, "Latency", "ns", &["min", "mean", "p99"], &latency);
    let tables: Vec<_> = r
        .tables
        .iter()
        .map(|t| (t.table.clone(), vec![t.capacity as f64, t.first_refusal as f64, t.taken as f64]))
        .collect();
    bars(&mut out, 3.0 * H, "Tables", "entries", &["room", "at the first refusal", "taken"], &tables);
    out.push_str("</svg>\n");
    out
}

/// A number with at most four digits and a prefix.
fn short(v: f64) -> String {
    let (v, unit) = match v.abs() {
        a if a >= 1e9 => (v / 1e9, "G"),
        a if a >= 1e6 => (v / 1e6, "M"),
        a if a >= 1e4 => (v / 1e3, "k"),
        _ => (v, ""),
    };
    let digits = if v == 0.0 || v.abs() >= 100.0 {
        0
    } else if v.abs() >= 10.0 {
        1
    } else {
        2
    };
    format!("{v:.digits$}{unit}")
}

/// Throughput over frame size, latency over frame size and loss over load of an RFC 2544 run (RFC 2544 26.1 to 26.3).
pub fn rfc2544(r: &Report) -> String {
    let of = |name: &str, f: &dyn Fn(&crate::rfc2544::SizeReport) -> f64| Series {
        name: name.into(),
        points: r.sizes.iter().map(|s| (s.size_bytes as f64, f(s))).collect(),
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {W} {:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        3.0 * H + 20.0
    );
    let throughput = [of("line", &|s| s.line_fps), of("throughput", &|s| s.throughput_fps)];
    chart(
        &mut out,
        0.0,
        &format!("Throughput per port: {}", r.device),
        "frame bytes with FCS",
        "frames/s",
        &throughput,
    );
    let latency =
        [of("p99", &|s| s.latency.p99), of("mean", &|s| s.latency.mean), of("min", &|s| s.latency.min)];
    chart(&mut out, H, "Latency at the throughput", "frame bytes with FCS", "ns", &latency);
    let loss: Vec<Series> = r
        .sizes
        .iter()
        .map(|s| {
            let mut points: Vec<_> = s.loss.iter().map(|l| (100.0 * l.offered, 100.0 * l.loss)).collect();
            points.reverse();
            Series { name: format!("{} bytes", s.size_bytes), points }
        })
        .collect();
    chart(&mut out, 2.0 * H, "Frame loss rate", "offered load, % of the line", "% lost", &loss);
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 7.5, 42.42, 512.0, 14_880_952.0].map(short), ["0", "7.50", "42.4", "512", "14.9M"]);
    }
}
