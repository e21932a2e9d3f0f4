//! Store-and-forward of records.
