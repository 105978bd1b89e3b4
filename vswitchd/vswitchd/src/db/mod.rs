//! The switch by its database: what the rows want becomes the switch's wanted state, how the switch is goes back into the rows.
//!
//! ```text
//!   replica ─► wanted() ─► Reconfigure ─► (thread "config") ─► outcomes
//!                                                                 │
//!   database ◄── ofport, error, ... and then cur_cfg ◄────────────┘
//!            ◄── addresses, links, connections: each second;  statistics: each stats-update-interval
//! ```
//!
//! `cur_cfg` is written in the transaction that has the outcomes of every interface, and after the switch is like the
//! configuration with that number: `ovs-vsctl` waits for it. While another switch holds the lock nothing is done. When the
//! server goes away the switch stays as it is, and goes on from what the database says when the server is back.

pub mod embedded;
mod facts;
mod tree_facts;
mod wanted;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock as _;
use daemon::signals::Stopped;
use daemon::{Active, Passive, reconnect};
use ovsdb::Datum;
use ovsdb::client::{Client, CommitError, Io, Options, Snapshot, Status, Transaction};
use ovsdb::server::Handle;
use ovsdb::vswitch::DATABASE;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::desired::Desired;
use crate::reconfigure::Reconfigure;
use crate::report::Parts;
use facts::Told;

pub(crate) use facts::capability;
pub use wanted::{Host, Wanted};

/// Held by the one switch that works by a database.
const LOCK: &str = "ovs_vswitchd";
/// First wait before connecting again to a server in this process.
const EMBEDDED_BACKOFF: Duration = Duration::from_millis(100);
/// Room of each direction of the connection to a server in this process.
const PIPE_BYTES: usize = 256 << 10;
/// Longest wait for the answer to a transaction.
const COMMIT: Duration = Duration::from_secs(60);
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

/// What is known while the database is followed.
#[derive(Default)]
struct Memory {
    /// The replica is whole and the lock ours.
    in_charge: bool,
    /// It was said that the lock is not ours.
    waits_for_lock: bool,
    /// The snapshot that the switch was made like last, by [`Snapshot::attention`].
    looked_at: Option<u64>,
    /// What the switch was made like last.
    applied: Option<Desired>,
    /// Number and `next_cfg` of what it is being made like.
    under_way: Option<(u64, i64)>,
    /// To be acknowledged.
    reached: Option<i64>,
    /// Was refused, and is tried again with the next look.
    refused: Option<i64>,
    told: Told,
    /// When statistics were told last, by the switch's clock.
    statistics_at: Option<clock::Instant>,
    /// The look that somebody asked for last.
    asked: u64,
    said: BTreeSet<String>,
}

/// What a transaction was to acknowledge, and what came of it.
type Done = (Option<i64>, Result<(), CommitError>);

impl ByDatabase {
    /// Works by a database, connecting again and again.
    pub async fn follow(self, at: At, mut stopped: Stopped) {
        if !self.host.taps && !self.host.no_system {
            tracing::info!(target: "bridge", "not root: bridges' own ports and internal ones are there without an interface of the host");
        }
        let mut client = Client::start(self.options(at), self.parts.clock.clone());
        let mut m = Memory::default();
        let mut commits = JoinSet::new();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reached = self.to.subscribe();
        let mut asked = self.parts.looks.follow();
        loop {
            notice(&client.status(), &mut m);
            if let Some((n, cfg)) = m.under_way
                && *reached.borrow_and_update() >= n
            {
                m.under_way = None;
                m.reached = Some(cfg);
            }
            if m.in_charge {
                let db = client.snapshot();
                self.look_at_rows(&db, &mut m);
                self.acknowledge(&client, db, &mut m, &mut commits);
            }
            if commits.is_empty() && m.under_way.is_none() {
                self.parts.looks.done(m.asked);
            }
            tokio::select! {
                () = stopped.wait() => return,
                more = client.changed() => if !more { return },
                Some(done) = commits.join_next(), if !commits.is_empty() => {
                    if let Ok(done) = done {
                        committed(done, &mut m);
                    }
                }
                _ = reached.changed() => {}
                Ok(()) = asked.changed() => {
                    m.asked = *asked.borrow_and_update();
                    if m.in_charge && m.applied.is_some() {
                        self.tell_how_it_is(&client, &mut m, &mut commits);
                    }
                }
                _ = look.tick() => if m.in_charge && m.applied.is_some() {
                    self.tell_how_it_is(&client, &mut m, &mut commits);
                },
            }
        }
    }

    fn options(&self, at: At) -> Options {
        let usual = reconnect::Options::default();
        let (server, reconnect) = match at {
            At::Remote(remote) => (ovsdb::client::Server::Remotes(vec![remote]), usual),
            At::Embedded(handle) => {
                let open = move || {
                    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
                    handle.attach("switch", theirs).ok()?;
                    Some(Box::new(ours) as Box<dyn Io>)
                };
                let patience = reconnect::Options { min_backoff: EMBEDDED_BACKOFF, ..usual };
                (ovsdb::client::Server::InProcess(Arc::new(open)), patience)
            }
        };
        Options {
            lock: Some(LOCK.to_owned()),
            tls: Some(self.parts.tls.clone()),
            reconnect,
            ..Options::new(server, DATABASE, wanted::columns(facts::WRITTEN))
        }
    }

    /// Makes the switch like the rows want it.
    fn look_at_rows(&self, db: &Snapshot, m: &mut Memory) {
        if m.looked_at.replace(db.attention()) == Some(db.attention()) {
            return;
        }
        let Some(mut w) = wanted::wanted(db, self.host) else { return };
        for words in self.confine(&mut w.desired) {
            if m.said.len() < MAX_SAID && m.said.insert(words.clone()) {
                tracing::error!(target: "bridge", "{words}");
            }
        }
        if let Some(files) = &w.tls {
            self.parts.tls.set(files.clone());
        }
        for words in w.ignored {
            if m.said.len() < MAX_SAID && m.said.insert(words.clone()) {
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

    /// Takes out sockets that bridges may not listen on; what to say of each.
    fn confine(&self, desired: &mut Desired) -> Vec<String> {
        let mut out = Vec::new();
        for b in desired.bridges.iter_mut().filter(|_| self.host.confined) {
            let name = b.name.clone();
            let allowed = format!("{}/{name}.", self.parts.run_dir.display());
            let within = |p: &std::path::Path| {
                let p = self.parts.run_dir.join(p);
                p.to_str().and_then(|p| p.strip_prefix(&allowed)).is_some_and(|rest| !rest.contains('/'))
            };
            b.listen.retain(|l| {
                let fine = !matches!(l, Passive::Unix(p) if !within(p));
                if !fine {
                    out.push(format!(
                        "bridge {name}: Not adding Unix domain socket controller \"{l}\" due to possibility of overwriting \
                         local files. Instead, specify path in permitted format \"punix:{allowed}*\" or connect to \
                         \"unix:{allowed}mgmt\" (which is always available without special configuration)."
                    ));
                }
                fine
            });
        }
        out
    }

    /// Writes what came of each interface, and that the switch is like the configuration.
    fn acknowledge(&self, client: &Client, db: Arc<Snapshot>, m: &mut Memory, commits: &mut JoinSet<Done>) {
        if m.under_way.is_some() || commits.len() >= MAX_UNDER_WAY {
            return;
        }
        let Some(cfg) = m.reached.take() else { return };
        let mut t = Transaction::new(Arc::clone(&db));
        facts::of_the_program(&db, &mut t);
        facts::interfaces(&db, &self.parts, &mut m.told, false, &mut t);
        facts::bridges(&db, &self.parts, &mut m.told, false, &mut t);
        if let Some(row) = db.rows("Open_vSwitch").next() {
            t.set("Open_vSwitch", row.uuid(), "cur_cfg", Datum::One(cfg.into()));
        }
        commit(client, t, Some(cfg), commits);
    }

    /// Writes what changes by itself.
    fn tell_how_it_is(&self, client: &Client, m: &mut Memory, commits: &mut JoinSet<Done>) {
        m.reached = m.reached.or(m.refused.take());
        if m.under_way.is_some() || commits.len() >= MAX_UNDER_WAY {
            return;
        }
        let db = client.snapshot();
        let every =
            db.rows("Open_vSwitch").next().and_then(|r| r.key("other_config", "stats-update-interval"));
        let every =
            every.and_then(|v| v.parse().ok()).map_or(STATISTICS, Duration::from_millis).max(STATISTICS);
        let now = self.parts.clock.now();
        let counts = m.statistics_at.is_none_or(|t| now.since(t) >= every);
        if counts {
            m.statistics_at = Some(now);
        }
        // Outcomes too: an interface may have gone or come.
        let mut t = Transaction::new(Arc::clone(&db));
        facts::interfaces(&db, &self.parts, &mut m.told, counts, &mut t);
        facts::bridges(&db, &self.parts, &mut m.told, counts, &mut t);
        commit(client, t, None, commits);
    }
}

/// Takes in how the connection is.
fn notice(status: &Status, m: &mut Memory) {
    let locked = status.holds_lock == Some(true);
    if status.synced && !locked && !m.waits_for_lock {
        m.waits_for_lock = true;
        let pid = std::process::id();
        tracing::error!(target: "bridge", "another ovs-vswitchd process is running, disabling this process (pid {pid}) until it goes away");
    }
    if locked && std::mem::take(&mut m.waits_for_lock) {
        tracing::info!(target: "bridge", "got the lock of the database");
    }
    let in_charge = status.synced && locked;
    if in_charge && !m.in_charge {
        // Somebody else may have written meanwhile.
        (m.told, m.looked_at, m.statistics_at) = (Told::default(), None, None);
    }
    m.in_charge = in_charge;
}

/// Sends a transaction, if there is anything to do.
fn commit(client: &Client, t: Transaction, cfg: Option<i64>, commits: &mut JoinSet<Done>) {
    if !t.is_empty() {
        let client = client.clone();
        commits.spawn(async move { (cfg, client.commit(&t, COMMIT).await.map(drop)) });
    }
}

/// Takes in what came of a transaction: what failed is told again.
fn committed((cfg, result): Done, m: &mut Memory) {
    let Err(e) = result else { return };
    m.told = Told::default();
    match e {
        CommitError::Refused(_) => {
            tracing::warn!(target: "bridge", "the database refused what was to be written: {e}");
            m.refused = cfg;
        }
        // Waits until the connection, and the lock, are there again.
        _ => m.reached = m.reached.or(cfg),
    }
}
