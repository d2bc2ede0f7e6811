//! Programs of strangers take part.
