//! Error types and codes of every version (OpenFlow 1.3.5 7.4.4, OpenFlow 1.5.1 7.5.4) and of Nicira.
//!
//! An [`ErrorCode`] says what was wrong, whatever the version; [`ErrorCode::to_wire`] gives the numbers a version has for
//! it. Numbers differ between versions, and what a version has no number for goes out as an experimenter's error where
//! Open vSwitch does so (its `ofp-errors.h` is the source of those numbers).

mod numbers;

use std::fmt;

use crate::version::Version;

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
            /// Somebody's own error (type 0xffff), not named here.
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
            /// Type and code of the version that has it first, or 0xffff and Nicira's code.
            fn canonical(self) -> (u16, u16) {
                match self {
                    $( ErrorCode::$variant(c) => ($ty, c as u16), )*
                    ErrorCode::Experimenter { exp_type, .. } => (0xffff, exp_type),
                    ErrorCode::Unknown { error_type, code } => (error_type, code),
                }
            }

            /// Every error that has a name.
            pub const NAMED: &[ErrorCode] = &[ $( $( ErrorCode::$variant($variant::$code), )* )* ];

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
        MultipartRequestTimeout = 14 "OFPBRC_MULTIPART_REQUEST_TIMEOUT";
        MultipartReplyTimeout = 15 "OFPBRC_MULTIPART_REPLY_TIMEOUT";
        MultipartBadSched = 16 "OFPBRC_MULTIPART_BAD_SCHED";
        PipelineFieldsOnly = 17 "OFPBRC_PIPELINE_FIELDS_ONLY";
        Unknown = 18 "OFPBRC_UNKNOWN";
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
        BadSetMask = 16 "OFPBAC_BAD_SET_MASK";
        BadMeter = 17 "OFPBAC_BAD_METER";
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
        CantSync = 8 "OFPFMFC_CANT_SYNC";
        BadPriority = 9 "OFPFMFC_BAD_PRIORITY";
        IsSync = 10 "OFPFMFC_IS_SYNC";
        // OpenFlow 1.0 only, under other numbers.
        BadEmergTimeout = 0x103 "OFPFMFC_BAD_EMERG_TIMEOUT";
        Unsupported = 0x105 "OFPFMFC_UNSUPPORTED";
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
        UnknownBucket = 15 "OFPGMFC_UNKNOWN_BUCKET";
        BucketExists = 16 "OFPGMFC_BUCKET_EXISTS";
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
        IdUnsup = 3 "OFPRRFC_ID_UNSUP";
        IdInUse = 4 "OFPRRFC_ID_IN_USE";
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
        Eperm = 5 "OFPTFFC_EPERM";
        BadCapa = 6 "OFPTFFC_BAD_CAPA";
        BadMaxEnt = 7 "OFPTFFC_BAD_MAX_ENT";
        BadFeatures = 8 "OFPTFFC_BAD_FEATURES";
        BadCommand = 9 "OFPTFFC_BAD_COMMAND";
        TooMany = 10 "OFPTFFC_TOO_MANY";
    }
    /// A property was wrong; in OpenFlow 1.3 one of table features.
    BadProperty = 14 {
        BadType = 0 "OFPBPC_BAD_TYPE";
        BadLen = 1 "OFPBPC_BAD_LEN";
        BadValue = 2 "OFPBPC_BAD_VALUE";
        TooMany = 3 "OFPBPC_TOO_MANY";
        DupType = 4 "OFPBPC_DUP_TYPE";
        BadExperimenter = 5 "OFPBPC_BAD_EXPERIMENTER";
        BadExpType = 6 "OFPBPC_BAD_EXP_TYPE";
        BadExpValue = 7 "OFPBPC_BAD_EXP_VALUE";
        Eperm = 8 "OFPBPC_EPERM";
    }
    /// The asynchronous configuration could not be set.
    AsyncConfigFailed = 15 {
        Invalid = 0 "OFPACFC_INVALID";
        Unsupported = 1 "OFPACFC_UNSUPPORTED";
        Eperm = 2 "OFPACFC_EPERM";
    }
    /// A flow monitor request failed.
    FlowMonitorFailed = 16 {
        Unknown = 0 "OFPMOFC_UNKNOWN";
        MonitorExists = 1 "OFPMOFC_MONITOR_EXISTS";
        InvalidMonitor = 2 "OFPMOFC_INVALID_MONITOR";
        UnknownMonitor = 3 "OFPMOFC_UNKNOWN_MONITOR";
        BadCommand = 4 "OFPMOFC_BAD_COMMAND";
        BadFlags = 5 "OFPMOFC_BAD_FLAGS";
        BadTableId = 6 "OFPMOFC_BAD_TABLE_ID";
        BadOut = 7 "OFPMOFC_BAD_OUT";
    }
    /// A bundle failed.
    BundleFailed = 17 {
        Unknown = 0 "OFPBFC_UNKNOWN";
        Eperm = 1 "OFPBFC_EPERM";
        BadId = 2 "OFPBFC_BAD_ID";
        BundleExist = 3 "OFPBFC_BUNDLE_EXIST";
        BundleClosed = 4 "OFPBFC_BUNDLE_CLOSED";
        OutOfBundles = 5 "OFPBFC_OUT_OF_BUNDLES";
        BadType = 6 "OFPBFC_BAD_TYPE";
        BadFlags = 7 "OFPBFC_BAD_FLAGS";
        MsgBadLen = 8 "OFPBFC_MSG_BAD_LEN";
        MsgBadXid = 9 "OFPBFC_MSG_BAD_XID";
        MsgUnsup = 10 "OFPBFC_MSG_UNSUP";
        MsgConflict = 11 "OFPBFC_MSG_CONFLICT";
        MsgTooMany = 12 "OFPBFC_MSG_TOO_MANY";
        MsgFailed = 13 "OFPBFC_MSG_FAILED";
        Timeout = 14 "OFPBFC_TIMEOUT";
        BundleInProgress = 15 "OFPBFC_BUNDLE_IN_PROGRESS";
        SchedNotSupported = 16 "OFPBFC_SCHED_NOT_SUPPORTED";
        SchedFuture = 17 "OFPBFC_SCHED_FUTURE";
        SchedPast = 18 "OFPBFC_SCHED_PAST";
    }
    /// Nicira's errors, by the code they have since OpenFlow 1.2.
    Nicira = 0xffff {
        NxmInvalid = 2 "NXBRC_NXM_INVALID";
        NxmBadType = 3 "NXBRC_NXM_BAD_TYPE";
        MustBeZero = 4 "NXBRC_MUST_BE_ZERO";
        BadReason = 5 "NXBRC_BAD_REASON";
        BadEvent = 9 "NXBRC_FM_BAD_EVENT";
        Unencodable = 10 "NXBRC_UNENCODABLE_ERROR";
        ActionMustBeZero = 11 "NXBAC_MUST_BE_ZERO";
        Hardware = 12 "NXFMFC_HARDWARE";
        BadFlowTable = 13 "NXFMFC_BAD_TABLE_ID";
        BadConjunction = 15 "NXBAC_BAD_CONJUNCTION";
        TlvBadCommand = 16 "NXTTMFC_BAD_COMMAND";
        TlvBadOptLen = 17 "NXTTMFC_BAD_OPT_LEN";
        TlvBadFieldIndex = 18 "NXTTMFC_BAD_FIELD_IDX";
        TlvTableFull = 19 "NXTTMFC_TABLE_FULL";
        TlvAlreadyMapped = 20 "NXTTMFC_ALREADY_MAPPED";
        TlvDupEntry = 21 "NXTTMFC_DUP_ENTRY";
        BundleBadVersion = 22 "OFPBFC_BAD_VERSION";
        QueueError = 23 "NXQOFC_QUEUE_ERROR";
        ResumeNotSupported = 34 "NXR_NOT_SUPPORTED";
        ResumeStale = 35 "NXR_STALE";
        NotConfigured = 36 "NXST_NOT_CONFIGURED";
        InvalidTlvField = 37 "NXFMFC_INVALID_TLV_FIELD";
        InvalidTlvDel = 38 "NXTTMFC_INVALID_TLV_DEL";
        BadHeaderType = 39 "NXBAC_BAD_HEADER_TYPE";
        UnknownEncapProperty = 40 "NXBAC_UNKNOWN_ED_PROP";
        BadEncapProperty = 41 "NXBAC_BAD_ED_PROP";
        CtActionUnsupported = 42 "NXBAC_CT_DATAPATH_SUPPORT";
        CtMatchUnsupported = 43 "NXBMC_CT_DATAPATH_SUPPORT";
        DupTable = 44 "NXTFFC_DUP_TABLE";
    }
}

/// Numbers of an error in one version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WireError {
    /// Whose error it is; `None` for OpenFlow's own.
    pub vendor: Option<u32>,
    /// Type. An experimenter's error has one in OpenFlow 1.0 and 1.1 only, and 0 later.
    pub error_type: u16,
    /// Code.
    pub code: u16,
}

impl ErrorCode {
    /// The numbers `version` has for it. What a version has no number for is Nicira's "unencodable error".
    pub fn to_wire(self, version: Version) -> WireError {
        numbers::of(self, version).unwrap_or_else(|| {
            let old = version <= Version::V11;
            WireError {
                vendor: Some(numbers::NICIRA),
                error_type: if old { 1 } else { 0 },
                code: if old { 521 } else { 10 },
            }
        })
    }

    /// The error with those numbers in `version`. Where several share numbers, the first of [`ErrorCode::NAMED`].
    pub fn from_wire(version: Version, wire: WireError) -> ErrorCode {
        let named = ErrorCode::NAMED.iter().find(|c| numbers::of(**c, version) == Some(wire));
        match (named, wire) {
            (Some(c), _) => *c,
            (None, WireError { vendor: Some(experimenter), code, .. }) => {
                ErrorCode::Experimenter { experimenter, exp_type: code }
            }
            (None, WireError { error_type, code, .. }) => ErrorCode::Unknown { error_type, code },
        }
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
                let (t, c) = self.canonical();
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
    fn every_type_and_code_survives_the_wire_in_every_version() {
        for version in Version::ALL {
            for t in 0..20u16 {
                for c in 0..20u16 {
                    let wire = WireError { vendor: None, error_type: t, code: c };
                    assert_eq!(ErrorCode::from_wire(version, wire).to_wire(version), wire, "{version}");
                }
            }
            for code in ErrorCode::NAMED {
                let wire = code.to_wire(version);
                let back = ErrorCode::from_wire(version, wire);
                assert_eq!(back.to_wire(version), wire, "{version} {code}");
                if version == Version::V15 && !matches!(code, ErrorCode::FlowModFailed(_)) {
                    assert_eq!(back, *code);
                }
            }
        }
    }

    #[test]
    fn numbers_are_those_of_the_version() {
        let wire = |e: ErrorCode, v| {
            let w = e.to_wire(v);
            (w.vendor, w.error_type, w.code)
        };
        use Version::*;
        let overlap = FlowModFailed::Overlap.into();
        assert_eq!((wire(overlap, V10), wire(overlap, V13)), ((None, 3, 1), (None, 5, 3)));
        let port = PortModFailed::BadPort.into();
        assert_eq!((wire(port, V10), wire(port, V11)), ((None, 4, 0), (None, 7, 0)));
        let slave = BadRequest::IsSlave.into();
        assert_eq!((wire(slave, V11), wire(slave, V12)), ((None, 1, 5), (None, 1, 10)));
        let prereq = BadMatch::BadPrereq.into();
        assert_eq!((wire(prereq, V10), wire(prereq, V12)), ((Some(0x2320), 1, 260), (None, 4, 9)));
        let dup = BadInstruction::DupInst.into();
        assert_eq!((wire(dup, V13), wire(dup, V14)), ((Some(0x4f4e_4600), 0, 2600), (None, 3, 9)));
        let bundle = BundleFailed::BadId.into();
        assert_eq!((wire(bundle, V13), wire(bundle, V14)), ((Some(0x4f4e_4600), 0, 2302), (None, 17, 2)));
        let property = BadProperty::BadType.into();
        assert_eq!((wire(property, V13), wire(property, V14)), ((None, 13, 2), (None, 14, 0)));
        // A meter is nothing that OpenFlow 1.0 knows.
        assert_eq!(wire(MeterModFailed::UnknownMeter.into(), V10), (Some(0x2320), 1, 521));
        assert_eq!(ErrorCode::from(BadMatch::BadPrereq).to_string(), "OFPBMC_BAD_PREREQ");
    }
}
