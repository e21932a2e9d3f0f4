//! The surroundings of a gateway under test: third-party peers as child processes, and the gateway
//! itself as the program that is shipped.
//!
//! All calls block, so a test reads from top to bottom. A child process ends with its owner, a peer
//! listens on a port of 127.0.0.1 that stays reserved for it, and a helper that fails panics with
//! the reason and the log of the peer.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code may stop on the spot"
)]

mod authority;
mod browser;
mod capture;
mod container;
mod debian_package;
mod gateway;
mod gateway_config;
mod guest;
mod http;
mod impairment;
mod kernel_hub;
mod key_encodings;
mod local_hub;
mod loop_disk;
mod machine;
mod mosquitto;
mod nats;
mod netns;
mod node_red;
mod nspawn;
mod office;
mod office_hub;
mod package_set;
mod page;
mod power_cut;
mod process;
mod pymodbus;
mod rabbitmq;
mod resources;
mod router;
mod sandbox;
mod simulator;
mod subscriber;
mod third_party_plc;
mod timeouts;
mod tunnel_testbed;
mod wireguard_go;
mod wireguard_interface;

pub use authority::CertificateAuthority;
pub use browser::BrowserPage;
pub use capture::{Capture, SampleCounts};
pub use container::{Container, ContainerImage, Linkage};
pub use debian_package::DebianPackage;
pub use gateway::Gateway;
pub use gateway_config::{GatewayConfig, PlcConfig};
pub use guest::{CommandResult, Guest, GuestBuilder};
pub use http::{HttpResponse, http_get};
pub use impairment::{Impairment, NetworkConditions};
pub use kernel_hub::KernelHub;
pub use key_encodings::key_encodings;
pub use local_hub::LocalHub;
pub use loop_disk::LoopDisk;
pub use machine::Machine;
pub use mosquitto::{Mosquitto, MosquittoBuilder, Retain};
pub use nats::NatsCluster;
pub use netns::{Namespace, NamespacePair};
pub use node_red::NodeRed;
pub use nspawn::{NspawnMachine, UnitJournal};
pub use office::Office;
pub use office_hub::OfficeHub;
pub use package_set::PackageSet;
pub use page::commands_of_page;
pub use power_cut::{Barriers, CutOutcome, FilesystemState, PowerCut};
pub use process::{Log, Process, eventually};
pub use pymodbus::{Pymodbus, python};
pub use rabbitmq::RabbitMq;
pub use resources::{Port, TempDir, free_udp_port, system_program, temp_dir, workspace_program};
pub use router::{DirectionCounts, Router, Traffic};
pub use sandbox::Sandbox;
pub use simulator::Simulator;
pub use subscriber::{Message, Subscriber};
pub use third_party_plc::{PlcMemory, ThirdPartyPlc};
pub use timeouts::{EVENT_TIMEOUT, RECOVERY_TIMEOUT, STOP_TIMEOUT};
pub use tunnel_testbed::{TunnelTestbed, TunnelTestbedBuilder};
pub use wireguard_go::{ControlSocket, WireguardGo};
pub use wireguard_interface::WireguardInterface;
