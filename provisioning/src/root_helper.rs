//! What needs root on a box: sticks, the network, the keys of the box and the secrets of a bundle.
//! The program `edge-gateway-box` does it for the gateway, which runs without rights.
//!
//! The gateway talks to the network, so its user may be hostile. What that user owns is therefore
//! read like a letter from a stranger: each file is opened once, without following a link, up to a
//! size, and everything in it is verified here again. The user can choose only between the last
//! confirmed bundle of this box and a newer one that the office signed for this box.

mod apply;
mod box_contents;
mod box_dir;
mod box_record;
mod choice;
mod cli;
mod dpkg;
mod gateway_state;
mod headline;
mod led;
mod load;
mod mount;
mod network;
mod open_dir;
mod run_dir;
mod sentence;
mod stick;
#[cfg(test)]
#[cfg(feature = "office")]
mod tests;
mod update;
mod updater;
mod wipe;

pub use cli::main;
