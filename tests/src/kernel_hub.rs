//! The usual kind of hub: the WireGuard of the Linux kernel with a broker, in a guest.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use tunnel::PrivateKey;

use crate::subscriber::SUBSCRIBE_COMMAND;
use crate::{Guest, Port, Subscriber, free_udp_port};

const SETUP_TIMEOUT: Duration = Duration::from_secs(30);
const MODULES: [&str; 6] =
    ["wireguard", "sch_netem", "sch_ingress", "cls_matchall", "act_mirred", "ifb"];

/// Logs one line when it is up, and nothing for connections.
const MOSQUITTO_CONF: &str = "listener 1883 0.0.0.0\nallow_anonymous true\nuser root\nlog_dest stderr\n\
    log_type information\nlog_type warning\nlog_type error\n\
    max_queued_messages 1000000\nmax_inflight_messages 0\n";

/// Redirects incoming packets through another device, because netem only delays outgoing ones.
const INGRESS_SETUP: &str = "ip link set ifb0 up
tc qdisc add dev eth0 ingress
tc filter add dev eth0 ingress matchall action mirred egress redirect dev ifb0";

/// A hub with one site. Inside the tunnel, [`Self::ADDRESS`] runs an echo server and a broker.
#[derive(Debug)]
pub struct KernelHub {
    guest: Guest,
    public_key: String,
    endpoint: SocketAddr,
    broker: Port,
}

impl KernelHub {
    /// Address of the hub inside the tunnel.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    /// Address of the site inside the tunnel, its only allowed IP.
    pub const SITE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);
    /// TCP port of the echo server at [`Self::ADDRESS`].
    pub const ECHO_PORT: u16 = 7;
    /// TCP port of Mosquitto at [`Self::ADDRESS`]; it accepts anonymous clients.
    pub const BROKER_PORT: u16 = 1883;

    /// Starts it for the site with this public key, as `wg pubkey` prints it.
    #[must_use]
    pub fn start(site: &str) -> Self {
        let (key, port, broker) = (PrivateKey::generate(), free_udp_port(), Port::reserve());
        let mut setup = String::from("ip link add wg0 type wireguard\n");
        let (hub, address) = (Self::ADDRESS, Self::SITE_ADDRESS);
        writeln!(
            setup,
            "wg set wg0 listen-port 51820 private-key /wg.key peer {site} allowed-ips {address}/32"
        )
        .and_then(|()| writeln!(setup, "ip address add {hub}/16 dev wg0\nip link set wg0 up"))
        .and_then(|()| writeln!(setup, "{INGRESS_SETUP}\nnc -ll -p {} -e cat &", Self::ECHO_PORT))
        .expect("a String accepts text");
        let guest = Guest::builder()
            .modules(&MODULES)
            .program("wg")
            .program("tc")
            .program("mosquitto")
            .file("/wg.key", key.expose().as_bytes())
            .file("/mosquitto.conf", MOSQUITTO_CONF)
            .forward_udp(port, 51820)
            .forward_tcp(broker.number(), Self::BROKER_PORT)
            .setup(&setup)
            .setup("mosquitto -c /mosquitto.conf &")
            .boot();
        guest.wait_for_line(" running", SETUP_TIMEOUT);
        let endpoint = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { guest, public_key: key.public_key().to_string(), endpoint, broker }
    }

    /// Returns its public key, as `wg pubkey` prints it.
    #[must_use]
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// Returns its endpoint for a site on this machine.
    #[must_use]
    pub const fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// Returns the machine that it runs on.
    #[must_use]
    pub const fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Subscribes to its broker, not through the tunnel, with QoS 2.
    #[must_use]
    pub fn subscribe(&self, filter: &str) -> Subscriber {
        let mut client = Command::new(SUBSCRIBE_COMMAND[0]);
        client.args(&SUBSCRIBE_COMMAND[1..]).args(["-V", "mqttv5", "-h", "127.0.0.1"]);
        client.args(["-p", &self.broker.number().to_string()]);
        Subscriber::start(client, filter)
    }

    /// Returns the bytes received from the site and sent to it (wg(8), `transfer`).
    #[must_use]
    pub fn transferred_bytes(&self) -> (u64, u64) {
        let shown = self.guest.run("wg show wg0 transfer");
        let mut numbers = shown.split('\t').skip(1).map(|number| number.trim().parse());
        match (numbers.next(), numbers.next()) {
            (Some(Ok(received)), Some(Ok(sent))) => (received, sent),
            _ => panic!("wg show wg0 transfer: {shown}"),
        }
    }

    /// Returns whether a handshake was completed (wg(8), `latest-handshakes`).
    #[must_use]
    pub fn has_handshake(&self) -> bool {
        !self.guest.run("wg show wg0 latest-handshakes").trim().ends_with("\t0")
    }

    /// Delays every packet and drops a part of them, in each direction.
    pub fn impair(&self, delay: Duration, loss_percent: u8) {
        for device in ["eth0", "ifb0"] {
            self.guest.run(&format!(
                "tc qdisc replace dev {device} root netem delay {}ms loss {loss_percent}%",
                delay.as_millis()
            ));
        }
    }

    /// Ends [`Self::impair`].
    pub fn clear_impairment(&self) {
        for device in ["eth0", "ifb0"] {
            self.guest.run(&format!("tc qdisc delete dev {device} root"));
        }
    }
}
