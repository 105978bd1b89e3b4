//! Golden texts. Recorded from Open vSwitch 3.1.0 (Debian 3.1.0-2+deb12u1) with `--enable-dummy=override`:
//! * [`FLOWS`]: `ovs-ofctl -O OpenFlow13 add-flow`, `ovs-appctl netdev-dummy/receive`, then `ovs-appctl
//!   dpctl/dump-flows`; match and actions of the line.
//! * [`ADDED`]: `ovs-appctl dpctl/add-flow MATCH ACTIONS`, then `ovs-appctl dpctl/dump-flows`.
//! * [`HEADERS`]: `ovstest test-odp parse-wc-keys` (with a mask of 20 bits and of one bit written as none) and `parse-actions`.

/// Match and actions as dumped.
pub(super) const FLOWS: &[(&str, &str)] = &[
    ("recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no)", "2"),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x0800),ipv4(frag=no)",
        "100,2",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(src=10.0.0.1,proto=17,tos=0x4/0xfc,ttl=64,frag=no),udp(dst=6)",
        "set(ipv4(src=9.9.9.9,tos=0x8/0xfc,ttl=63)),set(udp(dst=7)),2",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x0800),ipv4(proto=17,frag=no)",
        "set(eth(src=00:00:00:00:00:01,dst=00:00:00:00:00:02)),2",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(proto=6,frag=no),tcp_flags(+syn-ack)",
        "2",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no)",
        "push_vlan(vid=11,pcp=0),2",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x8100),vlan(vid=99,pcp=7),encap(eth_type(0x0800),ipv4(proto=17,frag=no),udp(dst=6))",
        "pop_vlan,push_vlan(vid=5,pcp=7),2",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no)",
        "push_vlan(vid=11,pcp=3),2,pop_vlan,100",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x86dd),ipv6(src=fe80::1/ffff::,dst=fe80::2,proto=17,hlimit=64,frag=no)",
        "set(ipv6(dst=fe80::3,hlimit=63)),2",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(proto=1,frag=no),icmp(type=8)",
        "2",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(tos=0x4/0xfc,ttl=64,frag=no)",
        "push_mpls(label=5,tc=1,ttl=64,bos=1,eth_type=0x8847),2",
    ),
    ("recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no)", "drop"),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(src=10.0.0.1/255.255.0.0,frag=no)",
        "2",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(proto=17,frag=no),udp(src=5/0xfffc)",
        "2,100",
    ),
    (
        "skb_mark(0),recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no)",
        "set(skb_mark(0x1)),2",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(src=10.0.0.1,proto=17,frag=no)",
        "set(ipv4(src=1.1.1.1)),2,set(ipv4(src=10.0.0.1)),100",
    ),
    ("recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no)", "trunc(100),2"),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x8847),mpls(label=20/0x0,tc=0/0,ttl=32/0x0,bos=1/1)",
        "pop_mpls(eth_type=0x800),2",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth(src=50:54:00:00:00:05/00:00:ff:ff:ff:ff),eth_type(0x0800),ipv4(src=10.0.0.1,proto=6,frag=no)",
        "set(eth(src=00:00:0a:00:00:01/00:00:ff:ff:ff:ff)),2",
    ),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(proto=6,frag=no),tcp(src=5,dst=6)",
        "set(tcp(src=9,dst=9)),2",
    ),
    ("recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x1234)", "2"),
    (
        "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x88a8),vlan(vid=99),encap(eth_type(0x8100))",
        "2",
    ),
];

/// Match and actions as added; dumped as they are.
pub(super) const ADDED: &[(&str, &str)] = &[
    (
        "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(proto=6,frag=no),tcp(src=1,dst=80),tcp_flags(syn|ack)",
        "drop",
    ),
    (
        "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(proto=6,frag=no),tcp(dst=80/0xfff0),tcp_flags(+syn-ack)",
        "set(ipv4(src=9.9.9.9)),2",
    ),
    ("recirc_id(0),in_port(1),eth_type(0x0800),ipv4(proto=6,frag=first),tcp(src=5)", "set(ipv4(ttl=63)),2"),
    (
        "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(proto=17,frag=later)",
        "set(ipv4(src=1.1.1.1,dst=2.2.2.2,tos=0x4/0xfc,ttl=3)),2",
    ),
    ("recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)", "pop_vlan,push_vlan(vid=11,pcp=7),2"),
    ("recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)", "push_vlan(tpid=0x88a8,vid=11,pcp=0),2"),
    (
        "recirc_id(0),in_port(1),eth_type(0x8847),mpls(label=20,tc=0,ttl=32,bos=1)",
        "set(mpls(label=5,tc=1,ttl=3,bos=1)),2",
    ),
    (
        "recirc_id(0),in_port(1),eth_type(0x86dd),ipv6(src=::1,dst=fe80::/ffff::,label=0x5,proto=17,tclass=0x3,hlimit=64,frag=no),udp(src=5,dst=6)",
        "2",
    ),
    (
        "recirc_id(0),in_port(1),eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0),nd(target=fe80::1,sll=00:01:02:03:04:05)",
        "2",
    ),
    (
        "recirc_id(0),in_port(1),eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=136,code=0),nd(target=fe80::1,tll=00:01:02:03:04:05)",
        "set(nd(target=fe80::2)),2",
    ),
    ("recirc_id(0),in_port(1),eth_type(0x0800),ipv4(proto=1,frag=no),icmp(type=8,code=0)", "2"),
    (
        "recirc_id(0),in_port(1),eth_type(0x0806),arp(sip=1.2.3.4,tip=1.2.3.5,op=1,sha=00:01:02:03:04:05,tha=00:00:00:00:00:00)",
        "set(arp(sip=1.1.1.1)),2",
    ),
    (
        "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(proto=132,frag=no),sctp(src=5,dst=6)",
        "set(sctp(src=1)),2",
    ),
    (
        "ct_state(+trk),ct_tuple4(src=1.2.3.4,dst=5.6.7.8,proto=6,tp_src=1,tp_dst=2),recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "2",
    ),
    (
        "ct_state(+trk),ct_tuple6(src=::1,dst=::2,proto=6,src_port=1,dst_port=2),recirc_id(0),in_port(1),eth_type(0x86dd),ipv6(frag=no)",
        "2",
    ),
    (
        "ct_state(+new-est-rel-rpl-inv+trk-snat-dnat),ct_zone(0x5),ct_mark(0x5),ct_label(0x5),recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "2",
    ),
    (
        "tunnel(tun_id=0x7b,src=1.1.1.1,dst=2.2.2.2,tos=0x5,ttl=64,flags(key)),skb_mark(0x5/0xf),ct_state(-new+trk),ct_zone(0x5/0xff),ct_mark(0x5/0xff),ct_label(0x5/0xff),recirc_id(0),dp_hash(0x5),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "2",
    ),
    (
        "tunnel(tun_id=0x7b,src=1.1.1.1,dst=2.2.2.2,ttl=64,tp_src=1,tp_dst=4789,flags(-df-csum+key)),recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "2",
    ),
    (
        "tunnel(tun_id=0x7b/0xff,src=1.0.0.0/255.0.0.0,dst=2.2.2.2,flags(df|csum|key)),recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "2",
    ),
    (
        "tunnel(tun_id=0x7b,ipv6_src=::1,ipv6_dst=::2,ttl=64,flags(key)),recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "set(tunnel(tun_id=0x1,src=1.1.1.1,dst=2.2.2.2,ttl=64,tp_dst=4789,flags(df|key))),2",
    ),
    (
        "tunnel(tun_id=0x7b,src=1.1.1.1,dst=2.2.2.2,ttl=64,vxlan(gbp(id=10,flags=0x8)),flags(key)),recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "2",
    ),
    (
        "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "clone(set(ipv4(src=1.2.3.4)),2),trunc(100),1",
    ),
    ("recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)", "meter(0),2"),
    (
        "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "userspace(pid=0,controller(reason=0,dont_send=0,continuation=0,recirc_id=0,rule_cookie=0xffffffffffffffff,controller_id=0,max_len=128))",
    ),
    (
        "recirc_id(0),in_port(1),eth_type(0x86dd),ipv6(label=0x10/0xf0,tclass=0,frag=no)",
        "set(ipv6(label=0x5,tclass=0,hlimit=0)),2",
    ),
    ("recirc_id(0),in_port(1),eth_type(0x0800),ipv4(proto=0,tos=0,ttl=0,frag=no)", "set(ipv4(tos=0)),2"),
    ("recirc_id(0),in_port(1),eth_type(0x0800),ipv4(proto=1,frag=no),icmp(type=0,code=3/0x3)", "2"),
    (
        "recirc_id(0),in_port(1),eth_type(0x0800),ipv4(tos=0x4/0xfc,ttl=64/0xf0,frag=no)",
        "set(ipv4(dst=1.2.0.0/255.255.0.0)),2",
    ),
    (
        "recirc_id(0),in_port(1),eth_type(0x8847),mpls(label=20,tc=0,ttl=32,bos=0,label=21,tc=1,ttl=33,bos=1)",
        "set(mpls(label=5/0xfffff,tc=0/0,ttl=0/0x0,bos=0/0)),2",
    ),
    ("recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)", "set(skb_mark(0x5/0xff)),2"),
];

/// As [`FLOWS`], of tunnels whose headers say more.
pub(super) const HEADERS: &[(&str, &str)] = &[
    (
        "tunnel(tun_id=0x7b,src=1.1.1.1,dst=2.2.2.2,ttl=64,erspan(ver=1,idx=0x7),flags(df|key)),recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "set(tunnel(tun_id=0x1,dst=1.1.1.1,ttl=64,erspan(ver=1,idx=0x7),flags(df|key))),2",
    ),
    (
        "tunnel(tun_id=0x7b,src=1.1.1.1,dst=2.2.2.2,ttl=64,erspan(ver=2,dir=1,hwid=0x7/0xf),flags(df|key)),recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "set(tunnel(tun_id=0x1,dst=1.1.1.1,ttl=64,erspan(ver=2,dir=1,hwid=0x1),flags(df|key))),2",
    ),
    (
        "tunnel(tun_id=0x7b,src=1.1.1.1,dst=2.2.2.2,ttl=64,gtpu(flags=0x30,msgtype=255),flags(df|key)),recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "set(tunnel(tun_id=0x1,dst=1.1.1.1,ttl=64,gtpu(flags=0x30,msgtype=255),flags(df|key))),2",
    ),
    (
        "tunnel(tun_id=0x7b,src=1.1.1.1,dst=2.2.2.2,ttl=64,gtpu(flags=0x30/0xf0,msgtype=255),flags(df|key)),recirc_id(0),in_port(1),eth_type(0x0800),ipv4(frag=no)",
        "2",
    ),
];
