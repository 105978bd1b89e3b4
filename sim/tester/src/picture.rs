//! The pipeline as a picture: a box for each stage, darker the busier it is, a bar for what its queue holds.

use std::fmt::Write;

use nic::{SimStats, StageStats};

/// A shade from white over yellow to red.
fn shade(u: f64) -> String {
    let u = u.clamp(0.0, 1.0);
    let (g, b) = ((255.0 - 170.0 * u * u) as u8, (235.0 - 200.0 * u) as u8);
    format!("#ff{g:02x}{b:02x}")
}

/// Everything but letters, digits and a few signs as entities.
pub(crate) fn escape(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

struct Box<'a> {
    stage: &'a StageStats,
    queue: Option<(u32, f64, u32)>,
}

fn find<'a>(s: &'a SimStats, stage: &str, queue: &str) -> Option<Box<'a>> {
    let stage = s.stages.iter().find(|x| x.name == stage)?;
    let q = s.queues.iter().find(|x| x.name == queue);
    Some(Box { stage, queue: q.map(|q| (q.capacity, q.mean_occupancy, q.max_occupancy)) })
}

/// The picture as SVG.
pub fn svg(s: &SimStats) -> String {
    let ports: Vec<usize> = (0..s.ports.len()).collect();
    let middle: Vec<&StageStats> = s
        .stages
        .iter()
        .filter(|x| {
            !x.name.starts_with("port") && !matches!(x.name.as_str(), "command" | "transmit" | "receive")
        })
        .collect();
    let (w, h, gap) = (132.0, 58.0, 26.0);
    let rows = ports.len().max(1);
    let height = 90.0 + rows as f64 * (h + 14.0) + 100.0;
    let width = 40.0 + (middle.len() + 2) as f64 * (w + gap);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"20\" y=\"24\" font-size=\"14\">{} cycles, {:.3} us simulated; {} frames in, {} out, {} to the host, {} dropped</text>\n",
        s.cycles,
        s.simulated_ns as f64 / 1000.0,
        s.frames.injected,
        s.frames.collected,
        s.frames.to_host,
        s.frames.dropped,
    );
    let mut draw = |x: f64, y: f64, b: &Box<'_>| {
        let u = b.stage.utilisation;
        let stalled =
            b.stage.stalled_output_cycles + b.stage.stalled_resource_cycles + b.stage.stalled_memory_cycles;
        let stalled = if s.cycles == 0 { 0.0 } else { stalled as f64 / s.cycles as f64 };
        let _ = writeln!(
            out,
            "<g><rect x=\"{x:.0}\" y=\"{y:.0}\" width=\"{w}\" height=\"{h}\" rx=\"5\" fill=\"{}\" stroke=\"#444\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\" font-weight=\"bold\">{}</text>\
             <text x=\"{:.0}\" y=\"{:.0}\">{:.1} % busy, {:.1} % stalled</text>",
            shade(u),
            x + 7.0,
            y + 15.0,
            escape(&b.stage.name),
            x + 7.0,
            y + 29.0,
            100.0 * u,
            100.0 * stalled,
        );
        if let Some((capacity, mean, most)) = b.queue {
            let full = w - 14.0;
            let part = |v: f64| full * (v / f64::from(capacity.max(1))).clamp(0.0, 1.0);
            let _ = writeln!(
                out,
                "<rect x=\"{:.0}\" y=\"{:.0}\" width=\"{full:.0}\" height=\"7\" fill=\"white\" stroke=\"#888\"/>\
                 <rect x=\"{:.0}\" y=\"{:.0}\" width=\"{:.1}\" height=\"7\" fill=\"#9bd\"/>\
                 <rect x=\"{:.0}\" y=\"{:.0}\" width=\"{:.1}\" height=\"7\" fill=\"#357\"/>\
                 <text x=\"{:.0}\" y=\"{:.0}\" font-size=\"9\">queue {mean:.1}, at most {most} of {capacity}</text>",
                x + 7.0,
                y + 35.0,
                x + 7.0,
                y + 35.0,
                part(f64::from(most)),
                x + 7.0,
                y + 35.0,
                part(mean),
                x + 7.0,
                y + 53.0,
            );
        }
        out.push_str("</g>\n");
    };
    let y_of = |i: usize| 50.0 + i as f64 * (h + 14.0);
    let centre = 50.0 + (rows - 1) as f64 * (h + 14.0) / 2.0;
    for i in &ports {
        if let Some(b) = find(s, &format!("port{i} rx mac"), &format!("port{i} ingress")) {
            draw(20.0, y_of(*i), &b);
        }
        if let Some(b) = find(s, &format!("port{i} tx mac"), &format!("port{i} egress")) {
            draw(20.0 + (middle.len() + 1) as f64 * (w + gap), y_of(*i), &b);
        }
    }
    for (k, stage) in middle.iter().enumerate() {
        if let Some(b) = find(s, &stage.name, &stage.name) {
            draw(20.0 + (k + 1) as f64 * (w + gap), centre, &b);
        }
    }
    let below = y_of(rows) + 14.0;
    for (k, name) in ["command", "transmit", "receive"].into_iter().enumerate() {
        if let Some(b) = find(s, name, "") {
            draw(20.0 + (k + 1) as f64 * (w + gap), below, &b);
        }
    }
    for i in 0..=middle.len() {
        let x = 20.0 + i as f64 * (w + gap) + w;
        let y = centre + h / 2.0;
        let _ = writeln!(
            out,
            "<path d=\"M{x:.0} {y:.0}h{:.0}l-6 -4m6 4l-6 4\" fill=\"none\" stroke=\"#444\"/>",
            gap
        );
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_is_in_the_picture() {
        let sim = nic::SimNic::new(nic::Config::profile("match-action").unwrap(), 1).unwrap();
        let s = sim.stats();
        let t = svg(&s);
        for stage in &s.stages {
            assert!(t.contains(&format!(">{}</text>", stage.name)), "{} is missing", stage.name);
        }
        assert_eq!(t.matches("<g>").count(), t.matches("</g>").count());
    }
}
