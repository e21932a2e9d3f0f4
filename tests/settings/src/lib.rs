//! The environment variables that change what the tests do. Tests, benches and xtask read and set
//! them only through [`ALL`]; CONTRIBUTING.md shows the same table, which a test compares.
#![expect(clippy::panic, reason = "a wrong setting stops the test that reads it")]

use std::env;
use std::path::PathBuf;

/// One variable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Setting {
    /// Name of the variable.
    pub name: &'static str,
    /// Value that holds while the variable is not set, or a word about where it comes from.
    pub default: &'static str,
    /// What the variable sets, in one sentence.
    pub meaning: &'static str,
}

/// Length of an attack on the gateway.
pub const ATTACK_SECONDS: Setting = Setting {
    name: "E2E_ATTACK_SECONDS",
    default: "2",
    meaning: "Length of each attack on the memory of the gateway, in seconds.",
};
/// Records of the backlog bench, in MiB.
pub const BACKLOG: Setting = Setting {
    name: "E2E_BACKLOG",
    default: "1024",
    meaning: "Size of the backlog in `cargo xtask bench queue`, in MiB.",
};
/// Port of the broker for Node-RED's flow.
pub const BROKER_PORT: Setting = Setting {
    name: "E2E_BROKER_PORT",
    default: "set by the tests",
    meaning: "Port of the broker, passed to the flow of Node-RED.",
};
/// Client id of Node-RED's flow.
pub const CLIENT_ID: Setting = Setting {
    name: "E2E_CLIENT_ID",
    default: "set by the tests",
    meaning: "MQTT client id, passed to the flow of Node-RED.",
};
/// Crashes of the queue's model test.
pub const CRASHES: Setting = Setting {
    name: "E2E_CRASHES",
    default: "4000",
    meaning: "Simulated crashes of the queue; `cargo xtask test` sets 30000.",
};
/// Power cuts per durability.
pub const CUTS: Setting = Setting {
    name: "E2E_CUTS",
    default: "by test",
    meaning: "Power cuts of a guest for each durability.",
};
/// Where the pictures of Grafana's dashboards go.
pub const DASHBOARD_PICTURES: Setting = Setting {
    name: "E2E_DASHBOARD_PICTURES",
    default: "none",
    meaning: "Directory for pictures of Grafana's dashboards, as `docs/pictures` has them.",
};
/// How long the dashboard is watched.
pub const DASHBOARD_SECONDS: Setting = Setting {
    name: "E2E_DASHBOARD_SECONDS",
    default: "3",
    meaning: "Seconds for which the dashboard in Node-RED is watched after the broker was away.",
};
/// Directory of the Debian 13 that the containers boot.
pub const DEBIAN: Setting = Setting {
    name: "E2E_DEBIAN",
    default: "`target/debian-13`",
    meaning: "Directory with the Debian 13 that the containers of systemd-nspawn boot.",
};
/// Port of Node-RED's editor.
pub const EDITOR_PORT: Setting = Setting {
    name: "E2E_EDITOR_PORT",
    default: "set by the tests",
    meaning: "Port of the editor, passed to the settings of Node-RED.",
};
/// Roll-outs with faults.
pub const FAULT_ROUNDS: Setting = Setting {
    name: "E2E_FAULT_ROUNDS",
    default: "1",
    meaning: "Roll-outs of three faults to three sites; in five, each site gets each fault.",
};
/// Outage of the hub of the simulated fleet.
pub const FLEET_OUTAGE: Setting = Setting {
    name: "E2E_FLEET_OUTAGE",
    default: "120",
    meaning: "Seconds for which the hub of the simulated fleet is away.",
};
/// Size of the simulated fleet.
pub const FLEET_SITES: Setting = Setting {
    name: "E2E_FLEET_SITES",
    default: "2000",
    meaning: "Sites of the simulated fleet, each a tunnel of its own.",
};
/// Path of the gateway program.
pub const GATEWAY: Setting = Setting {
    name: "E2E_GATEWAY",
    default: "next to the test",
    meaning: "Path of the `edge-gateway` program under test.",
};
/// Directory of the guests' kernel and QEMU.
pub const GUEST: Setting = Setting {
    name: "E2E_GUEST",
    default: "`target/guest`",
    meaning: "Directory with the kernel, QEMU and busybox of the guests.",
};
/// Kills of a running gateway.
pub const KILLS: Setting = Setting {
    name: "E2E_KILLS",
    default: "60",
    meaning: "`kill -9` of a gateway with durability `balanced`.",
};
/// Lives of a tunnel.
pub const LIVES: Setting = Setting {
    name: "E2E_LIVES",
    default: "1",
    meaning: "Simulated lives of a tunnel, 24 days each, with consecutive seeds.",
};
/// Life with a trouble whose lines in the log are counted.
pub const LOG_SECONDS: Setting = Setting {
    name: "E2E_LOG_SECONDS",
    default: "60",
    meaning: "Seconds for which gateways with a trouble each run, whose lines in the log are counted.",
};
/// Messages that wait for an absent consumer.
pub const MESSAGES: Setting = Setting {
    name: "E2E_MESSAGES",
    default: "3000",
    meaning: "Messages that the broker stores for an absent consumer.",
};
/// Mutated inputs of a parser.
pub const MUTATIONS: Setting = Setting {
    name: "E2E_MUTATIONS",
    default: "by test",
    meaning: "Mutated or random inputs for each parser.",
};
/// Directory of modbus-serial.
pub const NODE: Setting = Setting {
    name: "E2E_NODE",
    default: "`target/e2e-node`",
    meaning: "Directory with modbus-serial and its server script.",
};
/// Directory of Node-RED.
pub const NODE_RED: Setting = Setting {
    name: "E2E_NODE_RED",
    default: "`target/e2e-node-red`",
    meaning: "Directory with Node-RED.",
};
/// Length of the simulated outage.
pub const OUTAGE_HOURS: Setting = Setting {
    name: "E2E_OUTAGE_HOURS",
    default: "1",
    meaning: "Length of the simulated outage, in hours.",
};
/// Where the picture of the dashboard goes.
pub const PICTURE: Setting = Setting {
    name: "E2E_PICTURE",
    default: "none",
    meaning: "Path of a PNG file for a picture of the dashboard in Node-RED.",
};
/// Path of the program of the office.
pub const PROVISION: Setting = Setting {
    name: "E2E_PROVISION",
    default: "next to the test",
    meaning: "Path of the `edge-provision` program under test.",
};
/// Interpreter with pymodbus.
pub const PYTHON: Setting = Setting {
    name: "E2E_PYTHON",
    default: "`target/e2e-python`",
    meaning: "Python interpreter with pymodbus.",
};
/// Samples per record of the queue bench.
pub const SAMPLES: Setting = Setting {
    name: "E2E_SAMPLES",
    default: "100",
    meaning: "Samples in each record of `cargo xtask bench queue`.",
};
/// Tags of each PLC whose values are scraped.
pub const SCRAPED_TAGS: Setting = Setting {
    name: "E2E_SCRAPED_TAGS",
    default: "20",
    meaning: "Tags of each of fifty PLCs whose values are scraped while the PLCs are read.",
};
/// Seed of one random history.
pub const SEED: Setting = Setting {
    name: "E2E_SEED",
    default: "by test",
    meaning: "Seed of the one history to run, for the crashes of the queue or the life of a tunnel.",
};
/// MQTT sessions of the load program.
pub const SESSIONS: Setting = Setting {
    name: "E2E_SESSIONS",
    default: "300",
    meaning: "MQTT sessions that lose Mosquitto at the same instant.",
};
/// Directory of the static programs.
pub const STATIC_PROGRAMS: Setting = Setting {
    name: "E2E_STATIC_PROGRAMS",
    default: "none",
    meaning: "Directory with static programs for boxes, in a directory for each target of Rust.",
};
/// Path of the xtask program.
pub const XTASK: Setting = Setting {
    name: "E2E_XTASK",
    default: "next to the test",
    meaning: "Path of the `xtask` program that builds packages.",
};

/// Every variable, in the order of the names.
pub const ALL: [Setting; 32] = [
    ATTACK_SECONDS,
    BACKLOG,
    BROKER_PORT,
    CLIENT_ID,
    CRASHES,
    CUTS,
    DASHBOARD_PICTURES,
    DASHBOARD_SECONDS,
    DEBIAN,
    EDITOR_PORT,
    FAULT_ROUNDS,
    FLEET_OUTAGE,
    FLEET_SITES,
    GATEWAY,
    GUEST,
    KILLS,
    LIVES,
    LOG_SECONDS,
    MESSAGES,
    MUTATIONS,
    NODE,
    NODE_RED,
    OUTAGE_HOURS,
    PICTURE,
    PROVISION,
    PYTHON,
    SAMPLES,
    SCRAPED_TAGS,
    SEED,
    SESSIONS,
    STATIC_PROGRAMS,
    XTASK,
];

impl Setting {
    /// Returns the number that is set, if one is.
    ///
    /// # Panics
    /// When the variable is set to anything else.
    #[must_use]
    pub fn get(self) -> Option<u64> {
        let text = env::var(self.name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{}={text} is not a number", self.name)))
    }

    /// Returns the number that is set, or the default of the table.
    ///
    /// # Panics
    /// When the variable, or the default, is not a number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.get().unwrap_or_else(|| {
            let default = self.default.parse();
            default.unwrap_or_else(|_| panic!("{} has no number as its default", self.name))
        })
    }

    /// Returns the number that is set, or the default of this test.
    ///
    /// # Panics
    /// When the variable is set to anything but a number.
    #[must_use]
    pub fn number_or(self, default: u64) -> u64 {
        self.get().unwrap_or(default)
    }

    /// Returns the path that is set, if one is.
    #[must_use]
    pub fn path(self) -> Option<PathBuf> {
        env::var_os(self.name).map(PathBuf::from)
    }
}
