//! Node-RED as the consumer: an `mqtt in` node whose messages a function and a `file` node tell.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Mosquitto, Port, Subscriber, TempDir, resources, temp_dir};

/// A Node-RED with its flow, its files and its port, which does not run yet.
#[derive(Debug)]
pub struct NodeRed {
    home: PathBuf,
    editor: Port,
    dir: TempDir,
}

impl NodeRed {
    /// Its client id at the broker, where its session lasts for an hour.
    pub const CLIENT_ID: &str = "node-red";

    /// Sets it up to subscribe to `edge/+/data/#` with QoS 1.
    ///
    /// "Automatically unsubscribe when disconnecting" is off in its broker node. With its default,
    /// on, a Node-RED that is stopped ends its subscription, and its session keeps nothing for it.
    #[must_use]
    pub fn new() -> Self {
        let (home, dir) = (home(), temp_dir());
        for file in ["settings.js", "flows.json"] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/node-red").join(file);
            fs::copy(&source, dir.path().join(file)).expect("its own directory is writable");
        }
        Self { home, editor: Port::reserve(), dir }
    }

    /// Sets it up with this flow, as if it had been imported and deployed.
    #[must_use]
    pub fn with_flow(flow: &str) -> Self {
        let node_red = Self::new();
        node_red.dir.write("flows.json", flow);
        node_red
    }

    /// Starts it as a client of this broker.
    #[must_use]
    pub fn start(&self, broker: &Mosquitto) -> Subscriber {
        let dir = self.dir.path();
        Subscriber::launch(
            Command::new("node")
                .arg(self.home.join("node_modules/node-red/red.js"))
                .arg("--settings")
                .arg(dir.join("settings.js"))
                .arg("--userDir")
                .arg(dir)
                .env("E2E_EDITOR_PORT", self.editor.number().to_string())
                .env("E2E_BROKER_PORT", broker.port().to_string())
                .env("E2E_CLIENT_ID", Self::CLIENT_ID),
        )
    }
}

impl Default for NodeRed {
    fn default() -> Self {
        Self::new()
    }
}

/// `E2E_NODE_RED`, or where `cargo xtask test` installs it.
fn home() -> PathBuf {
    let home = env::var_os("E2E_NODE_RED")
        .map_or_else(|| resources::target_dir().join("e2e-node-red"), PathBuf::from);
    let is_there = home.join("node_modules/node-red/red.js").is_file();
    assert!(is_there, "`cargo xtask test` installs Node-RED");
    home
}
