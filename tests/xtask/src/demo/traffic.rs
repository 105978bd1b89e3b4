//! Traffic between the hosts, and what it shows.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use lab::command::{done, inside};
use lab::{Lan, Vswitchd, eventually};

use super::checks::Checks;

/// Bytes that the TCP transfer moves: it lasts many times longer than flows take to get into the NIC.
const TCP_BYTES: u64 = 32 << 20;

/// Where the demo plays.
pub struct Scene<'a> {
    /// The hosts.
    pub lan: &'a Lan,
    /// The switch.
    pub switch: &'a Vswitchd,
}

/// Packets of the flows that `filter` selects: in all, and by hardware.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    flows: u64,
    in_hardware: u64,
    packets: u64,
    hardware: u64,
}

fn number(v: &Value, member: &str) -> u64 {
    v.get(member).and_then(Value::as_u64).unwrap_or(0)
}

fn share(s: &Vswitchd, filter: &str) -> Result<Share> {
    let flows = s.hoist_json(&["flows", filter])?;
    let mut sum = Share::default();
    for f in flows.as_array().context("hoist flows gives no list")? {
        sum.flows += 1;
        sum.in_hardware += u64::from(f.get("placement").and_then(Value::as_str) == Some("hardware"));
        sum.packets += number(f, "packets");
        sum.hardware += number(f, "hardware_packets");
    }
    Ok(sum)
}

/// First packets by software, the rest by the NIC.
pub fn pings(scene: &Scene<'_>, c: &mut Checks) -> Result<()> {
    let s = scene.switch;
    println!("\n== host 1 pings host 2");
    let got = scene.lan.ping(1, 2, 3, Duration::from_millis(200))?;
    c.check("3 pings are answered", got == 3, || format!("{got} were"));
    let both = "icmp";
    let placed =
        eventually(|| share(s, both).ok().filter(|x| (x.flows, x.in_hardware, x.packets) == (2, 2, 6)));
    let before = share(s, both)?;
    c.check("both directions are in the NIC now", placed.is_some(), || s.hoist(&["why"]).unwrap_or_default());
    c.check("the first packets went through software", before.packets > before.hardware, || {
        format!("{before:?}")
    });
    let got = scene.lan.ping(1, 2, 50, Duration::from_millis(10))?;
    c.check("50 more pings are answered", got == 50, || format!("{got} were"));
    let after = eventually(|| share(s, both).ok().filter(|x| x.packets >= before.packets + 100))
        .map_or_else(|| share(s, both), Ok)?;
    let (all, hw) = (after.packets - before.packets, after.hardware - before.hardware);
    println!("  100 packets more: {hw} by the NIC, {} by software", all - hw);
    c.check("the NIC forwarded all of them, and counted each once", (all, hw) == (100, 100), || {
        format!("{after:?}")
    });
    print!("{}", s.hoist(&["flows", both])?);
    Ok(())
}

/// Data over TCP arrives whole.
pub fn tcp(scene: &Scene<'_>, c: &mut Checks) -> Result<()> {
    let s = scene.switch;
    println!("\n== host 3 sends {TCP_BYTES} bytes to host 4 over TCP");
    let moved = lab::transfer::tcp(scene.lan, 3, 4, TCP_BYTES)?;
    c.check("every byte arrived as it was sent", moved.is_whole(TCP_BYTES), || format!("{moved:?}"));
    let settled = eventually(|| {
        share(s, "tcp")
            .ok()
            .filter(|x| x.in_hardware >= 2 && x.packets >= TCP_BYTES / 1500 && x.hardware * 2 > x.packets)
    });
    let x = share(s, "tcp")?;
    println!("  {} packets: {} by the NIC, {} by software", x.packets, x.hardware, x.packets - x.hardware);
    c.check("most of them were forwarded by the NIC", settled.is_some(), || format!("{x:?}"));
    Ok(())
}

/// A rule that cannot be offloaded, and the reason.
pub fn why(scene: &Scene<'_>, c: &mut Checks) -> Result<()> {
    let s = scene.switch;
    println!("\n== pings from host 1 to host 4 are copied to the controller: the NIC cannot do that");
    let got = scene.lan.ping(1, 4, 5, Duration::from_millis(200))?;
    c.check("5 pings are answered, by software", got == 5, || format!("{got} were"));
    let filter = "icmp,nw_src=10.77.0.1,nw_dst=10.77.0.4";
    let report = s.hoist_json(&["why", filter])?;
    let flows = report.get("flows").and_then(Value::as_array).cloned().unwrap_or_default();
    let reason =
        |f: &Value, m: &str| f.pointer(&format!("/why/{m}")).and_then(Value::as_str).map(str::to_owned);
    let named = flows.iter().any(|f| reason(f, "action").as_deref() == Some("controller"));
    print!("{}", s.hoist(&["why", filter])?);
    c.check("hoist why names the action that stopped it", named, || report.to_string());
    let remedy = flows.iter().any(|f| reason(f, "remedy").is_some_and(|r| !r.is_empty()));
    c.check("and what would make it fit", remedy, || report.to_string());
    let x = share(s, filter)?;
    c.check("no packet of it was forwarded by the NIC", x.hardware == 0 && x.packets >= 4, || {
        format!("{x:?}")
    });
    Ok(())
}

/// Sends a file's frames from host 3 and counts them at host 4.
pub fn replay(scene: &Scene<'_>, c: &mut Checks, pcap: &Path) -> Result<()> {
    let s = scene.switch;
    println!("\n== host 3 replays {}", pcap.display());
    // Frames that fit the NIC are sent as they are; the others are counted and left out.
    let script = "import socket,struct,sys,time\n\
        b=open(sys.argv[1],'rb').read()\n\
        m=b[:4]\n\
        e={b'\\xd4\\xc3\\xb2\\xa1':'<',b'\\x4d\\x3c\\xb2\\xa1':'<',b'\\xa1\\xb2\\xc3\\xd4':'>',b'\\xa1\\xb2\\x3c\\x4d':'>'}.get(m)\n\
        if not e: sys.exit('not a pcap file (pcapng must be converted first)')\n\
        if struct.unpack(e+'I',b[20:24])[0]&0xffff!=1: sys.exit('not Ethernet frames')\n\
        s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW);s.bind(('eth0',0));i=24;n=k=0\n\
        while i+16<=len(b):\n\
        \x20 l=struct.unpack(e+'I',b[i+8:i+12])[0];f=b[i+16:i+16+l];i+=16+l\n\
        \x20 if len(f)<l: break\n\
        \x20 if not 14<=l<=1514: k+=1;continue\n\
        \x20 s.send(f);n+=1\n\
        \x20 if n%16==0: time.sleep(0.001)\n\
        print(n,k)\n";
    let port4 = |s: &Vswitchd| -> Result<u64> {
        let ports = s.hoist_json(&["ports"])?;
        let p = ports.as_array().and_then(|a| a.iter().find(|p| number(p, "ofport") == 4)).cloned();
        Ok(number(&p.context("no port 4")?, "tx_packets"))
    };
    let dropped = |s: &Vswitchd| -> Result<u64> {
        let ports = s.hoist_json(&["ports"])?;
        let p = ports.as_array().and_then(|a| a.iter().find(|p| number(p, "ofport") == 3)).cloned();
        Ok(number(&p.context("no port 3")?, "rx_dropped"))
    };
    let (before, dropped_before) = (port4(s)?, dropped(s)?);
    let path = std::path::absolute(pcap)?;
    let o = done(inside(&scene.lan.host(3), "python3").args(["-c", script]).arg(&path))?;
    let said = String::from_utf8_lossy(&o.stdout).into_owned();
    let mut n = said.split_whitespace().filter_map(|w| w.parse::<u64>().ok());
    let (Some(sent), Some(left_out)) = (n.next(), n.next()) else {
        bail!("the replay says {said}");
    };
    let in_all = || Ok::<_, anyhow::Error>(port4(s)? - before + dropped(s)? - dropped_before);
    let arrived = eventually(|| in_all().ok().filter(|n| *n >= sent));
    let now = port4(s)?;
    println!(
        "  {sent} frames sent, {left_out} left out (shorter than 14 or longer than 1514 bytes), {} at host 4",
        now - before
    );
    c.check("every frame that was sent left the switch or is in a drop counter", arrived.is_some(), || {
        format!("{}\n{}", s.hoist(&["ports"]).unwrap_or_default(), s.hoist(&["sim"]).unwrap_or_default())
    });
    let x = share(s, "in_port=3")?;
    println!(
        "  flows from host 3: {} of {} in the NIC, {} packets by it",
        x.in_hardware, x.flows, x.hardware
    );
    Ok(())
}
