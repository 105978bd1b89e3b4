//! Error types and codes (OpenFlow 1.3.5 7.4.4).

use std::fmt;

macro_rules! errors {
    ($( $(#[$tm:meta])* $variant:ident = $ty:literal { $( $code:ident = $num:literal $text:literal; )* } )*) => {
        $(
            $(#[$tm])*
            #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
            #[repr(u16)]
            #[allow(missing_docs)]
            pub enum $variant { $( $code = $num, )* }
        )*

        /// What was wrong with a message: type and code. Usable as an error value; [`fmt::Display`] gives OpenFlow's name.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[allow(missing_docs)]
        pub enum ErrorCode {
            $( $variant($variant), )*
            /// Somebody's own error (type 0xffff).
            Experimenter {
                /// Who.
                experimenter: u32,
                /// What.
                exp_type: u16,
            },
            /// A type or code without a name here, kept.
            Unknown {
                /// Type.
                error_type: u16,
                /// Code.
                code: u16,
            },
        }

        $( impl From<$variant> for ErrorCode {
            fn from(v: $variant) -> ErrorCode {
                ErrorCode::$variant(v)
            }
        } )*

        impl ErrorCode {
            /// Type and code as sent; an experimenter error's code is its type.
            pub fn to_wire(self) -> (u16, u16) {
                match self {
                    $( ErrorCode::$variant(c) => ($ty, c as u16), )*
                    ErrorCode::Experimenter { exp_type, .. } => (0xffff, exp_type),
                    ErrorCode::Unknown { error_type, code } => (error_type, code),
                }
            }

            /// The error with that type and code.
            pub fn from_wire(error_type: u16, code: u16) -> ErrorCode {
                match (error_type, code) {
                    $( $( ($ty, $num) => ErrorCode::$variant($variant::$code), )* )*
                    _ => ErrorCode::Unknown { error_type, code },
                }
            }

            /// OpenFlow's name (`OFPBRC_BAD_TYPE`), `None` when there is none.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $( $( ErrorCode::$variant($variant::$code) => Some($text), )* )*
                    _ => None,
                }
            }
        }
    };
}

errors! {
    /// Hello protocol failed.
    HelloFailed = 0 {
        Incompatible = 0 "OFPHFC_INCOMPATIBLE";
        Eperm = 1 "OFPHFC_EPERM";
    }
    /// The request was not understood.
    BadRequest = 1 {
        BadVersion = 0 "OFPBRC_BAD_VERSION";
        BadType = 1 "OFPBRC_BAD_TYPE";
        BadMultipart = 2 "OFPBRC_BAD_STAT";
        BadExperimenter = 3 "OFPBRC_BAD_EXPERIMENTER";
        BadExpType = 4 "OFPBRC_BAD_EXP_TYPE";
        Eperm = 5 "OFPBRC_EPERM";
        BadLen = 6 "OFPBRC_BAD_LEN";
        BufferEmpty = 7 "OFPBRC_BUFFER_EMPTY";
        BufferUnknown = 8 "OFPBRC_BUFFER_UNKNOWN";
        BadTableId = 9 "OFPBRC_BAD_TABLE_ID";
        IsSlave = 10 "OFPBRC_IS_SLAVE";
        BadPort = 11 "OFPBRC_BAD_PORT";
        BadPacket = 12 "OFPBRC_BAD_PACKET";
        MultipartBufferOverflow = 13 "OFPBRC_MULTIPART_BUFFER_OVERFLOW";
    }
    /// An action was wrong.
    BadAction = 2 {
        BadType = 0 "OFPBAC_BAD_TYPE";
        BadLen = 1 "OFPBAC_BAD_LEN";
        BadExperimenter = 2 "OFPBAC_BAD_EXPERIMENTER";
        BadExpType = 3 "OFPBAC_BAD_EXP_TYPE";
        BadOutPort = 4 "OFPBAC_BAD_OUT_PORT";
        BadArgument = 5 "OFPBAC_BAD_ARGUMENT";
        Eperm = 6 "OFPBAC_EPERM";
        TooMany = 7 "OFPBAC_TOO_MANY";
        BadQueue = 8 "OFPBAC_BAD_QUEUE";
        BadOutGroup = 9 "OFPBAC_BAD_OUT_GROUP";
        MatchInconsistent = 10 "OFPBAC_MATCH_INCONSISTENT";
        UnsupportedOrder = 11 "OFPBAC_UNSUPPORTED_ORDER";
        BadTag = 12 "OFPBAC_BAD_TAG";
        BadSetType = 13 "OFPBAC_BAD_SET_TYPE";
        BadSetLen = 14 "OFPBAC_BAD_SET_LEN";
        BadSetArgument = 15 "OFPBAC_BAD_SET_ARGUMENT";
    }
    /// An instruction was wrong.
    BadInstruction = 3 {
        UnknownInst = 0 "OFPBIC_UNKNOWN_INST";
        UnsupInst = 1 "OFPBIC_UNSUP_INST";
        BadTableId = 2 "OFPBIC_BAD_TABLE_ID";
        UnsupMetadata = 3 "OFPBIC_UNSUP_METADATA";
        UnsupMetadataMask = 4 "OFPBIC_UNSUP_METADATA_MASK";
        BadExperimenter = 5 "OFPBIC_BAD_EXPERIMENTER";
        BadExpType = 6 "OFPBIC_BAD_EXP_TYPE";
        BadLen = 7 "OFPBIC_BAD_LEN";
        Eperm = 8 "OFPBIC_EPERM";
        DupInst = 9 "OFPBIC_DUP_INST";
    }
    /// A match was wrong.
    BadMatch = 4 {
        BadType = 0 "OFPBMC_BAD_TYPE";
        BadLen = 1 "OFPBMC_BAD_LEN";
        BadTag = 2 "OFPBMC_BAD_TAG";
        BadDlAddrMask = 3 "OFPBMC_BAD_DL_ADDR_MASK";
        BadNwAddrMask = 4 "OFPBMC_BAD_NW_ADDR_MASK";
        BadWildcards = 5 "OFPBMC_BAD_WILDCARDS";
        BadField = 6 "OFPBMC_BAD_FIELD";
        BadValue = 7 "OFPBMC_BAD_VALUE";
        BadMask = 8 "OFPBMC_BAD_MASK";
        BadPrereq = 9 "OFPBMC_BAD_PREREQ";
        DupField = 10 "OFPBMC_DUP_FIELD";
        Eperm = 11 "OFPBMC_EPERM";
    }
    /// A flow-mod failed.
    FlowModFailed = 5 {
        Unknown = 0 "OFPFMFC_UNKNOWN";
        TableFull = 1 "OFPFMFC_TABLE_FULL";
        BadTableId = 2 "OFPFMFC_BAD_TABLE_ID";
        Overlap = 3 "OFPFMFC_OVERLAP";
        Eperm = 4 "OFPFMFC_EPERM";
        BadTimeout = 5 "OFPFMFC_BAD_TIMEOUT";
        BadCommand = 6 "OFPFMFC_BAD_COMMAND";
        BadFlags = 7 "OFPFMFC_BAD_FLAGS";
    }
    /// A group-mod failed.
    GroupModFailed = 6 {
        GroupExists = 0 "OFPGMFC_GROUP_EXISTS";
        InvalidGroup = 1 "OFPGMFC_INVALID_GROUP";
        WeightUnsupported = 2 "OFPGMFC_WEIGHT_UNSUPPORTED";
        OutOfGroups = 3 "OFPGMFC_OUT_OF_GROUPS";
        OutOfBuckets = 4 "OFPGMFC_OUT_OF_BUCKETS";
        ChainingUnsupported = 5 "OFPGMFC_CHAINING_UNSUPPORTED";
        WatchUnsupported = 6 "OFPGMFC_WATCH_UNSUPPORTED";
        Loop = 7 "OFPGMFC_LOOP";
        UnknownGroup = 8 "OFPGMFC_UNKNOWN_GROUP";
        ChainedGroup = 9 "OFPGMFC_CHAINED_GROUP";
        BadType = 10 "OFPGMFC_BAD_TYPE";
        BadCommand = 11 "OFPGMFC_BAD_COMMAND";
        BadBucket = 12 "OFPGMFC_BAD_BUCKET";
        BadWatch = 13 "OFPGMFC_BAD_WATCH";
        Eperm = 14 "OFPGMFC_EPERM";
    }
    /// A port-mod failed.
    PortModFailed = 7 {
        BadPort = 0 "OFPPMFC_BAD_PORT";
        BadHwAddr = 1 "OFPPMFC_BAD_HW_ADDR";
        BadConfig = 2 "OFPPMFC_BAD_CONFIG";
        BadAdvertise = 3 "OFPPMFC_BAD_ADVERTISE";
        Eperm = 4 "OFPPMFC_EPERM";
    }
    /// A table-mod failed.
    TableModFailed = 8 {
        BadTable = 0 "OFPTMFC_BAD_TABLE";
        BadConfig = 1 "OFPTMFC_BAD_CONFIG";
        Eperm = 2 "OFPTMFC_EPERM";
    }
    /// A queue operation failed.
    QueueOpFailed = 9 {
        BadPort = 0 "OFPQOFC_BAD_PORT";
        BadQueue = 1 "OFPQOFC_BAD_QUEUE";
        Eperm = 2 "OFPQOFC_EPERM";
    }
    /// The switch's configuration could not be set.
    SwitchConfigFailed = 10 {
        BadFlags = 0 "OFPSCFC_BAD_FLAGS";
        BadLen = 1 "OFPSCFC_BAD_LEN";
        Eperm = 2 "OFPSCFC_EPERM";
    }
    /// A role request failed.
    RoleRequestFailed = 11 {
        Stale = 0 "OFPRRFC_STALE";
        Unsup = 1 "OFPRRFC_UNSUP";
        BadRole = 2 "OFPRRFC_BAD_ROLE";
    }
    /// A meter-mod failed.
    MeterModFailed = 12 {
        Unknown = 0 "OFPMMFC_UNKNOWN";
        MeterExists = 1 "OFPMMFC_METER_EXISTS";
        InvalidMeter = 2 "OFPMMFC_INVALID_METER";
        UnknownMeter = 3 "OFPMMFC_UNKNOWN_METER";
        BadCommand = 4 "OFPMMFC_BAD_COMMAND";
        BadFlags = 5 "OFPMMFC_BAD_FLAGS";
        BadRate = 6 "OFPMMFC_BAD_RATE";
        BadBurst = 7 "OFPMMFC_BAD_BURST";
        BadBand = 8 "OFPMMFC_BAD_BAND";
        BadBandValue = 9 "OFPMMFC_BAD_BAND_VALUE";
        OutOfMeters = 10 "OFPMMFC_OUT_OF_METERS";
        OutOfBands = 11 "OFPMMFC_OUT_OF_BANDS";
    }
    /// Table features could not be set.
    TableFeaturesFailed = 13 {
        BadTable = 0 "OFPTFFC_BAD_TABLE";
        BadMetadata = 1 "OFPTFFC_BAD_METADATA";
        BadType = 2 "OFPTFFC_BAD_TYPE";
        BadLen = 3 "OFPTFFC_BAD_LEN";
        BadArgument = 4 "OFPTFFC_BAD_ARGUMENT";
        Eperm = 5 "OFPTFFC_EPERM";
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self) {
            (Some(n), _) => f.write_str(n),
            (None, ErrorCode::Experimenter { experimenter, exp_type }) => {
                write!(f, "experimenter {experimenter:#x} error {exp_type}")
            }
            (None, _) => {
                let (t, c) = self.to_wire();
                write!(f, "error type {t} code {c}")
            }
        }
    }
}

impl std::error::Error for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_and_code_survives_the_wire() {
        for t in 0..20u16 {
            for c in 0..20u16 {
                assert_eq!(ErrorCode::from_wire(t, c).to_wire(), (t, c));
            }
        }
        assert_eq!(ErrorCode::from_wire(4, 9), BadMatch::BadPrereq.into());
        assert_eq!(ErrorCode::from(BadMatch::BadPrereq).to_string(), "OFPBMC_BAD_PREREQ");
        assert_eq!(ErrorCode::from_wire(4, 99), ErrorCode::Unknown { error_type: 4, code: 99 });
    }
}
