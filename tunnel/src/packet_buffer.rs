//! IP packets that came out of a tunnel.

/// Takes packets that come out of a tunnel, decrypted in place.
pub trait PacketSink {
    /// Gives `length` bytes to write into. Whatever was given before and not committed is gone.
    fn reserve(&mut self, length: usize) -> &mut [u8];

    /// Adds the first `length` bytes of what was given: one whole IP packet.
    fn commit(&mut self, length: usize);
}

/// Packets in one buffer, back to back. Keeps its memory when it is cleared.
#[derive(Debug, Default)]
pub struct PacketBuffer {
    bytes: Vec<u8>,
    used: usize,
    /// Start and length of each.
    packets: Vec<(usize, usize)>,
}

impl PacketBuffer {
    /// Makes an empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.packets.len()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.used = 0;
        self.packets.clear();
    }

    /// Forgets the first `count`. Cheap when these are all.
    pub fn remove_first(&mut self, count: usize) {
        if count >= self.packets.len() {
            self.clear();
        } else {
            self.packets.drain(..count);
        }
    }

    /// The packet at `index`, in the order in which they came.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let (start, length) = self.packets.get(index)?;
        self.bytes.get(*start..start + length)
    }

    /// All, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The same, to be rewritten in place.
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
