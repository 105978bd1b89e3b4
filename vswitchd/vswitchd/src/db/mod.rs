//! The switch by its database: what the rows want becomes the switch's wanted state, how the switch is goes back into the rows.
//!
//! ```text
//!   update ─► Rows ─► wanted() ─► Reconfigure ─► (thread "config") ─► outcomes
//!                                                                        │
//!   database ◄── ofport, error, ... and then cur_cfg ◄───────────────────┘
//!            ◄── addresses, links, connections: each second;  statistics: each stats-update-interval
//! ```
//!
//! `cur_cfg` is written in the transaction that has the outcomes of every interface, and after the switch is like the
//! configuration with that number: `ovs-vsctl` waits for it. While another switch holds the lock nothing is done. When the
//! server goes away the switch stays as it is, and goes on from what the database says when the server is back.

pub mod embedded;
mod facts;
mod rows;
mod session;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use daemon::Active;
use daemon::signals::Stopped;
use daemon::stream::connect_with;
use ovsdb::server::Handle;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::desired::Desired;
use crate::reconfigure::Reconfigure;
use crate::report::Parts;
use facts::Facts;
use rows::{integer, key};
use session::{Session, SessionError, Told};

pub use wanted::{Host, Wanted};

/// First and longest wait before connecting again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(8));
/// Room of each direction of the connection to a server in this process.
const PIPE_BYTES: usize = 256 << 10;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Between looks at addresses, links and connections.
const LOOK: Duration = Duration::from_secs(1);
/// Between statistics, unless `other_config:stats-update-interval` asks for longer.
const STATISTICS: Duration = Duration::from_secs(5);
/// Transactions under way at most; what is to be written meanwhile is written later.
const MAX_UNDER_WAY: usize = 4;
/// Said once each; more are not remembered, and said again.
const MAX_SAID: usize = 1024;

/// Works by a database until asked to stop.
pub struct ByDatabase {
    /// The switch.
    pub parts: Arc<Parts>,
    /// The way to change it.
    pub to: Reconfigure,
    /// What this process may do.
    pub host: Host,
}

/// Where the database is.
pub enum At {
    /// Behind a socket.
    Remote(Active),
    /// In this process.
    Embedded(Handle),
}

/// Memory of one conversation.
#[derive(Default)]
struct Memory {
    /// What the switch was made like last.
    applied: Option<Desired>,
    /// Number and `next_cfg` of what it is being made like.
    under_way: Option<(u64, i64)>,
    /// To be acknowledged.
    reached: Option<i64>,
    /// The rows have changed since they were looked at.
    stale: bool,
    /// What columns were set to.
    written: Facts,
    transactions: BTreeSet<u64>,
    statistics_at: Option<Instant>,
}

impl ByDatabase {
    /// Works by a database, connecting again and again.
    pub async fn follow(self, at: At, mut stopped: Stopped) {
        let name = match &at {
            At::Remote(remote) => remote.to_string(),
            At::Embedded(_) => "embedded database".to_owned(),
        };
        let mut said = BTreeSet::new();
        let mut pause = BACKOFF.0;
        while !stopped.is_stopped() {
            let began = Instant::now();
            let end = match &at {
                At::Remote(remote) => {
                    let stream = tokio::select! {
                        () = stopped.wait() => return,
                        r = connect_with(remote, ovsdb::server::OVSDB_PORT, CONNECT, Some(&self.parts.tls)) => r,
                    };
                    match stream {
                        Ok(s) => {
                            self.converse(s, &name, &mut said, &mut stopped).await.map_err(|e| e.to_string())
                        }
                        Err(e) => Err(e.to_string()),
                    }
                }
                At::Embedded(server) => {
                    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
                    match server.attach("switch", theirs) {
                        Ok(()) => self
                            .converse(ours, &name, &mut said, &mut stopped)
                            .await
                            .map_err(|e| e.to_string()),
                        Err(e) => Err(e.to_string()),
                    }
                }
            };
            let Err(why) = end else { return };
            if began.elapsed() > BACKOFF.1 {
                pause = BACKOFF.0;
            }
            tracing::info!(target: "reconnect", "{name}: {why}; trying again in {} s", pause.as_secs_f32());
            tokio::select! {
                () = stopped.wait() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = BACKOFF.1.min(pause * 2);
        }
    }

    /// Works by the database at the other end of `stream`, until asked to stop or the conversation ends.
    ///
    /// # Errors
    /// [`SessionError`]: why it has ended.
    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        name: &str,
        said: &mut BTreeSet<String>,
        stopped: &mut Stopped,
    ) -> Result<(), SessionError> {
        let mut s = tokio::select! {
            () = stopped.wait() => return Ok(()),
            s = Session::begin(stream, wanted::COLUMNS) => s?,
        };
        tracing::info!(target: "reconnect", "{name}: connected");
        if !self.host.taps && !self.host.no_system {
            tracing::info!(target: "bridge", "not root: bridges' own ports and internal ones are there without an interface of the host");
        }
        if !s.locked {
            tracing::info!(target: "bridge", "another ovs-vswitchd process holds the lock of the database, disabling this process until it goes away");
        }
        let mut m = Memory { stale: true, ..Memory::default() };
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut done = self.to.subscribe();
        loop {
            if s.locked {
                self.look_at_rows(&s, &mut m, said);
                self.acknowledge(&mut s, &mut m)?;
            }
            tokio::select! {
                () = stopped.wait() => return Ok(()),
                told = s.receive() => match told? {
                    Told::Rows => m.stale = true,
                    Told::Lock => {
                        m = Memory { stale: true, ..Memory::default() };
                        tracing::info!(target: "bridge", "{} the lock of the database", if s.locked { "got" } else { "lost" });
                    }
                    Told::Done(n, r) => {
                        m.transactions.remove(&n);
                        if let Err(e) = r {
                            tracing::warn!(target: "bridge", "the database refused what was to be written: {e}");
                            m.written.clear();
                        }
                    }
                    Told::Nothing => {}
                },
                _ = done.changed() => {}
                _ = look.tick() => if s.locked && m.applied.is_some() { self.tell_how_it_is(&mut s, &mut m)? },
            }
            if let Some((n, cfg)) = m.under_way
                && *done.borrow() >= n
            {
                m.under_way = None;
                m.reached = Some(cfg);
            }
        }
    }

    /// Makes the switch like the rows want it.
    fn look_at_rows<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        s: &Session<S>,
        m: &mut Memory,
        said: &mut BTreeSet<String>,
    ) {
        if !std::mem::take(&mut m.stale) {
            return;
        }
        let Some(w) = wanted::wanted(&s.rows, self.host) else { return };
        if let Some(files) = &w.tls {
            self.parts.tls.set(files.clone());
        }
        for words in w.ignored {
            if said.len() < MAX_SAID && said.insert(words.clone()) {
                tracing::warn!(target: "bridge", "{words}");
            }
        }
        if m.applied.as_ref() != Some(&w.desired) {
            let n = self.to.submit(w.desired.clone());
            m.applied = Some(w.desired);
            m.under_way = Some((n, w.next_cfg));
        } else if let Some(under_way) = &mut m.under_way {
            under_way.1 = w.next_cfg;
        } else {
            m.reached = Some(w.next_cfg);
        }
    }

    /// Writes what came of each interface, and that the switch is like the configuration.
    fn acknowledge<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        s: &mut Session<S>,
        m: &mut Memory,
    ) -> Result<(), SessionError> {
        if m.under_way.is_some() || m.transactions.len() >= MAX_UNDER_WAY {
            return Ok(());
        }
        let Some(cfg) = m.reached.take() else { return Ok(()) };
        let mut facts = facts::of_the_program(&s.rows, &s.db_version);
        merge(&mut facts, facts::outcomes(&s.rows, &self.parts.outcomes.ports()));
        merge(&mut facts, facts::interfaces(&s.rows, &self.parts, false));
        merge(&mut facts, facts::bridges(&s.rows, &self.parts, false));
        if let Some((uuid, row)) = s.rows.table("Open_vSwitch").next()
            && integer(row, "cur_cfg") != Some(cfg)
        {
            facts.entry(("Open_vSwitch", uuid.to_owned())).or_default().insert("cur_cfg", json!(cfg));
        }
        write(s, m, facts)
    }

    /// Writes what changes by itself.
    fn tell_how_it_is<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        s: &mut Session<S>,
        m: &mut Memory,
    ) -> Result<(), SessionError> {
        if m.under_way.is_some() || m.transactions.len() >= MAX_UNDER_WAY {
            return Ok(());
        }
        let root = s.rows.table("Open_vSwitch").next().map(|(_, r)| r);
        let every = root.and_then(|r| key(r, "other_config", "stats-update-interval"));
        let every =
            every.and_then(|v| v.parse().ok()).map_or(STATISTICS, Duration::from_millis).max(STATISTICS);
        let counts = m.statistics_at.is_none_or(|t| t.elapsed() >= every);
        if counts {
            m.statistics_at = Some(Instant::now());
        }
        // Outcomes too: an interface may have gone or come.
        let mut facts = facts::outcomes(&s.rows, &self.parts.outcomes.ports());
        merge(&mut facts, facts::interfaces(&s.rows, &self.parts, counts));
        merge(&mut facts, facts::bridges(&s.rows, &self.parts, counts));
        write(s, m, facts)
    }
}

fn merge(into: &mut Facts, more: Facts) {
    for (row, columns) in more {
        into.entry(row).or_default().extend(columns);
    }
}

/// Writes those of `facts` that are new, in one transaction.
fn write<S: AsyncRead + AsyncWrite + Unpin>(
    s: &mut Session<S>,
    m: &mut Memory,
    facts: Facts,
) -> Result<(), SessionError> {
    // What is known of rows that are gone is of no use any more.
    m.written.retain(|(table, uuid), _| s.rows.row(table, uuid).is_some());
    let mut operations = Vec::new();
    for ((table, uuid), columns) in facts {
        let known = m.written.entry((table, uuid.clone())).or_default();
        let mut new = BTreeMap::new();
        for (column, value) in columns {
            // `cur_cfg` was compared with the row itself: others write it too.
            let is_new = column == "cur_cfg" || known.get(column) != Some(&value);
            if s.has(table, column) && is_new {
                known.insert(column, value.clone());
                new.insert(column, value);
            }
        }
        if !new.is_empty() {
            let at: Value = json!([["_uuid", "==", ["uuid", uuid]]]);
            operations.push(json!({ "op": "update", "table": table, "where": at, "row": new }));
        }
    }
    if !operations.is_empty() {
        let n = s.transact(operations)?;
        m.transactions.insert(n);
    }
    Ok(())
}
