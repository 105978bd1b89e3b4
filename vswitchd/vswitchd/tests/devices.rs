//! Whole switches on devices: a simulated 82599 whose filters drop, and the SmartNIC in a process of its own that is killed and started
//! again under traffic. Stock ovs-vsctl and ovs-ofctl configure, hosts in network namespaces talk. Needs root; says so and is skipped
//! otherwise.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use device::{BufferPool, PacketIo};
use netio::af_packet::AfPacketPort;
use nic::{Config, SimNic};
use support::by_database::{Rig, Way};
use support::eventually;
use support::net::Net;

/// Names the socket to the process that serves the device.
const SOCKET: &str = "HOIST_TEST_DEVICE_SOCKET";

fn document(r: &Rig<'_>, args: &[&str]) -> serde_json::Value {
    let text = r.ok("ovs-appctl", &[&["-t", r.target()], args].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
}

/// A number of a host's IP stack: `Udp: NoPorts` and others.
fn snmp(net: &Net, host: usize, proto: &str, name: &str) -> u64 {
    let o = net.inside(host, &["cat", "/proc/net/snmp"]);
    let text = String::from_utf8_lossy(&o.stdout).into_owned();
    let mut lines = text.lines().filter(|l| l.starts_with(proto));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split_whitespace().position(|n| n == name).unwrap();
    values.split_whitespace().nth(at).unwrap().parse().unwrap()
}

/// UDP datagrams from host 1 to a port of host 2.
fn datagrams(net: &Net, count: u32, port: u16) {
    let script = format!("for i in $(seq {count}); do echo x > /dev/udp/10.99.0.2/{port}; done");
    assert!(net.inside(1, &["bash", "-c", &script]).status.success());
}

/// A counter of an interface in the database, which hears of it now and then: 0 before that.
fn statistic(r: &Rig<'_>, interface: &str, key: &str) -> u64 {
    r.vsctl(&format!("--if-exists get Interface {interface} statistics:{key}")).trim().parse().unwrap_or(0)
}

#[test]
fn an_82599_drops_in_its_filters_what_the_tables_drop_and_passes_the_rest() {
    let Some(net) = Net::with_hosts("ixgbe", 2) else { return };
    let mut r = Rig::start(&net, Way::Embedded);
    r.vsctl("add-br br0");
    r.vsctl(
        "add-port br0 n0 -- set Interface n0 type=hoist options:device=ixgbe-sim:0 options:wire=af_packet:w1",
    );
    r.vsctl("add-port br0 w2");
    assert_eq!(r.vsctl("get Interface n0 ofport").trim(), "1");
    assert!(r.vsctl("get Interface n0 status").contains("ixgbe"), "{}", r.vsctl("get Interface n0 status"));
    eventually("hosts ping through the NIC, in and out", || net.ping(1, "10.99.0.2").then_some(()));

    // Both ports are closed: host 2 counts what comes to it.
    let came = || snmp(&net, 2, "Udp:", "NoPorts");
    r.ok("ovs-ofctl", &["add-flow", "br0", "priority=100,udp,nw_src=10.99.0.1,tp_dst=9,actions=drop"]);
    let before = came();
    eventually("the drop is in the flow director", || {
        datagrams(&net, 20, 9);
        let hw = document(&r, &["hoist/flows", "--hw"]);
        let flow = hw.as_array()?.iter().find(|f| f["table"] == "flow-director")?.clone();
        assert_eq!(flow["device"], "ixgbe-sim:0", "{flow}");
        assert!(flow["matches"].as_str().unwrap().contains("udp(dst=9)"), "{flow}");
        Some(())
    });
    assert_eq!(came(), before, "nothing of what is dropped comes through");
    // What the device drops never gets to the switch: the rule's own count stands still while it drops.
    let of_rule = || {
        let flows = r.ok("ovs-ofctl", &["dump-flows", "br0", "udp"]);
        flows.split("n_packets=").nth(1).unwrap().split(',').next().unwrap().parse::<u64>().unwrap()
    };
    let counted = eventually("the rule's count stands still", || {
        let n = of_rule();
        datagrams(&net, 10, 9);
        std::thread::park_timeout(std::time::Duration::from_millis(300));
        (of_rule() == n).then_some(n)
    });
    assert!(counted > 0);
    assert_eq!(came(), before);
    // Other ports, and pings, pass; why they are in software is said with the table.
    eventually("another port of the same hosts passes", || {
        datagrams(&net, 5, 10);
        (came() > before).then_some(())
    });
    assert!(net.ping(1, "10.99.0.2"));
    // What a filter cannot look at is dropped by software, which says so.
    r.ok(
        "ovs-ofctl",
        &["add-flow", "br0", "priority=100,udp,nw_src=10.99.0.1,tp_dst=11,nw_ttl=64,actions=drop"],
    );
    let why = eventually("a drop that does not fit is told with its reason", || {
        datagrams(&net, 5, 11);
        let why = document(&r, &["hoist/why"]);
        let is = |f: &&serde_json::Value| {
            f["actions"] == "drop" && f["matches"].as_str().is_some_and(|m| m.contains("ttl"))
        };
        why["flows"].as_array()?.iter().find(is).map(|f| f["why"].clone())
    });
    let said = why.to_string();
    assert!(said.contains("ttl"), "{said}");
    assert_eq!(why["table"], "flow-director", "{said}");

    // Taken back, the traffic comes through.
    r.ok("ovs-ofctl", &["del-flows", "br0", "udp"]);
    let before = came();
    eventually("what is no longer dropped comes through", || {
        datagrams(&net, 5, 9);
        (came() > before).then_some(())
    });
    assert!(document(&r, &["hoist/flows", "--hw"]).as_array().unwrap().is_empty());
    eventually("frames are counted in the database, which hears of them now and then", || {
        (statistic(&r, "n0", "rx_packets") > 0 && statistic(&r, "n0", "tx_packets") > 0).then_some(())
    });
    r.stop_switch();
}

/// Nothing in a run of the tests; the SmartNIC in a process of its own, its first two wires in `w1` and `w2`.
#[test]
fn serves_the_smartnic() {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let sim = SimNic::new(Config::default(), 1).unwrap();
    let _live = sim.start_live().unwrap();
    let pool = BufferPool::new(4096).unwrap();
    let mut ends: Vec<Box<dyn PacketIo>> = Vec::new();
    for (port, name) in [(0, "w1"), (1, "w2")] {
        let mut io = AfPacketPort::open(name, &pool).unwrap();
        io.netdev().set_up().unwrap();
        let (rx, tx) = netio::merged::take_all(&mut io).unwrap();
        sim.attach(port, rx, tx);
        sim.set_carrier(port, true);
        ends.push(Box::new(io));
    }
    let server = vfio_user::Server::bind(Path::new(&path)).unwrap();
    server.run(&mut || vfio_user::Served::new(sim.backing(), 64), &|| false).unwrap();
}

struct Server(Child);

impl Server {
    fn start(net: &Net, socket: &Path) -> Server {
        let mut c = Command::new("ip");
        c.args(["netns", "exec", &net.names[0]]).arg(std::env::current_exe().unwrap());
        c.args(["--exact", "serves_the_smartnic"]).env(SOCKET, socket);
        let child = c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the device is served", || std::os::unix::net::UnixStream::connect(socket).ok());
        Server(child)
    }

    /// SIGKILL, in the middle of whatever it does.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

struct Pings(Child);

impl Pings {
    fn start(net: &Net, from: usize, to: &str) -> Pings {
        let mut c = Command::new("ip");
        c.args(["netns", "exec", &net.names[from], "ping", "-n", "-q", "-i", "0.01", to]);
        Pings(c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_device_in_another_process_dies_and_comes_back_under_traffic_and_nothing_is_configured_anew() {
    let Some(net) = Net::with_hosts("vfiouser", 4) else { return };
    let mut r = Rig::start(&net, Way::Embedded);
    let socket = r.path("nic.sock");
    let mut server = Server::start(&net, &socket);
    r.vsctl("add-br br0");
    let device = format!("vfio-user:{}", socket.display());
    // Both forms mean the same.
    r.vsctl(&format!(
        "add-port br0 v0 -- set Interface v0 type=hoist options:device={device} options:port=0"
    ));
    r.vsctl(&format!(
        "add-port br0 v1 -- set Interface v1 type=dpdk options:dpdk-devargs={device} options:port=1"
    ));
    r.vsctl("add-port br0 w3 -- add-port br0 w4");
    r.ok("ovs-ofctl", &["add-flow", "br0", "priority=7,udp,tp_dst=9,actions=drop"]);
    eventually("hosts ping through the device", || net.ping(1, "10.99.0.2").then_some(()));
    let ports = || ["v0", "v1", "w3", "w4"].map(|p| r.vsctl(&format!("get Interface {p} ofport error")));
    let rules = || {
        let text = r.ok("ovs-ofctl", &["--no-stats", "--no-names", "dump-flows", "br0"]);
        text.lines().map(|l| l.trim().to_owned()).collect::<Vec<_>>()
    };
    let in_hardware = || {
        let hw = document(&r, &["hoist/flows", "--hw"]);
        hw.as_array().is_some_and(|a| a.iter().any(|f| f["device"] == *device))
    };
    let (as_configured, the_rules) = (ports(), rules());
    let through = Pings::start(&net, 1, "10.99.0.2");
    let beside = Pings::start(&net, 3, "10.99.0.4");
    eventually("flows are in the device", || in_hardware().then_some(()));
    for life in 1..=2 {
        let counted =
            eventually("frames are counted", || Some(statistic(&r, "v0", "rx_packets")).filter(|n| *n > 0));
        server.kill();
        eventually("the switch says that the device is away", || {
            let link = r.vsctl("get Interface v0 link_state");
            (link.trim() == "down" && !in_hardware()).then_some(())
        });
        // Ports beside it carry on, by software, with the same tables.
        assert!(net.ping(3, "10.99.0.4"), "life {life}: ports of the kernel are held up by the device");
        assert!(!net.ping(1, "10.99.0.2"));
        assert_eq!((ports(), rules()), (as_configured.clone(), the_rules.clone()));
        server = Server::start(&net, &socket);
        eventually("hosts ping through the device again", || net.ping(1, "10.99.0.2").then_some(()));
        eventually("flows are in the device again", || in_hardware().then_some(()));
        eventually("the database says so", || {
            (r.vsctl("get Interface v0 link_state").trim() == "up").then_some(())
        });
        assert_eq!((ports(), rules()), (as_configured.clone(), the_rules.clone()), "life {life}");
        eventually("frames are counted on, not anew", || {
            (statistic(&r, "v0", "rx_packets") > counted).then_some(())
        });
    }
    drop((through, beside));
    r.stop_switch();
    server.kill();
}

/// Packets of the flows of the device whose actions are such, and how many there are; of the packets, those that hardware forwarded.
fn of_flows(flows: &serde_json::Value, is: impl Fn(&str) -> bool) -> (usize, u64, u64) {
    let all = flows.as_array().unwrap().iter().filter(|f| is(f["actions"].as_str().unwrap()));
    let n = |f: &serde_json::Value, name: &str| f[name].as_u64().unwrap();
    all.fold((0, 0, 0), |(count, packets, hw), f| {
        (count + 1, packets + n(f, "packets"), hw + n(f, "hardware_packets"))
    })
}

#[test]
fn a_tunnel_is_pushed_and_popped_in_the_device_and_its_counters_say_so() {
    let Some(net) = Net::with_hosts("tunnel", 2) else { return };
    let overlay = |n: usize| format!("10.88.0.{n}/24");
    // The other end is the kernel's own VXLAN.
    let vx = ["ip", "link", "add", "vx", "type", "vxlan", "id", "7", "dstport", "4789"];
    let made =
        net.inside(2, &[&vx[..], &["local", "192.0.2.2", "remote", "192.0.2.1", "dev", "eth0"]].concat());
    if !made.status.success() {
        println!("SKIP tunnel: no VXLAN in this kernel: {}", String::from_utf8_lossy(&made.stderr).trim());
        return;
    }
    let inside = |n, words: &str| {
        let o = net.inside(n, &words.split_whitespace().collect::<Vec<_>>());
        assert!(o.status.success(), "{words}: {}", String::from_utf8_lossy(&o.stderr));
        String::from_utf8_lossy(&o.stdout).into_owned()
    };
    inside(1, &format!("ip addr add {} dev eth0", overlay(1)));
    inside(2, "ip addr add 192.0.2.2/24 dev eth0");
    inside(2, &format!("ip addr add {} dev vx", overlay(2)));
    inside(2, "ip link set vx up");

    let mut r = Rig::start(&net, Way::Embedded);
    r.vsctl("add-br under");
    r.vsctl("add-br over");
    let port =
        |n: u8| format!("type=hoist options:device=sim:0 options:port={n} options:wire=af_packet:w{}", n + 1);
    r.vsctl(&format!("add-port over n0 -- set Interface n0 {}", port(0)));
    r.vsctl(&format!("add-port under n1 -- set Interface n1 {}", port(1)));
    net.ip(&["addr", "add", "192.0.2.1/24", "dev", "under"]);
    net.ip(&["link", "set", "under", "up"]);
    r.vsctl("add-port over vx0 -- set Interface vx0 type=vxlan options:remote_ip=192.0.2.2 options:key=7");
    eventually("hosts ping through the tunnel", || net.ping(1, "10.88.0.2").then_some(()));

    let pings = Pings::start(&net, 1, "10.88.0.2");
    let pushed = |a: &str| a.contains("tnl_push");
    let popped = |a: &str| a.contains("tnl_pop");
    let hw = || document(&r, &["hoist/flows", "--hw"]);
    eventually("both directions of the tunnel are in the device", || {
        let flows = hw();
        let device = flows.as_array()?.iter().all(|f| f["device"] == "sim:0");
        (of_flows(&flows, pushed).0 > 0 && of_flows(&flows, popped).0 > 0 && device).then_some(())
    });
    // Of what comes from then on software sees nothing: all that is counted is counted by hardware.
    let at_first = document(&r, &["hoist/status"]);
    let mut before = hw();
    eventually("the device alone counts on, in both directions", || {
        let now = hw();
        let since = |is: &dyn Fn(&str) -> bool| {
            let ((_, all, in_hw), (_, all_then, in_hw_then)) = (of_flows(&now, is), of_flows(&before, is));
            (in_hw.saturating_sub(in_hw_then), (all - in_hw).abs_diff(all_then - in_hw_then))
        };
        let ((pushes, by_software), (pops, and_back)) = (since(&pushed), since(&popped));
        if by_software + and_back > 0 {
            // What software had counted before is credited after its time.
            before = now;
            return None;
        }
        (pushes > 50 && pops > 50).then_some(())
    });
    let now = document(&r, &["hoist/status"]);
    let total = |d: &serde_json::Value| d["datapath"]["hardware_packets"].as_u64().unwrap();
    assert!(total(&now) > total(&at_first) + 100, "{} and {}", total(&at_first), total(&now));
    // What goes out by the wire is VXLAN, as the kernel at its other end found it.
    let received = inside(2, "cat /sys/class/net/vx/statistics/rx_packets");
    assert!(received.trim().parse::<u64>().unwrap() > 50, "{received}");
    let dump = r.ok("ovs-appctl", &["-t", r.target(), "dpctl/dump-flows", "-m"]);
    assert!(dump.contains("offloaded:yes"), "{dump}");
    let hoist = support::program("hoist");
    if hoist.exists() {
        let said = r.ok(hoist.to_str().unwrap(), &["flows", "--hw"]);
        assert!(said.contains("tnl_push") && said.contains("tnl_pop") && said.contains("sim:0"), "{said}");
    } else {
        println!("NOTE `hoist` is not built: what it prints is not looked at");
    }
    drop(pings);

    // The tunnel goes: so do its flows, and the device's headers with them.
    r.vsctl("del-port over vx0");
    eventually("nothing of the tunnel is in the device", || {
        let flows = hw();
        (of_flows(&flows, pushed).0 + of_flows(&flows, popped).0 == 0).then_some(())
    });
    assert!(!net.ping(1, "10.88.0.2"));
    r.stop_switch();
}

#[test]
fn a_meter_goes_to_the_device_with_its_flows_and_keeps_its_rate_there() {
    const RATE: u64 = 100;
    const BURST: u64 = 20;
    let Some(net) = Net::with_hosts("meter", 2) else { return };
    let mut r = Rig::start(&net, Way::Embedded);
    r.vsctl("add-br br0 -- set bridge br0 protocols=OpenFlow10,OpenFlow13");
    for n in [0, 1] {
        let wire = format!("options:device=sim:0 options:port={n} options:wire=af_packet:w{}", n + 1);
        r.vsctl(&format!("add-port br0 n{n} -- set Interface n{n} type=hoist {wire}"));
    }
    let of = |args: &[&str]| r.ok("ovs-ofctl", &[&["-O", "OpenFlow13"], args].concat());
    let band = format!("meter=1,pktps,burst,band=type=drop,rate={RATE},burst_size={BURST}");
    of(&["add-meter", "br0", &band]);
    of(&["add-flow", "br0", "priority=100,udp,tp_dst=9,actions=meter:1,NORMAL"]);
    eventually("hosts ping through the device", || net.ping(1, "10.99.0.2").then_some(()));
    eventually("the metered flow is in the device", || {
        datagrams(&net, 50, 9);
        let hw = document(&r, &["hoist/flows", "--hw"]);
        hw.as_array()?.iter().any(|f| f["actions"].as_str().unwrap().contains("meter(")).then_some(())
    });
    // Nobody listens at the port: host 2 counts what comes.
    let came = || snmp(&net, 2, "Udp:", "NoPorts");
    let (before, since) = (came(), std::time::Instant::now());
    let mut sent = 0;
    while since.elapsed() < std::time::Duration::from_secs(2) {
        datagrams(&net, 100, 9);
        sent += 100;
    }
    let (passed, took) = (came() - before, since.elapsed());
    let most = RATE as f64 * took.as_secs_f64() * 1.2 + 3.0 * BURST as f64;
    assert!(sent as f64 > 2.0 * most, "{sent} datagrams in {took:?} are not enough to show anything");
    assert!(passed as f64 <= most && passed >= RATE, "{passed} of {sent} passed in {took:?}");
    // Counted on both sides together.
    let of_meter = || {
        let text = of(&["meter-stats", "br0"]);
        let number = |name: &str| {
            let at = text.find(name).unwrap_or_else(|| panic!("{name} in {text}"));
            let digits = text[at + name.len()..].chars().take_while(char::is_ascii_digit);
            digits.collect::<String>().parse::<u64>().unwrap()
        };
        (number("packet_in_count:"), number("0: packet_count:"))
    };
    let (all, dropped) = of_meter();
    assert!(
        all >= sent && dropped >= sent - passed,
        "{all} packets met it, {dropped} were dropped; {sent} sent"
    );
    // It is no more: what went through it goes nowhere else.
    of(&["del-meter", "br0", "meter=1"]);
    eventually("nothing of the meter is in the device", || {
        let hw = document(&r, &["hoist/flows", "--hw"]);
        hw.as_array()?.iter().all(|f| !f["actions"].as_str().unwrap().contains("meter(")).then_some(())
    });
    r.stop_switch();
}
