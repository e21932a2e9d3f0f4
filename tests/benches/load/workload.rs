//! The workloads of the published comparisons.

use std::time::Duration;

/// One workload of the comparison.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) plcs: usize,
    /// Tags of each PLC: INT, UINT, DINT and REAL in turn, without gaps from register 0.
    pub(crate) tags: usize,
    /// Zero: as fast as possible.
    pub(crate) period: Duration,
    /// Delay of each answer of a PLC.
    pub(crate) delay: Duration,
}

/// All workloads. W1 of the published comparisons is W2 with a tenth of its load.
pub(crate) const ALL: [Workload; 4] = [
    Workload { name: "W2", plcs: 10, tags: 200, period: SECOND, delay: Duration::ZERO },
    Workload { name: "W3", plcs: 50, tags: 500, period: SECOND, delay: Duration::ZERO },
    Workload { name: "W4", plcs: 1, tags: 500, period: Duration::ZERO, delay: Duration::ZERO },
    Workload { name: "W5", plcs: 10, tags: 200, period: SECOND, delay: Duration::from_millis(2) },
];

const SECOND: Duration = Duration::from_secs(1);
/// Registers of four tags: INT, UINT, DINT, REAL.
const QUAD: usize = 6;
/// Most registers in one request that end at the boundary of a quad.
const BLOCK: usize = 120;

/// One tag, for the configuration of any program.
#[derive(Clone, Debug)]
pub(crate) struct Tag {
    pub(crate) name: String,
    /// `i16`, `u16`, `i32` or `f32`; 32-bit values have the low word first.
    pub(crate) kind: &'static str,
    pub(crate) register: usize,
}

/// Registers of one request, for programs whose requests are configured.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) tags: Vec<Tag>,
}

impl Workload {
    pub(crate) fn tags(&self) -> Vec<Tag> {
        let quad = |quad: usize| {
            [(0, "i16"), (1, "u16"), (2, "i32"), (4, "f32")].map(|(offset, kind)| Tag {
                name: format!("t{quad}_{kind}"),
                kind,
                register: quad * QUAD + offset,
            })
        };
        (0..self.tags / 4).flat_map(quad).collect()
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let registers = self.tags / 4 * QUAD;
        let tags = self.tags();
        let block = |first: usize| {
            let count = BLOCK.min(registers - first);
            let inside = tags.iter().filter(|tag| (first..first + count).contains(&tag.register));
            Block { first, count, tags: inside.cloned().collect() }
        };
        (0..registers).step_by(BLOCK).map(block).collect()
    }

    /// Returns the expected values per second, unless it is as many as possible.
    pub(crate) fn expected(&self) -> Option<f64> {
        let per_cycle = (self.plcs * self.tags) as f64;
        (!self.period.is_zero()).then(|| per_cycle / self.period.as_secs_f64())
    }
}
