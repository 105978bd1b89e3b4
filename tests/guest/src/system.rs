//! A bridge on the kernel's own datapath, made by a stock ovs-vsctl and looked at with the stock tools: the kernel's flows are told by
//! `ovs-dpctl`, which asks the kernel.

use anyhow::{Context, Result, ensure};

use crate::checks::transfer;
use crate::daemon::{Daemon, echoes, ping_once, wait};
use crate::net::{by_tc, filters, ping, sh};
use crate::switch::Switch;

const DP: &str = "system@ovs-system";
/// What the kernel runs to have a module.
const MODULE_LOADER: &str = "/proc/sys/kernel/modprobe";

/// The daemon with a bridge br0 on the kernel's datapath, with va and vb as its ports 1 and 2.
pub fn start(name: &str) -> Result<Daemon> {
    let d = Daemon::start(name, &["--database", &format!("/run/hoist-{name}.conf")])?;
    d.vsctl(
        "add-br br0 -- set bridge br0 datapath_type=system -- add-port br0 va -- set interface va ofport_request=1 \
         -- add-port br0 vb -- set interface vb ofport_request=2",
    )?;
    Ok(d)
}

/// What the kernel says of its flows.
pub fn kernels() -> Result<String> {
    sh("ovs-dpctl dump-flows ovs-system")
}

/// Whether the datapath is there.
fn is_there() -> Result<bool> {
    Ok(sh("ip -o link show")?.contains("ovs-system"))
}

pub fn stop(d: Daemon) -> Result<()> {
    d.vsctl("del-br br0")?;
    wait("the datapath goes", || Ok(!is_there()?))?;
    d.stop()
}

/// Ping, TCP, VLAN, a TTL, statistics, records removed, a restart, TC above.
pub fn forwarding(s: &mut Switch) -> Result<String> {
    s.provider_off()?;
    let d = start("system")?;
    ping_once(40)?;
    let flows = kernels()?;
    let ip: Vec<&str> = flows.lines().filter(|l| l.contains("eth_type(0x0800)")).collect();
    ensure!(ip.len() == 2, "after the first: {flows}");
    // The packet that made the flow was executed, and is not counted in it.
    ensure!(ip.iter().all(|l| l.contains("packets:39")), "{flows}");
    let ours = d.appctl(&format!("dpctl/dump-flows {DP}"))?;
    ensure!(ours.lines().filter(|l| l.contains("eth_type(0x0800)")).count() == 2, "{ours}");
    ensure!(ours.contains("packets:39"), "{ours}");
    let n = d.counted("")?;
    ensure!((80..100).contains(&n), "the rule counts {n}, of which 80 are of IP: {ours}");
    let shown = d.appctl("dpif/show")?;
    for w in [DP, "br0:", "va 1/", "vb 2/", "(system)", "br0 65534/"] {
        ensure!(shown.contains(w), "no {w}: {shown}");
    }
    let stock = sh("ovs-dpctl show ovs-system")?;
    ensure!(stock.contains(": va") && stock.contains(": br0 (internal)"), "{stock}");
    let shown = d.appctl("dpctl/show")?;
    ensure!(shown.contains(": br0 (internal)"), "{shown}");
    // The host is on the bridge by its internal port.
    sh("ip addr add 10.0.0.9/24 dev br0")?;
    sh("ip link set br0 up")?;
    let got = ping("a", "10.0.0.9", 3, 50)?;
    ensure!(got == 3, "{got} of 3 answered by the host");
    let tcp = transfer("10.0.0.2", 80)?;
    // A tag on one side.
    d.vsctl("set port va tag=100")?;
    let _ = sh("ip -n b link add link eb name eb.100 type vlan id 100");
    let _ = sh("ip -n b addr add 10.0.100.2/24 dev eb.100");
    sh("ip -n b link set eb.100 up")?;
    let _ = sh("ip -n a addr add 10.0.100.1/24 dev ea");
    let got = ping("a", "10.0.100.2", 5, 50)?;
    ensure!(got == 5, "{got} of 5 answered through the tag");
    let flows = kernels()?;
    ensure!(flows.contains("push_vlan(vid=100") && flows.contains("pop_vlan"), "with a tag: {flows}");
    d.vsctl("clear port va tag")?;
    // What the kernel has no action for is written whole.
    d.ofctl("add-flow", "priority=9,ip,in_port=1,actions=dec_ttl,output:2")?;
    ping_once(5)?;
    let flows = kernels()?;
    ensure!(flows.contains("set(ipv4(ttl=63))"), "with a TTL: {flows}");
    // What it cannot write software writes: b learns another address for a.
    d.ofctl("add-flow", "priority=9,arp,in_port=1,actions=set_field:10.0.0.77->arp_spa,output:2")?;
    sh("ip -n a neigh flush all")?;
    let _ = ping("a", "10.0.0.2", 1, 50)?;
    wait("b hears of 10.0.0.77", || {
        let _ = ping("a", "10.0.0.2", 1, 50)?;
        let neighbours = sh("ip -n b neigh show 10.0.0.77")?;
        Ok(neighbours.contains("02:00:00:00:00:01"))
    })?;
    d.ofctl("del-flows", "arp")?;
    // Nothing of the kernel's is left when records are removed.
    let mut flows = String::new();
    wait("no flow is left", || {
        // Hosts ask for each other between the one and the other.
        d.appctl("revalidator/purge")?;
        flows = kernels()?;
        Ok(flows.trim().is_empty())
    })
    .with_context(|| flows.clone())?;
    ping_once(5)?;
    // Somebody else removes them: the next packets make them again.
    sh("ovs-dpctl del-flows ovs-system")?;
    ping_once(20)?;
    // That they are gone is known when counters are read next.
    wait("flows are made again", || {
        ping_once(5)?;
        Ok(kernels()?.contains("eth_type(0x0800)"))
    })?;
    d.ofctl("del-flows", "ip")?;
    let text = above(&d)?;
    stop(d)?;
    Ok(format!("{tcp}; {text}"))
}

/// The same with TC above it.
fn above(d: &Daemon) -> Result<String> {
    let options = "other_config:hw-offload=true other_config:tc-policy=skip_hw";
    d.vsctl(&format!("set Open_vSwitch . {options}"))?;
    let before = d.counted("")?;
    ping_once(40)?;
    let of_ip = |dev| by_tc(dev, "");
    let (there, back) = (of_ip("va")?, of_ip("vb")?);
    ensure!((10..=40).contains(&there) && (10..=40).contains(&back), "{there} there, {back} back by TC");
    let flows = d.appctl("dpctl/dump-flows type=offloaded")?;
    ensure!(flows.contains("dp:tc"), "{flows}");
    told(d)?;
    // The host's own port: what it sends is caught on its way out of the stack.
    let got = ping("a", "10.0.0.9", 20, 20)?;
    ensure!(got == 20, "{got} of 20 answered by the host");
    let egress = sh("tc -s filter show dev br0 egress")?;
    ensure!(egress.contains("Egress Redirect to device va"), "{egress}");
    let ingress = sh("tc filter show dev va ingress")?;
    ensure!(ingress.contains("Ingress Redirect to device br0"), "{ingress}");
    let n = d.counted("")? - before;
    ensure!(n >= 80, "the rules count {n} of 80");
    d.vsctl("set Open_vSwitch . other_config:hw-offload=false")?;
    wait("the filters go", || Ok(filters("va")?.is_empty() && filters("vb")?.is_empty()))?;
    ping_once(5)?;
    Ok(format!("{there} and {back} of 40 by TC above it"))
}

/// Which flows TC has, and why it has not the others: this kernel does not go on where filters stop.
fn told(d: &Daemon) -> Result<()> {
    let flows: serde_json::Value = serde_json::from_str(&d.appctl("hoist/flows --hw")?)?;
    let text = flows.to_string();
    ensure!(text.contains("tc@system") && text.contains("0x0800"), "{text}");
    let software = d.appctl("hoist/flows --sw")?;
    ensure!(!software.contains("tc@system\",\"table"), "{software}");
    // Two passes, one of them by connection tracking.
    d.ofctl("add-flow", "priority=20,ip,in_port=1,actions=ct(table=1)")?;
    d.ofctl("add-flow", "table=1,priority=20,ip,actions=output:2")?;
    ping_once(20)?;
    let mut why = String::new();
    wait("the reason is told", || {
        why = d.appctl("hoist/why")?;
        Ok(why.contains("recirc needs the software path: the device does not tell")
            || why.contains("ct needs the software path: the device does not tell"))
    })
    .with_context(|| why.clone())?;
    ensure!(why.contains("CONFIG_NET_TC_SKB_EXT"), "{why}");
    // No filter of that record is there, nor of its second pass, and the kernel's datapath forwards all of it.
    let chained = filters("va")?.iter().filter(|f| f["chain"].as_u64() != Some(0)).count();
    ensure!(chained == 0, "{chained} filters of chains");
    let flows = kernels()?;
    ensure!(flows.contains("ct,recirc(") && flows.contains("recirc_id(0x"), "{flows}");
    d.ofctl("del-flows", "table=1")?;
    d.ofctl("del-flows", "ip,in_port=1")?;
    ping_once(20)
}

/// Connections of the kernel's: state, mark, label, addresses translated.
pub fn connections(s: &mut Switch) -> Result<String> {
    s.provider_off()?;
    let d = start("systemct")?;
    d.ofctl("del-flows", "")?;
    for f in [
        "priority=1,arp,actions=NORMAL",
        "table=0,priority=5,ip,ct_state=-trk,actions=ct(table=1)",
        "table=1,priority=5,ip,in_port=1,ct_state=+trk+new,actions=ct(commit,exec(set_field:0x5->ct_mark)),output:2",
        "table=1,priority=5,ip,ct_state=+trk+est,ct_mark=0x5,in_port=1,actions=output:2",
        "table=1,priority=5,ip,ct_state=+trk+est,ct_mark=0x5,in_port=2,actions=output:1",
    ] {
        d.ofctl("add-flow", f)?;
    }
    ping_once(10)?;
    let n = d.counted("table=1,ip,in_port=2")?;
    ensure!(n == 10, "{n} of 10 replies belong to the connection");
    // b begins nothing.
    let got = ping("b", "10.0.0.1", 2, 50)?;
    ensure!(got == 0, "{got} answered of what b began");
    let flows = kernels()?;
    ensure!(flows.contains("ct(commit") && flows.contains("recirc(0x"), "{flows}");
    tracked(&d)?;
    // a is somebody else to b.
    d.ofctl("del-flows", "table=1")?;
    for f in [
        "table=1,priority=5,ip,in_port=1,ct_state=+trk+new,actions=ct(commit,nat(src=10.0.0.88),table=2)",
        "table=0,priority=7,ip,ct_state=-trk,actions=ct(nat,table=1)",
        "table=1,priority=5,ip,in_port=1,ct_state=+trk+est,actions=output:2",
        "table=1,priority=5,ip,in_port=2,ct_state=+trk+est,actions=output:1",
        "table=2,priority=5,ip,actions=output:2",
    ] {
        d.ofctl("add-flow", f)?;
    }
    sh("ip -n b neigh replace 10.0.0.88 lladdr 02:00:00:00:00:01 dev eb")?;
    let before = echoes()?;
    let got = ping("a", "10.0.0.2", 10, 50)?;
    let arrived = echoes()? - before;
    ensure!(got == 10 && arrived == 10, "{got} of 10 answered, {arrived} arrived");
    let seen = sh("ip -n b neigh show 10.0.0.88")?;
    let tcp = transfer("10.0.0.2", 80)?;
    stop(d)?;
    Ok(format!("translated, {tcp}{}", if seen.is_empty() { " without a neighbour" } else { "" }))
}

/// The kernel's connections by our commands and by the stock ones, and what is forgotten is.
fn tracked(d: &Daemon) -> Result<()> {
    let lines = |text: String| {
        let mut all: Vec<String> = text.lines().map(str::to_owned).collect();
        all.sort();
        all
    };
    let ours = lines(d.appctl(&format!("dpctl/dump-conntrack {DP}"))?);
    let stock = lines(sh("ovs-dpctl dump-conntrack ovs-system")?);
    ensure!(ours == stock, "{ours:#?} by ours, {stock:#?} by ovs-dpctl");
    let marked =
        ours.iter().filter(|l| l.starts_with("icmp,orig=(src=10.0.0.1") && l.contains("mark=5")).count();
    ensure!(marked == 1, "{ours:#?}");
    // All bridges are on the kernel's, so that need not be said.
    ensure!(lines(d.appctl("dpctl/dump-conntrack")?) == ours);
    let stats = d.appctl(&format!("dpctl/ct-stats-show {DP}"))?;
    ensure!(stats.contains("ICMP: "), "{stats}");
    // One by its ends, then all.
    d.appctl(&format!("dpctl/flush-conntrack {DP} ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2"))?;
    let left = sh("ovs-dpctl dump-conntrack ovs-system")?;
    ensure!(!left.contains("orig=(src=10.0.0.1,dst=10.0.0.2"), "{left}");
    ping_once(3)?;
    ensure!(sh("ovs-dpctl dump-conntrack ovs-system")?.contains("mark=5"));
    d.ofctl("ct-flush-zone", "0")?;
    let left = sh("ovs-dpctl dump-conntrack ovs-system")?;
    ensure!(left.trim().is_empty(), "{left}");
    ping_once(3)
}

/// b is behind a tunnel whose other end is the host's datapath.
pub fn tunnels(s: &mut Switch) -> Result<String> {
    let made = &["link add vx42 type vxlan id 42 remote 10.0.0.254 dstport 4789 dev eb", "link set vx42 up"];
    let text = behind_tunnel(s, "systemtun", ("vx", "vxlan"), "vx42", made, "10.1.0", through)?;
    let left = sh("ip -o link show")?;
    ensure!(!left.contains("vxlan_sys"), "{left}");
    Ok(text)
}

/// What `check` finds while a, in `network`, speaks to b through a tunnel with key 42 between the host's datapath, where it is a port
/// with this name and of this type, and b, where it is interface `far`, which commands of `ip` in b have `made`.
pub fn behind_tunnel(
    s: &mut Switch,
    name: &str,
    (port, kind): (&str, &str),
    far: &str,
    made: &[&str],
    network: &str,
    check: fn(&Daemon) -> Result<String>,
) -> Result<String> {
    s.provider_off()?;
    let d = Daemon::start(name, &["--database", &format!("/run/hoist-{name}.conf")])?;
    d.vsctl(&format!(
        "add-br br0 -- set bridge br0 datapath_type=system -- add-port br0 va -- set interface va ofport_request=1 \
         -- add-port br0 {port} -- set interface {port} type={kind} ofport_request=2 options:remote_ip=10.0.0.2 \
         options:key=42 options:df_default=false"
    ))?;
    sh("ip addr replace 10.0.0.254/24 dev vb")?;
    made.iter().try_for_each(|m| sh(&format!("ip -n b {m}")).map(drop))?;
    sh(&format!("ip -n b addr add {network}.2/24 dev {far}"))?;
    sh(&format!("ip -n a addr replace {network}.1/24 dev ea"))?;
    let outcome = check(&d);
    let _ = sh(&format!("ip -n b link del {far}"));
    sh("ip addr del 10.0.0.254/24 dev vb")?;
    sh(&format!("ip -n a addr del {network}.1/24 dev ea"))?;
    let text = outcome?;
    stop(d)?;
    Ok(text)
}

fn through(d: &Daemon) -> Result<String> {
    let shown = d.appctl("dpif/show")?;
    ensure!(shown.contains("vx 2/") && shown.contains("(vxlan:"), "{shown}");
    wait("the tunnel answers", || Ok(ping("a", "10.1.0.2", 1, 50)? == 1))?;
    let got = ping("a", "10.1.0.2", 10, 50)?;
    ensure!(got == 10, "{got} of 10 answered through the tunnel");
    let flows = kernels()?;
    ensure!(
        flows.contains("set(tunnel(tun_id=0x2a") && flows.contains("tunnel(tun_id=0x2a,src=10.0.0.2"),
        "{flows}"
    );
    d.vsctl("set Open_vSwitch . other_config:hw-offload=true other_config:tc-policy=skip_hw")?;
    let got = ping("a", "10.1.0.2", 40, 20)?;
    ensure!(got == 40, "{got} of 40 answered with TC above");
    let (there, back) = (by_tc("va", "tunnel_key")?, by_tc("vxlan_sys_4789", "enc_key_id")?);
    let why = || d.appctl("hoist/why").unwrap_or_default();
    ensure!((5..=40).contains(&there) && (5..=40).contains(&back), "{there}, {back} by TC: {}", why());
    // With group policy: the kernel says it, and so does TC.
    d.vsctl("set interface vx options:exts=gbp")?;
    d.ofctl("add-flow", "priority=9,in_port=1,actions=set_field:512->tun_gbp_id,output:2")?;
    sh("ip -n b link del vx42")?;
    sh("ip -n b link add vx42 type vxlan id 42 remote 10.0.0.254 dstport 4789 dev eb gbp")?;
    sh("ip -n b addr add 10.1.0.2/24 dev vx42")?;
    sh("ip -n b link set vx42 up")?;
    // It has another address.
    sh("ip -n a neigh flush all")?;
    wait("the tunnel answers with a group", || Ok(ping("a", "10.1.0.2", 1, 50)? == 1))?;
    let flows = kernels()?;
    ensure!(flows.contains("vxlan(gbp(id=512"), "{flows}");
    wait("TC has it", || {
        let _ = ping("a", "10.1.0.2", 3, 20)?;
        Ok(sh("tc filter show dev va ingress")?.contains("vxlan_opts"))
    })?;
    let got = ping("a", "10.1.0.2", 5, 20)?;
    ensure!(got == 5, "{got} of 5 answered with a group");
    Ok(format!("{there} and {back} of 40 by TC"))
}

/// A daemon that was killed leaves a datapath that the next one takes over; without the module there are words for it.
pub fn lives(s: &mut Switch) -> Result<String> {
    s.provider_off()?;
    let d = start("systemlives")?;
    ping_once(5)?;
    sh("ip addr replace 10.0.0.9/24 dev br0")?;
    sh("ip link set br0 up")?;
    d.kill()?;
    ensure!(is_there()?, "the datapath went with the daemon");
    // Flows that it knows it forwards all the same.
    let got = ping("a", "10.0.0.2", 3, 50)?;
    ensure!(got == 3, "{got} of 3 forwarded without a daemon");
    let d = Daemon::start("systemlives", &["--database", "/run/hoist-systemlives.conf"])?;
    d.vsctl("get interface va ofport")?;
    ping_once(20)?;
    let addresses = sh("ip -o addr show dev br0")?;
    ensure!(addresses.contains("10.0.0.9"), "br0 is another one: {addresses}");
    // An interface goes and comes back.
    sh("ip link del vb")?;
    wait("its end is noticed", || Ok(d.vsctl("get Interface vb error")?.contains("vb")))?;
    sh("ip link add vb type veth peer name eb netns b")?;
    sh("ip -n b link set eb address 02:00:00:00:00:02 up")?;
    sh("ip -n b addr add 10.0.0.2/24 dev eb")?;
    sh("ip link set vb up promisc on")?;
    wait("it is a port again", || Ok(d.vsctl("get Interface vb error")?.trim() == "[]"))?;
    let mut got = Ok(());
    for _ in 0..5 {
        got = ping_once(20);
        if got.is_ok() {
            break;
        }
    }
    got.context("after the interface came back")?;
    d.appctl("exit --cleanup")?;
    wait("the datapath goes", || Ok(!is_there()?))?;
    drop(d);
    for user in ["vport_vxlan", "vport_geneve"] {
        let _ = sh(&format!("rmmod {user}"));
    }
    sh("rmmod openvswitch")?;
    // Where the kernel fetches modules by itself, asking for the datapath brings it.
    let by_itself = std::fs::read_to_string(MODULE_LOADER).unwrap_or_default();
    let _ = std::fs::write(MODULE_LOADER, "/bin/false");
    let d = Daemon::start("systemno", &["--database", "/run/hoist-systemno.conf"])?;
    d.vsctl("add-br br0 -- set bridge br0 datapath_type=system -- add-port br0 va")?;
    let why = d.vsctl("get Interface va error")?;
    ensure!(why.contains("kernel module is probably not loaded"), "{why}");
    d.vsctl("del-br br0")?;
    d.stop()?;
    let _ = std::fs::write(MODULE_LOADER, by_itself.trim());
    crate::net::modules()?;
    Ok(String::new())
}
