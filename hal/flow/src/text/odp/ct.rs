//! `ct(..)` and the `nat(..)` in it.

use std::fmt::Write;
use std::net::IpAddr;

use super::parse_match::at;
use crate::ct::{CtAction, CtHelper, NatChoice, NatEnd, NatRange};
use crate::text::scan::Scan;
use crate::text::value::{self, hex};
use crate::text::{Reason, TextError};

/// Writes the action.
pub(super) fn write_ct(out: &mut String, c: &CtAction) {
    let mut parts = Vec::new();
    if c.commit {
        parts.push(if c.force { "force_commit" } else { "commit" }.to_owned());
    }
    if c.zone != 0 {
        parts.push(format!("zone={}", c.zone));
    }
    if c.mark.1 != 0 {
        parts.push(format!("mark={}/{}", hex(c.mark.0.into()), hex(c.mark.1.into())));
    }
    match c.label {
        (_, 0) => {}
        (v, u128::MAX) => parts.push(format!("label={}", hex(v))),
        (v, m) => parts.push(format!("label={}/{}", hex(v), hex(m))),
    }
    if let Some(h) = c.helper {
        parts.push(format!("helper={}", h.name()));
    }
    match &c.nat {
        None => {}
        Some(None) => parts.push("nat".to_owned()),
        Some(Some(r)) => parts.push(format!("nat({})", range(r))),
    }
    out.push_str("ct");
    if !parts.is_empty() {
        let _ = write!(out, "({})", parts.join(","));
    }
}

fn range(r: &NatRange) -> String {
    let mut out = match r.end {
        NatEnd::Src => "src",
        NatEnd::Dst => "dst",
    }
    .to_owned();
    if let Some((low, high)) = r.addresses {
        let address = |a: IpAddr| match a {
            // Ports follow, after a colon.
            IpAddr::V6(a) if r.ports.is_some() => format!("[{a}]"),
            a => a.to_string(),
        };
        let _ = write!(out, "={}", address(low));
        if high != low {
            let _ = write!(out, "-{}", address(high));
        }
        if let Some((low, high)) = r.ports {
            let _ = write!(out, ":{low}");
            if high != low {
                let _ = write!(out, "-{high}");
            }
        }
    }
    if r.persistent {
        out.push_str(",persistent");
    }
    match r.choice {
        NatChoice::Any => {}
        NatChoice::Hash => out.push_str(",hash"),
        NatChoice::Random => out.push_str(",random"),
    }
    out
}

/// A part of a list: a word, with a value behind `=` or in parentheses if it has one.
fn next_part<'a>(s: &mut Scan<'a>) -> Result<Option<(&'a str, Option<Scan<'a>>)>, TextError> {
    s.skip_separators();
    if s.rest().is_empty() {
        return Ok(None);
    }
    let name = s.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
    if name.is_empty() {
        return s.fail(Reason::UnknownKeyword);
    }
    if s.eat("=") {
        let from = s.at;
        s.take_value(",")?;
        return Ok(Some((name, Some(Scan { text: &s.text[..s.at], at: from }))));
    }
    if s.peek() == Some(b'(') {
        let open = s.at;
        s.take_value(", \t\r\n")?;
        return Ok(Some((name, Some(Scan { text: &s.text[..s.at - 1], at: open + 1 }))));
    }
    Ok(Some((name, None)))
}

/// Reads what is inside `ct(..)`.
pub(super) fn read_ct(mut s: Scan<'_>) -> Result<CtAction, TextError> {
    let mut c = CtAction::default();
    while let Some((name, value)) = next_part(&mut s)? {
        let number = |bits: u8| match &value {
            Some(v) => at(v, value::number(v.rest(), bits)),
            None => s.fail(Reason::MissingValue),
        };
        match name {
            "commit" => c.commit = true,
            "force_commit" => (c.commit, c.force) = (true, true),
            "zone" => c.zone = number(16)?.0 as u16,
            "mark" => {
                let (v, m) = number(32)?;
                c.mark = (v as u32, m as u32);
            }
            "label" => c.label = number(128)?,
            "helper" => {
                let helpers = [CtHelper::Ftp, CtHelper::Tftp];
                let found = value.and_then(|v| helpers.into_iter().find(|h| h.name() == v.rest()));
                c.helper = Some(found.map_or_else(|| s.fail(Reason::Unsupported("this helper")), Ok)?);
            }
            "nat" => c.nat = Some(value.map_or(Ok(None), read_nat)?),
            _ => return s.fail(Reason::UnknownKeyword),
        }
    }
    Ok(c)
}

fn read_nat(mut s: Scan<'_>) -> Result<Option<NatRange>, TextError> {
    let mut range: Option<NatRange> = None;
    while let Some((name, value)) = next_part(&mut s)? {
        let end = match name {
            "src" => Some(NatEnd::Src),
            "dst" => Some(NatEnd::Dst),
            _ => None,
        };
        match (end, &mut range) {
            (Some(end), None) => {
                let (addresses, ports) = match value {
                    Some(v) => {
                        let (a, p) = at(&v, ends(v.rest()))?;
                        (Some(a), p)
                    }
                    None => (None, None),
                };
                let (choice, persistent) = (NatChoice::Any, false);
                range = Some(NatRange { end, addresses, ports, choice, persistent });
            }
            (None, Some(r)) => match name {
                "persistent" => r.persistent = true,
                "hash" => r.choice = NatChoice::Hash,
                "random" => r.choice = NatChoice::Random,
                _ => return s.fail(Reason::UnknownKeyword),
            },
            _ => return s.fail(Reason::UnknownKeyword),
        }
    }
    Ok(range)
}

type Ends = ((IpAddr, IpAddr), Option<(u16, u16)>);

/// Reads `ADDRESS[-ADDRESS][:PORT[-PORT]]`; IPv6 addresses in brackets when ports follow.
fn ends(text: &str) -> Result<Ends, Reason> {
    let wrong = || Reason::Expected("addresses and ports");
    let (addresses, ports) = if text.contains('[') {
        match text.rsplit_once("]:") {
            Some((a, p)) => (format!("{a}]"), Some(p)),
            None => (text.to_owned(), None),
        }
    } else {
        match text.split_once(':') {
            Some((a, p)) if !p.contains(':') => (a.to_owned(), Some(p)),
            _ => (text.to_owned(), None),
        }
    };
    let address = |t: &str| t.trim_matches(['[', ']']).parse::<IpAddr>().map_err(|_| wrong());
    let (low, high) = addresses.split_once('-').unwrap_or((&addresses, &addresses));
    let (low, high) = (address(low)?, address(high)?);
    if low.is_ipv4() != high.is_ipv4() || high < low {
        return Err(wrong());
    }
    let port = |t: &str| t.parse::<u16>().map_err(|_| wrong());
    let ports = match ports {
        Some(p) => {
            let (low, high) = p.split_once('-').unwrap_or((p, p));
            let (low, high) = (port(low)?, port(high)?);
            if high < low {
                return Err(wrong());
            }
            Some((low, high))
        }
        None => None,
    };
    Ok(((low, high), ports))
}

#[cfg(test)]
mod tests {
    use crate::text::odp::{Context, format_actions, parse_actions};

    #[test]
    fn texts_are_read_and_written_back() {
        for t in [
            "ct",
            "ct(commit)",
            "ct(force_commit,zone=5,mark=0x1/0xff,label=0x2/0xf,helper=ftp,nat(src=10.0.0.1-10.0.0.9:1000-2000,persistent,hash))",
            "ct(zone=1,nat)",
            "ct(commit,nat(dst=fd00::1))",
            "ct(commit,label=0x1,nat(dst=[fd00::1]-[fd00::2]:80,random))",
            "ct(commit,nat(src))",
            "ct_clear",
            "ct(commit,mark=0x1/0xffffffff),recirc(0x3)",
        ] {
            let read = parse_actions(t, &|_| None).unwrap_or_else(|e| panic!("{t}: {e}"));
            assert_eq!(format_actions(&read, Context::default(), &|_| None), t);
        }
        for t in
            ["ct(zone=70000)", "ct(what)", "ct(nat(src=1.2.3.4-1.2.3.3))", "ct(nat(hash))", "ct(helper=x)"]
        {
            assert!(parse_actions(t, &|_| None).is_err(), "{t}");
        }
    }
}
