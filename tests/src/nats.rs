//! Three NATS servers with JetStream and MQTT 3.1.1 as a cluster of brokers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::{Port, Process, Subscriber, TempDir, eventually, http_get, temp_dir};

const CLUSTER_TIMEOUT: Duration = Duration::from_secs(30);
const NODE_COUNT: usize = 3;

/// A cluster that replicates messages and sessions to all nodes, so that it survives the loss of
/// one. Dropping it kills it.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<NatsNode>,
    _dir: TempDir,
}

#[derive(Debug)]
struct NatsNode {
    process: Option<Process>,
    mqtt: Port,
    monitor: Port,
    /// Reserved for the node.
    _others: [Port; 2],
}

impl NatsCluster {
    /// Starts all nodes and waits until they have elected a leader that all follow.
    #[must_use]
    pub fn start() -> Self {
        Self::launch(None)
    }

    /// Starts it with a file of accounts, which every node includes.
    #[must_use]
    pub fn start_with_accounts(accounts: &Path) -> Self {
        Self::launch(Some(accounts))
    }

    fn launch(accounts: Option<&Path>) -> Self {
        let dir = temp_dir();
        let include = accounts.map_or("", |accounts| {
            // NATS looks for it beside the file that includes it.
            let copied = std::fs::copy(accounts, dir.path().join("accounts.conf"));
            copied.expect("the accounts can be copied");
            "include \"accounts.conf\"\n"
        });
        let clusters: Vec<Port> = (0..NODE_COUNT).map(|_| Port::reserve()).collect();
        let routes: Vec<String> =
            clusters.iter().map(|port| format!("\"nats://{}\"", port.address())).collect();
        let routes = routes.join(", ");
        let nodes = (0..NODE_COUNT).zip(clusters);
        let nodes = nodes
            .map(|(index, cluster)| NatsNode::start(index, dir.path(), cluster, (&routes, include)))
            .collect();
        let cluster = Self { nodes, _dir: dir };
        eventually("the cluster has a leader that all follow", CLUSTER_TIMEOUT, || {
            cluster.nodes.iter().any(NatsNode::leads_current_followers).then_some(())
        });
        cluster
    }

    /// Returns the URL of every node, for `mqtt.brokers`.
    #[must_use]
    pub fn brokers(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("mqtt://{}", node.mqtt.address())).collect()
    }

    /// Waits until a client has a session and returns the index of its node.
    #[must_use]
    pub fn session_node(&self, client_id: &str) -> usize {
        eventually("a node holds the session", CLUSTER_TIMEOUT, || {
            self.nodes.iter().position(|node| node.has_client(client_id))
        })
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].process.take().expect("the node runs").kill();
    }

    /// Subscribes at a node with a persistent session, or resumes the session of this client id
    /// from any node.
    #[must_use]
    pub fn subscribe_persistent(&self, index: usize, client_id: &str, filter: &str) -> Subscriber {
        Subscriber::start_persistent_v4(self.nodes[index].mqtt.number(), client_id, filter)
    }

    /// Returns the logs of the running nodes.
    #[must_use]
    pub fn log(&self) -> String {
        let running = self.nodes.iter().filter_map(|node| node.process.as_ref());
        running.map(|process| process.log().text()).collect::<Vec<_>>().join("\n\n")
    }
}

impl NatsNode {
    /// Starts a node. Without `stream_replicas` only one node stores the messages, and no client
    /// can connect while that node is down. `no_advertise`: nodes know each other by one address
    /// only. `ack_wait`: what a client left unacknowledged is sent again after this time, by
    /// default after 30 s.
    fn start(index: usize, dir: &Path, cluster: Port, (routes, include): (&str, &str)) -> Self {
        let (mqtt, monitor, client) = (Port::reserve(), Port::reserve(), Port::reserve());
        let config = format!(
            "server_name: n{index}\nlisten: \"{}\"\nhttp: \"{}\"\n\
             jetstream {{ store_dir: \"{}/n{index}\", max_mem: 64M, max_file: 256M }}\n\
             mqtt {{ listen: \"{}\", ack_wait: \"5s\", stream_replicas: {NODE_COUNT}, \
             consumer_replicas: {NODE_COUNT} }}\n\
             cluster {{ name: c, listen: \"{}\", no_advertise: true, routes: [{routes}] }}\n{include}",
            client.address(),
            monitor.address(),
            dir.display(),
            mqtt.address(),
            cluster.address(),
        );
        let path = dir.join(format!("n{index}.conf"));
        std::fs::write(&path, config).expect("its own directory is writable");
        let process = Process::start(
            // Debian installs it in /usr/sbin, which may not be in PATH.
            Command::new("sh")
                .args(["-c", "PATH=$PATH:/usr/sbin exec nats-server -c \"$1\"", "nats-server"])
                .arg(path),
        );
        process.wait_for_line("Server is ready", CLUSTER_TIMEOUT);
        Self { process: Some(process), mqtt, monitor, _others: [cluster, client] }
    }

    /// Returns whether it leads JetStream and all followers are up to date.
    fn leads_current_followers(&self) -> bool {
        let state = self.monitor("/jsz");
        let followers = state["meta_cluster"]["replicas"].as_array();
        followers.is_some_and(|all| {
            all.len() == NODE_COUNT - 1 && all.iter().all(|follower| follower["current"] == true)
        })
    }

    fn has_client(&self, client_id: &str) -> bool {
        let state = self.monitor("/connz");
        let connections = state["connections"].as_array();
        connections.is_some_and(|all| all.iter().any(|one| one["mqtt_client"] == client_id))
    }

    /// Reads a page of its monitoring server; null when it does not run or does not answer.
    fn monitor(&self, path: &str) -> Value {
        let Some(_running) = &self.process else { return Value::Null };
        let address: SocketAddr = self.monitor.address();
        let answer = http_get(address, path).ok().filter(|answer| answer.status == 200);
        answer.and_then(|answer| serde_json::from_str(&answer.body).ok()).unwrap_or_default()
    }
}
