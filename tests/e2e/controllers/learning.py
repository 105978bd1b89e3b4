"""A learning switch on os-ken: the application that the end-to-end test runs against the daemon.

Table 0 learns: a packet whose source is unknown comes up here; its address is then remembered by a flow that sends on to
table 1. Table 1 forwards to learned addresses and floods the rest. Prints one line per event so that a test can follow.
HOIST_IDLE_S in the environment is the idle timeout of what it learns, in seconds.
"""
import json
import os
import sys

from os_ken.base import app_manager
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, DEAD_DISPATCHER, set_ev_cls
from os_ken.lib.packet import ethernet, packet
from os_ken.ofproto import ofproto_v1_3

IDLE_S = int(os.environ.get('HOIST_IDLE_S', '60'))


def say(event, **what):
    print(json.dumps(dict(event=event, **what)), flush=True)


class Learning(app_manager.OSKenApp):
    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]

    def flow(self, dp, table, priority, match, instructions, **more):
        p = dp.ofproto_parser
        dp.send_msg(p.OFPFlowMod(datapath=dp, table_id=table, priority=priority, match=match,
                                 instructions=instructions, **more))

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def features(self, ev):
        dp = ev.msg.datapath
        o, p = dp.ofproto, dp.ofproto_parser
        say('features', dpid='%016x' % dp.id, tables=ev.msg.n_tables)
        up = [p.OFPActionOutput(o.OFPP_CONTROLLER, o.OFPCML_NO_BUFFER)]
        self.flow(dp, 0, 0, p.OFPMatch(), [p.OFPInstructionActions(o.OFPIT_APPLY_ACTIONS, up),
                                           p.OFPInstructionGotoTable(1)])
        flood = [p.OFPActionOutput(o.OFPP_FLOOD)]
        self.flow(dp, 1, 0, p.OFPMatch(), [p.OFPInstructionActions(o.OFPIT_APPLY_ACTIONS, flood)])
        dp.send_msg(p.OFPBarrierRequest(dp))
        dp.send_msg(p.OFPPortDescStatsRequest(dp, 0))

    @set_ev_cls(ofp_event.EventOFPPortDescStatsReply, MAIN_DISPATCHER)
    def ports(self, ev):
        say('ports', ports=sorted([q.port_no, q.name.decode()] for q in ev.msg.body))

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def barrier(self, ev):
        say('barrier', xid=ev.msg.xid)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, ev):
        msg = ev.msg
        dp = msg.datapath
        o, p = dp.ofproto, dp.ofproto_parser
        eth = packet.Packet(msg.data).get_protocol(ethernet.ethernet)
        if eth is None:
            say('odd', bytes=len(msg.data))
            return
        port = msg.match['in_port']
        if int(eth.src[0:2], 16) & 1:
            return
        say('learned', mac=eth.src, port=port, reason=msg.reason, table=msg.table_id)
        self.flow(dp, 0, 10, p.OFPMatch(in_port=port, eth_src=eth.src), [p.OFPInstructionGotoTable(1)],
                  idle_timeout=IDLE_S, flags=o.OFPFF_SEND_FLOW_REM)
        out = [p.OFPActionOutput(port)]
        self.flow(dp, 1, 10, p.OFPMatch(eth_dst=eth.src), [p.OFPInstructionActions(o.OFPIT_APPLY_ACTIONS, out)],
                  idle_timeout=IDLE_S)

    @set_ev_cls(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def port_status(self, ev):
        say('port-status', reason=ev.msg.reason, port=ev.msg.desc.port_no, config=ev.msg.desc.config,
            state=ev.msg.desc.state)

    @set_ev_cls(ofp_event.EventOFPFlowRemoved, MAIN_DISPATCHER)
    def flow_removed(self, ev):
        msg = ev.msg
        say('flow-removed', reason=msg.reason, packets=msg.packet_count, bytes=msg.byte_count, table=msg.table_id,
            port=msg.match.get('in_port'), mac=msg.match.get('eth_src'), idle_s=msg.idle_timeout,
            duration_s=msg.duration_sec)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, [CONFIG_DISPATCHER, MAIN_DISPATCHER])
    def error(self, ev):
        say('error', type=ev.msg.type, code=ev.msg.code)

    @set_ev_cls(ofp_event.EventOFPStateChange, DEAD_DISPATCHER)
    def gone(self, ev):
        if ev.datapath.id is not None:
            say('gone', dpid='%016x' % ev.datapath.id)
            sys.stdout.flush()
