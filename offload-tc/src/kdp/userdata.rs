//! What actions that hand packets over say of themselves, and what comes back with the packets.

use flow::{ControllerAction, FlowId, PuntReason};

/// For a controller.
const CONTROLLER: u8 = b'C';
/// For software, which does what the kernel cannot.
const SOFTWARE: u8 = b'S';

/// What a packet was handed over for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A controller is to get it.
    Controller(ControllerAction),
    /// Software is to do what this record says.
    Software(FlowId),
}

/// What a packet for controllers brings along.
pub(super) fn of_controller(c: &ControllerAction) -> Vec<u8> {
    let mut b = vec![CONTROLLER, c.reason as u8, c.table];
    b.push(u8::from(c.tracked) | u8::from(c.continuation) << 1 | u8::from(c.dont_send) << 2);
    b.extend_from_slice(&c.max_len.to_be_bytes());
    b.extend_from_slice(&c.controller_id.to_be_bytes());
    for n in [c.in_port, c.bridge, c.recirc_id] {
        b.extend_from_slice(&n.to_be_bytes());
    }
    for n in [c.cookie, c.metadata] {
        b.extend_from_slice(&n.to_be_bytes());
    }
    b
}

/// What a packet for software brings along.
pub(super) fn of_software(id: FlowId) -> Vec<u8> {
    [&[SOFTWARE][..], &id.0.to_be_bytes()].concat()
}

/// Reads it; `None` when it is none of ours.
pub(super) fn read(b: &[u8]) -> Option<Purpose> {
    let number = |at: usize, n: usize| {
        let b = b.get(at..at + n)?;
        Some(b.iter().fold(0u64, |v, b| v << 8 | u64::from(*b)))
    };
    match (b.first()?, b.len()) {
        (&SOFTWARE, 9) => Some(Purpose::Software(FlowId(number(1, 8)?))),
        (&CONTROLLER, 36) => {
            let flags = number(3, 1)?;
            Some(Purpose::Controller(ControllerAction {
                reason: PuntReason::from_number(number(1, 1)?)?,
                table: number(2, 1)? as u8,
                tracked: flags & 1 != 0,
                continuation: flags & 2 != 0,
                dont_send: flags & 4 != 0,
                max_len: number(4, 2)? as u16,
                controller_id: number(6, 2)? as u16,
                in_port: number(8, 4)? as u32,
                bridge: number(12, 4)? as u32,
                recirc_id: number(16, 4)? as u32,
                cookie: number(20, 8)?,
                metadata: number(28, 8)?,
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_action_says_comes_back() {
        let c = ControllerAction {
            reason: PuntReason::Snoop,
            max_len: 128,
            cookie: 0x1234_5678_9abc_def0,
            table: 7,
            metadata: 9,
            in_port: 0xffff_fffe,
            bridge: 3,
            tracked: true,
            controller_id: 5,
            recirc_id: 77,
            continuation: true,
            dont_send: false,
        };
        assert_eq!(read(&of_controller(&c)), Some(Purpose::Controller(c)));
        assert_eq!(read(&of_software(FlowId(1 << 40))), Some(Purpose::Software(FlowId(1 << 40))));
        for b in [&b""[..], b"C", b"S123", b"X12345678", &[CONTROLLER; 36]] {
            assert_eq!(read(b), None, "{b:?}");
        }
    }
}
