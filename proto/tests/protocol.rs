//! Holds docs/PROTOCOL.md to the contracts.
