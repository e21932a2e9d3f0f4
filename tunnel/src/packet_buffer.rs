//! Decrypted IP packets.

/// Receives the packets of a tunnel, which are decrypted in place.
pub trait PacketSink {
    /// Returns `length` bytes to write to. An earlier reservation that was not committed is void.
    fn reserve(&mut self, length: usize) -> &mut [u8];

    /// Adds the first `length` bytes of the reservation: one complete IP packet.
    fn commit(&mut self, length: usize);
}

/// Packets in one buffer, back to back. Clearing it keeps the memory.
#[derive(Debug, Default)]
pub struct PacketBuffer {
    bytes: Vec<u8>,
    used: usize,
    /// Start and length of each packet.
    packets: Vec<(usize, usize)>,
}

impl PacketBuffer {
    /// Creates an empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether it holds no packet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Returns the number of packets.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.packets.len()
    }

    /// Removes all packets.
    pub fn clear(&mut self) {
        self.used = 0;
        self.packets.clear();
    }

    /// Removes the first `count` packets. Cheap if these are all.
    pub fn remove_first(&mut self, count: usize) {
        if count >= self.packets.len() {
            self.clear();
        } else {
            self.packets.drain(..count);
        }
    }

    /// Returns the packet at `index`, in order of arrival.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let (start, length) = self.packets.get(index)?;
        self.bytes.get(*start..start + length)
    }

    /// Returns all packets, in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Returns the packet at `index` for changes in place.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        let (start, length) = self.packets.get(index)?;
        self.bytes.get_mut(*start..start + length)
    }
}

impl PacketSink for PacketBuffer {
    fn reserve(&mut self, length: usize) -> &mut [u8] {
        let end = self.used + length;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.used..end).unwrap_or_default()
    }

    fn commit(&mut self, length: usize) {
        self.packets.push((self.used, length));
        self.used += length;
    }
}
