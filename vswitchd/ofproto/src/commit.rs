//! Bundles (OpenFlow 1.4.0 7.3.9): many messages as one change.
//!
//! Messages are carried out in their order on one working copy of the tables. A packet-out is translated where it stands, so
//! that it meets the flows before it and not those after it, and executed once everything is published.

use std::sync::Arc;

use openflow::error::BundleFailed;
use openflow::port::PortStatus;
use openflow::switch::{Bundled, ConnId};
use openflow::{Body, ErrorCode, Message};

use crate::bridge::Bridge;
use crate::flow_mod;
use crate::groups;
use crate::handle::port_mod;

impl Bridge {
    /// Carries out `messages` of `conn`, all or none.
    ///
    /// # Errors
    /// The position of the message that cannot be carried out, and why.
    pub(crate) fn commit_bundle(
        &self,
        conn: ConnId,
        messages: &mut dyn Iterator<Item = Bundled>,
    ) -> Result<(), (usize, ErrorCode)> {
        let now = self.now();
        let mut at = 0;
        let mut ports: Vec<PortStatus> = Vec::new();
        let mut packets = Vec::new();
        let mut forwarded = Vec::new();
        self.change_rules(now, Some(self.origin(conn, 0)), |p, changes| {
            let mut batch = flow_mod::Batch::default();
            for (i, m) in messages.enumerate() {
                at = i;
                let m = match m {
                    Bundled::Message(m) => m,
                    Bundled::Ready(xid, ready) => {
                        changes.made_by(xid);
                        let rule = ready.downcast().map_err(|_| BundleFailed::MsgUnsup)?;
                        batch.add(p, rule, now, self.config.max_flows_per_table, changes)?;
                        continue;
                    }
                };
                batch.finish(p, now, changes);
                changes.made_by(m.xid);
                match m.body {
                    Body::FlowMod(fm) => self.apply_flow(p, &fm, now, changes)?,
                    Body::GroupMod(gm) => {
                        groups::apply(p, &gm, now, changes)?;
                        forwarded.push(Message { xid: m.xid, body: Body::GroupMod(gm) });
                    }
                    Body::PortMod(pm) => ports.extend(port_mod(p, &pm)?),
                    Body::PacketOut(po) => {
                        let prepared = self.prepare_packet_out(&Arc::new(p.clone()), &po)?;
                        packets.push((po.data, prepared));
                    }
                    _ => return Err(BundleFailed::MsgUnsup.into()),
                }
            }
            batch.finish(p, now, changes);
            Ok(())
        })
        .map_err(|e| (at, e))?;
        ports.into_iter().for_each(|s| self.tell_port(s));
        forwarded.into_iter().for_each(|m| self.forward_request(conn, m));
        for (data, prepared) in packets {
            self.carry_out(&data, prepared);
        }
        Ok(())
    }
}
