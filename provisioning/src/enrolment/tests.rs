use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

fn temp_dir() -> PathBuf {
    let name = format!("edge-enrolment-{}-{:08x}", std::process::id(), fastrand::u32(..));
    std::env::temp_dir().join(name)
}

#[test]
fn the_keys_of_a_box_are_made_once_and_readable_by_it_alone() {
    let dir = temp_dir().join("keys");
    let made = BoxKeys::open_or_create(&dir).unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

    let opened = BoxKeys::open_or_create(&dir).unwrap();

    assert_eq!(opened.tunnel_public_key(), made.tunnel_public_key());
    assert_eq!(mode(&dir), 0o700);
    let names = ["tunnel.key", "age.key", "certificate.key"];
    assert_eq!(fs::read_dir(&dir).unwrap().count(), names.len());
    for name in names {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
        let secret = fs::read_to_string(dir.join(name)).unwrap();
        let secret = secret.lines().nth(usize::from(name == "certificate.key")).unwrap().to_owned();
        let public = format!("{made:?} {}", made.enrolment().unwrap());
        assert!(!public.contains(&secret), "{name}");
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o640)).unwrap();
        let refused = BoxKeys::open_or_create(&dir).unwrap_err().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        let whole = fs::read(dir.join(name)).unwrap();
        for damaged in [&b""[..], b"x"] {
            fs::write(dir.join(name), damaged).unwrap();
            let refused = BoxKeys::open_or_create(&dir).unwrap_err().to_string();
            assert!(refused.contains("enrol this box again"), "{refused}");
        }
        fs::write(dir.join(name), whole).unwrap();
    }
    fs::remove_dir_all(dir.parent().unwrap()).unwrap();
}

#[test]
fn an_enrolment_names_nobody_and_comes_back() {
    let dir = temp_dir();
    let keys = BoxKeys::open_or_create(&dir).unwrap();
    let enrolment = keys.enrolment().unwrap();
    let text = enrolment.to_string();

    assert_eq!(Enrolment::parse(&text).unwrap(), enrolment);
    assert_eq!(Enrolment::parse(&text.replace('\n', "\r\n")).unwrap(), enrolment);
    let id = enrolment.short_id();
    assert_eq!((id.len(), enrolment.file_name()), (8, format!("edge-enrol-{id}.txt")));
    let named = text.replace("format = 1", "format = 1\ngateway = \"amsterdam-01\"");
    let refused = Enrolment::parse(&named).unwrap_err();
    assert_eq!(refused, EnrolmentError::UnknownKey { key: "gateway".to_owned() });
    let later = text.replace("format = 1", "format = 2");
    assert_eq!(Enrolment::parse(&later), Err(EnrolmentError::LaterFormat { format: 2 }));
    assert_eq!(Enrolment::parse("# nothing"), Err(EnrolmentError::Foreign));
    let without = text.replace("age_recipient", "recipient");
    assert!(matches!(Enrolment::parse(&without), Err(EnrolmentError::Malformed { .. })));
    let long = text + &"#".repeat(MAX_ENROLMENT_BYTES);
    assert_eq!(Enrolment::parse(&long), Err(EnrolmentError::Foreign));
    fs::remove_dir_all(&dir).unwrap();
}

/// The office stores what it has read and reads it again in each later command.
#[test]
fn an_enrolment_has_one_form() {
    let enrolment = BoxKeys::generate().unwrap().enrolment().unwrap();
    let text = enrolment.to_string();
    let begin = "-----BEGIN CERTIFICATE REQUEST-----";
    // Readers of PEM skip what is before it.
    for before in ["\\\"\\\"\\\"\n", "x = 1\n", "\\u0041\n", "\\n"] {
        let quoted = text.replace(begin, &format!("{before}{begin}"));
        let read = Enrolment::parse(&quoted);
        assert!(read.is_err() || read.unwrap().to_string() == quoted, "{before}");
    }
    // It would be another text when it is read again.
    let returns = text.replace(begin, &format!("\r\r\n{begin}"));
    assert_eq!(Enrolment::parse(&returns), Err(EnrolmentError::Foreign));
    let quotes = text.replace(begin, &format!("\\\"\\\"\\\"{begin}"));
    assert_eq!(Enrolment::parse(&quotes), Err(EnrolmentError::Foreign));
    let without_header = text.strip_prefix(HEADER).unwrap();
    assert_eq!(Enrolment::parse(without_header), Err(EnrolmentError::Foreign));
    let fill = MAX_ENROLMENT_BYTES - without_header.len();
    let long = without_header.replace(begin, &format!("{}{begin}", "#".repeat(fill)));
    assert_eq!(long.len(), MAX_ENROLMENT_BYTES);
    assert_eq!(Enrolment::parse(&long), Err(EnrolmentError::Foreign));
    let fill = MAX_ENROLMENT_BYTES - text.len();
    for (fill, is_read) in [(fill, true), (fill + 1, false)] {
        let long = text.replace(begin, &format!("{}{begin}", "#".repeat(fill)));
        assert_eq!(Enrolment::parse(long.trim_end()).is_ok(), is_read);
    }
}

proptest! {
    #[test]
    fn what_is_read_as_an_enrolment_comes_back(
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..3_usize, "(\"\"\"|\\\\|\\\\\"|\n|\r|#|[ -~]){1,3}"),
            1..4,
        ),
    ) {
        let mut text: Vec<char> = BOX_TEXT.chars().collect();
        for (at, cut, new) in edits {
            let at = at.index(text.len());
            let end = text.len().min(at + cut);
            text.splice(at..end, new.chars());
        }
        let text: String = text.into_iter().collect();
        if let Ok(read) = Enrolment::parse(&text) {
            let stored = read.to_string();
            prop_assert!(stored.len() <= MAX_ENROLMENT_BYTES);
            prop_assert_eq!(Enrolment::parse(&stored), Ok(read));
        }
    }
}

static BOX_TEXT: LazyLock<String> =
    LazyLock::new(|| BoxKeys::generate().unwrap().enrolment().unwrap().to_string());

#[test]
fn only_the_box_itself_decrypts_its_secrets() {
    let (dir, other_dir) = (temp_dir(), temp_dir());
    let keys = BoxKeys::open_or_create(&dir).unwrap();
    let other = BoxKeys::open_or_create(&other_dir).unwrap();
    let recipient = keys.enrolment().unwrap().age_recipient;
    let files = BTreeMap::from([("secrets/mqtt.password", &b"horse"[..])]);

    let sealed = seal_secrets(&recipient, &files).unwrap();

    assert!(!sealed.windows(5).any(|bytes| bytes == b"horse"));
    let unsealed = keys.unseal(&sealed).unwrap();
    assert_eq!(unsealed["secrets/mqtt.password"].as_slice(), b"horse");
    assert_eq!(other.unseal(&sealed), Err(SealError::Decrypt));
    for at in (0..sealed.len()).step_by(5) {
        let mut altered = sealed.clone();
        altered[at] ^= 1;
        assert!(keys.unseal(&altered).is_err(), "byte {at}");
        assert!(keys.unseal(&sealed[..at]).is_err(), "length {at}");
    }
    assert_eq!(seal_secrets("age1x", &files), Err(SealError::Recipient));
    let forbidden = BTreeMap::from([("gateway.toml", &b""[..])]);
    assert!(matches!(seal_secrets(&recipient, &forbidden), Err(SealError::Forbidden { .. })));
    for dir in [dir, other_dir] {
        fs::remove_dir_all(dir).unwrap();
    }
}
