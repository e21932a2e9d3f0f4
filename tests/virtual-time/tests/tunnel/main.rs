//! The promise that a tunnel comes back by itself after anything, in time that only tests move.

mod clocks;
mod forger;
mod hostile;
mod life;
mod sessions;
mod ways;
