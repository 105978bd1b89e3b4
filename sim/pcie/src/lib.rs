//! pcie.
