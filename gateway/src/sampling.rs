//! From what a cycle read to samples worth publishing. Pure.
