//! The crate seen from outside: real sockets on loopback, real TLS, real tonic services.
//!
//! No test sleeps or measures time: each waits for an event (a message, a dropped guard, a closed connection), for
//! [`support::soon`] at most. A test's comment names the guard in `src` without which it fails.

mod support;

mod backpressure;
mod calls;
mod cancel;
mod cut;
mod deadline;
mod drain;
mod identity;
mod limits;
mod lost;
mod reset;
