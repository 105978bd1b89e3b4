//! Letting the messages of a large bundle gather before they are read.
//!
//! A client adds to a bundle without waiting for replies, and somewhat slower than additions are taken in. Read as they come, a few at
//! a time, each few cost a look at what can be read and a read, and the kernel frees what it has just allocated on another
//! processor: together as much as to take them in. Nobody waits for an answer until the bundle is closed, so that the thread may
//! sleep in between, while the socket's buffer fills. It sleeps and does not serve others meanwhile, because to watch the socket
//! would be to be woken by each message.

use std::time::Duration;

use clock::Instant;

/// Additions in a row before it begins: smaller bundles are not kept waiting.
const FROM: u32 = 1024;
/// Bytes to wait for: a quarter of what a unix socket holds of messages of a few hundred bytes (`net.core.wmem_default` of 212,992 bytes, which
/// counts what the kernel needs for each message too).
const BYTES: u64 = 16 << 10;
/// Longest sleep, which others on the thread have to wait.
const LONGEST: Duration = Duration::from_micros(600);
/// Without a message for so long, it begins anew.
const IDLE: Duration = Duration::from_millis(3);
/// What is too short to be worth it.
const SHORTEST: Duration = Duration::from_micros(50);

/// What came lately on one connection.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Additions to bundles since the last message of another kind.
    additions: u32,
    /// Bytes of the last read, and when it was.
    read: u64,
    at: Instant,
    /// Nanoseconds per byte between the last two reads, in 1/256.
    pace: u64,
    /// It was slept since.
    paused: bool,
}

impl Gather {
    /// A message was added to a bundle.
    pub(super) fn added(&mut self) {
        self.additions = self.additions.saturating_add(1);
    }

    /// A message of another kind came.
    pub(super) fn broken(&mut self) {
        self.additions = 0;
    }

    /// `bytes` were read at `now`.
    pub(super) fn read(&mut self, bytes: usize, now: Instant) {
        let since = now.since(self.at);
        if since > IDLE {
            // The client did something else.
            self.additions = 0;
        }
        let took = since.as_nanos().min(u128::from(u32::MAX)) as u64;
        self.paused = false;
        self.read = bytes as u64;
        self.pace = (took << 8) / self.read.max(1);
        self.at = now;
    }

    /// How long to sleep at `now` before the next read: until about a quarter of a socket's buffer is full. `None` when there is nothing
    /// to wait for.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Duration> {
        if self.paused || self.additions < FROM || self.read >= BYTES {
            return None;
        }
        let full = Duration::from_nanos((self.pace * BYTES) >> 8);
        let left = full.min(LONGEST).saturating_sub(now.since(self.at));
        self.paused = left >= SHORTEST;
        self.paused.then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_us(us: u64) -> Instant {
        Instant::from_nanos(us * 1000)
    }

    /// After `n` additions, with a read of `bytes` every `us` microseconds.
    fn after(n: u32, bytes: usize, us: u64) -> Gather {
        let mut g = Gather::default();
        (0..n).for_each(|_| g.added());
        g.read(bytes, at_us(1000));
        g.read(bytes, at_us(1000 + us));
        g
    }

    #[test]
    fn a_part_of_a_buffer_is_waited_for_by_the_pace_of_the_client() {
        // 60 bytes a microsecond.
        let mut g = after(FROM, 1200, 20);
        let us = g.pause(at_us(1020)).unwrap().as_micros();
        assert!((270..=275).contains(&us), "{us}");
        // Once.
        assert_eq!(g.pause(at_us(1700)), None);
        g.read(34_000, at_us(1720));
        assert_eq!(g.pause(at_us(1720)), None);
        g.read(3000, at_us(1770));
        assert!(g.pause(at_us(1770)).is_some());
        // The client paused itself.
        g.read(1200, at_us(9000));
        assert_eq!(g.pause(at_us(9000)), None);
        // What has passed since counts.
        assert_eq!(after(FROM, 1200, 20).pause(at_us(1120)).unwrap().as_micros(), us - 100);
        // A fast one is waited for less, a slow one not longer than the limit.
        assert!(after(FROM, 6000, 20).pause(at_us(1020)).unwrap() < Duration::from_micros(60));
        assert_eq!(after(FROM, 60, 20).pause(at_us(1020)), Some(LONGEST));
    }

    #[test]
    fn small_bundles_full_buffers_and_other_messages_are_not_waited_for() {
        assert_eq!(after(FROM - 1, 1200, 20).pause(at_us(1020)), None);
        assert_eq!(after(FROM, 60_000, 20).pause(at_us(1020)), None);
        let mut g = after(FROM, 1200, 20);
        g.broken();
        assert_eq!(g.pause(at_us(1020)), None);
        // Time that stands still gives no pace.
        assert_eq!(after(FROM, 1200, 0).pause(at_us(1000)), None);
    }
}
