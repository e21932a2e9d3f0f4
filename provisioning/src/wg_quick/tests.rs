use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wg_quick").join(name)
}

fn parse_text(text: &str) -> Result<WgQuick, RejectedFile> {
    parse("site.conf".as_ref(), text.as_bytes())
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(file(name)).unwrap()
}

fn parse_file(name: &str) -> Result<WgQuick, RejectedFile> {
    parse("site.conf".as_ref(), &bytes(name))
}

/// Returns the lines of all problems with their messages.
fn problems(text: &str) -> Vec<(Option<usize>, String)> {
    let rejected = parse_text(text).unwrap_err();
    rejected.problems.into_iter().map(|problem| (problem.line, problem.message)).collect()
}

/// Returns a valid file with one more line after a section header.
fn with(section: &str, line: &str) -> String {
    let text = fs::read_to_string(file("good/site.conf")).unwrap();
    text.replace(section, &format!("{section}\n{line}"))
}

fn nets(text: &str) -> Vec<ipnet::IpNet> {
    text.split_whitespace().map(|net| net.parse().unwrap()).collect()
}

#[test]
fn a_file_of_wg_quick_becomes_the_settings_of_a_tunnel() {
    let read = parse_file("good/site.conf").unwrap();
    let Settings { private_key, addresses, mtu, keep_alive, hubs } = read.settings;
    assert_eq!(private_key.expose().as_str(), "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=");
    assert_eq!(addresses, nets("10.77.0.12/32 fd77::12/128"));
    assert_eq!((mtu, keep_alive), (1400, Some(Duration::from_secs(25))));
    assert_eq!((read.port, read.routes), (LocalPort::Fixed(51821), RoutePolicy::Auto));
    let [hub] = hubs.as_slice() else { panic!("{hubs:?}") };
    assert_eq!(hub.name, "hub-a.example.net:51820");
    assert_eq!(hub.endpoint.to_string(), hub.name);
    assert_eq!(hub.public_key.to_string(), "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=");
    assert!(hub.preshared_key.is_some());
    assert_eq!(hub.allowed_ips, nets("10.77.0.0/16 10.78.1.0/24 fd77::/64"));
    let notes: Vec<_> = read.notes.lines().collect();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].starts_with("site.conf:5: `DNS` has no effect"), "{notes:?}");
}

#[test]
fn line_breaks_of_windows_and_lower_case_are_accepted() {
    let read = parse_file("good/windows.conf").unwrap();
    assert_eq!(read.settings.addresses, nets("10.77.0.12/32"));
    assert_eq!((read.settings.mtu, read.settings.keep_alive), (DEFAULT_MTU, None));
    assert_eq!((read.port, read.routes), (LocalPort::Any, RoutePolicy::Off));
    assert_eq!(read.settings.hubs[0].endpoint.host, "2001:db8::1");
}

#[test]
fn peers_with_the_same_allowed_ips_are_hubs_in_order_of_preference() {
    let hubs = parse_file("good/two_hubs.conf").unwrap().settings.hubs;
    let names: Vec<_> = hubs.iter().map(|hub| hub.name.as_str()).collect();
    assert_eq!(names, ["192.0.2.1:51820", "192.0.2.2:51820"]);
}

#[test]
fn every_problem_is_shown_at_once_and_no_secret() {
    for name in ["commands", "everything", "two_peers"] {
        let rejected = parse_file(&format!("broken/{name}.conf")).unwrap_err();
        let shown = rejected.to_string();
        assert!(!shown.contains("SECRET") && !shown.contains("yAnz"), "{shown}");
        insta::with_settings!({
            snapshot_path => "../../tests/wg_quick/broken/snapshots",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(name, shown);
        });
    }
}

#[test]
fn commands_are_rejected() {
    let rejected = parse_file("broken/commands.conf").unwrap_err();
    let lines: Vec<_> = rejected.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [4, 5, 7, 8].map(Some));
    let message = &rejected.problems[0].message;
    assert_eq!(message, "`PostUp` is a command, and commands from a file are never run");
}

#[test]
fn missing_sections_and_keys_are_reported() {
    let missing = ["there is no section [Interface]", "there is no section [Peer]"];
    assert_eq!(problems(""), missing.map(|message| (None, message.to_owned())));
    let missing = problems("[Interface]\n");
    assert_eq!(missing.len(), 3, "{missing:?}");
}

#[test]
fn a_line_that_is_not_utf_8_is_reported() {
    let rejected = parse("x".as_ref(), b"[Interface]\nAddress = \xff\xfe\n").unwrap_err();
    let problem = rejected.problems.iter().find(|problem| problem.line == Some(2)).unwrap();
    assert_eq!(problem.message, "this line is not UTF-8");
}

#[test]
fn at_most_50_problems_are_recorded() {
    assert_eq!(problems(&"x\n".repeat(10_000)).len(), 50);
}

#[test]
fn a_word_as_long_as_a_key_is_redacted_wherever_it_is() {
    let key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    let lines = [
        format!("Address = {key}"),
        format!("Endpoint = {key}"),
        format!("PublicKey = {key} # {key}"),
        format!("#PrivateKey = {key}"),
        format!("[{key}]"),
        format!("{key} = 1"),
        key.to_owned(),
    ];
    for line in lines {
        let shown = keys::redacted(&line);
        assert!(!shown.contains(&key[..25]) && shown.len() == line.len(), "{shown}");
    }
    let public = "  Endpoint = hub.example.net:51820\r\n";
    assert_eq!(keys::redacted(public), public);
}

#[test]
fn unsupported_and_malformed_values_are_rejected() {
    for (section, line) in [
        ("[Interface]", "FwMark = 1"),
        ("[Interface]", "SaveConfig = yes"),
        ("[Interface]", "Table = 1234"),
        ("[Interface]", "MTU = 575"),
        ("[Peer]", "Endpoint = a:1"),
        ("[Peer]", "PersistentKeepalive = +25"),
        ("[Peer]", "PersistentKeepalive = 65536"),
        ("[Peer]", "Address = 10.0.0.1"),
        ("[Peer]", "AllowedIPs = 10.0.0.0/8 10.1.0.0/16"),
        ("[Peer]", "AllowedIPs = 10.0.0.0/8,,"),
    ] {
        assert!(parse_text(&with(section, line)).is_err(), "{line}");
    }
    for (section, line) in [("[Interface]", "FwMark = 0x0"), ("[Peer]", "AllowedIPs = ::1")] {
        assert!(parse_text(&with(section, line)).is_ok(), "{line}");
    }
}

/// Returns a file with these lines, and IPv4 only.
fn v4(interface: &str, peer: &str) -> String {
    format!(
        "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n\
         Address = 10.77.0.12/32\n{interface}\n[Peer] # NL#1\n\
         PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n\
         Endpoint = 192.0.2.1:51820 # the hub\n{peer}\n"
    )
}

#[test]
fn files_of_panels_and_providers_are_accepted() {
    let peer = "AllowedIPs = 10.77.0.0/16";
    let panel = "PreUp =\nPostUp = \nPreDown =\nPostDown =\nListenPort =\nSaveConfig = true";
    let read = parse_text(&v4(&panel.replace("ListenPort =\n", ""), peer)).unwrap();
    let notes: Vec<_> = read.notes.lines().collect();
    assert!(notes.len() == 1 && notes[0].contains("`SaveConfig` has no effect"), "{notes:?}");
    assert_eq!(parse_text(&v4("MTU = 1200", peer)).unwrap().settings.mtu, 1200);
    let provider = "AllowedIPs = 192.168.178.0/24,0.0.0.0/0";
    let read = parse_text(&v4("Table = off\nDNS = 10.64.0.1\nDNS = 10.64.0.2", provider)).unwrap();
    assert_eq!(read.routes, RoutePolicy::Off);
}

#[test]
fn what_a_machine_cannot_set_and_other_protocols_are_rejected_with_the_way_out() {
    let everything = "AllowedIPs = 0.0.0.0/0,::/0";
    for (interface, peer, message, help) in [
        ("", everything, "would lead all traffic of this host into the tunnel", "`Table = off`"),
        ("", "AllowedIPs = 192.0.2.0/24", "the hub's own address 192.0.2.1", "`Table = off`"),
        ("MTU = 1200", "AllowedIPs = 10.0.0.0/8, fd77::/64", "is too small for IPv6", "1280"),
        ("Jc = 4", "AllowedIPs = 10.0.0.0/8", "AmneziaWG, which is another protocol", "plain"),
        ("H1 = 77", "AllowedIPs = 10.0.0.0/8", "AmneziaWG, which is another protocol", "plain"),
    ] {
        let rejected = parse_text(&v4(interface, peer)).unwrap_err();
        let [problem] = rejected.problems.as_slice() else { panic!("{rejected}") };
        assert!(problem.message.contains(message), "{rejected}");
        assert!(problem.help.as_ref().is_some_and(|text| text.contains(help)), "{rejected}");
        assert!(!rejected.to_string().contains("userspace"), "the command has no mode: {rejected}");
    }
}

#[test]
fn a_file_that_others_can_read_is_rejected() {
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
    for path in ["/", "/dev/zero"] {
        let error = load(path.as_ref()).unwrap_err();
        assert!(matches!(error, WgQuickError::Rejected(_)), "{error:?}");
        assert!(error.to_string().contains("this is not a file of wg-quick"), "{error}");
    }
}
