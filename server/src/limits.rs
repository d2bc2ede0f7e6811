//! To come.

/// How long a drain may take to tell peers goodbye.
pub const DRAIN_MS_MAX: u64 = 1_500;
