//! Archives in the ustar format of POSIX (pax, "ustar Interchange Format"), in one form only: what
//! [`render`] writes. So a reader need not judge owners, modes, links or extensions: a header that
//! differs in one byte from the one that belongs to its name and size is refused.

use thiserror::Error;

const BLOCK: usize = 512;
/// Maximum length of a name: the first field of the header. The second one, a prefix, is not used.
const MAX_NAME: usize = 100;
const NAME_FIELD: std::ops::Range<usize> = 0..MAX_NAME;
const SIZE_FIELD: std::ops::Range<usize> = 124..136;
const TYPE_FIELD: usize = 156;
/// Type of a regular file.
const REGULAR: u8 = b'0';

/// Maximum number of files in an archive.
pub(crate) const MAX_MEMBERS: usize = 64;

/// Why bytes are not an archive.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ArchiveError {
    /// The bytes end before the archive does.
    #[error("it ends too early, after {bytes} bytes")]
    Truncated {
        /// Number of bytes that are there.
        bytes: usize,
    },
    /// Something follows the end of the archive.
    #[error("{bytes} bytes follow its end")]
    TrailingBytes {
        /// Number of bytes after the end.
        bytes: usize,
    },
    /// A header that is none, or not in the one form that is read.
    #[error("the header at byte {offset} is not one that `edge-provision` writes")]
    ForeignHeader {
        /// Position of the header.
        offset: usize,
    },
    /// A link, a directory, a device, or an extension of the format.
    #[error("`{name}` is not a regular file")]
    NotRegular {
        /// Name of the member.
        name: String,
    },
    /// Two files with one name.
    #[error("it contains `{name}` twice")]
    Duplicate {
        /// Name of the member.
        name: String,
    },
    /// More than 64 files.
    #[error("it contains more than {MAX_MEMBERS} files")]
    TooMany,
    /// A file whose name cannot be written.
    #[error("`{name}` is not a name of 1 to 100 letters, digits, `.`, `-`, `_` and `/`")]
    BadName {
        /// Name of the member.
        name: String,
    },
}

/// A file in an archive: its name and its content.
pub(crate) type ArchiveMember<'a> = (&'a str, &'a [u8]);

/// Returns an archive of the files, in their order. Equal files give equal bytes: owner, group and
/// time are 0, and only the owner may read what is extracted.
///
/// # Errors
/// When a name cannot be written, there are too many files or two with one name.
pub(crate) fn render(members: &[ArchiveMember<'_>]) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = Vec::new();
    for (at, (name, content)) in members.iter().enumerate() {
        let bad_name = || ArchiveError::BadName { name: (*name).to_owned() };
        ensure_new(name, members.get(..at).unwrap_or_default())?;
        archive.extend_from_slice(&header(name, content.len()).ok_or_else(bad_name)?);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok(archive)
}

/// Returns the files of an archive, which must be exactly as [`render`] would write them.
///
/// # Errors
/// When a byte differs from that, with the first difference.
pub(crate) fn read(archive: &[u8]) -> Result<Vec<ArchiveMember<'_>>, ArchiveError> {
    let mut reader = ArchiveReader { archive, offset: 0 };
    let mut members = Vec::new();
    while let Some(member) = reader.member()? {
        ensure_new(member.0, &members)?;
        members.push(member);
    }
    match archive.len() - reader.offset {
        0 => Ok(members),
        bytes => Err(ArchiveError::TrailingBytes { bytes }),
    }
}

fn ensure_new(name: &str, members: &[ArchiveMember<'_>]) -> Result<(), ArchiveError> {
    if members.len() == MAX_MEMBERS {
        return Err(ArchiveError::TooMany);
    }
    let is_there = members.iter().any(|(other, _)| *other == name);
    if is_there { Err(ArchiveError::Duplicate { name: name.to_owned() }) } else { Ok(()) }
}

struct ArchiveReader<'a> {
    archive: &'a [u8],
    offset: usize,
}

impl<'a> ArchiveReader<'a> {
    /// Returns the next file; at the end of the archive, none.
    fn member(&mut self) -> Result<Option<ArchiveMember<'a>>, ArchiveError> {
        let offset = self.offset;
        let block = self.take(BLOCK)?;
        if is_zero(block) {
            let second = self.take(BLOCK)?;
            return if is_zero(second) { Ok(None) } else { Err(foreign(offset + BLOCK)) };
        }
        let (name, size) = name_and_size(block).ok_or_else(|| foreign(offset))?;
        if block.get(TYPE_FIELD) != Some(&REGULAR) {
            return Err(ArchiveError::NotRegular { name: name.to_owned() });
        }
        if header(name, size).is_none_or(|expected| expected != block) {
            return Err(foreign(offset));
        }
        let content = self.take(size)?;
        let padding = self.take(size.next_multiple_of(BLOCK) - size)?;
        if is_zero(padding) { Ok(Some((name, content))) } else { Err(foreign(self.offset)) }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ArchiveError> {
        let rest = self.archive.get(self.offset..).unwrap_or_default();
        let taken = rest.get(..len);
        let truncated = ArchiveError::Truncated { bytes: self.archive.len() };
        self.offset += len.min(rest.len());
        taken.ok_or(truncated)
    }
}

fn foreign(offset: usize) -> ArchiveError {
    ArchiveError::ForeignHeader { offset }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Returns the name, if it is one that can be shown, and the size of a header.
fn name_and_size(block: &[u8]) -> Option<(&str, usize)> {
    let name = block.get(NAME_FIELD)?.split(|byte| *byte == 0).next()?;
    let name = str::from_utf8(name).ok().filter(|name| is_name(name))?;
    let digits = block.get(SIZE_FIELD)?.strip_suffix(b"\0")?;
    let size = usize::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()?;
    Some((name, size))
}

/// Returns whether a name is printable in any terminal and has no part that leaves a directory.
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part.trim_matches('.').len() == part.len();
    name.len() <= MAX_NAME
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_/".contains(&c))
        && name.split('/').all(is_part)
}

/// Returns the header of a regular file of mode 0600, owner and group 0, time 0; none if the name
/// or the size has no place in it.
fn header(name: &str, size: usize) -> Option<[u8; BLOCK]> {
    let size = format!("{size:011o}\0");
    if !is_name(name) || size.len() != SIZE_FIELD.len() {
        return None;
    }
    let mut block = [0; BLOCK];
    for (start, field) in [
        (0, name),
        (100, "0000600\0"),
        (108, "0000000\0"),
        (116, "0000000\0"),
        (124, &size),
        (136, "00000000000\0"),
        // The checksum is computed over spaces.
        (148, "        "),
        (TYPE_FIELD, "0"),
        (257, "ustar\x0000"),
    ] {
        block.get_mut(start..start + field.len())?.copy_from_slice(field.as_bytes());
    }
    let sum: u32 = block.iter().copied().map(u32::from).sum();
    block.get_mut(148..156)?.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(block)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO: [ArchiveMember<'_>; 2] =
        [("manifest.toml", b"format = 1\n"), ("network/a.network", b"")];

    #[test]
    fn what_is_not_as_written_is_refused() {
        let archive = render(&TWO).unwrap();
        assert_eq!(read(&archive).unwrap(), TWO);
        for len in 0..archive.len() {
            let error = read(&archive[..len]).unwrap_err();
            assert_eq!(error, ArchiveError::Truncated { bytes: len }, "{len}");
        }
        let longer = [archive.as_slice(), &[0]].concat();
        assert_eq!(read(&longer).unwrap_err(), ArchiveError::TrailingBytes { bytes: 1 });
        // The end is two blocks of zeros, so a bit there makes a header that is none.
        for bit in 0..archive.len() * 8 {
            let mut altered = archive.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let read = read(&altered);
            let is_content = read.as_ref().is_ok_and(|members| {
                members[0].1.len() == TWO[0].1.len() && members[0].1 != TWO[0].1
            });
            assert!(is_content || read.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn links_and_names_that_leave_the_directory_are_refused() {
        let with_type = |kind: u8| {
            let mut archive = render(&TWO).unwrap();
            archive[TYPE_FIELD] = kind;
            read(&archive).map(|_| ()).unwrap_err()
        };
        for kind in *b"12345679LKxgV\0" {
            let name = "manifest.toml".to_owned();
            assert_eq!(with_type(kind), ArchiveError::NotRegular { name }, "{}", kind as char);
        }
        let long = "a".repeat(MAX_NAME + 1);
        for name in [
            "",
            "/etc/passwd",
            "../a",
            "a/../b",
            "a//b",
            "a/",
            ".",
            "a/.",
            "a b",
            "ä",
            "a\n",
            &long,
        ] {
            let error = render(&[(name, b"")]).unwrap_err();
            assert_eq!(error, ArchiveError::BadName { name: name.to_owned() });
        }
        let twice = [TWO[0], TWO[0]];
        assert!(matches!(render(&twice), Err(ArchiveError::Duplicate { .. })));
        let names: Vec<_> = (0..=MAX_MEMBERS).map(|n| n.to_string()).collect();
        let many: Vec<ArchiveMember<'_>> =
            names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert_eq!(render(&many), Err(ArchiveError::TooMany));
    }

    #[test]
    fn a_size_beyond_the_archive_costs_no_memory() {
        let mut archive = render(&TWO).unwrap();
        archive[..BLOCK].copy_from_slice(&header("manifest.toml", 0o77_777_777_777).unwrap());
        assert!(matches!(read(&archive), Err(ArchiveError::Truncated { .. })));
    }

    proptest! {
        #[test]
        fn every_file_comes_back(contents in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..1500), 0..6,
        )) {
            let names: Vec<_> = (0..contents.len()).map(|n| format!("d/{n}.x")).collect();
            let members: Vec<ArchiveMember<'_>> =
                names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
            let archive = render(&members).unwrap();
            prop_assert_eq!(read(&archive).unwrap(), members);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            if let Ok(members) = read(&bytes) {
                prop_assert_eq!(render(&members).unwrap(), bytes);
            }
        }
    }
}
