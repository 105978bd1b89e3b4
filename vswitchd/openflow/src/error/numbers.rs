//! The numbers that errors have in each version.
//!
//! An error has its canonical type and code in the versions since the one that introduced it. What deviates is in
//! [`deviation`]: other types in OpenFlow 1.0, and experimenter's numbers where Open vSwitch says an error in a version
//! that does not have it.

use super::*;
use Version::{V10, V11, V12, V13, V14, V15};

/// Nicira's experimenter id.
pub(super) const NICIRA: u32 = 0x0000_2320;
/// ONF's experimenter id.
const ONF: u32 = 0x4f4e_4600;

/// The numbers of `e` in `v`; `None` when it has none.
pub(super) fn of(e: ErrorCode, v: Version) -> Option<WireError> {
    let plain = |error_type, code| Some(WireError { vendor: None, error_type, code });
    match e {
        ErrorCode::Experimenter { experimenter, exp_type } => {
            return Some(WireError { vendor: Some(experimenter), error_type: 0, code: exp_type });
        }
        ErrorCode::Unknown { error_type, code } => return plain(error_type, code),
        // Nobody has a number for these two but OpenFlow 1.0.
        ErrorCode::FlowModFailed(FlowModFailed::BadEmergTimeout | FlowModFailed::Unsupported) if v != V10 => {
            return None;
        }
        _ => {}
    }
    if let Some(d) = deviation(e, v) {
        return Some(match d {
            Deviation::Plain(error_type, code) => WireError { vendor: None, error_type, code },
            // In OpenFlow 1.0 and 1.1 Nicira's errors have a type and a code, later only a code.
            Deviation::Nx(error_type, code) => WireError { vendor: Some(NICIRA), error_type, code },
            Deviation::Onf(code) => WireError { vendor: Some(ONF), error_type: 0, code },
        });
    }
    let (t, c) = e.canonical();
    match e {
        ErrorCode::Nicira(_) => {
            (v >= V12).then_some(WireError { vendor: Some(NICIRA), error_type: 0, code: c })
        }
        _ if v >= since(e) => plain(t, c),
        _ => None,
    }
}

/// The version that has an error first under its canonical numbers.
fn since(e: ErrorCode) -> Version {
    let (_, c) = e.canonical();
    match e {
        ErrorCode::HelloFailed(_) => V10,
        ErrorCode::BadRequest(_) => match c {
            0..=8 => V10,
            9 => V11,
            10..=12 => V12,
            13 => V13,
            14 | 15 => V14,
            _ => V15,
        },
        ErrorCode::BadAction(_) => match c {
            0..=8 => V10,
            9..=12 => V11,
            13..=15 => V12,
            _ => V15,
        },
        ErrorCode::BadInstruction(_) => match c {
            0..=5 => V11,
            6..=8 => V12,
            _ => V14,
        },
        ErrorCode::BadMatch(_) => {
            if c <= 7 {
                V11
            } else {
                V12
            }
        }
        ErrorCode::FlowModFailed(_) => match c {
            0..=6 => V11,
            7 => V12,
            _ => V14,
        },
        ErrorCode::GroupModFailed(_) => match c {
            0..=8 => V11,
            9..=14 => V12,
            _ => V15,
        },
        ErrorCode::PortModFailed(_) => {
            if c <= 3 {
                V11
            } else {
                V12
            }
        }
        ErrorCode::TableModFailed(_) | ErrorCode::SwitchConfigFailed(_) => {
            if c <= 1 {
                V11
            } else {
                V12
            }
        }
        ErrorCode::QueueOpFailed(_) => V11,
        ErrorCode::RoleRequestFailed(_) => {
            if c <= 2 {
                V12
            } else {
                V15
            }
        }
        ErrorCode::MeterModFailed(_) => V13,
        ErrorCode::TableFeaturesFailed(_) => {
            if c <= 5 {
                V13
            } else {
                V15
            }
        }
        ErrorCode::BundleFailed(_) => {
            if c <= 15 {
                V14
            } else {
                V15
            }
        }
        _ => V14,
    }
}

enum Deviation {
    Plain(u16, u16),
    Nx(u16, u16),
    Onf(u16),
}

/// Numbers other than the canonical ones.
fn deviation(e: ErrorCode, v: Version) -> Option<Deviation> {
    use Deviation::*;
    let old = v <= V11;
    Some(match e {
        ErrorCode::BadRequest(r) => match r {
            BadRequest::BadTableId if v == V10 => Nx(1, 512),
            BadRequest::IsSlave if old => Plain(1, 5),
            BadRequest::BadPort if old => Nx(1, 514),
            BadRequest::MultipartRequestTimeout if v == V13 => Onf(2640),
            BadRequest::MultipartReplyTimeout if v == V13 => Onf(2641),
            _ => return None,
        },
        ErrorCode::BadAction(a) => match a {
            BadAction::BadOutGroup if v == V10 => Nx(2, 9),
            BadAction::MatchInconsistent if v == V10 => Nx(1, 522),
            BadAction::BadSetType if old => Nx(1, 523),
            BadAction::BadSetLen if old => Nx(1, 524),
            BadAction::BadSetArgument if old => Nx(1, 525),
            BadAction::BadSetMask if v == V13 || v == V14 => Onf(4250),
            _ => return None,
        },
        ErrorCode::BadInstruction(i) => match i {
            BadInstruction::UnsupInst if v == V10 => Nx(2, 257),
            BadInstruction::BadExpType if v == V11 => Plain(3, 5),
            BadInstruction::DupInst if v == V11 => Nx(3, 256),
            BadInstruction::DupInst if v == V12 || v == V13 => Onf(2600),
            _ => return None,
        },
        ErrorCode::BadMatch(m) => match m {
            BadMatch::BadWildcards if v == V10 => Nx(1, 262),
            BadMatch::BadField if v == V10 => Nx(0, 263),
            BadMatch::BadValue if v == V10 => Nx(1, 258),
            BadMatch::BadMask if old => Nx(1, 259),
            BadMatch::BadPrereq if old => Nx(1, 260),
            BadMatch::DupField if old => Nx(1, 261),
            _ => return None,
        },
        ErrorCode::FlowModFailed(f) => match f {
            FlowModFailed::TableFull if v == V10 => Plain(3, 0),
            FlowModFailed::Overlap if v == V10 => Plain(3, 1),
            FlowModFailed::Eperm if v == V10 => Plain(3, 2),
            FlowModFailed::BadEmergTimeout if v == V10 => Plain(3, 3),
            FlowModFailed::BadCommand if v == V10 => Plain(3, 4),
            FlowModFailed::Unsupported if v == V10 => Plain(3, 5),
            FlowModFailed::BadFlags if v == V10 => Nx(3, 258),
            FlowModFailed::BadFlags if v == V11 => Nx(5, 258),
            FlowModFailed::BadPriority if v == V13 => Onf(2360),
            _ => return None,
        },
        // Groups are an extension in OpenFlow 1.0.
        ErrorCode::GroupModFailed(g) if v == V10 => Nx(6, g as u16),
        ErrorCode::PortModFailed(p) if v == V10 && (p as u16) < 2 => Plain(4, p as u16),
        ErrorCode::QueueOpFailed(q) if v == V10 => Plain(5, q as u16),
        ErrorCode::RoleRequestFailed(RoleRequestFailed::BadRole) if old => Nx(1, 513),
        ErrorCode::BadProperty(p) => match (p as u16, v) {
            (c @ 0..=2, V10 | V11) => Nx(13, c + 2),
            (c @ 0..=2, V12) => Nx(0, c + 25),
            (c @ 0..=2, V13) => Plain(13, c + 2),
            (c, V10 | V11) => Nx(14, c),
            (c, V12) => Nx(0, c + 25),
            (c, V13) => Onf(c + 4440),
            _ => return None,
        },
        ErrorCode::AsyncConfigFailed(a) if v == V13 => Onf(2370 + a as u16),
        ErrorCode::FlowMonitorFailed(m) if v < V14 => {
            let (nx10, nx12) = match m {
                FlowMonitorFailed::MonitorExists => (517, 6),
                FlowMonitorFailed::UnknownMonitor => (519, 8),
                FlowMonitorFailed::BadFlags => (518, 7),
                _ => return None,
            };
            if old { Nx(1, nx10) } else { Nx(0, nx12) }
        }
        ErrorCode::BundleFailed(b) if v == V13 && (b as u16) <= 15 => Onf(2300 + b as u16),
        ErrorCode::Nicira(n) if old => match n {
            Nicira::NxmInvalid => Nx(1, 256),
            Nicira::NxmBadType => Nx(1, 257),
            Nicira::MustBeZero => Nx(1, 515),
            Nicira::BadReason => Nx(1, 516),
            Nicira::BadEvent => Nx(1, 520),
            Nicira::Unencodable => Nx(1, 521),
            Nicira::ActionMustBeZero => Nx(2, 256),
            Nicira::Hardware => Nx(5, 256),
            Nicira::BadFlowTable => Nx(5, 257),
            Nicira::BadConjunction => Nx(2, 526),
            Nicira::TlvBadCommand => Nx(1, 527),
            Nicira::TlvBadOptLen => Nx(1, 528),
            Nicira::TlvBadFieldIndex => Nx(1, 529),
            Nicira::TlvTableFull => Nx(1, 530),
            Nicira::TlvAlreadyMapped => Nx(1, 531),
            Nicira::TlvDupEntry => Nx(1, 532),
            Nicira::ResumeNotSupported => Nx(1, 533),
            Nicira::ResumeStale => Nx(1, 534),
            Nicira::NotConfigured => Nx(1, 535),
            Nicira::InvalidTlvField => Nx(1, 536),
            Nicira::InvalidTlvDel => Nx(1, 537),
            Nicira::CtMatchUnsupported => Nx(1, 264),
            Nicira::CtActionUnsupported => Nx(1, 265),
            _ => return None,
        },
        _ => return None,
    })
}
