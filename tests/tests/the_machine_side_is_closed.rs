//! The packet filter for a box, which is an example of the package: machines reach nothing of the
//! box, and nothing through it, while the box reads them.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use e2e::Namespace;

const BOX: &str = "192.168.1.2";
const PLC: &str = "192.168.1.10";
const OFFICE: &str = "192.0.2.1";
/// A packet that is dropped gets no answer.
const NO_ANSWER: Duration = Duration::from_millis(300);
const ANSWER: Duration = Duration::from_secs(5);

/// Listens on every address of a namespace; the kernel accepts connections from then on.
fn listen(namespace: &Namespace, port: u16) -> TcpListener {
    namespace.enter(|| TcpListener::bind(("0.0.0.0", port)).expect("a new namespace is empty"))
}

fn reaches(namespace: &Namespace, address: &str, port: u16, limit: Duration) -> bool {
    let address = SocketAddr::new(address.parse().expect("an address"), port);
    namespace.enter(|| TcpStream::connect_timeout(&address, limit).is_ok())
}

#[test]
fn as_root_machines_reach_nothing_of_the_box_and_nothing_through_it() {
    let (gateway, plant, office) = (Namespace::new(), Namespace::new(), Namespace::new());
    plant.connect(("cable", "192.168.1.10/24"), &gateway, ("eth1", "192.168.1.2/24"));
    office.connect(("cable", "192.0.2.1/24"), &gateway, ("eth0", "192.0.2.9/24"));
    gateway.run("sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"]);
    plant.ip(&["route", "add", "default", "via", BOX]);
    office.ip(&["route", "add", "default", "via", "192.0.2.9"]);
    let _listeners = [listen(&gateway, 22), listen(&plant, 502), listen(&office, 80)];
    let to_box = |limit| reaches(&plant, BOX, 22, limit);
    let to_office = |limit| reaches(&plant, OFFICE, 80, limit);
    let to_plc = |limit| reaches(&office, PLC, 502, limit);
    assert!(to_box(ANSWER) && to_office(ANSWER) && to_plc(ANSWER), "the box is open");

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nftables/edge-gateway.nft");
    // The second time it replaces the first.
    for _ in 0..2 {
        gateway.run("nft", &["-f", &file.display().to_string()]);
    }

    assert!(!to_box(NO_ANSWER) && !to_office(NO_ANSWER) && !to_plc(NO_ANSWER));
    assert!(reaches(&gateway, PLC, 502, ANSWER), "the box reads the PLC");
    assert!(reaches(&office, "192.0.2.9", 22, ANSWER), "the other side is left alone");
}
