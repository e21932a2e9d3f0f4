//! A small broker end for the demo and for hostile tests.
