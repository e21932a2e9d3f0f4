use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

use ipnet::IpNet;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::time::timeout;

use super::*;
use crate::device::{GsoType, MAX_FRAME_LEN, VNET_HEADER_LEN, VnetHeader, segment};
use crate::netlink::HostInterface;
use crate::testing::{Namespace, ip};

const TEST_TIMEOUT: Duration = Duration::from_secs(10);

fn name() -> InterfaceName {
    "edge0".parse().unwrap()
}

/// Returns an interface that is up, with 10.77.0.1/24.
fn up(offload: Offload) -> Tun {
    let tun = Tun::create(name(), offload).unwrap();
    let address: IpNet = "10.77.0.1/24".parse().unwrap();
    HostInterface::new(tun.index(), &[address], &[], 1280).unwrap().configure().unwrap();
    tun
}

async fn read(tun: &mut Tun) -> Vec<u8> {
    let mut buffer = vec![0; MAX_FRAME_LEN];
    loop {
        timeout(TEST_TIMEOUT, tun.readable()).await.expect("the host sends").unwrap();
        if let Some(length) = tun.read(&mut buffer).unwrap() {
            buffer.truncate(length);
            return buffer;
        }
    }
}

#[test]
fn names_of_interfaces_are_checked() {
    assert_eq!("edge0".parse::<InterfaceName>().unwrap().to_string(), "edge0");
    assert_eq!("fifteen-letters".parse::<InterfaceName>().unwrap().as_str().len(), 15);
    for bad in ["", ".", "..", "a/b", "a b", "a:1", "sixteen-letters-", "é", "a\0", "wg%d", "\n"] {
        assert!(bad.parse::<InterfaceName>().is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn as_root_packets_pass_both_ways() {
    let _namespace = Namespace::enter();
    let mut tun = up(Offload::Nothing);
    assert_eq!(tun.offload(), Offload::Nothing);
    let socket = UdpSocket::bind("10.77.0.1:4000").unwrap();
    socket.send_to(b"hello", "10.77.0.2:5000").unwrap();
    let mut sent = read(&mut tun).await;
    let (frame, packet) = VnetHeader::parse(&mut sent).unwrap();
    assert_eq!(&packet[28..], b"hello");

    // The same packet back: swapping addresses and ports leaves every checksum valid.
    let mut answers = Vec::new();
    segment(frame, packet, |packet| answers.push(packet.to_vec())).unwrap();
    let answer = &mut answers[0];
    let (from, to) = (answer[12..16].to_vec(), answer[16..20].to_vec());
    answer[12..20].copy_from_slice(&[to, from].concat());
    answer[20..24].copy_from_slice(&[5000_u16.to_be_bytes(), 4000_u16.to_be_bytes()].concat());
    tun.write(&[IoSlice::new(&[0; VNET_HEADER_LEN]), IoSlice::new(answer)]).unwrap();
    socket.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let mut buffer = [0; 10];
    assert_eq!(socket.recv_from(&mut buffer).unwrap(), (5, "10.77.0.2:5000".parse().unwrap()));
    assert!(tun.read(&mut [0; 100]).unwrap().is_none());
}

#[tokio::test]
async fn as_root_datagrams_that_the_host_joins_are_split() {
    let _namespace = Namespace::enter();
    for most in [Offload::Nothing, Offload::Tcp, Offload::TcpAndUdp] {
        let mut tun = up(most);
        assert!(tun.offload() <= most);
        let socket = UdpSocket::bind("10.77.0.1:4000").unwrap();
        setsockopt(&socket, sockopt::UdpGsoSegment, &500).unwrap();
        socket.send_to(&[7; 1800], "10.77.0.2:5000").unwrap();
        let mut lengths = Vec::new();
        let mut joined = GsoType::None;
        while lengths.len() < 4 {
            let mut sent = read(&mut tun).await;
            let (frame, packet) = VnetHeader::parse(&mut sent).unwrap();
            joined = frame.gso;
            segment(frame, packet, |packet| lengths.push(packet.len())).unwrap();
        }
        assert_eq!(lengths, [528, 528, 528, 328]);
        assert_eq!(joined != GsoType::None, tun.offload() == Offload::TcpAndUdp);
    }
}

#[tokio::test]
async fn as_root_an_invalid_frame_is_rejected_and_the_device_still_works() {
    let _namespace = Namespace::enter();
    let mut tun = up(Offload::TcpAndUdp);
    let refused = tun.write(&[IoSlice::new(&[0; VNET_HEADER_LEN]), IoSlice::new(&[0xff; 40])]);
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    ip(&["link", "set", "edge0", "down"]);
    let down = tun.write(&[IoSlice::new(&[0; VNET_HEADER_LEN]), IoSlice::new(&[0x45; 40])]);
    assert_eq!(down.unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn as_root_a_removed_interface_is_reported() {
    let _namespace = Namespace::enter();
    let mut tun = up(Offload::TcpAndUdp);
    {
        let waits = timeout(Duration::from_millis(1), tun.readable()).await;
        assert!(waits.is_err(), "{waits:?}");
    }
    ip(&["link", "del", "edge0"]);
    let reported = timeout(TEST_TIMEOUT, tun.readable()).await.expect("it is reported");
    assert_eq!(reported.unwrap_err().raw_os_error(), Some(libc::ENODEV));
    let written = tun.write(&[IoSlice::new(&[0; VNET_HEADER_LEN]), IoSlice::new(&[0x45; 40])]);
    assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::ENODEV));
}

#[tokio::test]
async fn as_root_a_name_that_is_in_use_is_reported() {
    let _namespace = Namespace::enter();
    let tun = up(Offload::Nothing);
    for name in ["edge0", "lo"] {
        let taken = Tun::create(name.parse().unwrap(), Offload::Nothing);
        assert!(matches!(taken, Err(TunError::Taken(_))), "{taken:?}");
    }
    drop(tun);
    assert!(!ip(&["link"]).contains("edge0"));
    up(Offload::Nothing);
}

/// The process to kill, with an interface, addresses and routes. Its parent is the test below.
#[tokio::test]
async fn as_root_child_to_kill() {
    if std::env::var_os("EDGE_CHILD_TO_KILL").is_none() {
        return;
    }
    let tun = up(Offload::TcpAndUdp);
    let routes = ["10.99.0.0/16", "fd99::/64"].map(|route| route.parse().unwrap());
    HostInterface::new(tun.index(), &[], &routes, 1280).unwrap().repair().unwrap();
    println!("READY");
    std::future::pending::<()>().await;
}

#[test]
fn as_root_nothing_is_left_of_a_process_that_is_killed() {
    let _namespace = Namespace::enter();
    let before = [ip(&["addr"]), ip(&["route"]), ip(&["-6", "route"])];
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "device::tun::tests::as_root_child_to_kill", "--nocapture"])
        .env("EDGE_CHILD_TO_KILL", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("READY")));
    assert!(ip(&["route"]).contains("10.99.0.0/16 dev edge0"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!([ip(&["addr"]), ip(&["route"]), ip(&["-6", "route"])], before);
}

/// Tries to create an interface, in a child process of the test below.
#[tokio::test]
async fn as_root_child_without_privilege() {
    if std::env::var_os("EDGE_CHILD_WITHOUT_PRIVILEGE").is_some() {
        println!("ANSWER {}", Tun::create(name(), Offload::Nothing).unwrap_err());
    }
}

#[test]
fn as_root_without_the_capability_the_error_names_it() {
    let output = Command::new("setpriv")
        .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "device::tun::tests::as_root_child_without_privilege", "--nocapture"])
        .env("EDGE_CHILD_WITHOUT_PRIVILEGE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ANSWER") && text.contains("CAP_NET_ADMIN"), "{text}");
}
