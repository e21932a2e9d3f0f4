//! Memory per tag: at the peak while a file is read, and held by the configuration.
//!
//! The only test of its binary, because it counts all allocations of the process.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]
#![expect(unsafe_code, reason = "counting allocations needs an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use provisioning::config;

const PLCS: usize = 50;
const TAGS: usize = 500;
/// Maximum number of bytes per tag at the peak: the configuration, the text (57, twice if sections
/// follow the PLCs), and the tables of one PLC.
const MAX_PEAK: usize = 580;
/// Maximum number of bytes per tag in the configuration.
const MAX_HELD: usize = 290;

struct Counting;

static HELD_NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Returns the bytes that glibc uses for an allocation: 8 more, rounded up to 16, at least 32.
fn allocated(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: all calls are passed unchanged to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = HELD_NOW.fetch_add(allocated(layout.size()), Relaxed) + allocated(layout.size());
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller guarantees the same conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD_NOW.fetch_sub(allocated(layout.size()), Relaxed);
        // SAFETY: the caller guarantees the same conditions.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_tag_uses_no_more_memory_than_allowed() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("large.toml");
    fs::write(&path, file()).unwrap();
    // Loads a file first, so that one-time allocations (time zone, standard output) do not count.
    drop(config::load("tests/good/every_key.toml".as_ref()).unwrap());
    let before = HELD_NOW.load(Relaxed);
    PEAK.store(before, Relaxed);

    let config = config::load(&path).unwrap().config;

    let peak = (PEAK.load(Relaxed) - before) / (PLCS * TAGS);
    let held = (HELD_NOW.load(Relaxed) - before) / (PLCS * TAGS);
    println!(
        "{peak} bytes per tag at the peak, at most {MAX_PEAK}; {held} held, at most {MAX_HELD}"
    );
    assert_eq!(config.plcs.iter().map(|plc| plc.tags.len()).sum::<usize>(), PLCS * TAGS);
    assert!(peak <= MAX_PEAK && held <= MAX_HELD, "{peak} and {held} bytes per tag");
}

/// Returns the workload W3 of docs/performance.md.
fn file() -> String {
    let mut toml = "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"mqtt://127.0.0.1\"]\n".to_owned();
    for plc in 0..PLCS {
        let address = 20_000 + plc;
        writeln!(toml, "[[plc]]\nname = \"plc{plc}\"\nmodel = \"M241\"").unwrap();
        writeln!(toml, "address = \"127.0.0.1:{address}\"").unwrap();
        for quad in 0..TAGS / 4 {
            for (offset, kind, iec) in
                [(0, "i16", "INT"), (1, "u16", "UINT"), (2, "i32", "DINT"), (4, "f32", "REAL")]
            {
                let word = quad * 6 + offset;
                writeln!(toml, "[[plc.tag]]\nname = \"t{quad}_{kind}\"").unwrap();
                writeln!(toml, "at = \"%MW{word}\"\ntype = \"{iec}\"").unwrap();
            }
        }
    }
    // Sections may follow the PLCs.
    toml + "[queue]\nmax_size = \"64MiB\"\n"
}
