//! Bundles of one connection until they are committed (OpenFlow 1.4.0 7.3.9).
//!
//! What the states allow, and which error ends a bundle, is as in Open vSwitch. Messages are kept encoded, one after the
//! other: a tenth of what they take decoded. Beside those that the switch has begun with is what it made of them.

use std::collections::BTreeMap;

use clock::Instant;
use openflow::error::{BundleFailed, ErrorCode};
use openflow::message::{BundleControl, BundleFlags, BundleStep};
use openflow::switch::{Bundled, ConnId, OpenFlowSwitch, Ready};
use openflow::wire::Header;
use openflow::{Dialect, decode_as};

use std::time::Duration;

/// Most bundles of a connection at a time.
const MAX_BUNDLES: usize = 64;
/// Bytes that all bundles of a connection may take.
const MAX_BYTES: usize = 512 << 20;

/// A bundle that is not committed yet.
struct Bundle {
    flags: BundleFlags,
    closed: bool,
    /// Encoded messages.
    messages: Vec<u8>,
    kept: Vec<Kept>,
    /// What it counts as.
    bytes: usize,
    used: Instant,
    /// First bytes of the message that opened it.
    opened_by: Vec<u8>,
}

/// A message of a bundle.
pub(super) struct Kept {
    /// Where it begins among the encoded ones.
    start: usize,
    /// What the switch made of it.
    ready: Option<Ready>,
}

impl Kept {
    /// What a message of `len` bytes counts as: what a switch makes of it may be twice as large.
    fn bytes(len: usize, ready: Option<&Ready>) -> usize {
        size_of::<Kept>() + if ready.is_some() { 3 * len } else { len }
    }
}

/// A commit that failed because of one of its messages.
pub(super) struct FailedMessage {
    /// The message.
    pub(super) frame: Vec<u8>,
    /// What is wrong with it.
    pub(super) code: ErrorCode,
}

/// The bundles of a connection.
#[derive(Default)]
pub(super) struct Bundles {
    open: BTreeMap<u32, Bundle>,
    bytes: usize,
}

impl Bundles {
    /// Carries out a step. `Ok` holds the step to reply with.
    ///
    /// # Errors
    /// `BundleFailed`; the bundle is gone then. A message that failed is given by `failed`.
    pub(super) fn control(
        &mut self,
        c: &BundleControl,
        request: &[u8],
        now: Instant,
        commit: impl FnOnce(&[u8], Vec<Kept>) -> Result<(), FailedMessage>,
        failed: &mut Option<FailedMessage>,
    ) -> Result<BundleStep, ErrorCode> {
        match c.step {
            BundleStep::OpenRequest => {
                if self.remove(c.bundle).is_some() {
                    return Err(BundleFailed::BadId.into());
                }
                self.insert(c.bundle, c.flags, request, now)?;
                Ok(BundleStep::OpenReply)
            }
            BundleStep::CloseRequest => {
                let b = self.open.get_mut(&c.bundle).ok_or(BundleFailed::BadId)?;
                let wrong = match (b.closed, b.flags == c.flags) {
                    (true, _) => BundleFailed::BundleClosed,
                    (false, false) => BundleFailed::BadFlags,
                    (false, true) => {
                        (b.closed, b.used) = (true, now);
                        return Ok(BundleStep::CloseReply);
                    }
                };
                self.remove(c.bundle);
                Err(wrong.into())
            }
            BundleStep::CommitRequest => {
                // It ends, whatever comes of it.
                let b = self.remove(c.bundle).ok_or(BundleFailed::BadId)?;
                if b.flags != c.flags {
                    return Err(BundleFailed::BadFlags.into());
                }
                match commit(&b.messages, b.kept) {
                    Ok(()) => Ok(BundleStep::CommitReply),
                    Err(f) => {
                        *failed = Some(f);
                        Err(BundleFailed::MsgFailed.into())
                    }
                }
            }
            BundleStep::DiscardRequest => {
                self.remove(c.bundle).ok_or(BundleFailed::BadId)?;
                Ok(BundleStep::DiscardReply)
            }
            _ => Err(BundleFailed::BadType.into()),
        }
    }

    /// Adds an encoded message, and what the switch has made of it, to a bundle, which it opens if need be. `request` is the
    /// message that asks for it.
    ///
    /// # Errors
    /// `BundleFailed`; the bundle is gone then.
    pub(super) fn add(
        &mut self,
        id: u32,
        flags: BundleFlags,
        (message, ready): (&[u8], Option<Ready>),
        request: &[u8],
        now: Instant,
    ) -> Result<(), ErrorCode> {
        let bytes = Kept::bytes(message.len(), ready.as_ref());
        let wrong = match self.open.get(&id) {
            None => {
                self.insert(id, flags, request, now)?;
                None
            }
            Some(b) if b.closed => Some(BundleFailed::BundleClosed),
            Some(b) if b.flags != flags => Some(BundleFailed::BadFlags),
            Some(_) if self.bytes + bytes > MAX_BYTES => Some(BundleFailed::MsgTooMany),
            Some(_) => None,
        };
        if let Some(wrong) = wrong {
            self.remove(id);
            return Err(wrong.into());
        }
        if let Some(b) = self.open.get_mut(&id) {
            b.kept.push(Kept { start: b.messages.len(), ready });
            b.messages.extend_from_slice(message);
            b.used = now;
            b.bytes += bytes;
            self.bytes += bytes;
        }
        Ok(())
    }

    /// Ends a bundle that nothing has been done with for `limit`; the message that opened it.
    pub(super) fn expire(&mut self, now: Instant, limit: Duration) -> Option<Vec<u8>> {
        let (id, _) = self.open.iter().find(|(_, b)| now.since(b.used) >= limit)?;
        let id = *id;
        self.remove(id).map(|b| b.opened_by)
    }

    fn insert(&mut self, id: u32, flags: BundleFlags, request: &[u8], now: Instant) -> Result<(), ErrorCode> {
        if self.open.len() >= MAX_BUNDLES {
            return Err(BundleFailed::OutOfBundles.into());
        }
        let opened_by = request.to_vec();
        let (messages, kept) = (Vec::new(), Vec::new());
        let b = Bundle { flags, closed: false, messages, kept, bytes: 0, used: now, opened_by };
        self.open.insert(id, b);
        Ok(())
    }

    fn remove(&mut self, id: u32) -> Option<Bundle> {
        let b = self.open.remove(&id)?;
        self.bytes -= b.bytes;
        Some(b)
    }
}

/// Commits messages to the switch.
///
/// # Errors
/// The message that cannot be carried out.
pub(super) fn commit(
    switch: &dyn OpenFlowSwitch,
    conn: ConnId,
    dialect: Dialect,
    messages: &[u8],
    kept: Vec<Kept>,
) -> Result<(), FailedMessage> {
    let starts: Vec<usize> = kept.iter().map(|k| k.start).collect();
    let frame = |i: usize| {
        let end = starts.get(i + 1).copied().unwrap_or(messages.len());
        starts.get(i).and_then(|s| messages.get(*s..end)).unwrap_or_default()
    };
    let mut undecodable = None;
    let mut all = kept.into_iter().enumerate().map_while(|(i, k)| match k.ready {
        Some(ready) => Some(Bundled::Ready(Header::parse(frame(i)).map_or(0, |h| h.xid), ready)),
        // It was decoded once before, when it was added.
        None => match decode_as(dialect, frame(i)) {
            Ok(m) => Some(Bundled::Message(m)),
            Err(e) => {
                undecodable = Some((i, e.code));
                None
            }
        },
    });
    let result = switch.commit(conn, &mut all);
    match result.err().or(undecodable) {
        None => Ok(()),
        Some((i, code)) => Err(FailedMessage { frame: frame(i).to_vec(), code }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERED: BundleFlags = BundleFlags::ORDERED;

    fn at_ms(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn step(b: &mut Bundles, step: BundleStep, flags: BundleFlags) -> Result<BundleStep, ErrorCode> {
        let c = BundleControl { bundle: 1, step, flags };
        b.control(&c, &[1], at_ms(0), |_, _| Ok(()), &mut None)
    }

    #[test]
    fn a_step_out_of_turn_ends_the_bundle_with_its_error() {
        use BundleStep::*;
        let closed = Err(BundleFailed::BundleClosed.into());
        let bad_id: Result<BundleStep, ErrorCode> = Err(BundleFailed::BadId.into());
        let bad_flags = Err(BundleFailed::BadFlags.into());
        for s in [CloseRequest, CommitRequest, DiscardRequest] {
            assert_eq!(step(&mut Bundles::default(), s, ORDERED), bad_id, "{s:?} of none");
        }
        // What is done to an open bundle, and what it answers.
        let cases: [(&[BundleStep], BundleFlags, Result<BundleStep, ErrorCode>); 7] = [
            (&[OpenRequest], ORDERED, bad_id),
            (&[CloseRequest], ORDERED, Ok(CloseReply)),
            (&[CloseRequest, CloseRequest], ORDERED, closed),
            (&[CloseRequest], BundleFlags::ATOMIC, bad_flags),
            (&[CommitRequest], BundleFlags::ATOMIC, bad_flags),
            (&[CommitRequest], ORDERED, Ok(CommitReply)),
            (&[DiscardRequest], BundleFlags::ATOMIC, Ok(DiscardReply)),
        ];
        for (steps, flags, answer) in cases {
            let mut b = Bundles::default();
            assert_eq!(step(&mut b, OpenRequest, ORDERED), Ok(OpenReply));
            let answers: Vec<_> = steps.iter().map(|s| step(&mut b, *s, flags)).collect();
            assert_eq!(answers.last(), Some(&answer), "{steps:?}");
            let ended = steps != [CloseRequest] || answer.is_err();
            assert_eq!(step(&mut b, DiscardRequest, ORDERED) == bad_id, ended, "{steps:?}");
            assert_eq!(b.bytes, 0);
        }
    }

    #[test]
    fn messages_open_a_bundle_and_keep_it_alive_until_it_is_closed() {
        let mut b = Bundles::default();
        assert_eq!(b.add(7, ORDERED, (&[0; 100], None), &[9], at_ms(0)), Ok(()));
        assert_eq!(b.add(7, ORDERED, (&[0; 50], None), &[8], at_ms(900)), Ok(()));
        assert_eq!(b.bytes, 150 + 2 * size_of::<Kept>());
        assert_eq!(b.expire(at_ms(1800), Duration::from_secs(1)), None);
        assert_eq!(
            b.expire(at_ms(1900), Duration::from_secs(1)),
            Some(vec![9]),
            "the first message opened it"
        );
        assert_eq!((b.bytes, b.expire(at_ms(9999), Duration::ZERO)), (0, None));
        assert_eq!(b.add(7, ORDERED, (&[0; 50], None), &[8], at_ms(0)), Ok(()));
        let wrong = b.add(7, BundleFlags::ATOMIC, (&[0; 50], None), &[8], at_ms(0));
        assert_eq!((wrong, b.bytes), (Err(BundleFailed::BadFlags.into()), 0));
    }

    #[test]
    fn a_connection_has_a_limited_number_of_bundles() {
        let mut b = Bundles::default();
        for id in 0..MAX_BUNDLES as u32 {
            assert_eq!(b.add(id, ORDERED, (&[], None), &[], at_ms(0)), Ok(()));
        }
        assert_eq!(b.add(1000, ORDERED, (&[], None), &[], at_ms(0)), Err(BundleFailed::OutOfBundles.into()));
    }
}
