//! Bringing a device up in steps, each of which can fail in its own way.

use std::time::Duration;

use clock::Deadline;

use crate::{DeviceBacking, DeviceError, DmaMemory, Iova, RegOffset, Registers, TimedOut};

/// What a register of an absent device reads.
const ALL_ONES: u32 = u32::MAX;

/// What went wrong in a step.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum Fault {
    #[error("{0}")]
    Device(#[from] DeviceError),
    #[error("registers read all ones: the device is gone")]
    Gone,
    #[error("{register} reads {value:#x}, not {expected}")]
    Wrong { register: &'static str, value: u32, expected: &'static str },
    #[error("{what} within {timeout:?}")]
    TimedOut { what: &'static str, timeout: Duration },
    #[error("{0}")]
    Unfit(String),
    #[error("{what}: the device says errno {errno}")]
    Refused { what: &'static str, errno: u16 },
    #[error("command: {0}")]
    Command(Box<dyn std::error::Error + Send + Sync>),
}

/// Bring-up failed; the device is reset and released.
#[derive(thiserror::Error, Debug)]
#[error("bring-up failed at step {step}: {fault}")]
pub struct BringUpError<S: std::fmt::Display + std::fmt::Debug> {
    /// The step, one of the driver's.
    pub step: S,
    /// What went wrong.
    #[source]
    pub fault: Fault,
}

/// Says at which step something failed.
pub trait AtStep<T> {
    /// The result as one of `step`.
    ///
    /// # Errors
    /// Its own.
    fn at<S: std::fmt::Display + std::fmt::Debug>(self, step: S) -> Result<T, BringUpError<S>>;
}

impl<T, E: Into<Fault>> AtStep<T> for Result<T, E> {
    fn at<S: std::fmt::Display + std::fmt::Debug>(self, step: S) -> Result<T, BringUpError<S>> {
        self.map_err(|e| BringUpError { step, fault: e.into() })
    }
}

/// Memory for rings, and where the device sees it.
///
/// # Errors
/// [`DeviceError`].
pub fn dma_alloc<B: DeviceBacking>(
    backing: &mut B,
    len_bytes: usize,
) -> Result<(DmaMemory, Iova), DeviceError> {
    let step = "allocate rings";
    let mem = DmaMemory::new(len_bytes).map_err(|source| DeviceError::Dma { step, source })?;
    let iova = backing.dma_map(&mem)?;
    Ok((mem, iova))
}

/// Waits until `done` holds of the value of register `r`.
///
/// # Errors
/// [`Fault::Gone`] when it reads all ones, [`Fault::TimedOut`] with `what` after `timeout`.
pub fn wait_for<B: DeviceBacking>(
    backing: &B,
    regs: &B::Regs,
    r: RegOffset,
    timeout: Duration,
    what: &'static str,
    done: impl Fn(u32) -> bool,
) -> Result<(), Fault> {
    let deadline = Deadline::after(backing.now(), timeout);
    let mut gone = false;
    let waited = backing.wait_until(
        &mut || {
            let v = regs.read32(r);
            gone = v == ALL_ONES;
            gone || done(v)
        },
        deadline,
    );
    match waited {
        _ if gone => Err(Fault::Gone),
        Ok(()) => Ok(()),
        Err(TimedOut) => Err(Fault::TimedOut { what, timeout }),
    }
}
