//! Packets for exporters as text: the inside of `userspace(..)` and `sample(..)`.

use std::fmt::Write;
use std::sync::Arc;

use super::parse_match::at;
use crate::action::{Action, PortId};
use crate::export::{Export, ExportTo, FlowSample};
use crate::text::scan::Scan;
use crate::text::value::{self, PortByName, PortName, quote_name};
use crate::text::{Reason, TextError};

/// In the place of a port where there is none.
const NO_PORT: u32 = u32::MAX;

/// Writes `userspace(pid=0,..)`.
pub(super) fn write_export(out: &mut String, e: &Export, ports: PortName<'_>) {
    let port = |p: Option<PortId>| {
        let n = p.map_or(NO_PORT, |p| p.0);
        ports(n).map_or_else(|| n.to_string(), |name| quote_name(&name))
    };
    out.push_str("userspace(pid=0,");
    let _ = match e.to {
        ExportTo::Sflow { tci, output } => {
            write!(out, "sFlow(vid={},pcp={},output={output}),actions", tci & 0xfff, tci >> 13)
        }
        ExportTo::Ipfix { output } => write!(out, "ipfix(output_port={})", port(output)),
        ExportTo::FlowSample(s) => {
            let direction = match s.direction {
                1 => ",ingress",
                2 => ",egress",
                _ => "",
            };
            write!(
                out,
                "flow_sample(probability={},collector_set_id={},obs_domain_id={},obs_point_id={},output_port={}{direction})",
                s.probability,
                s.collector_set,
                s.domain,
                s.point,
                port(s.output)
            )
        }
    };
    if e.tunnel_out.is_some() {
        let _ = write!(out, ",tunnel_out_port={}", port(e.tunnel_out));
    }
    out.push(')');
}

/// Calls `f` with name and value of each `name=value` and `name(value)`, and with each bare word and nothing.
pub(super) fn each_part<'a>(
    mut s: Scan<'a>,
    mut f: impl FnMut(&'a str, Scan<'a>) -> Result<(), TextError>,
) -> Result<(), TextError> {
    loop {
        s.skip_separators();
        if s.rest().is_empty() {
            return Ok(());
        }
        let name = s.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        let next = s.peek();
        if next.is_none() || next == Some(b',') {
            f(name, Scan { text: &s.text[..s.at], at: s.at })?;
            continue;
        }
        let parenthesis = next == Some(b'(');
        if !parenthesis && !s.eat("=") {
            return s.fail(Reason::Expected("name=value"));
        }
        let at = s.at;
        let v = s.take_value(",")?;
        if parenthesis && !v.ends_with(')') {
            return s.fail(Reason::Expected("a comma"));
        }
        let inset = usize::from(parenthesis);
        f(name, Scan { text: &s.text[..s.at - inset], at: at + inset })?;
    }
}

fn number(v: &Scan<'_>, bits: u8) -> Result<u32, TextError> {
    Ok(at(v, value::number(v.rest(), bits))?.0 as u32)
}

fn port(v: &Scan<'_>, ports: PortByName<'_>) -> Result<Option<PortId>, TextError> {
    let text = v.rest();
    let n =
        value::integer(text).and_then(|n| u32::try_from(n).ok()).or_else(|| ports(text.trim_matches('"')));
    match n {
        Some(NO_PORT) => Ok(None),
        Some(n) => Ok(Some(PortId(n))),
        None => v.fail(Reason::UnknownPort),
    }
}

/// What exporters are told, by the names of the attributes inside `userspace(..)`; `None` for others.
pub(super) fn read_export(
    name: &str,
    v: Scan<'_>,
    ports: PortByName<'_>,
) -> Result<Option<ExportTo>, TextError> {
    Ok(Some(match name {
        "sFlow" => {
            let (mut tci, mut output) = (0, 0);
            each_part(v, |name, v| {
                match name {
                    "vid" => tci |= number(&v, 12)? as u16,
                    "pcp" => tci |= (number(&v, 3)? as u16) << 13,
                    "output" => output = number(&v, 32)?,
                    _ => return v.fail(Reason::UnknownKeyword),
                }
                Ok(())
            })?;
            ExportTo::Sflow { tci, output }
        }
        "ipfix" => {
            let mut output = None;
            each_part(v, |name, v| match name {
                "output_port" => {
                    output = port(&v, ports)?;
                    Ok(())
                }
                _ => v.fail(Reason::UnknownKeyword),
            })?;
            ExportTo::Ipfix { output }
        }
        "flow_sample" => {
            let mut s = FlowSample {
                probability: 0,
                collector_set: 0,
                domain: 0,
                point: 0,
                output: None,
                direction: 0,
            };
            each_part(v, |name, v| {
                match name {
                    "probability" => s.probability = number(&v, 16)? as u16,
                    "collector_set_id" => s.collector_set = number(&v, 32)?,
                    "obs_domain_id" => s.domain = number(&v, 32)?,
                    "obs_point_id" => s.point = number(&v, 32)?,
                    "output_port" => s.output = port(&v, ports)?,
                    "ingress" => s.direction = 1,
                    "egress" => s.direction = 2,
                    _ => return v.fail(Reason::UnknownKeyword),
                }
                Ok(())
            })?;
            ExportTo::FlowSample(s)
        }
        _ => return Ok(None),
    }))
}

/// The action of what was read; `tunnel_out` is the text of its port.
pub(super) fn of_parts(
    to: ExportTo,
    tunnel_out: Option<Scan<'_>>,
    ports: PortByName<'_>,
) -> Result<Action, TextError> {
    let tunnel_out = match tunnel_out {
        Some(v) => port(&v, ports)?,
        None => None,
    };
    Ok(Action::Export(Arc::new(Export { tunnel_out, ..Export::of_text(to) })))
}

/// How many packets of `u32::MAX` a percentage is.
pub(super) fn read_percentage(v: &Scan<'_>) -> Result<u32, TextError> {
    let text = v.rest().trim().trim_end_matches('%');
    match text.parse::<f64>() {
        Ok(p) if (0.0..=100.0).contains(&p) => Ok((p / 100.0 * f64::from(u32::MAX)).round() as u32),
        _ => v.fail(Reason::Expected("a percentage")),
    }
}
