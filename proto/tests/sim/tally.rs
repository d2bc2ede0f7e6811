//! What happened in a run or in many, so that a run in which nothing happened is not taken for proof.

use std::{collections::BTreeMap, fmt};

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    LinkBroken,
    OneWayLoss,
    TwoWayLoss,
    Partition,
    Crash,
    Restart,
    Pause,
    OldDisk,
    EmptyDisk,
    ClockJump,
    FrameLost,
    FrameRepeated,
    FrameForged,
    FrameReplayed,
    RolledBackDisk,
    SlowPeer,
    StreamOvertaken,
    GoodbyeReplayed,
    BatchAltered,
    OriginForged,
    OriginInvented,
    BatchHidden,
    DeadListed,
    OldSnapshot,
    Flood,
    FloodOfBatches,
    FloodOfAdmissions,
    FloodOfStatements,
    FloodBeforeHello,
    FloodOfStrangers,
    FloodOfNonces,
    FloodOfLogins,
    OriginLied,
    ServerMadeUp,
    AdmissionTakenBack,
    MadeUpSpoke,
    FrameRefused,
    Added,
    Removed,
    ReAdded,
    Updated,
    UserMoved,
    MoveShown,
    MessageHandedOver,
    MessageRejected,
    MessageTimedOut,
    PostHandedOver,
    SnapshotSent,
    WatchResumed,
    WatchStartedOver,
    MessageStored,
    MessageQueued,
    MessageSettled,
    WriteLost,
    CursorUnknown,
}

const KINDS: [Kind; 55] = [
    Kind::LinkBroken,
    Kind::OneWayLoss,
    Kind::TwoWayLoss,
    Kind::Partition,
    Kind::Crash,
    Kind::Restart,
    Kind::Pause,
    Kind::OldDisk,
    Kind::EmptyDisk,
    Kind::ClockJump,
    Kind::FrameLost,
    Kind::FrameRepeated,
    Kind::FrameForged,
    Kind::FrameReplayed,
    Kind::RolledBackDisk,
    Kind::SlowPeer,
    Kind::StreamOvertaken,
    Kind::GoodbyeReplayed,
    Kind::BatchAltered,
    Kind::OriginForged,
    Kind::OriginInvented,
    Kind::BatchHidden,
    Kind::DeadListed,
    Kind::OldSnapshot,
    Kind::Flood,
    Kind::FloodOfBatches,
    Kind::FloodOfAdmissions,
    Kind::FloodOfStatements,
    Kind::FloodBeforeHello,
    Kind::FloodOfStrangers,
    Kind::FloodOfNonces,
    Kind::FloodOfLogins,
    Kind::OriginLied,
    Kind::ServerMadeUp,
    Kind::AdmissionTakenBack,
    Kind::MadeUpSpoke,
    Kind::FrameRefused,
    Kind::Added,
    Kind::Removed,
    Kind::ReAdded,
    Kind::Updated,
    Kind::UserMoved,
    Kind::MoveShown,
    Kind::MessageHandedOver,
    Kind::MessageRejected,
    Kind::MessageTimedOut,
    Kind::PostHandedOver,
    Kind::SnapshotSent,
    Kind::WatchResumed,
    Kind::WatchStartedOver,
    Kind::MessageStored,
    Kind::MessageQueued,
    Kind::MessageSettled,
    Kind::WriteLost,
    Kind::CursorUnknown,
];

/// How often each kind of thing happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: BTreeMap<Kind, u64>,
    pub runs: u64,
    /// Inputs that nodes handled.
    pub inputs: u64,
    pub simulated_ms: u64,
}

impl Tally {
    pub fn of_one_run() -> Self {
        Self { runs: 1, ..Self::default() }
    }

    pub fn count(&mut self, kind: Kind) {
        *self.counts.entry(kind).or_default() += 1;
    }

    pub fn of(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    pub fn add(&mut self, run: &Self) {
        for (kind, count) in &run.counts {
            *self.counts.entry(*kind).or_default() += count;
        }
        self.runs += run.runs;
        self.inputs += run.inputs;
        self.simulated_ms += run.simulated_ms;
    }

    pub fn kinds_that_never_happened(&self) -> Vec<Kind> {
        KINDS.into_iter().filter(|kind| self.of(*kind) == 0).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_ms as f64 / 3_600_000.0;
        writeln!(f, "{} runs, {hours:.1} simulated hours, {} events", self.runs, self.inputs)?;
        for kind in KINDS {
            writeln!(f, "{:>10} {kind:?}", self.of(kind))?;
        }
        Ok(())
    }
}
