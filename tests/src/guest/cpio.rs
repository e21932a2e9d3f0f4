//! The archive that Linux unpacks as its initial root: cpio in the format `newc`
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fmt::Write as _;

const MAGIC: &str = "070701";
const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// An archive in memory. The first content of a path stays; later ones are ignored.
#[derive(Debug, Default)]
pub(super) struct CpioArchive {
    bytes: Vec<u8>,
    paths: BTreeSet<String>,
}

impl CpioArchive {
    /// Adds a file by its absolute path, after its parent directories.
    pub(super) fn add(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.strip_prefix('/').unwrap_or_else(|| panic!("{path} is not absolute"));
        for (at, _) in path.match_indices('/') {
            self.entry(&path[..at], DIRECTORY | 0o755, &[]);
        }
        self.entry(path, FILE | mode, content);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    /// One header of 13 numbers in eight hexadecimal digits, the name, the content; name and
    /// content end at a multiple of four bytes.
    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        if !self.paths.insert(path.to_owned()) {
            return;
        }
        let (inode, size, name) = (self.paths.len(), content.len(), path.len() + 1);
        let mut header = MAGIC.to_owned();
        let numbers =
            [inode, mode as usize, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0].map(|n| n as u64);
        for number in numbers {
            write!(header, "{number:08X}").expect("a String accepts text");
        }
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_lies_in_them_and_once() {
        let mut archive = CpioArchive::default();
        archive.add("/a/b/c", 0o644, b"12345");
        archive.add("/a/b/d", 0o755, b"");
        let text = String::from_utf8(archive.finish()).expect("all of it is text");
        let at = |name: &str| text.find(name).expect("it is in the archive");
        assert!(at("a\0") < at("a/b\0") && at("a/b\0") < at("a/b/c\0"));
        assert_eq!(text.matches("a/b\0").count(), 1);
        assert!(
            text.len().is_multiple_of(4) && text.contains(&format!("12345\0\0\0{MAGIC}")),
            "{text:?}"
        );
    }
}
