//! Flow director in perfect match mode, and the 5-tuple filters.

use std::collections::HashMap;

use ixgbe_defs::fdir::{self, BUCKET_BITS, FdirInput, FdirMask, PERFECT_FILTERS, cmd, ctrl};
use ixgbe_defs::{FiveTuple, five_tuple, regs};

use crate::parse::{Network, Parsed};
use crate::{Fault, Ixgbe, SETTLE_READS};

/// A perfect filter.
#[derive(Clone, Copy, Debug)]
struct Filter {
    input: FdirInput,
    soft_index: u16,
    queue: u16,
    drop: bool,
}

/// What the flow director says of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hit {
    pub queue: u16,
    pub bucket: u16,
    pub soft_index: u16,
    /// The bucket is longer than it should be.
    pub long: bool,
}

/// Its tables: by bucket, as software hashed.
#[derive(Default)]
pub(crate) struct FlowDirector {
    buckets: HashMap<u16, Vec<Filter>>,
    len: usize,
    pub ready: bool,
}

impl FlowDirector {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn free(&self) -> u32 {
        PERFECT_FILTERS.saturating_sub(self.len) as u32
    }

    fn clear(&mut self) {
        self.buckets.clear();
        self.len = 0;
    }
}

impl Ixgbe {
    fn fdir_mask(&self) -> FdirMask {
        let r = [regs::FDIRM, regs::FDIRTCPM, regs::FDIRUDPM, regs::FDIRSIP4M, regs::FDIRDIP4M];
        FdirMask::from_registers(r.map(|r| self.get(r)))
    }

    pub(crate) fn write_fdirctrl(&mut self, v: u32) {
        self.put(regs::FDIRCTRL, v & !ctrl::INIT_DONE);
        self.fdir.ready = false;
        self.settling.fdir_init = SETTLE_READS;
        if v & ctrl::PBALLOC_256K != 0 && v & ctrl::PERFECT_MATCH == 0 {
            self.fault(Fault::FlowDirector { what: "signature mode is not modelled" });
        }
    }

    pub(crate) fn read_fdircmd(&mut self, v: u32) -> u32 {
        if v & cmd::CMD != 0 && !self.mishaps.fdir_hangs && Ixgbe::settle(&mut self.settling.fdir_cmd) {
            let done = v & !cmd::CMD;
            self.put(regs::FDIRCMD, done);
            return done;
        }
        v
    }

    pub(crate) fn write_fdircmd(&mut self, v: u32) {
        let busy = self.get(regs::FDIRCMD) & cmd::CMD != 0;
        if v & cmd::CLEARHT != 0 {
            self.fdir.clear();
            return self.put(regs::FDIRCMD, v & !cmd::CMD);
        }
        if v & cmd::CMD == 0 {
            return self.put(regs::FDIRCMD, v);
        }
        if busy {
            return self.fault(Fault::FlowDirector { what: "command before the last was done" });
        }
        if !self.fdir.ready {
            return self.fault(Fault::FlowDirector { what: "command before the tables were initialized" });
        }
        self.settling.fdir_cmd = 1;
        let hash = self.get(regs::FDIRHASH);
        let (bucket, soft) = (hash as u16 & BUCKET_BITS, (hash >> fdir::SOFT_INDEX_SHIFT & 0x7fff) as u16);
        let there = self.fdir.buckets.get(&bucket).and_then(|b| b.iter().position(|f| f.soft_index == soft));
        let valid = there.map_or(0, |_| cmd::FILTER_VALID);
        match v & cmd::CMD {
            cmd::ADD => self.add(v, bucket, soft, there),
            cmd::REMOVE => self.remove(bucket, there),
            _ => {}
        }
        self.put(regs::FDIRCMD, v & !cmd::FILTER_VALID | valid);
    }

    fn add(&mut self, v: u32, bucket: u16, soft_index: u16, there: Option<usize>) {
        if self.mishaps.fdir_forgets {
            return;
        }
        if self.mishaps.fdir_full {
            return self.count(regs::FDIRFSTAT, 1);
        }
        let [ipsa, ipda, port, vlan] =
            [regs::FDIRIPSA, regs::FDIRIPDA, regs::FDIRPORT, regs::FDIRVLAN].map(|r| self.get(r));
        let input = FdirInput::from_registers(ipsa, ipda, port, vlan, v).masked(&self.fdir_mask());
        let queue = (v >> cmd::RX_QUEUE_SHIFT & 0x7f) as u16;
        let f = Filter { input, soft_index, queue, drop: v & cmd::DROP != 0 };
        let list = self.fdir.buckets.entry(bucket).or_default();
        match there {
            Some(i) if v & cmd::FILTER_UPDATE != 0 => list[i] = f,
            None if self.fdir.len < PERFECT_FILTERS => {
                list.push(f);
                self.fdir.len += 1;
                let longest = (list.len() as u32 - 1).min(0x3f);
                if longest > self.get(regs::FDIRLEN) & 0x3f {
                    self.put(regs::FDIRLEN, longest | u32::from(bucket) << 16);
                }
            }
            _ => return self.count(regs::FDIRFSTAT, 1),
        }
        self.count(regs::FDIRUSTAT, 1);
    }

    fn remove(&mut self, bucket: u16, there: Option<usize>) {
        match (there, self.fdir.buckets.get_mut(&bucket)) {
            (Some(i), Some(list)) => {
                list.remove(i);
                self.fdir.len -= 1;
                self.count(regs::FDIRUSTAT, 1 << 16);
            }
            _ => self.count(regs::FDIRFSTAT, 1 << 8),
        }
    }

    /// The filter that a packet meets. Counts hit or miss.
    pub(crate) fn flow_director(&mut self, p: &Parsed) -> Option<Hit> {
        let control = self.get(regs::FDIRCTRL);
        if control & ctrl::PBALLOC_256K == 0 || !self.fdir.ready {
            return None;
        }
        let hit = p.fdir().and_then(|i| {
            let key = i.masked(&self.fdir_mask());
            let bucket = key.bucket();
            let list = self.fdir.buckets.get(&bucket)?;
            let f = list.iter().find(|f| f.input == key)?;
            let most = (control >> ctrl::MAX_LENGTH_SHIFT & 0xf) as usize;
            let drop_queue = (control >> ctrl::DROP_QUEUE_SHIFT & 0x7f) as u16;
            let queue = if f.drop { drop_queue } else { f.queue };
            Some(Hit { queue, bucket, soft_index: f.soft_index, long: list.len() > most })
        });
        self.count(if hit.is_some() { regs::FDIRMATCH } else { regs::FDIRMISS }, 1);
        hit
    }

    /// The queue of the 5-tuple filter that a packet meets: of the highest priority, then the first.
    pub(crate) fn five_tuple(&self, p: &Parsed) -> Option<u16> {
        let Some(Network::V4 { src, dst }) = p.network else { return None };
        let (src, dst) = (u32::from_be_bytes(src), u32::from_be_bytes(dst));
        let mut best: Option<(u32, u16)> = None;
        for i in 0..five_tuple::FILTERS {
            let control = self.get(regs::ftqf(i));
            if control & five_tuple::ftqf::ENABLE == 0 {
                continue;
            }
            let v = [regs::saqf(i), regs::daqf(i), regs::sdpqf(i), regs::l34timir(i), regs::ftqf(i)];
            let Some((f, queue)) = FiveTuple::from_registers(v.map(|r| self.get(r))) else { continue };
            let ports = p.transport.map(|(_, s, d)| (s, d));
            // A fragment has no ports, and its protocol is not looked at.
            let proto = p.transport.map(|(proto, ..)| proto);
            let is = f.src.is_none_or(|a| a == src)
                && f.dst.is_none_or(|a| a == dst)
                && f.proto.is_none_or(|x| proto == Some(x))
                && f.src_port.is_none_or(|x| ports.is_some_and(|(s, _)| s == x))
                && f.dst_port.is_none_or(|x| ports.is_some_and(|(_, d)| d == x));
            let priority = control >> five_tuple::ftqf::PRIORITY_SHIFT & 7;
            if is && best.is_none_or(|(b, _)| priority > b) {
                best = Some((priority, queue));
            }
        }
        best.map(|(_, q)| q)
    }
}
