//! Node-RED as the consumer: an `mqtt in` node, and a function and a `file` node that print its
//! messages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use std::time::Duration;

use crate::{Mosquitto, Port, Subscriber, TempDir, eventually, http_get, resources, temp_dir};

/// Node-RED loads its nodes first.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Node-RED with its flow, directory and port; not yet started.
#[derive(Debug)]
pub struct NodeRed {
    home: PathBuf,
    editor: Port,
    dir: TempDir,
}

impl NodeRed {
    /// Its client id; the broker keeps its session for an hour.
    pub const CLIENT_ID: &str = "node-red";

    /// Prepares it to subscribe to `edge/+/data/#` with QoS 1.
    ///
    /// "Automatically unsubscribe when disconnecting" is off in its broker node. With the default,
    /// on, Node-RED unsubscribes when it stops, and the broker stores no messages for it.
    #[must_use]
    pub fn new() -> Self {
        let (home, dir) = (Self::home(), temp_dir());
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

    /// Sets it up with the flow of deploy/node-red and its dashboard. The broker is that of
    /// [`Self::start`].
    #[must_use]
    pub fn with_dashboard() -> Self {
        let flow = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/node-red/flows.json");
        let flow = fs::read_to_string(flow).expect("it is in the repository");
        let port = format!("\"port\": \"${{{}}}\"", test_settings::BROKER_PORT.name);
        let node_red = Self::with_flow(&flow.replace("\"port\": \"1883\"", &port));
        let dir = node_red.dir.path();
        std::os::unix::fs::symlink(node_red.home.join("node_modules"), dir.join("node_modules"))
            .expect("its own directory is writable");
        // Node-RED loads the nodes that this file names.
        let package = r#"{"name":"user","dependencies":{"@flowfuse/node-red-dashboard":"*"}}"#;
        node_red.dir.write("package.json", package);
        node_red
    }

    /// Waits until it serves a page, and returns its URL.
    #[must_use]
    pub fn page(&self, path: &str) -> String {
        let address = self.editor.address();
        eventually("Node-RED serves the page", PAGE_TIMEOUT, || {
            let answer = http_get(address, &format!("/{path}")).ok()?;
            (answer.status == 200).then(|| format!("http://{address}/{path}"))
        })
    }

    /// Returns the directory with Node-RED, which `cargo xtask test` installs.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn home() -> PathBuf {
        let home = test_settings::NODE_RED
            .path()
            .unwrap_or_else(|| resources::target_dir().join("e2e-node-red"));
        let is_there = home.join("node_modules/node-red/red.js").is_file();
        assert!(is_there, "`cargo xtask test` installs Node-RED");
        home
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
                .env(test_settings::EDITOR_PORT.name, self.editor.number().to_string())
                .env(test_settings::BROKER_PORT.name, broker.port().to_string())
                .env(test_settings::CLIENT_ID.name, Self::CLIENT_ID),
        )
    }
}

impl Default for NodeRed {
    fn default() -> Self {
        Self::new()
    }
}
