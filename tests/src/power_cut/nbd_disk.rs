//! A disk with a volatile write cache: sectors of 512 bytes that were written but not flushed can
//! be lost at a power cut, each on its own.
//!
//! A virtual machine uses it as a network block device (the NBD protocol, fixed newstyle, simple
//! replies) over a Unix socket.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

const SECTOR_BYTES: u64 = 512;
/// Longest request that QEMU sends.
const MAX_REQUEST_BYTES: u32 = 32 << 20;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISCONNECT: u16 = 2;
const CMD_FLUSH: u16 = 3;

const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY_MAGIC: u64 = 0x3_E889_0455_65A9;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 1 << 31 | 1;
/// `NBD_FLAG_HAS_FLAGS` and `NBD_FLAG_SEND_FLUSH`.
const TRANSMISSION_FLAGS: u16 = 1 | 1 << 2;

/// A running disk for one machine.
#[derive(Debug)]
pub(super) struct NbdDisk {
    thread: JoinHandle<WriteCache>,
    /// Requests wait while this is locked.
    gate: Arc<Mutex<()>>,
}

/// The medium, and the sectors that are not on it yet.
#[derive(Debug)]
pub(super) struct WriteCache {
    medium: File,
    size: u64,
    /// Sectors that were written but not flushed, by number.
    volatile: BTreeMap<u64, [u8; 512]>,
    /// Number of flush requests.
    flushes: u64,
}

impl NbdDisk {
    /// Starts the disk, which waits for its machine at this socket.
    pub(super) fn serve(medium: File, socket: &Path) -> Self {
        let size = medium.metadata().expect("an open file has a length").len();
        let listener = UnixListener::bind(socket).expect("its own directory is writable");
        let mut cache = WriteCache { medium, size, volatile: BTreeMap::new(), flushes: 0 };
        let gate = Arc::new(Mutex::new(()));
        let passed = Arc::clone(&gate);
        let thread = thread::spawn(move || {
            let (mut machine, _) = listener.accept().expect("the machine comes");
            match negotiate(&mut machine, size).and_then(|()| cache.serve(&mut machine, &passed)) {
                // The machine was killed; its last request may be incomplete.
                Err(error) if is_end(&error) => cache,
                Err(error) => panic!("the disk's protocol: {error}"),
                Ok(()) => cache,
            }
        });
        Self { thread, gate }
    }

    /// Blocks requests until the returned guard is dropped.
    pub(super) fn block(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().expect("no thread panics with the lock")
    }

    /// Returns the cache after the machine was killed.
    ///
    /// # Panics
    /// When the disk failed before, which the machine saw as errors of its device.
    pub(super) fn switch_off(self) -> WriteCache {
        self.thread.join().expect("the disk served until the end")
    }
}

impl WriteCache {
    /// Writes each unflushed sector for which `survives` returns true and discards the others.
    /// Returns the number of flushes and of lost sectors.
    pub(super) fn discard_unflushed(self, mut survives: impl FnMut() -> bool) -> (u64, usize) {
        let mut lost = 0;
        for (number, sector) in &self.volatile {
            if survives() {
                let written = self.medium.write_all_at(sector, number * SECTOR_BYTES);
                written.expect("its own directory is writable");
            } else {
                lost += 1;
            }
        }
        (self.flushes, lost)
    }

    fn serve(&mut self, machine: &mut UnixStream, gate: &Mutex<()>) -> io::Result<()> {
        loop {
            if u32::from_be_bytes(read_array(machine)?) != REQUEST_MAGIC {
                return Err(ErrorKind::InvalidData.into());
            }
            let _flags: [u8; 2] = read_array(machine)?;
            let verb = u16::from_be_bytes(read_array(machine)?);
            let cookie: [u8; 8] = read_array(machine)?;
            let at = u64::from_be_bytes(read_array(machine)?);
            let length = u32::from_be_bytes(read_array(machine)?);
            let is_whole = at % SECTOR_BYTES == 0 && u64::from(length) % SECTOR_BYTES == 0;
            if length > MAX_REQUEST_BYTES || !is_whole || at + u64::from(length) > self.size {
                return Err(ErrorKind::InvalidInput.into());
            }
            drop(gate.lock());
            let mut bytes = Vec::new();
            match verb {
                CMD_READ => bytes = self.read(at, length)?,
                CMD_WRITE => self.write(at, length, machine)?,
                CMD_FLUSH => self.flush()?,
                CMD_DISCONNECT => return Ok(()),
                _ => return Err(ErrorKind::Unsupported.into()),
            }
            let reply = [&REPLY_MAGIC.to_be_bytes()[..], &[0; 4], &cookie, &bytes].concat();
            machine.write_all(&reply)?;
        }
    }

    fn read(&self, at: u64, length: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; index(length.into())];
        self.medium.read_exact_at(&mut bytes, at)?;
        for (number, sector) in
            self.volatile.range(at / SECTOR_BYTES..(at + u64::from(length)) / SECTOR_BYTES)
        {
            let start = index(number * SECTOR_BYTES - at);
            bytes[start..start + sector.len()].copy_from_slice(sector);
        }
        Ok(bytes)
    }

    fn write(&mut self, at: u64, length: u32, machine: &mut UnixStream) -> io::Result<()> {
        // Sector by sector: those that have arrived count even if the machine dies in the middle.
        for number in at / SECTOR_BYTES..(at + u64::from(length)) / SECTOR_BYTES {
            let sector = read_array(machine)?;
            self.volatile.insert(number, sector);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushes += 1;
        for (number, sector) in std::mem::take(&mut self.volatile) {
            self.medium.write_all_at(&sector, number * SECTOR_BYTES)?;
        }
        Ok(())
    }
}

/// Negotiates the only export with the machine.
fn negotiate(machine: &mut UnixStream, size: u64) -> io::Result<()> {
    // Fixed newstyle, without the padding of the older handshake.
    machine.write_all(&[&b"NBDMAGIC"[..], OPTION_MAGIC, &[0, 3]].concat())?;
    let _flags: [u8; 4] = read_array(machine)?;
    loop {
        if read_array::<8>(machine)? != *OPTION_MAGIC {
            return Err(ErrorKind::InvalidData.into());
        }
        let option = u32::from_be_bytes(read_array(machine)?);
        let length = u32::from_be_bytes(read_array(machine)?);
        io::copy(&mut machine.take(length.into()), &mut io::sink())?;
        let mut reply = |kind: u32, data: &[u8]| {
            let length = u32::try_from(data.len()).expect("it is short").to_be_bytes();
            let head =
                [&OPTION_REPLY_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes()];
            machine.write_all(&[&head.concat(), &length[..], data].concat())
        };
        if option != OPT_GO {
            reply(REP_ERR_UNSUP, &[])?;
            continue;
        }
        reply(
            REP_INFO,
            &[&[0; 2][..], &size.to_be_bytes(), &TRANSMISSION_FLAGS.to_be_bytes()].concat(),
        )?;
        return reply(REP_ACK, &[]);
    }
}

fn read_array<const N: usize>(machine: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    machine.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a disk of a test fits into memory")
}
