//! Counts what a test has on the heap: what its thread allocated and did not free.
//!
//! Tokio's test runtime keeps all tasks of a test on the test's own thread, so tests that run at
//! the same time do not see each other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: CountingAllocator = CountingAllocator;

struct CountingAllocator;

/// Returns the bytes that this thread has on the heap, less what other threads freed for it.
pub(super) fn live() -> isize {
    LIVE.get()
}

fn count(bytes: usize, sign: isize) {
    let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
    // Thread-local storage is gone while a thread ends.
    let _ = LIVE.try_with(|live| live.set(live.get().wrapping_add(sign * bytes)));
}

#[expect(unsafe_code, reason = "every call goes to the system's allocator as it came")]
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, 1);
        count(layout.size(), -1);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[test]
fn allocations_are_counted_until_they_are_freed() {
    let before = live();
    let kept = vec![0_u8; 1000];
    drop(vec![0_u8; 5000]);
    assert_eq!(live() - before, 1000);
    drop(kept);
    assert_eq!(live(), before);
}
