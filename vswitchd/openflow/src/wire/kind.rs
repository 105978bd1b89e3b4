//! Message types and their numbers by version (OpenFlow 1.0.1 5.1, OpenFlow 1.5.1 7.1.1).

use crate::version::Version;

/// The numbers that every version shares.
pub(super) const HELLO: u8 = 0;
pub(super) const ECHO_REPLY: u8 = 3;

macro_rules! kinds {
    ($( $kind:ident [$($n:literal)*]; )*) => {
        /// A message type.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub(crate) enum Kind { $( $kind, )* }

        /// Each type with its number by version, -1 where a version has none.
        const NUMBERS: &[(Kind, [i8; 6])] = &[ $( (Kind::$kind, [$($n),*]), )* ];
    };
}

kinds! {
    //                    1.0 1.1 1.2 1.3 1.4 1.5
    Hello                 [ 0  0  0  0  0  0];
    Error                 [ 1  1  1  1  1  1];
    EchoRequest           [ 2  2  2  2  2  2];
    EchoReply             [ 3  3  3  3  3  3];
    Experimenter          [ 4  4  4  4  4  4];
    FeaturesRequest       [ 5  5  5  5  5  5];
    FeaturesReply         [ 6  6  6  6  6  6];
    GetConfigRequest      [ 7  7  7  7  7  7];
    GetConfigReply        [ 8  8  8  8  8  8];
    SetConfig             [ 9  9  9  9  9  9];
    PacketIn              [10 10 10 10 10 10];
    FlowRemoved           [11 11 11 11 11 11];
    PortStatus            [12 12 12 12 12 12];
    PacketOut             [13 13 13 13 13 13];
    FlowMod               [14 14 14 14 14 14];
    GroupMod              [-1 15 15 15 15 15];
    PortMod               [15 16 16 16 16 16];
    TableMod              [-1 17 17 17 17 17];
    MultipartRequest      [16 18 18 18 18 18];
    MultipartReply        [17 19 19 19 19 19];
    BarrierRequest        [18 20 20 20 20 20];
    BarrierReply          [19 21 21 21 21 21];
    QueueGetConfigRequest [20 22 22 22 -1 -1];
    QueueGetConfigReply   [21 23 23 23 -1 -1];
    RoleRequest           [-1 -1 24 24 24 24];
    RoleReply             [-1 -1 25 25 25 25];
    GetAsyncRequest       [-1 -1 -1 26 26 26];
    GetAsyncReply         [-1 -1 -1 27 27 27];
    SetAsync              [-1 -1 -1 28 28 28];
    MeterMod              [-1 -1 -1 29 29 29];
    RoleStatus            [-1 -1 -1 -1 30 30];
    TableStatus           [-1 -1 -1 -1 31 31];
    RequestForward        [-1 -1 -1 -1 32 32];
    BundleControl         [-1 -1 -1 -1 33 33];
    BundleAdd             [-1 -1 -1 -1 34 34];
    ControllerStatus      [-1 -1 -1 -1 -1 35];
}

impl Kind {
    /// Whether only a switch sends it.
    pub(crate) fn is_a_switchs(self) -> bool {
        use Kind::*;
        matches!(
            self,
            FeaturesReply
                | GetConfigReply
                | PacketIn
                | FlowRemoved
                | PortStatus
                | MultipartReply
                | BarrierReply
                | QueueGetConfigReply
                | RoleReply
                | GetAsyncReply
                | RoleStatus
                | TableStatus
                | RequestForward
                | ControllerStatus
        )
    }

    /// The type with that number.
    pub(crate) fn from_wire(v: Version, number: u8) -> Option<Kind> {
        // Most numbers are the position in the table or near it; the table is short anyway.
        NUMBERS.iter().find(|(_, n)| i16::from(n[column(v)]) == i16::from(number)).map(|(k, _)| *k)
    }

    /// Its number.
    pub(crate) fn to_wire(self, v: Version) -> Option<u8> {
        u8::try_from(NUMBERS[self as usize].1[column(v)]).ok()
    }
}

fn column(v: Version) -> usize {
    v as usize - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_its_number() {
        for v in Version::ALL {
            for (i, (kind, _)) in NUMBERS.iter().enumerate() {
                assert_eq!(*kind as usize, i);
                if let Some(n) = kind.to_wire(v) {
                    assert_eq!(Kind::from_wire(v, n), Some(*kind), "{v}");
                }
            }
            assert_eq!(Kind::from_wire(v, 200), None);
            assert_eq!(Kind::from_wire(v, 255), None, "-1 is no number");
        }
    }
}
