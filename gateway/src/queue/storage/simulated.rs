//! A disk on which a crash loses, tears and reorders what is not durable, in sectors of 512 bytes.
//! It fails on request.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;

use super::{Storage, StoredFile};

const SECTOR: usize = 512;

/// A handle to a disk.
#[derive(Clone)]
pub(crate) struct SimulatedDisk(Arc<Mutex<DiskState>>);

#[derive(Debug)]
struct DiskState {
    rng: Rng,
    faults: DiskFaults,
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of the names since they were durable: a crash keeps some of the first ones.
    journal: Vec<BTreeMap<String, usize>>,
    written: u64,
    /// Open files, and the highest number of them.
    open: usize,
    max_open: usize,
}

/// Failures per thousand calls, and limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskFaults {
    pub(crate) write: u32,
    pub(crate) sync: u32,
    pub(crate) read: u32,
    /// Bytes that all files together may take.
    pub(crate) capacity: u64,
    /// The same limit for this user, which the free space does not show.
    pub(crate) quota: u64,
    /// Most files.
    pub(crate) max_files: usize,
    /// Longest file.
    pub(crate) max_file_bytes: u64,
    pub(crate) is_read_only: bool,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that are not durable.
    dirty: BTreeSet<usize>,
}

impl DiskFaults {
    pub(crate) const NONE: Self = Self {
        write: 0,
        sync: 0,
        read: 0,
        capacity: u64::MAX,
        quota: u64::MAX,
        max_files: usize::MAX,
        max_file_bytes: u64::MAX,
        is_read_only: false,
    };
}

/// The content would hide everything else.
impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulated")
    }
}

impl SimulatedDisk {
    /// Creates an empty disk without faults; `seed` decides which faults occur later.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(DiskState {
            rng: Rng::with_seed(seed),
            faults: DiskFaults::NONE,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            journal: Vec::new(),
            written: 0,
            open: 0,
            max_open: 0,
        })))
    }

    fn disk(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().unwrap()
    }

    pub(crate) fn set_faults(&self, faults: DiskFaults) {
        self.disk().faults = faults;
    }

    /// Cuts the power: each sector that is not durable is kept or lost.
    pub(crate) fn cut_power(&self) {
        let disk = &mut *self.disk();
        let journal = std::mem::take(&mut disk.journal);
        let kept = disk.rng.usize(..=journal.len());
        if let Some(names) = kept.checked_sub(1).and_then(|last| journal.into_iter().nth(last)) {
            disk.durable_names = names;
        }
        disk.names = disk.durable_names.clone();
        let used: BTreeSet<usize> = disk.names.values().copied().collect();
        for (number, file) in disk.files.iter_mut().enumerate() {
            if used.contains(&number) {
                file.crash(&mut disk.rng);
            } else {
                *file = FileState::default();
            }
        }
    }

    /// Returns a copy of the disk; no file may be open.
    pub(crate) fn fork(&self) -> Self {
        let disk = self.disk();
        let numbers: BTreeSet<usize> =
            disk.names.values().chain(disk.durable_names.values()).copied().collect();
        let file = |(number, file): (usize, &FileState)| match numbers.contains(&number) {
            true => file.clone(),
            false => FileState::default(),
        };
        Self(Arc::new(Mutex::new(DiskState {
            rng: disk.rng.clone(),
            faults: DiskFaults::NONE,
            files: disk.files.iter().enumerate().map(file).collect(),
            names: disk.names.clone(),
            durable_names: disk.durable_names.clone(),
            journal: disk.journal.clone(),
            written: 0,
            open: 0,
            max_open: 0,
        })))
    }

    /// Returns every file with its bytes.
    pub(crate) fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let disk = self.disk();
        let bytes = |number: &usize| disk.files[*number].current.clone();
        disk.names.iter().map(|(name, number)| (name.clone(), bytes(number))).collect()
    }

    /// Returns a disk with these files, all of them durable.
    pub(crate) fn with_files(contents: &BTreeMap<String, Vec<u8>>) -> Self {
        let disk = Self::new(1);
        for (name, bytes) in contents {
            let file = disk.create(name).unwrap();
            file.write_at(bytes, 0).unwrap();
            file.sync_data().unwrap();
        }
        disk.sync_dir().unwrap();
        disk
    }

    pub(crate) fn remove_all_files(&self) {
        let names = self.list().unwrap();
        names.iter().for_each(|name| self.remove(name).unwrap());
    }

    /// Returns the bytes of all files of the log, without those set aside, which no limit counts.
    pub(crate) fn used(&self) -> u64 {
        let disk = self.disk();
        let own = disk.names.iter().filter(|(name, _)| {
            !name.ends_with(".unreadable") && !name.ends_with(".unknown-version")
        });
        own.map(|(_, number)| disk.files[*number].current.len() as u64).sum()
    }

    pub(crate) fn file_count(&self) -> usize {
        self.disk().names.len()
    }

    /// Returns the highest number of open files since the last call.
    pub(crate) fn take_max_open(&self) -> usize {
        let disk = &mut *self.disk();
        std::mem::replace(&mut disk.max_open, disk.open)
    }

    fn handle(&self, disk: &mut DiskState, number: usize) -> OpenFile {
        disk.open += 1;
        disk.max_open = disk.max_open.max(disk.open);
        OpenFile { disk: self.clone(), number }
    }

    /// Returns the bytes that reached the device, in whole pages.
    pub(crate) fn written(&self) -> u64 {
        self.disk().written
    }
}

impl DiskState {
    fn fails(&mut self, per_thousand: u32) -> bool {
        per_thousand > 0 && self.rng.u32(..1000) < per_thousand
    }

    /// Fails as a changed name does on a disk with these faults.
    fn check_writable(&mut self) -> io::Result<()> {
        if self.faults.is_read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if self.fails(self.faults.write) { Err(eio()) } else { Ok(()) }
    }

    /// Returns by how many bytes a file may grow, and the error of growing it further.
    fn growth(&self, len: u64) -> (u64, io::ErrorKind) {
        let (faults, used) = (self.faults, self.used());
        let limits = [
            (faults.capacity.saturating_sub(used), io::ErrorKind::StorageFull),
            (faults.quota.saturating_sub(used), io::ErrorKind::QuotaExceeded),
            (faults.max_file_bytes.saturating_sub(len), io::ErrorKind::FileTooLarge),
        ];
        limits.into_iter().min_by_key(|(bytes, _)| *bytes).unwrap()
    }

    fn used(&self) -> u64 {
        self.names.values().map(|number| self.files[*number].current.len() as u64).sum()
    }

    fn record_names(&mut self) {
        self.journal.push(self.names.clone());
    }
}

impl FileState {
    fn crash(&mut self, rng: &mut Rng) {
        let mut after = self.durable.clone();
        if rng.bool() {
            after.resize(self.current.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(after.len()).min(self.current.len());
            if start < end && rng.bool() {
                after[start..end].copy_from_slice(&self.current[start..end]);
            }
        }
        self.current.clone_from(&after);
        self.durable = after;
    }
}

fn to_index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// An open file of a simulated disk.
#[derive(Debug)]
pub(crate) struct OpenFile {
    disk: SimulatedDisk,
    number: usize,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.disk.disk().open -= 1;
    }
}

impl Storage for SimulatedDisk {
    type File = OpenFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<OpenFile> {
        let mut disk = self.disk();
        disk.check_writable()?;
        if disk.names.len() >= disk.faults.max_files && !disk.names.contains_key(name) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let number = disk.files.len();
        disk.files.push(FileState::default());
        disk.names.insert(name.to_owned(), number);
        disk.record_names();
        Ok(self.handle(&mut disk, number))
    }

    fn open(&self, name: &str) -> io::Result<OpenFile> {
        let mut disk = self.disk();
        let per_thousand = disk.faults.read;
        if disk.fails(per_thousand) {
            return Err(eio());
        }
        let number = disk.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&mut disk, number))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.check_writable()?;
        let number = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), number);
        disk.record_names();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.faults.is_read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        disk.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        disk.record_names();
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk();
        let per_thousand = disk.faults.sync;
        if disk.fails(per_thousand) {
            return Err(eio());
        }
        disk.durable_names = disk.names.clone();
        disk.journal.clear();
        Ok(())
    }

    fn free_space(&self) -> io::Result<u64> {
        let disk = self.disk();
        Ok(disk.faults.capacity.saturating_sub(disk.used()))
    }
}

impl StoredFile for OpenFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.disk().files[self.number].current.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        let per_thousand = disk.faults.read;
        if disk.fails(per_thousand) {
            return Err(eio());
        }
        let at = to_index(at);
        let file = &disk.files[self.number];
        let bytes = file.current.get(at..at + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let disk = &mut *self.disk.disk();
        let at = to_index(at);
        let mut bytes = bytes;
        if disk.faults.is_read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let per_thousand = disk.faults.write;
        let mut result = Ok(());
        if disk.fails(per_thousand) {
            bytes = &bytes[..disk.rng.usize(..=bytes.len())];
            result = Err(eio());
        }
        let len = disk.files[self.number].current.len();
        let more = (at + bytes.len()).saturating_sub(len) as u64;
        let (free, error) = disk.growth(len as u64);
        if more > free {
            let kept = bytes.len() - to_index(more - free).min(bytes.len());
            bytes = &bytes[..kept];
            result = Err(error.into());
        }
        let file = &mut disk.files[self.number];
        let end = at + bytes.len();
        if end > file.current.len() {
            file.current.resize(end, 0);
        }
        file.current[at..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            file.dirty.extend(at / SECTOR..=(end - 1) / SECTOR);
        }
        result
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        if disk.faults.is_read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let file = &mut disk.files[self.number];
        file.current.truncate(to_index(size));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let disk = &mut *self.disk.disk();
        let per_thousand = disk.faults.sync;
        let fails = disk.fails(per_thousand);
        let file = &mut disk.files[self.number];
        file.durable.resize(file.current.len(), 0);
        let dirty = std::mem::take(&mut file.dirty);
        let pages: BTreeSet<usize> = dirty.iter().map(|sector| sector / 8).collect();
        disk.written += pages.len() as u64 * 4096;
        for sector in dirty {
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(file.current.len());
            // A sync that fails has written some, and the rest is never written.
            if start < end && (!fails || disk.rng.bool()) {
                file.durable[start..end].copy_from_slice(&file.current[start..end]);
            }
        }
        if fails { Err(eio()) } else { Ok(()) }
    }
}
