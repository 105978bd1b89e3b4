//! Table features (OpenFlow 1.3.5 7.3.5.5).

use flow::{FIELDS, Field, FieldId, Maskable};

use crate::number::TableId;
use crate::wire::{ACTION_TYPES, INSTRUCTION_TYPES, has_number};

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
    Unknown {
        /// Class, number, mask bit and length.
        header: u32,
        /// Whose, when the class is 0xffff.
        experimenter: Option<u32>,
    },
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

impl TableFeatures {
    /// A table of a switch in which every table matches, writes and does everything this crate decodes and goes to
    /// `next`. Stock `ovs-ofctl` asks for this before most commands and insists on all eight properties that are not
    /// about table misses, even when a list is empty.
    pub fn everything(
        table: TableId,
        name: String,
        max_entries: u32,
        next: impl Iterator<Item = TableId>,
    ) -> Self {
        let fields = |keep: fn(&Field) -> bool| -> Vec<FeatureField> {
            FIELDS
                .iter()
                .filter(|f| has_number(f.id) && keep(f))
                .map(|f| FeatureField::Known { field: f.id, maskable: false })
                .collect()
        };
        let matched = FIELDS
            .iter()
            .filter(|f| has_number(f.id))
            .map(|f| FeatureField::Known { field: f.id, maskable: f.mask == Maskable::Any })
            .collect();
        let plain =
            |types: &[u16]| -> Vec<FeatureType> { types.iter().map(|t| FeatureType::Plain(*t)).collect() };
        TableFeatures {
            table,
            name,
            metadata_match: u64::MAX,
            metadata_write: u64::MAX,
            config: 0,
            max_entries,
            properties: vec![
                TableProperty::Instructions { miss: false, types: plain(INSTRUCTION_TYPES) },
                TableProperty::NextTables { miss: false, tables: next.collect() },
                TableProperty::WriteActions { miss: false, types: plain(ACTION_TYPES) },
                TableProperty::ApplyActions { miss: false, types: plain(ACTION_TYPES) },
                TableProperty::Match(matched),
                TableProperty::Wildcards(fields(|_| true)),
                TableProperty::WriteSetField { miss: false, fields: fields(|f| f.writable) },
                TableProperty::ApplySetField { miss: false, fields: fields(|f| f.writable) },
            ],
        }
    }
}
