//! The memory of a PLC as its Modbus server sees it, with the ranges that clients may access.

use std::ops::RangeInclusive;

use provisioning::plc::{MemoryArea, PlcModel, Table};

/// Everything that unit id 255 serves.
#[derive(Debug)]
pub(super) struct PlcMemory {
    /// %M: holding registers.
    pub(super) words: WordMemory,
    /// %Q: coils.
    pub(super) outputs: BitMemory,
    /// %I: discrete inputs.
    pub(super) inputs: BitMemory,
}

/// Registers, stored as the PLC's little-endian processor does: register n is byte 2n (low) and
/// byte 2n + 1 (high).
#[derive(Debug)]
pub(super) struct WordMemory {
    bytes: Vec<u8>,
    readable: Vec<RangeInclusive<u16>>,
    writable: Vec<RangeInclusive<u16>>,
}

/// Single bits, eight to a byte, the lowest address in the lowest bit.
#[derive(Debug)]
pub(super) struct BitMemory {
    bytes: Vec<u8>,
    windows: &'static [MemoryArea],
}

impl PlcMemory {
    /// Creates the zeroed memory of this model.
    pub(super) fn new(model: PlcModel) -> Self {
        let windows = model.memory_areas(Table::HoldingRegister);
        let ranges = |windows: &mut dyn Iterator<Item = &MemoryArea>| {
            windows.map(|window| window.registers.clone()).collect()
        };
        let readable = ranges(&mut windows.iter());
        let writable = ranges(&mut windows.iter().filter(|window| window.writable));
        Self {
            words: WordMemory::new(readable, writable),
            outputs: BitMemory::new(model.memory_areas(Table::Coil)),
            inputs: BitMemory::new(model.memory_areas(Table::DiscreteInput)),
        }
    }
}

impl WordMemory {
    /// Creates zeroed registers up to the last readable one. A request must stay in one range.
    pub(super) fn new(
        readable: Vec<RangeInclusive<u16>>,
        writable: Vec<RangeInclusive<u16>>,
    ) -> Self {
        let registers = readable.iter().map(|range| usize::from(*range.end()) + 1).max();
        Self { bytes: vec![0; 2 * registers.unwrap_or(0)], readable, writable }
    }

    /// Returns the bytes of `count` registers; `None` if a client may not read all of them.
    pub(super) fn read(&self, first: u16, count: u16) -> Option<&[u8]> {
        any_covers(&self.readable, first, count).then_some(())?;
        self.bytes.get(bytes_of(first, count))
    }

    /// Returns the bytes of `count` registers; `None` if a client may not write all of them.
    pub(super) fn write(&mut self, first: u16, count: u16) -> Option<&mut [u8]> {
        any_covers(&self.writable, first, count).then_some(())?;
        self.bytes.get_mut(bytes_of(first, count))
    }

    /// Returns one register; `None` beyond the end.
    pub(super) fn word(&self, register: u16) -> Option<u16> {
        let bytes = self.bytes.get(2 * usize::from(register)..)?;
        bytes.first_chunk().copied().map(u16::from_le_bytes)
    }

    /// Returns `N` bytes from a register on, as the PLC's own program reads them; zeros beyond the
    /// end.
    pub(super) fn load<const N: usize>(&self, register: u16) -> [u8; N] {
        let from = self.bytes.get(2 * usize::from(register)..);
        from.and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
    }

    /// Stores bytes from a register on, as the PLC's own program does, also outside of what clients
    /// may write.
    ///
    /// Returns whether they are inside the memory; otherwise stores nothing.
    pub(super) fn store(&mut self, register: u16, bytes: &[u8]) -> bool {
        let first = 2 * usize::from(register);
        let target = self.bytes.get_mut(first..first + bytes.len());
        target.map(|target| target.copy_from_slice(bytes)).is_some()
    }

    /// Copies `count` registers, as the relocation table does in every cycle.
    pub(super) fn relocate(&mut self, from: u16, count: u16, to: u16) {
        let target = 2 * usize::from(to);
        let source = bytes_of(from, count);
        if source.end.max(target + source.len()) <= self.bytes.len() {
            self.bytes.copy_within(source, target);
        }
    }
}

impl BitMemory {
    fn new(windows: &'static [MemoryArea]) -> Self {
        let bits = windows.iter().map(|window| usize::from(*window.registers.end()) + 1).max();
        Self { bytes: vec![0; bits.unwrap_or(0).div_ceil(8)], windows }
    }

    /// Returns whether a client may read (outputs: also write) these `count` bits.
    pub(super) fn contains(&self, first: u16, count: u16) -> bool {
        self.windows.iter().any(|window| covers(&window.registers, first, count))
    }

    /// Returns one bit; `false` beyond the end.
    pub(super) fn bit(&self, address: u16) -> bool {
        let byte = self.bytes.get(usize::from(address / 8)).copied().unwrap_or_default();
        byte >> (address % 8) & 1 == 1
    }

    /// Sets one bit. Returns whether it exists.
    pub(super) fn set(&mut self, address: u16, on: bool) -> bool {
        let Some(byte) = self.bytes.get_mut(usize::from(address / 8)) else { return false };
        let mask = 1 << (address % 8);
        *byte = if on { *byte | mask } else { *byte & !mask };
        true
    }
}

fn bytes_of(first: u16, count: u16) -> std::ops::Range<usize> {
    let first = 2 * usize::from(first);
    first..first + 2 * usize::from(count)
}

fn any_covers(ranges: &[RangeInclusive<u16>], first: u16, count: u16) -> bool {
    ranges.iter().any(|range| covers(range, first, count))
}

fn covers(range: &RangeInclusive<u16>, first: u16, count: u16) -> bool {
    let last = count.checked_sub(1).and_then(|more| first.checked_add(more));
    range.contains(&first) && last.is_some_and(|last| range.contains(&last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_stays_inside_one_window_of_the_memory_map() {
        let mut words = PlcMemory::new(PlcModel::M241).words;

        assert!(words.read(59_999, 1).is_some());
        assert!(words.read(59_999, 2).is_none(), "crosses into PLC_R");
        assert!(words.read(63_999, 1).is_some());
        assert!(words.read(64_000, 1).is_none(), "reserved");
        assert!(words.read(65_535, 2).is_none(), "past the last address");
        assert!(words.write(60_012, 1).is_none(), "PLC_R is read-only");
        assert!(words.write(60_200, 1).is_none(), "the read relocation table is read-only");
        assert!(words.write(62_200, 1_800).is_some());
        assert!(words.write(62_199, 2).is_none(), "crosses into the write relocation table");
    }

    #[test]
    fn memory_is_little_endian() {
        let mut words = PlcMemory::new(PlcModel::M251).words;

        assert!(words.store(10, &123.456_f32.to_le_bytes()));

        assert_eq!(words.read(10, 2), Some(&[0x79, 0xE9, 0xF6, 0x42][..]));
        assert_eq!(words.load(10), [0x79, 0xE9, 0xF6, 0x42]);
        assert_eq!(words.word(11), Some(0x42F6));
    }

    #[test]
    fn bytes_beyond_the_memory_are_not_stored() {
        let mut words = PlcMemory::new(PlcModel::M241).words;

        assert!(!words.store(63_999, &[1, 2, 3, 4]));
        assert_eq!(words.load::<2>(63_999), [0, 0]);
        assert_eq!(words.load::<4>(65_535), [0; 4]);
    }

    #[test]
    fn bits_are_counted_from_the_lowest() {
        let mut outputs = PlcMemory::new(PlcModel::M241).outputs;

        assert!(outputs.set(8, true));
        assert!(outputs.set(9, true));
        assert!(outputs.set(9, false));

        assert_eq!((7..10).map(|bit| outputs.bit(bit)).collect::<Vec<_>>(), [false, true, false]);
    }
}
