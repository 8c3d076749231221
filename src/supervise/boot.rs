//! The boot record on its way: what this run leaves for the next one.

use crate::core::recovery::{
    BOOT_SCHEMA, BootRecord, ExitFact, GoingDown, Phase, ProcessRef, StopRequest,
};
use crate::core::stamp::Stamp;

use super::process;

/// The record of a run that begins now.
pub(super) fn begin(run: &str, boot_id: &str, now: Stamp) -> BootRecord {
    let pid = std::process::id();
    BootRecord {
        schema: BOOT_SCHEMA.to_owned(),
        run: run.to_owned(),
        boot_id: boot_id.to_owned(),
        supervisor: process::process_ref(pid).unwrap_or(ProcessRef { pid, start_ticks: 0 }),
        gateway: None,
        started_at: now,
        phase: Phase::Running,
        stop: None,
        frozen_at: None,
        exit: None,
    }
}

/// Notes who asked for the stop; the first one counts.
pub(super) fn stopping(record: &mut BootRecord, who: StopRequest) {
    record.phase = Phase::Stopping;
    record.stop.get_or_insert(who);
}

/// Notes what goes down around the stop.
pub(super) fn going_down(record: &mut BootRecord, what: GoingDown) {
    if let Some(stop) = &mut record.stop {
        stop.going_down = Some(what);
    }
}

/// Notes how the gateway ended.
pub(super) fn exited(record: &mut BootRecord, exit: &ExitFact) {
    record.phase = Phase::Exited;
    record.exit = Some(exit.clone());
}
