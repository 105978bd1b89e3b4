//! Claims and whether they hold.

use anyhow::{Result, bail};

/// Collects the outcome of checks.
#[derive(Default)]
pub struct Checks {
    passed: usize,
    failed: Vec<String>,
}

impl Checks {
    /// Prints the claim and whether it holds; with `details` when it does not.
    pub fn check(&mut self, claim: &str, holds: bool, details: impl FnOnce() -> String) {
        if holds {
            println!("  ok    {claim}");
            self.passed += 1;
        } else {
            println!("  FAIL  {claim}\n{}", details());
            self.failed.push(claim.to_owned());
        }
    }

    /// Prints the totals.
    ///
    /// # Errors
    /// When a check failed.
    pub fn verdict(self) -> Result<()> {
        println!("\n{} checks passed, {} failed", self.passed, self.failed.len());
        if self.failed.is_empty() { Ok(()) } else { bail!("failed: {}", self.failed.join("; ")) }
    }
}
