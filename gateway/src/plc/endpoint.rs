//! Groups the PLCs of a configuration by connection, and spreads the connections over time.

use std::collections::BTreeMap;

use provisioning::config::{HostPort, Plc};
use provisioning::plan::plan;

use super::{Endpoint, PlcSpec};
use crate::metrics::Metrics;

/// Most connections that are read at the same instant. Waking up costs more than reading, so a few
/// share it; more would be a burst for the network and the broker.
const MAX_CONNECTIONS_PER_SLOT: usize = 5;
/// Values that are read at about the same instant. With more, some would be old before they are
/// published.
const TAGS_PER_SLOT: usize = 1_000;

/// Returns the connections of a configuration: PLCs with the same host and port share one. `first`,
/// in `[0, 1)`, is the phase of the first.
#[must_use]
pub fn group_by_address(plcs: Vec<Plc>, metrics: &Metrics, first: f64) -> Vec<Endpoint> {
    let tags = plcs.iter().map(|plc| plc.tags.len()).sum();
    let mut groups: Vec<Vec<PlcSpec>> = Vec::new();
    let mut group_of: BTreeMap<HostPort, usize> = BTreeMap::new();
    for ((config, metrics), plc) in plcs.into_iter().zip(&metrics.plcs).zip(0..) {
        let address = config.address.normalised();
        let (metrics, plan) = (metrics.clone(), plan(&config));
        let spec = PlcSpec { plc, config, plan, metrics };
        let group = *group_of.entry(address).or_insert(groups.len());
        match groups.get_mut(group) {
            Some(specs) => specs.push(spec),
            None => groups.push(vec![spec]),
        }
    }
    let phases = phases(groups.len(), tags, first);
    groups.into_iter().zip(phases).map(|(plcs, phase)| Endpoint { plcs, phase }).collect()
}

/// Returns phases that spread this many connections evenly, a few at each instant.
fn phases(connections: usize, tags: usize, first: f64) -> impl Iterator<Item = f64> {
    let per_slot = (TAGS_PER_SLOT * connections / tags.max(1)).clamp(1, MAX_CONNECTIONS_PER_SLOT);
    let slots = u32::try_from(connections.div_ceil(per_slot)).unwrap_or(u32::MAX).max(1);
    let phase = move |slot| (first + f64::from(slot) / f64::from(slots)).fract();
    (0..slots).cycle().take(connections).map(phase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_over_their_period_a_few_at_each_instant() {
        for (links, tags, at_each) in
            [(0, 0, 5), (1, 2_000, 1), (5, 10, 5), (10, 2_000, 5), (50, 25_000, 2), (9, 9_000, 1)]
        {
            let mut phases: Vec<_> = phases(links, tags, 0.9).collect();
            assert!(phases.iter().all(|phase| (0.0..1.0).contains(phase)));
            phases.sort_by(f64::total_cmp);
            let instants: Vec<_> = phases.chunk_by(|one, next| next - one < 1e-9).collect();
            assert_eq!(instants.len(), links.div_ceil(at_each));
            assert!(instants.iter().all(|together| together.len() <= at_each));
            assert_eq!(phases.len(), links);
        }
    }
}
