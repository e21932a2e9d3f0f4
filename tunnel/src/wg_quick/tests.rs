use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wg_quick").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(file(name)).unwrap()
}

/// Lines and what is wrong with them.
fn problems(text: &str) -> Vec<(usize, String)> {
    let rejected = parse(text.as_bytes()).unwrap_err();
    rejected.problems.into_iter().map(|problem| (problem.line, problem.what)).collect()
}

/// A good file with one more line behind a section.
fn with(section: &str, line: &str) -> String {
    let text = fs::read_to_string(file("good/site.conf")).unwrap();
    text.replace(section, &format!("{section}\n{line}"))
}

fn nets(text: &str) -> Vec<ipnet::IpNet> {
    text.split_whitespace().map(|net| net.parse().unwrap()).collect()
}

#[test]
fn a_file_of_wg_quick_is_a_tunnel() {
    let read = parse(&bytes("good/site.conf")).unwrap();
    let Settings { private_key, addresses, mtu, keep_alive, hubs } = read.settings;
    assert_eq!(private_key.expose().as_str(), "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=");
    assert_eq!(addresses, nets("10.77.0.12/32 fd77::12/128"));
    assert_eq!((mtu, keep_alive), (1400, Some(Duration::from_secs(25))));
    assert_eq!((read.port, read.table), (LocalPort::Fixed(51821), RoutePolicy::Auto));
    let [hub] = hubs.as_slice() else { panic!("{hubs:?}") };
    assert_eq!(hub.name, "hub-a.example.net:51820");
    assert_eq!(hub.endpoint.to_string(), hub.name);
    assert_eq!(hub.public_key.to_string(), "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=");
    assert!(hub.preshared_key.is_some());
    assert_eq!(hub.allowed_ips, nets("10.77.0.0/16 10.78.1.0/24 fd77::/64"));
    let notes: Vec<_> = read.notes.iter().map(|note| note.line).collect();
    assert_eq!(notes, [5]);
}

#[test]
fn windows_and_lower_case_change_nothing() {
    let read = parse(&bytes("good/windows.conf")).unwrap();
    assert_eq!(read.settings.addresses, nets("10.77.0.12/32"));
    assert_eq!((read.settings.mtu, read.settings.keep_alive), (DEFAULT_MTU, None));
    assert_eq!((read.port, read.table), (LocalPort::Any, RoutePolicy::Off));
    assert_eq!(read.settings.hubs[0].endpoint.host, "2001:db8::1");
}

#[test]
fn peers_that_allow_the_same_are_hubs_in_order() {
    let hubs = parse(&bytes("good/two_hubs.conf")).unwrap().settings.hubs;
    let names: Vec<_> = hubs.iter().map(|hub| hub.name.as_str()).collect();
    assert_eq!(names, ["192.0.2.1:51820", "192.0.2.2:51820"]);
}

#[test]
fn peers_that_allow_something_else_are_refused() {
    let text = parse(&bytes("broken/two_peers.conf")).unwrap_err().to_string();
    let expected = [
        "line 9: this peer allows other addresses than the one in line 4, and only one hub is used at a time: give both the same AllowedIPs, or use a file and a tunnel for each",
        "line 9: this peer has another PersistentKeepalive than the one in line 4: give both the same",
        "line 11: this endpoint is the one of the peer in line 4 already: remove one of the two peers",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn commands_are_refused_and_not_run() {
    let rejected = parse(&bytes("broken/commands.conf")).unwrap_err();
    let lines: Vec<_> = rejected.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [4, 5, 6, 7, 8]);
    let text = rejected.to_string();
    assert!(text.starts_with("line 4: `PostUp` is a command, and this program never runs commands from a file: remove the line"), "{text}");
}

#[test]
fn everything_that_is_wrong_is_told_at_once_and_no_secret() {
    let text = parse(&bytes("broken/everything.conf")).unwrap_err().to_string();
    let expected = [
        "line 1: this line belongs to no section: begin the file with `[Interface]`",
        "line 3: `PrivateKey` is not a key: a key is 44 characters of base64, as `edge-gateway keygen` or `wg genkey` print it",
        "line 4: [Interface] has no key `Adress`: use one of PrivateKey, Address, MTU, ListenPort, DNS, Table",
        "line 5: `Address` is not a list of addresses: write addresses like `10.77.0.12/32`, separated by commas",
        "line 6: `MTU` is not a length that works: write a number from 1280 to 9000, or leave the line out for 1280",
        "line 7: `MTU` is in line 6 already: remove one of them",
        "line 8: `ListenPort` is not a port: write a number from 1 to 65535, or leave the line out",
        "line 9: `PublicKey` does not belong to [Interface]: move it below [Peer]",
        "line 10: [Interface] has no key of that name: use one of PrivateKey, Address, MTU, ListenPort, DNS, Table",
        "line 11: this line is neither a section nor a key with a value: write `Key = value`, or begin a comment with `#`",
        "line 12: [Interface] begins in line 2 already: move the keys together below one [Interface]",
        "line 13: there is no such section: write `[Interface]` or `[Peer]`",
        "line 15: `PublicKey` is missing here: add the public key of the hub",
        "line 16: `Endpoint` does not say where the hub is: an IPv6 address needs brackets: write `[2001:db8::1]:51820`",
        "line 17: `AllowedIPs` is not a list of addresses: write addresses like `10.77.0.12/32`, separated by commas",
        "line 18: `PersistentKeepalive` is not a time in seconds: write `25`, or `off`",
        "line 19: `Endpoint` is missing here: add `Endpoint = hub.example.net:51820`; a site calls its hub, never the other way round",
        "line 19: `AllowedIPs` is missing here: add `AllowedIPs = ` and the networks behind the hub",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert!(!text.contains("SECRET") && !text.contains("yAnz"));
}

#[test]
fn an_empty_file_is_told_what_is_missing() {
    let missing = ["there is no section [Interface]", "there is no section [Peer]"];
    assert_eq!(problems(""), missing.map(|what| (0, what.to_owned())));
    let missing = problems("[Interface]\n");
    assert_eq!(missing.len(), 3, "{missing:?}");
}

#[test]
fn bytes_that_are_no_text_are_told() {
    let rejected = parse(b"[Interface]\nAddress = \xff\xfe\n").unwrap_err();
    assert!(rejected.to_string().contains("line 2: this line is not text in UTF-8"));
}

#[test]
fn a_flood_of_mistakes_is_cut() {
    assert_eq!(problems(&"x\n".repeat(10_000)).len(), 50);
}

#[test]
fn numbers_have_no_sign_and_a_range() {
    for (section, line) in [
        ("[Interface]", "FwMark = 1"),
        ("[Interface]", "SaveConfig = yes"),
        ("[Peer]", "Endpoint = a:1"),
        ("[Peer]", "PersistentKeepalive = +25"),
        ("[Peer]", "PersistentKeepalive = 65536"),
        ("[Peer]", "Address = 10.0.0.1"),
        ("[Peer]", "AllowedIPs = 10.0.0.0/8 10.1.0.0/16"),
        ("[Peer]", "AllowedIPs = 10.0.0.0/8,,"),
    ] {
        assert!(parse(with(section, line).as_bytes()).is_err(), "{line}");
    }
    for (section, line) in [("[Interface]", "FwMark = 0x0"), ("[Peer]", "AllowedIPs = ::1")] {
        assert!(parse(with(section, line).as_bytes()).is_ok(), "{line}");
    }
}

#[test]
fn a_file_that_others_may_read_is_refused() {
    let path = std::env::temp_dir().join(format!("edge-wg-quick-{}.conf", std::process::id()));
    fs::copy(file("good/site.conf"), &path).unwrap();
    for (mode, is_good) in
        [(0o600, true), (0o400, true), (0o640, false), (0o644, false), (0o602, false)]
    {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = load(&path);
        assert_eq!(loaded.is_ok(), is_good, "{mode:o}: {loaded:?}");
    }
    let exposed = load(&path).unwrap_err().to_string();
    assert!(exposed.contains("chmod 600"), "{exposed}");
    fs::remove_file(&path).unwrap();
    assert!(matches!(load(&path), Err(WgQuickError::Unreadable(..))));
    assert!(matches!(load(Path::new("/")), Err(WgQuickError::Unlikely(_))));
    assert!(matches!(load(Path::new("/dev/zero")), Err(WgQuickError::Unlikely(_))));
}
