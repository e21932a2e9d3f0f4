//! Writes the page of tag values, piece by piece.

use std::time::{Duration, Instant};

use super::pipeline::PlcPipeline;
use super::{Pump, now};
use crate::metrics::{TagPage, TagPiece, TagPosition, TagRequest};

/// Time to write a piece. The only thread polls between two pieces.
const MAX_PIECE_TIME: Duration = Duration::from_millis(1);
/// Length at which a piece ends.
const MAX_PIECE_BYTES: usize = 32 * 1024;
/// Number of tags between two looks at the clock.
const TAGS_PER_LOOK: usize = 32;

impl Pump {
    /// Returns the page of tag values, which this pump writes from now on.
    pub(in crate::app) fn tag_page(&mut self) -> TagPage {
        let (page, requests) = TagPage::new();
        self.tag_requests = requests;
        page
    }

    /// Writes a piece of the page of tag values.
    pub(super) fn on_tag_request(&self, TagRequest { position, reply }: TagRequest) {
        // A client that has gone needs none.
        let _ = reply.send(write_piece(&self.pipelines, position, now()));
    }
}

/// Returns the piece of the page at `position`. `now` is the time by which values are stale; the
/// clock of the machine bounds how long writing may take.
pub(super) fn write_piece(
    pipelines: &[PlcPipeline],
    mut position: TagPosition,
    now: Instant,
) -> TagPiece {
    let deadline = Instant::now() + MAX_PIECE_TIME;
    // Of all classes and PLCs: many of them may have fewer tags than this.
    let mut visited = 0_usize;
    let mut text = String::with_capacity(MAX_PIECE_BYTES + MAX_PIECE_BYTES / 8);
    loop {
        if position.is_start_of_family() {
            position.family.write_head(&mut text);
        }
        let Some(pipeline) = pipelines.get(position.plc) else {
            match position.next_family() {
                Some(next) => position = next,
                None => return TagPiece { text, next: None },
            }
            continue;
        };
        let Some(latest) = pipeline.sampler.latest(position.class, position.tag, now) else {
            position = TagPosition { plc: position.plc + 1, class: 0, tag: 0, ..position };
            continue;
        };
        for latest in latest {
            if latest.tag.metric {
                position.family.write_tag(&mut text, &pipeline.name, latest);
            }
            position.tag += 1;
            visited += 1;
            let is_look = visited.is_multiple_of(TAGS_PER_LOOK);
            if text.len() >= MAX_PIECE_BYTES || is_look && Instant::now() >= deadline {
                return TagPiece { text, next: Some(position) };
            }
        }
        position = TagPosition { class: position.class + 1, tag: 0, ..position };
    }
}
