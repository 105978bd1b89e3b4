//! `bfd/*`, `cfm/*` and `autoattach/*`: the texts of Open vSwitch 3.1.

use std::sync::Arc;

use daemon::unixctl::Commands;
use links::Lldp;

use crate::report::Parts;

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>) {
    let p = Arc::clone(parts);
    commands
        .register("bfd/show", "[interface]", 0..=1, move |a| p.layer.bfd_text(a.first().map(String::as_str)));
    let p = Arc::clone(parts);
    commands.register("bfd/set-forwarding", "[interface] normal|false|true", 1..=2, move |a| {
        let (name, word) = split(a);
        let forwarding = forced(word).ok_or("unknown forwarding string")?;
        p.layer.force_bfd(name, forwarding).map(|()| "OK\n".into())
    });
    let p = Arc::clone(parts);
    commands
        .register("cfm/show", "[interface]", 0..=1, move |a| p.layer.cfm_text(a.first().map(String::as_str)));
    let p = Arc::clone(parts);
    commands.register("cfm/set-fault", "[interface] normal|false|true", 1..=2, move |a| {
        let (name, word) = split(a);
        let fault = forced(word).ok_or("unknown fault string")?;
        p.layer.force_cfm(name, fault).map(|()| "OK\n".into())
    });
    let show = |name, text: fn(&Lldp) -> String| {
        let p = Arc::clone(parts);
        let of = move |a: &[String]| p.layer.lldp_text(a.first().map(String::as_str), text);
        commands.register(name, "[bridge]", 0..=1, of);
    };
    show("autoattach/status", Lldp::servers_text);
    show("autoattach/show-isid", Lldp::services_text);
    show("autoattach/statistics", Lldp::counters_text);
}

/// The interface, if one is named, and the word after it.
fn split(args: &[String]) -> (Option<&str>, &str) {
    match args {
        [name, word, ..] => (Some(name), word),
        [word] => (None, word),
        [] => (None, ""),
    }
}

/// What is to be said whatever is found; inside is `None` for what is found.
fn forced(word: &str) -> Option<Option<bool>> {
    match word.to_ascii_lowercase().as_str() {
        "true" => Some(Some(true)),
        "false" => Some(Some(false)),
        "normal" => Some(None),
        _ => None,
    }
}
