//! Which datapath a command is about.

use std::sync::Arc;

use datapath_api::{Datapath as _, FlowRecord};
use flow::{FlowId, PortId};

use super::super::dpif::DATAPATH;
use crate::report::Parts;
use crate::spare::Spare;
use crate::system;

/// Names of the datapath that the bridges share, beside [`DATAPATH`]: what tools for Open vSwitch call it.
const SHARED: [&str; 3] = ["ovs-dummy", "netdev@ovs-netdev", "ovs-netdev"];

/// A datapath.
pub(super) enum Target<'a> {
    /// The one that the bridges share, and the kernel's with it where bridges stand on that.
    Bridges(&'a Parts),
    /// The kernel's alone.
    Kernel(&'a Parts),
    /// One of no bridge.
    Spare(Arc<Spare>),
}

/// Whether an argument names the kernel's datapath.
pub(super) fn is_kernels(name: &str) -> bool {
    [system::DATAPATH, system::NAME].contains(&name)
}

/// Whether an argument looks like a datapath's name, rather than like a flow, a file or an interface.
pub(super) fn is_name(p: &Parts, name: &str) -> bool {
    name == DATAPATH || SHARED.contains(&name) || is_kernels(name) || p.spares.get(name).is_some()
}

impl<'a> Target<'a> {
    /// The one of that name, else why there is none.
    ///
    /// # Errors
    /// The operating system's words.
    pub(super) fn named(p: &'a Parts, name: &str) -> Result<Target<'a>, &'static str> {
        if name == DATAPATH || SHARED.contains(&name) {
            return Ok(Target::Bridges(p));
        }
        if is_kernels(name) {
            return p.system.get().map(|_| Target::Kernel(p)).ok_or("No such device");
        }
        if let Some(s) = p.spares.get(name) {
            return Ok(Target::Spare(s));
        }
        Err(match name.split_once('@') {
            Some(("dummy", _)) if p.dummy => "No such device",
            Some(("netdev", _)) => "No such device",
            _ => "Address family not supported by protocol",
        })
    }

    /// [`Target::named`].
    ///
    /// # Errors
    /// As stock tools say it.
    pub(super) fn opened(p: &'a Parts, name: &str) -> Result<Target<'a>, String> {
        Target::named(p, name).map_err(|why| format!("opening datapath ({why})"))
    }

    /// As the first of several arguments says, or the bridges' own when there are fewer than `most`.
    ///
    /// # Errors
    /// As stock tools say it.
    pub(super) fn first_of(p: &'a Parts, args: &[String], most: usize) -> Result<Target<'a>, String> {
        match args {
            [name, ..] if args.len() >= most => Target::opened(p, name),
            _ => Ok(Target::Bridges(p)),
        }
    }

    /// Its flows.
    pub(super) fn records(&self) -> Vec<Arc<FlowRecord>> {
        match self {
            Target::Bridges(p) | Target::Kernel(p) => p.layer.records(),
            Target::Spare(s) => {
                let mut all = Vec::new();
                s.soft().flow_dump(&mut |r| {
                    all.push(r.clone());
                    true
                });
                all.sort_by_key(|r| r.id.0);
                all
            }
        }
    }

    /// A name for a flow that is to be put.
    pub(super) fn new_flow_id(&self) -> FlowId {
        match self {
            Target::Bridges(p) | Target::Kernel(p) => p.layer.new_flow_id(),
            Target::Spare(s) => s.new_flow_id(),
        }
    }

    /// Puts a flow.
    pub(super) fn flow_put(&self, r: FlowRecord) -> Result<(), String> {
        let done = match self {
            Target::Bridges(p) | Target::Kernel(p) => p.datapath().flow_put(Arc::new(r)),
            Target::Spare(s) => s.soft().flow_put(Arc::new(r)),
        };
        done.map_err(|e| e.to_string())
    }

    /// Takes a flow out.
    pub(super) fn flow_del(&self, id: FlowId) -> Result<(), String> {
        let done = match self {
            Target::Bridges(p) | Target::Kernel(p) => p.datapath().flow_del(id),
            Target::Spare(s) => s.soft().flow_del(id),
        };
        done.map(|_| ()).map_err(|e| e.to_string())
    }

    /// The number of the port of that name.
    pub(super) fn port(&self, name: &str) -> Option<PortId> {
        match self {
            Target::Bridges(p) | Target::Kernel(p) => {
                p.ports.all().iter().find(|p| p.name == name).map(|p| p.dp)
            }
            Target::Spare(s) => s.port(name).map(|p| p.number),
        }
    }
}
