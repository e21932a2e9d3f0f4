//! A simulated bad network. Pure: the same seed and datagrams give the same result.

use std::time::{Duration, Instant};

/// Faults of a network; probabilities are in `[0, 1]`.
#[derive(Clone, Copy, Debug)]
pub struct NetworkConditions {
    /// Delay in one direction.
    pub delay: Duration,
    /// Highest random addition to the delay, which reorders datagrams.
    pub jitter: Duration,
    /// Probability of loss.
    pub loss: f64,
    /// Probability of a second copy.
    pub duplicate: f64,
    /// Probability of one flipped bit.
    pub corrupt: f64,
}

/// A good network: 20 ms and no faults.
impl Default for NetworkConditions {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
        }
    }
}

/// Applies [`NetworkConditions`] to datagrams.
#[derive(Debug)]
pub struct Impairment {
    /// Current faults; may change at any time.
    pub conditions: NetworkConditions,
    random: fastrand::Rng,
}

impl Impairment {
    /// Creates one with a seed for its random decisions.
    #[must_use]
    pub fn new(seed: u64, conditions: NetworkConditions) -> Self {
        Self { conditions, random: fastrand::Rng::with_seed(seed) }
    }

    /// Returns the copies of a datagram sent at `now`, each with its time of arrival: none when it
    /// is lost. Each of two copies may be lost or corrupted on its own.
    pub fn pass(&mut self, now: Instant, datagram: &[u8]) -> Vec<(Instant, Vec<u8>)> {
        let copies = if self.random.f64() < self.conditions.duplicate { 2 } else { 1 };
        let mut arriving = Vec::new();
        for _ in 0..copies {
            if self.random.f64() >= self.conditions.loss {
                let NetworkConditions { delay, jitter, .. } = self.conditions;
                let at = now + delay + jitter.mul_f64(self.random.f64());
                arriving.push((at, self.corrupted(datagram.to_vec())));
            }
        }
        arriving
    }

    fn corrupted(&mut self, mut datagram: Vec<u8>) -> Vec<u8> {
        if !datagram.is_empty() && self.random.f64() < self.conditions.corrupt {
            let bit = self.random.usize(..datagram.len() * 8);
            datagram[bit / 8] ^= 1 << (bit % 8);
        }
        datagram
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DATAGRAMS: usize = 10_000;
    const SECOND: Duration = Duration::from_secs(1);
    /// No faults.
    const GOOD: NetworkConditions = NetworkConditions {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: 0.0,
        duplicate: 0.0,
        corrupt: 0.0,
    };

    /// Sends numbered datagrams at one instant and returns them in the order of arrival.
    fn passed(seed: u64, conditions: NetworkConditions) -> Vec<(Duration, Vec<u8>)> {
        let (mut impairment, now) = (Impairment::new(seed, conditions), Instant::now());
        let mut arrived: Vec<_> =
            (0..DATAGRAMS).flat_map(|n| impairment.pass(now, &n.to_be_bytes())).collect();
        arrived.sort_by_key(|(at, _)| *at);
        arrived.into_iter().map(|(at, datagram)| (at - now, datagram)).collect()
    }

    fn sent() -> Vec<Vec<u8>> {
        (0..DATAGRAMS).map(|n| n.to_be_bytes().to_vec()).collect()
    }

    fn only(arrived: Vec<(Duration, Vec<u8>)>) -> Vec<Vec<u8>> {
        arrived.into_iter().map(|(_, datagram)| datagram).collect()
    }

    #[test]
    fn a_good_network_changes_nothing() {
        let arrived = passed(1, GOOD);
        assert!(arrived.iter().all(|(after, _)| after.is_zero()));
        assert_eq!(only(arrived), sent());
    }

    #[test]
    fn the_same_seed_decides_the_same() {
        let conditions = NetworkConditions {
            jitter: SECOND,
            loss: 0.5,
            duplicate: 0.5,
            corrupt: 0.5,
            delay: SECOND,
        };
        assert_eq!(passed(2, conditions), passed(2, conditions));
        assert_ne!(passed(2, conditions), passed(3, conditions));
    }

    #[test]
    fn the_configured_part_is_lost_and_the_rest_is_unchanged() {
        let sent = BTreeSet::from_iter(sent());
        let arrived = only(passed(4, NetworkConditions { loss: 0.1, ..GOOD }));
        assert!((8_800..9_200).contains(&arrived.len()), "{}", arrived.len());
        assert!(arrived.is_sorted() && arrived.iter().all(|datagram| sent.contains(datagram)));
        assert!(passed(5, NetworkConditions { loss: 1.0, ..GOOD }).is_empty());
    }

    #[test]
    fn the_configured_part_is_duplicated() {
        let arrived = only(passed(6, NetworkConditions { duplicate: 0.3, ..GOOD }));
        assert!((12_800..13_200).contains(&arrived.len()), "{}", arrived.len());
        let mut once = arrived;
        once.dedup();
        assert_eq!(once, sent());
    }

    #[test]
    fn a_corrupt_datagram_differs_in_one_bit() {
        let arrived = only(passed(7, NetworkConditions { corrupt: 0.2, ..GOOD }));
        let differing = |(a, b): (&Vec<u8>, &Vec<u8>)| -> u32 {
            a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
        };
        let bits: Vec<u32> = arrived.iter().zip(&sent()).map(differing).collect();
        assert!(bits.iter().all(|bits| *bits <= 1));
        let corrupt = bits.iter().sum::<u32>();
        assert!((1_800..2_200).contains(&corrupt), "{corrupt}");
        let spoiling = NetworkConditions { corrupt: 1.0, ..GOOD };
        assert_eq!(Impairment::new(7, spoiling).pass(Instant::now(), &[]).len(), 1);
    }

    #[test]
    fn delay_keeps_the_order_and_jitter_does_not() {
        let delayed = passed(8, NetworkConditions { delay: SECOND, ..GOOD });
        assert!(delayed.iter().all(|(after, _)| *after == SECOND));
        assert_eq!(only(delayed), sent());
        let jittered = passed(8, NetworkConditions { delay: SECOND, jitter: SECOND, ..GOOD });
        assert!(jittered.iter().all(|(after, _)| (SECOND..=2 * SECOND).contains(after)));
        let jittered = only(jittered);
        assert_ne!(jittered, sent());
        let mut sorted = jittered;
        sorted.sort();
        assert_eq!(sorted, sent());
    }
}
