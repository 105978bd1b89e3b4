//! `memory/show`: how many things of each kind a program keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::unixctl::Commands;

/// Numbers by name.
pub type Amounts = BTreeMap<String, u64>;
type Reporter = dyn Fn(&mut Amounts) + Send + Sync;

/// Who can say how much of what there is. Clones share it.
#[derive(Clone, Default)]
pub struct Usage(Arc<Mutex<Vec<Box<Reporter>>>>);

impl std::fmt::Debug for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Usage({} reporters)", self.0.lock().len())
    }
}

impl Usage {
    /// Nobody yet.
    pub fn new() -> Usage {
        Usage::default()
    }

    /// Asks `reporter` as well; it adds to the amounts of the names it knows. Called where it may block shortly.
    pub fn report(&self, reporter: impl Fn(&mut Amounts) + Send + Sync + 'static) {
        self.0.lock().push(Box::new(reporter));
    }

    /// The amounts now.
    pub fn amounts(&self) -> Amounts {
        let mut all = Amounts::new();
        for r in self.0.lock().iter() {
            r(&mut all);
        }
        all
    }

    /// The text of `memory/show`: `name:number` for each, in order of names.
    pub fn show(&self) -> String {
        let words: Vec<_> = self.amounts().into_iter().map(|(n, v)| format!("{n}:{v}")).collect();
        words.join(" ") + "\n"
    }

    /// Offers `memory/show`.
    pub fn register(&self, commands: &Commands) {
        let this = self.clone();
        commands.register("memory/show", "", 0..=0, move |_| Ok(this.show()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_added_up_and_listed_by_name() {
        let u = Usage::new();
        let commands = Commands::new();
        u.register(&commands);
        assert_eq!(commands.run("memory/show", &[]).unwrap(), "\n");
        u.report(|a| *a.entry("rules".to_owned()).or_default() += 3);
        u.report(|a| {
            *a.entry("rules".to_owned()).or_default() += 4;
            a.insert("cells".to_owned(), 9);
        });
        assert_eq!(commands.run("memory/show", &[]).unwrap(), "cells:9 rules:7\n");
    }
}
