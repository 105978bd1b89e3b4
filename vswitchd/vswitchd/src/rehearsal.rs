//! Failures of simulated devices on request, so that operators can rehearse what they do when a device fails.
//!
//! What follows is no rehearsal: the driver finds out by itself, placement moves the flows to software and resets the
//! device, exactly as with silicon.

use nic::Failure;

use crate::report::Parts;

/// What can be asked for.
const KINDS: &str = "hang, hang-for-good, remove, internal, repair";

impl Parts {
    /// Makes the simulated device `device` fail, or repairs it: `hang` (it stops; a reset ends it), `hang-for-good` (resets do
    /// not end it), `remove` (it is gone from its bus), `internal` (it reports a fatal error; a reset ends it), `repair` (ends
    /// the last failure).
    ///
    /// # Errors
    /// An unknown device or kind, in words that name those there are.
    pub fn sim_fail(&self, device: &str, kind: &str) -> Result<String, String> {
        let failure = match kind {
            "hang" => Some(Failure::Hang),
            "hang-for-good" => Some(Failure::HangForGood),
            "remove" => Some(Failure::SurpriseRemoval),
            "internal" => Some(Failure::Internal),
            "repair" => None,
            _ => return Err(format!("unknown failure \"{kind}\", want one of {KINDS}")),
        };
        let sims = self.sims.lock();
        let simulated = || sims.iter().filter_map(|s| Some((s.name.as_str(), s.handle.as_ref()?)));
        let Some((_, sim)) = simulated().find(|(name, _)| *name == device) else {
            let known: Vec<_> = simulated().map(|(name, _)| name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("no simulated device \"{device}\" (there are: {known})"));
        };
        tracing::warn!("device {device}: {kind}, as asked by hoist/sim-fail");
        match failure {
            Some(f) => sim.inject_failure(f),
            None => sim.repair(),
        }
        Ok(String::new())
    }
}
