//! Table features (OpenFlow 1.3.5 7.3.5.5).

use flow::FieldId;

use crate::number::TableId;

/// An action or instruction type, as table features list them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FeatureType {
    /// By its number.
    Plain(u16),
    /// Somebody's own.
    Experimenter(u32),
}

/// A field a table matches or sets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FeatureField {
    /// A field we know.
    Known {
        /// Which.
        field: FieldId,
        /// Whether it can be masked (match), or the header said so.
        maskable: bool,
    },
    /// A header we do not know, kept as it came.
    Unknown(u32),
}

/// One property of a table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum TableProperty {
    Instructions { miss: bool, types: Vec<FeatureType> },
    NextTables { miss: bool, tables: Vec<TableId> },
    WriteActions { miss: bool, types: Vec<FeatureType> },
    ApplyActions { miss: bool, types: Vec<FeatureType> },
    Match(Vec<FeatureField>),
    Wildcards(Vec<FeatureField>),
    WriteSetField { miss: bool, fields: Vec<FeatureField> },
    ApplySetField { miss: bool, fields: Vec<FeatureField> },
    Experimenter { miss: bool, experimenter: u32, exp_type: u32, data: Vec<u8> },
}

/// What a table is and can do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TableFeatures {
    /// Which table.
    pub table: TableId,
    /// Name; 31 bytes are sent, the rest is cut.
    pub name: String,
    /// Metadata bits it can match.
    pub metadata_match: u64,
    /// Metadata bits it can write.
    pub metadata_write: u64,
    /// Bitmap of `OFPTC_*`.
    pub config: u32,
    /// Most entries.
    pub max_entries: u32,
    /// Its properties.
    pub properties: Vec<TableProperty>,
}
