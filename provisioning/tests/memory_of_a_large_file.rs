//! What a tag costs in memory: while its file is read, and as long as the configuration is held.
//!
//! The only test of its binary, since it counts whatever the process allocates.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]
#![expect(unsafe_code, reason = "counting what is allocated takes an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use provisioning::config;

const PLCS: usize = 50;
const TAGS: usize = 500;
/// Most bytes per tag at the peak: what stays, the text (57, twice where sections follow the PLCs),
/// and the tables of one PLC.
const PEAK: usize = 580;
/// Most bytes per tag that stay.
const HELD: usize = 290;

struct Counting;

static HELD_NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// What glibc takes for an allocation: a word in front of it, sixteenths, at least two of them.
fn taken(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = HELD_NOW.fetch_add(taken(layout.size()), Relaxed) + taken(layout.size());
        MOST.fetch_max(now, Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD_NOW.fetch_sub(taken(layout.size()), Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_tag_takes_no_more_memory_than_its_bound() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("large.toml");
    fs::write(&path, file()).unwrap();
    // What is made once stays out of it: the time zone, the lines of the standard output.
    drop(config::load("tests/good/every_key.toml".as_ref()).unwrap());
    let before = HELD_NOW.load(Relaxed);
    MOST.store(before, Relaxed);

    let config = config::load(&path).unwrap().config;

    let peak = (MOST.load(Relaxed) - before) / (PLCS * TAGS);
    let held = (HELD_NOW.load(Relaxed) - before) / (PLCS * TAGS);
    println!("{peak} bytes per tag at the peak, at most {PEAK}; {held} stay, at most {HELD}");
    assert_eq!(config.plcs.iter().map(|plc| plc.tags.len()).sum::<usize>(), PLCS * TAGS);
    assert!(peak <= PEAK && held <= HELD, "{peak} and {held} bytes per tag");
}

/// The workload W3 of docs/performance.md.
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
