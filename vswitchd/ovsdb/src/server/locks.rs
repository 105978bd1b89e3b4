//! Locks that clients take by name (RFC 7047 4.1.8 to 4.1.10). They belong to the server, not to one database.
//!
//! ```text
//!   owner | next | next ...      a queue for each name; the front owns the lock
//! ```
//!
//! `lock` queues at the end, `steal` at the front: the old owner stays second and gets the lock back when the thief leaves.
//! Who owned a lock that was stolen is told `stolen`, who comes to own one is told `locked`.

use std::collections::{HashMap, VecDeque};

/// Names a session; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// Longest queue of one lock: beyond it a client is refused, so that a crowd cannot make unlocking slow.
const MAX_WAITERS: usize = 100_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    Waiting,
    Stolen,
}

#[derive(Debug)]
struct Waiter {
    session: SessionId,
    how: How,
}

/// All locks.
#[derive(Default, Debug)]
pub(crate) struct Locks {
    queues: HashMap<String, VecDeque<Waiter>>,
    /// Names a session has asked for.
    by_session: HashMap<SessionId, Vec<String>>,
}

/// What came of `lock` or `steal`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// The session owns the lock; another one that owned it lost it.
    Owned { victim: Option<SessionId> },
    /// Others are before it.
    Queued,
    /// The session asked for it before and has not unlocked.
    Already,
    /// Too many wait.
    Crowded,
}

/// The names of a session's locks for the status of a manager, each list separated by spaces.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct LockNames {
    pub held: String,
    pub waiting: String,
    pub lost: String,
}

impl Locks {
    /// `lock` (`steal` false) or `steal`.
    pub fn take(&mut self, name: &str, session: SessionId, steal: bool) -> Taken {
        let mine = self.by_session.entry(session).or_default();
        if mine.iter().any(|n| n == name) {
            return Taken::Already;
        }
        let queue = self.queues.entry(name.to_owned()).or_default();
        if queue.len() >= MAX_WAITERS {
            return Taken::Crowded;
        }
        mine.push(name.to_owned());
        let was_free = queue.is_empty();
        if !steal {
            queue.push_back(Waiter { session, how: How::Waiting });
            return if was_free { Taken::Owned { victim: None } } else { Taken::Queued };
        }
        let victim = queue.front_mut().map(|w| {
            w.how = How::Stolen;
            w.session
        });
        queue.push_front(Waiter { session, how: How::Waiting });
        Taken::Owned { victim }
    }

    /// `unlock`: `None` when the session has not asked for the lock, otherwise who owns it now and did not before.
    pub fn release(&mut self, name: &str, session: SessionId) -> Option<Option<SessionId>> {
        let mine = self.by_session.get_mut(&session)?;
        let i = mine.iter().position(|n| n == name)?;
        mine.swap_remove(i);
        if mine.is_empty() {
            self.by_session.remove(&session);
        }
        Some(self.leave(name, session))
    }

    /// Takes a session out of every queue: the locks that others own from now on.
    pub fn release_all(&mut self, session: SessionId) -> Vec<(String, SessionId)> {
        let names = self.by_session.remove(&session).unwrap_or_default();
        names.into_iter().filter_map(|n| self.leave(&n, session).map(|owner| (n, owner))).collect()
    }

    fn leave(&mut self, name: &str, session: SessionId) -> Option<SessionId> {
        let queue = self.queues.get_mut(name)?;
        let i = queue.iter().position(|w| w.session == session)?;
        queue.remove(i);
        let Some(front) = queue.front_mut() else {
            self.queues.remove(name);
            return None;
        };
        if i > 0 {
            return None;
        }
        front.how = How::Waiting;
        Some(front.session)
    }

    /// Whether the session owns the lock.
    pub fn holds(&self, name: &str, session: SessionId) -> bool {
        self.queues.get(name).and_then(VecDeque::front).is_some_and(|w| w.session == session)
    }

    /// The names of the session's locks by what it has of them.
    pub fn names(&self, session: SessionId) -> LockNames {
        let mut out = LockNames::default();
        let mut mine: Vec<_> = self.by_session.get(&session).into_iter().flatten().collect();
        mine.sort();
        for name in mine {
            let stolen = |w: &Waiter| w.session == session && w.how == How::Stolen;
            let list = if self.holds(name, session) {
                &mut out.held
            } else if self.queues.get(name).is_some_and(|q| q.iter().any(stolen)) {
                &mut out.lost
            } else {
                &mut out.waiting
            };
            if !list.is_empty() {
                list.push(' ');
            }
            list.push_str(name);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);
    const C: SessionId = SessionId(3);

    #[test]
    fn a_lock_goes_down_its_queue() {
        let mut l = Locks::default();
        assert_eq!(l.take("x", A, false), Taken::Owned { victim: None });
        assert_eq!(l.take("x", A, false), Taken::Already);
        assert_eq!(l.take("x", B, false), Taken::Queued);
        assert_eq!(l.take("x", C, false), Taken::Queued);
        assert!(l.holds("x", A) && !l.holds("x", B));
        assert_eq!(l.release("x", B), Some(None), "who waits may leave, and nobody is told");
        assert_eq!(l.release("x", A), Some(Some(C)));
        assert!(l.holds("x", C));
        assert_eq!(l.release("x", C), Some(None));
        assert_eq!(l.release("x", C), None);
        assert!(l.queues.is_empty() && l.by_session.is_empty());
    }

    #[test]
    fn a_thief_gives_back_to_its_victim() {
        let mut l = Locks::default();
        l.take("x", A, false);
        l.take("x", B, false);
        assert_eq!(l.take("x", C, true), Taken::Owned { victim: Some(A) });
        assert_eq!(l.names(A), LockNames { lost: "x".into(), ..LockNames::default() });
        assert_eq!(l.names(B), LockNames { waiting: "x".into(), ..LockNames::default() });
        assert_eq!(l.release("x", C), Some(Some(A)));
        assert_eq!(l.names(A), LockNames { held: "x".into(), ..LockNames::default() });
    }

    #[test]
    fn a_session_that_ends_leaves_every_queue() {
        let mut l = Locks::default();
        for name in ["b", "a"] {
            l.take(name, A, false);
            l.take(name, B, false);
        }
        l.take("c", A, false);
        assert_eq!(l.names(A).held, "a b c");
        let mut told = l.release_all(A);
        told.sort();
        assert_eq!(told, [("a".to_owned(), B), ("b".to_owned(), B)]);
        assert_eq!(l.names(A), LockNames::default());
        assert_eq!(l.release_all(A), []);
    }
}
