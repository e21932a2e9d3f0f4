//! An office and its hub: WireGuard, Mosquitto and a web server with the bundles, in a namespace.
//! Needs root.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;

use provisioning::bundle::{BundleSource, VerifyPolicy, verify};
use ring::digest::{SHA256, digest};

use crate::{Namespace, Office, Process, Subscriber, WireguardInterface};

/// A fleet and the machine of its hub. The services end with it.
#[derive(Debug)]
pub struct OfficeHub {
    /// The files of the fleet.
    pub office: Office,
    /// Mosquitto as its rendered files say.
    pub broker: Process,
    _interface: WireguardInterface,
    /// Password of the office at the broker.
    password: String,
    /// The machine of the hub.
    pub namespace: Namespace,
}

impl OfficeHub {
    /// Where a bundle finds the next one, for `[bundle] url`.
    pub const BUNDLES: &str = "http://10.77.0.1/bundles";

    /// Starts the hub of a fleet whose sites are built. Its machine has no cable yet.
    ///
    /// # Panics
    /// When the test does not run as root.
    #[must_use]
    pub fn start(office: Office) -> Self {
        let namespace = Namespace::new();
        let interface = office.start_hub(&namespace);
        let listener = format!("listener 1883 {}", Office::HUB);
        let broker = office.start_mosquitto(|program| namespace.command(program), &listener);
        serve_bundles(&namespace, office.path("out/bundles"));
        let password = office.read("secrets/office/mqtt.password").trim().to_owned();
        Self { office, broker, _interface: interface, password, namespace }
    }

    /// Returns the path of the last bundle of a site.
    #[must_use]
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.office.path(format!("out/bundles/edge-bundle-{id}.tar"))
    }

    /// Returns the bytes of the last bundle of a site.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn read_bundle(&self, id: &str) -> Vec<u8> {
        fs::read(self.bundle(id)).expect("it was built")
    }

    /// Returns the counter of the last bundle of a site.
    #[must_use]
    pub fn counter(&self, id: &str) -> u64 {
        let policy = VerifyPolicy {
            keys: None,
            gateway: None,
            tunnel_public_key: None,
            last_counter: None,
            source: BundleSource::ByHand,
        };
        let bytes = self.read_bundle(id);
        verify(&bytes, &policy).expect("it was built").bundle.manifest().counter
    }

    /// Subscribes as the office.
    #[must_use]
    pub fn subscribe(&self, filter: &str) -> Subscriber {
        let user = ["-u", "office", "-P", &self.password];
        self.namespace.subscribe_as(&user, Office::HUB, filter)
    }

    /// Builds the next bundle of a site and offers it. Returns its counter.
    pub fn offer(&self, id: &str) -> u64 {
        self.office.run(&["build", id]);
        let (bytes, counter) = (self.read_bundle(id), self.counter(id));
        let sha256: String =
            digest(&SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let offer =
            format!(r#"{{"counter":{counter},"size":{},"sha256":"{sha256}"}}"#, bytes.len());
        let topic = format!("edge/{id}/offer");
        let account = ["-h", Office::HUB, "-u", "office", "-P", &self.password];
        let message = ["-r", "-q", "1", "-t", &topic, "-m", &offer];
        self.namespace.run("mosquitto_pub", &[&account[..], &message].concat());
        counter
    }
}

/// Serves the files of a directory below `/bundles/`, on port 80 in the tunnel, until the test
/// ends.
fn serve_bundles(namespace: &Namespace, dir: PathBuf) {
    let listener = namespace.enter(|| TcpListener::bind((Office::HUB, 80)).expect("a free port"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut line = String::new();
            let mut reader = BufReader::new(&stream);
            if reader.read_line(&mut line).is_err() {
                continue;
            }
            let mut header = String::new();
            while reader.read_line(&mut header).is_ok_and(|read| read > 2) {
                header.clear();
            }
            let name = line.split(' ').nth(1).and_then(|path| path.strip_prefix("/bundles/"));
            let file = name.filter(|name| !name.contains("..")).map(|name| dir.join(name));
            let answer = file.and_then(|file| fs::read(file).ok());
            let (status, body) =
                answer.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            // A gateway that went away is the business of the test.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
}
