use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use gateway::metrics::{Metrics, QueueMetrics};
use gateway::queue::storage::{Storage, StoredFile};
use gateway::queue::{ConfigNames, PlcNames, Queue, QueueIdentity, TopicId};
use provisioning::config::{self, LoadedConfig};

/// Entries after which it is taken for granted that the rest comes out as well.
const MOST: usize = 10_000;
/// The segment that the frames are made for.
const SEGMENT: u64 = 0;
/// The frame that says who writes, the number of the run first; it alone has a checksum without one.
const CONTEXT: u8 = 1;

/// Files of the queue as a start finds them. The first byte is 0 before the bytes of a file as they
/// are; otherwise frames follow, each a kind, two bytes of length and a payload, and get the
/// checksums without which nothing is read.
pub fn queue(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let file = if *kind == 0 { rest.to_vec() } else { framed(rest) };
    let files = Memory::default();
    files.lock().insert(format!("seg-{SEGMENT:016x}.log"), content(file));
    // What one start leaves is there for the next.
    for _ in 0..2 {
        drain(&files);
    }
}

fn drain(files: &Memory) {
    let loaded = loaded();
    let now = Instant::now();
    let identity = QueueIdentity {
        names: ConfigNames {
            topics: vec!["edge/g/event".into(), "edge/g/data/p".into()],
            plcs: vec![PlcNames { name: "p".to_owned(), tags: ["t"].into_iter().collect() }],
        },
        events: TopicId::new(0),
        epoch: "abcdef".into(),
        boot: "this".to_owned(),
    };
    let mut queue =
        Queue::open(files.clone(), &loaded.config.queue, identity, metrics(&loaded), now);
    for _ in 0..MOST {
        let Some(sent) = queue.hand_out(now, |queued| Ok(queued.id)) else { break };
        if let Ok(id) = sent {
            queue.acknowledge(id, now);
        }
    }
    while let Some(job) = queue.next_job(now) {
        queue.on_job_done(job.run(), now);
    }
}

/// The file that these frames make.
fn framed(mut bytes: &[u8]) -> Vec<u8> {
    let mut file = b"EDGEQLOG\x01\0\0\0".to_vec();
    file.extend(crc32c::crc32c(&file).to_le_bytes());
    let mut run = 0_u64;
    while let [kind, low, high, rest @ ..] = bytes {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (payload, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        bytes = rest;
        if let (CONTEXT, Some(number)) = (*kind, payload.first_chunk()) {
            run = u64::from_le_bytes(*number);
        }
        let salt = if *kind == CONTEXT { 0 } else { run };
        let mut sum = u32::from(*kind);
        for part in [SEGMENT, salt, file.len() as u64, payload.len() as u64] {
            sum = crc32c::crc32c_append(sum, &part.to_le_bytes());
        }
        sum = crc32c::crc32c_append(sum, payload);
        let length = u32::try_from(payload.len()).expect("it has two bytes of length");
        file.extend([0xE9, 0x67, *kind, 0]);
        file.extend(length.to_le_bytes());
        file.extend(sum.to_le_bytes());
        file.extend(payload);
        file.resize(file.len().next_multiple_of(4), 0);
    }
    file
}

fn loaded() -> LoadedConfig {
    let text = "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"mqtt://127.0.0.1\"]\n\
                [queue]\nmax_size = \"64KiB\"\n[[plc]]\nname = \"p\"\nmodel = \"M241\"\naddress = \"127.0.0.1\"\n[[plc.tag]]\nname = \"t\"\n\
                at = \"%MW0\"\ntype = \"INT\"\n";
    let path = std::env::temp_dir().join(format!("edge-fuzz-queue-{}.toml", std::process::id()));
    std::fs::write(&path, text).expect("the temporary directory is writable");
    let loaded = config::load(&path).expect("the configuration holds");
    std::fs::remove_file(&path).expect("the test owns it");
    loaded
}

fn metrics(loaded: &LoadedConfig) -> QueueMetrics {
    Metrics::new(&loaded.config, &loaded.hash).expect("a registry of its own").queue
}

/// A directory that is not on any disk.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Content>>>);

type Content = Arc<Mutex<Vec<u8>>>;

#[derive(Debug)]
struct MemoryFile(Content);

fn content(bytes: Vec<u8>) -> Content {
    Arc::new(Mutex::new(bytes))
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Content>> {
        self.0.lock().expect("no thread panics with the lock")
    }
}

impl MemoryFile {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("no thread panics with the lock")
    }
}

fn place(at: u64) -> io::Result<usize> {
    usize::try_from(at).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl Storage for Memory {
    type File = MemoryFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let file = content(Vec::new());
        self.lock().insert(name.to_owned(), Arc::clone(&file));
        Ok(MemoryFile(file))
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let file = self.lock().get(name).cloned();
        file.map(MemoryFile).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.lock().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.lock().insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_space(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

impl StoredFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let (bytes, at) = (self.lock(), place(at)?);
        let found = bytes.get(at..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let (mut file, at) = (self.lock(), place(at)?);
        let end = at + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file.get_mut(at..end).expect("it is as long").copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.lock().resize(place(size)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
