//! The simulated world around a gateway: foreign peers as child processes, and the gateway itself
//! as the program that a customer runs.
//!
//! Everything here blocks, so a test reads from top to bottom. Every child dies with its owner,
//! every peer listens on a port of 127.0.0.1 that nobody else can get meanwhile, and a helper that
//! cannot do its work panics with the reason and the peer's own log.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code may stop on the spot"
)]

mod authority;
mod capture;
mod foreign;
mod gateway;
mod guest;
mod http;
mod hub;
mod impairment;
mod local_hub;
mod loop_disk;
mod mosquitto;
mod nats;
mod netns;
mod node_red;
mod place;
mod power;
mod process;
mod pymodbus;
mod rabbitmq;
mod router;
mod sandbox;
mod secret;
mod simulator;
mod subscriber;
mod tunnelled;
mod wireguard_go;

pub use authority::Authority;
pub use capture::{Capture, Figures};
pub use foreign::{ForeignPlc, Memory};
pub use gateway::Gateway;
pub use guest::{Guest, GuestBuilder, Outcome};
pub use http::{Answer, get};
pub use hub::KernelHub;
pub use impairment::{Conditions, Impairment};
pub use local_hub::LocalHub;
pub use loop_disk::LoopDisk;
pub use mosquitto::{Mosquitto, MosquittoBuilder, Retain};
pub use nats::NatsCluster;
pub use netns::{Namespace, Pair};
pub use node_red::NodeRed;
pub use place::{Port, TempDir, debian, free_udp_port, program, temp_dir};
pub use power::{Barriers, Filesystem, Left, PowerCut};
pub use process::{Log, Process, eventually};
pub use pymodbus::{Pymodbus, python};
pub use rabbitmq::RabbitMq;
pub use router::{Passed, Router, Traffic};
pub use sandbox::Sandbox;
pub use secret::spellings;
pub use simulator::Simulator;
pub use subscriber::{Message, Subscriber};
pub use tunnelled::{Tunnelled, TunnelledBuilder};
pub use wireguard_go::WireguardGo;
