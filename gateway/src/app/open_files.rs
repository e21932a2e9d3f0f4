//! The limit on open files and connections, and how the process shares it out.

use std::collections::BTreeSet;

use provisioning::config::{Metrics, Plc};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything but PLCs: broker, tunnel, queue, state files, signals and timers, and
/// the connections to one metrics listener and to the status socket.
const RESERVED: usize = 32;
/// Descriptors for each further metrics listener: its own and those of its connections.
const RESERVED_PER_LISTENER: usize = 9;

/// Raises the limit of this process as far as it may. Returns the new limit.
pub(super) fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // A service may be forbidden to change limits; then the first one stays.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    to_count(if raised { maximum } else { current })
}

/// Returns the number of connections to PLCs that may be open at once, at least one.
pub(super) fn plc_connections(limit: usize, metrics: &Metrics) -> usize {
    limit.saturating_sub(reserved(metrics)).max(1)
}

/// Returns a note if the limit that this process may have is too low for all PLCs.
pub(crate) fn note(plcs: &[Plc], metrics: &Metrics) -> Option<String> {
    note_on(to_count(getrlimit(Resource::Nofile).maximum), plcs, metrics)
}

fn note_on(limit: usize, plcs: &[Plc], metrics: &Metrics) -> Option<String> {
    let addresses: BTreeSet<_> = plcs.iter().map(|plc| plc.address.normalised()).collect();
    let needed = addresses.len() + reserved(metrics);
    (needed > limit).then(|| {
        format!(
            "{} PLC connections and {} other files and connections are more than the limit of \
             {limit} open files; set LimitNOFILE of the service (ulimit -n in a shell) to \
             {needed} or more, or some PLCs are not read",
            addresses.len(),
            reserved(metrics),
        )
    })
}

fn reserved(metrics: &Metrics) -> usize {
    RESERVED + RESERVED_PER_LISTENER * metrics.listen.len().saturating_sub(1)
}

fn to_count(limit: Option<u64>) -> usize {
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn plcs_get_what_the_reserve_leaves_and_at_least_one_connection() {
        let metrics = testing::config(3).metrics;
        assert_eq!(plc_connections(1_024, &metrics), 1_024 - RESERVED);
        assert_eq!(plc_connections(12, &metrics), 1);
        assert_eq!(plc_connections(usize::MAX, &metrics), usize::MAX - RESERVED);
    }

    #[test]
    fn a_limit_that_is_too_low_is_noted_with_what_to_set() {
        let mut config = testing::config(3);
        for (plc, host) in config.plcs.iter_mut().zip(["10.0.0.1", "10.0.0.2", "10.0.0.3"]) {
            plc.address.host = host.to_owned();
        }
        assert_eq!(note_on(RESERVED + 3, &config.plcs, &config.metrics), None);
        let note = note_on(RESERVED + 2, &config.plcs, &config.metrics).unwrap();
        assert!(note.contains("3 PLC connections") && note.contains("to 35 or more"), "{note}");
    }
}
