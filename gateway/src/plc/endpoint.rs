//! Which connections there are, and when each is used.

use provisioning::config::{HostPort, Plc};
use provisioning::plan::plan;

use super::{Endpoint, PlcSpec};
use crate::metrics::Metrics;

/// Most connections that are used at the same instant. Waking up costs more than reading, and a few
/// share it; many would be a burst for the network and the broker.
const MAX_CONNECTIONS_PER_SLOT: usize = 5;
/// Values that are read at the same instant, about: of more of them some would be old before they
/// are published, and waking up costs little then.
const TAGS_PER_SLOT: usize = 1_000;

/// Every connection of a configuration: PLCs with the same address, host and port, share one.
/// `first` in `[0, 1)` is the place of the first in its period.
#[must_use]
pub fn group_by_address(plcs: Vec<Plc>, metrics: &Metrics, first: f64) -> Vec<Endpoint> {
    let tags = plcs.iter().map(|plc| plc.tags.len()).sum();
    let mut links: Vec<(HostPort, Vec<PlcSpec>)> = Vec::new();
    for ((config, metrics), plc) in plcs.into_iter().zip(&metrics.plcs).zip(0..) {
        let address = config.address.normalised();
        let (metrics, plan) = (metrics.clone(), plan(&config));
        let target = PlcSpec { plc, config, plan, metrics };
        match links.iter_mut().find(|(known, _)| *known == address) {
            Some((_, targets)) => targets.push(target),
            None => links.push((address, vec![target])),
        }
    }
    let phases = phases(links.len(), tags, first);
    links
        .into_iter()
        .zip(phases)
        .map(|((_, targets), phase)| Endpoint { plcs: targets, phase })
        .collect()
}

/// Spreads connections evenly over their period, a few at each instant.
fn phases(links: usize, tags: usize, first: f64) -> impl Iterator<Item = f64> {
    let per_slot = (TAGS_PER_SLOT * links / tags.max(1)).clamp(1, MAX_CONNECTIONS_PER_SLOT);
    let slots = u32::try_from(links.div_ceil(per_slot)).unwrap_or(u32::MAX).max(1);
    let phase = move |slot| (first + f64::from(slot) / f64::from(slots)).fract();
    (0..slots).cycle().take(links).map(phase)
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
