//! The receiver's side of `seq`: gaps, duplicates, announced drops.
