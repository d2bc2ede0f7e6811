//! Closing a connection so that the peer hears of it.
//!
//! quinn holds a CONNECTION_CLOSE back like data while the congestion window is full and more data waits, and once closed
//! the window never opens: the peer of a busy connection would learn of its end by its idle timeout only. RFC 9002,
//! section 7 does not ask for that. So the congestion controller gets a switch that opens its window for good.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use h3::error::Code;
use quinn::VarInt;
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};

/// Makes an HTTP/3 error code one of QUIC.
pub(crate) fn code(code: Code) -> VarInt {
    VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX)
}

/// Closes a connection, unless it is over: quinn would forget why.
pub(crate) fn close(quic: &quinn::Connection, reason_code: Code, reason: &[u8]) {
    if quic.close_reason().is_none() {
        if let Ok(switched) = quic.congestion_state().into_any().downcast::<Switched>() {
            switched.open.store(true, Ordering::Relaxed);
        }
        quic.close(code(reason_code), reason);
    }
}

/// Makes quinn's own controllers, with the switch.
#[derive(Default)]
pub(crate) struct Factory {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Switched { controller: self.cubic.clone().build(now, current_mtu), open: Arc::default() })
    }
}

struct Switched {
    controller: Box<dyn Controller>,
    open: Arc<AtomicBool>,
}

impl Controller for Switched {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.controller.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &quinn_proto::RttEstimator) {
        self.controller.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.controller.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.controller.on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.controller.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        match self.open.load(Ordering::Relaxed) {
            // Above what quinn paces, and far from an overflow.
            true => u64::MAX / 4,
            false => self.controller.window(),
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.controller.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Switched { controller: self.controller.clone_box(), open: self.open.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.controller.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
