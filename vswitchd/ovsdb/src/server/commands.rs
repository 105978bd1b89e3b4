//! The commands of `ovs-appctl -t ovsdb-server` (ovsdb-server(1), RUNTIME MANAGEMENT COMMANDS).

use std::path::Path;

use daemon::unixctl::Commands;

use super::handle::{Handle, ServerError};

fn words(e: ServerError) -> String {
    e.to_string()
}

fn lines(names: impl IntoIterator<Item = String>) -> String {
    names.into_iter().map(|n| n + "\n").collect()
}

/// Runs after a change of databases or remotes, so that it outlives a restart.
type Changed = std::sync::Arc<dyn Fn(&Handle) + Send + Sync>;

impl Handle {
    /// Offers the server's commands. `changed` runs after one that changes which databases or remotes there are.
    pub fn register(&self, commands: &Commands, changed: impl Fn(&Handle) + Send + Sync + 'static) {
        let changed: Changed = std::sync::Arc::new(changed);
        self.register_databases(commands, &changed);
        self.register_remotes(commands, &changed);
        self.register_service(commands);
        register_replication(commands);
    }

    fn register_databases(&self, commands: &Commands, changed: &Changed) {
        let (h, c) = (self.clone(), changed.clone());
        commands.register("ovsdb-server/add-db", "DB", 1..=1, move |a| {
            h.add_db(Path::new(&a[0])).map_err(words)?;
            c(&h);
            Ok(String::new())
        });
        let (h, c) = (self.clone(), changed.clone());
        commands.register("ovsdb-server/remove-db", "DB", 1..=1, move |a| {
            h.remove_db(&a[0]).map_err(words)?;
            c(&h);
            Ok(String::new())
        });
        let h = self.clone();
        commands
            .register("ovsdb-server/list-dbs", "", 0..=0, move |_| h.databases().map(lines).map_err(words));
        let h = self.clone();
        commands.register("ovsdb-server/compact", "[DB]", 0..=1, move |a| {
            h.compact(a.first().map(String::as_str)).map(|()| String::new()).map_err(words)
        });
        let h = self.clone();
        commands.register("ovsdb-server/get-db-storage-status", "DB", 1..=1, move |a| {
            if !h.databases().map_err(words)?.contains(&a[0]) {
                return Err("Failed to find the database.".to_owned());
            }
            Ok("status: ok".to_owned())
        });
    }

    fn register_remotes(&self, commands: &Commands, changed: &Changed) {
        let (h, c) = (self.clone(), changed.clone());
        commands.register("ovsdb-server/add-remote", "REMOTE", 1..=1, move |a| {
            h.add_remote(&a[0]).map_err(words)?;
            c(&h);
            Ok(String::new())
        });
        let (h, c) = (self.clone(), changed.clone());
        commands.register("ovsdb-server/remove-remote", "REMOTE", 1..=1, move |a| {
            h.remove_remote(&a[0]).map_err(words)?;
            c(&h);
            Ok(String::new())
        });
        let h = self.clone();
        commands
            .register("ovsdb-server/list-remotes", "", 0..=0, move |_| h.remotes().map(lines).map_err(words));
    }

    fn register_service(&self, commands: &Commands) {
        let h = self.clone();
        commands.register("ovsdb-server/reconnect", "", 0..=0, move |_| {
            h.reconnect("user ran ovsdb-server/reconnect").map(|()| String::new()).map_err(words)
        });
        let h = self.clone();
        commands.register("ovsdb-server/disable-monitor-cond", "", 0..=0, move |_| {
            h.disable_monitor_cond().map(|()| String::new()).map_err(words)
        });
        let h = self.clone();
        commands.register("ovsdb-server/perf-counters-show", "", 0..=0, move |_| {
            h.counters().map(|c| c.to_text()).map_err(words)
        });
        let h = self.clone();
        commands.register("ovsdb-server/perf-counters-clear", "", 0..=0, move |_| {
            h.clear_counters().map(|()| String::new()).map_err(words)
        });
        let h = self.clone();
        commands.register("memory/show", "", 0..=0, move |_| h.memory().map_err(words));
        commands.register("ovsdb-server/memory-trim-on-compaction", "on|off", 1..=1, |a| match &*a[0] {
            // Nothing to do: memory goes back as it is freed.
            "on" | "off" => Ok(String::new()),
            _ => Err("invalid argument".to_owned()),
        });
        let h = self.clone();
        commands.register("ovsdb-server/tlog-set", "DB:TABLE on|off", 2..=2, move |a| {
            let on = match a[1].to_ascii_lowercase().as_str() {
                "on" => true,
                "off" => false,
                _ => return Err("invalid command argument".to_owned()),
            };
            match a[0].split(':').filter(|w| !w.is_empty()).collect::<Vec<_>>()[..] {
                [db, table] => h.set_table_log(db, table, on).map(|()| String::new()).map_err(words),
                _ => Err("invalid DB:TABLE argument".to_owned()),
            }
        });
        let h = self.clone();
        commands.register("ovsdb-server/tlog-list", "", 0..=0, move |_| h.table_log().map_err(words));
    }
}

/// Commands about a second server that follows this one. There is none; what asks for the state gets an answer.
fn register_replication(commands: &Commands) {
    let none = |_: &[String]| Err("this server does not replicate another one".to_owned());
    commands.register("ovsdb-server/sync-status", "", 0..=0, |_| Ok("state: active\n".to_owned()));
    for name in ["ovsdb-server/get-active-ovsdb-server", "ovsdb-server/get-sync-exclude-tables"] {
        commands.register(name, "", 0..=0, |_| Ok(String::new()));
    }
    commands.register("ovsdb-server/disconnect-active-ovsdb-server", "", 0..=0, |_| Ok(String::new()));
    commands.register("ovsdb-server/connect-active-ovsdb-server", "", 0..=0, |_| {
        Ok("Unable to connect: active server is not specified.\n".to_owned())
    });
    commands.register("ovsdb-server/set-active-ovsdb-server", "", 1..=1, none);
    commands.register("ovsdb-server/set-active-ovsdb-server-probe-interval", "", 1..=1, none);
    commands.register("ovsdb-server/set-sync-exclude-tables", "", 0..=1, none);
}
