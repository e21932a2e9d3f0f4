//! Which connections there are, and when each is used.

use provisioning::config::{HostPort, Plc};
use provisioning::plan::plan;

use super::{Link, Target};
use crate::metrics::Metrics;

/// Connections that are used at the same instant. Waking up costs more than reading, and a few
/// share it; many would be a burst for the network and the broker.
const PER_SLOT: usize = 5;

/// Every connection of a configuration: PLCs with the same address, host and port, share one.
/// `first` in `[0, 1)` is the place of the first in its period.
#[must_use]
pub fn links(plcs: Vec<Plc>, metrics: &Metrics, first: f64) -> Vec<Link> {
    let mut links: Vec<(HostPort, Vec<Target>)> = Vec::new();
    for ((config, metrics), plc) in plcs.into_iter().zip(&metrics.plcs).zip(0..) {
        let address = config.address.normalised();
        let (metrics, plan) = (metrics.clone(), plan(&config));
        let target = Target { plc, config, plan, metrics };
        match links.iter_mut().find(|(known, _)| *known == address) {
            Some((_, targets)) => targets.push(target),
            None => links.push((address, vec![target])),
        }
    }
    let phases = phases(links.len(), first);
    links.into_iter().zip(phases).map(|((_, targets), phase)| Link { targets, phase }).collect()
}

/// Spreads connections evenly over their period, a few at each instant.
fn phases(links: usize, first: f64) -> impl Iterator<Item = f64> {
    let slots = u32::try_from(links.div_ceil(PER_SLOT)).unwrap_or(u32::MAX).max(1);
    let phase = move |slot| (first + f64::from(slot) / f64::from(slots)).fract();
    (0..slots).cycle().take(links).map(phase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_over_their_period_a_few_at_each_instant() {
        for plcs in [0, 1, 5, 10, 50, 1_000] {
            let mut phases: Vec<_> = phases(plcs, 0.9).collect();
            assert_eq!(phases.len(), plcs);
            assert!(phases.iter().all(|phase| (0.0..1.0).contains(phase)));
            phases.sort_by(f64::total_cmp);
            let at_once = phases.chunk_by(|one, next| next - one < 1e-9).map(<[f64]>::len).max();
            assert!(at_once.unwrap_or_default() <= PER_SLOT);
            let instants = phases.chunk_by(|one, next| next - one < 1e-9).count();
            assert_eq!(instants, plcs.div_ceil(PER_SLOT));
        }
    }
}
