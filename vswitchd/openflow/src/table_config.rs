//! What a table is told to do when it fills up (OpenFlow 1.4.0 7.3.4.2, 7.3.5.16, 7.4.5).

use crate::number::TableId;

/// When to say that a table fills up or empties.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Vacancy {
    /// Free space below which `VacancyDown` is said, in percent.
    pub down: u8,
    /// Free space above which `VacancyUp` is said, in percent.
    pub up: u8,
    /// Free space, in percent; in descriptions only.
    pub current: u8,
}

/// How a table is configured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TableDesc {
    /// Which table.
    pub table: TableId,
    /// Bitmap of `OFPTC_*`: 4 eviction, 8 vacancy events.
    pub config: u32,
    /// What is evicted first (`OFPTMPEF_*`).
    pub eviction: Option<u32>,
    /// Vacancy events.
    pub vacancy: Option<Vacancy>,
}

/// Why a table status is sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum TableStatusReason {
    /// Less space is free than was asked for.
    VacancyDown = 3,
    /// More space is free again.
    VacancyUp = 4,
}
