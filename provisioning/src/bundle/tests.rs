use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use proptest::prelude::*;
use tunnel::PrivateKey;

use super::archive::ArchiveMember;
use super::*;
use crate::office::signing::{KeyFile, NewKey, Signer};

/// The keys of a fleet, of its next ones, and of a stranger.
struct Keys {
    online: Signer,
    offline: Signer,
    next: Signer,
    stranger: Signer,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let signer = || {
        let key = NewKey::generate(None, "test").unwrap();
        KeyFile::parse(key.secret).unwrap().open(None).unwrap()
    };
    Keys { online: signer(), offline: signer(), next: signer(), stranger: signer() }
});

fn list(number: u32, signers: &[&Signer]) -> SigningKeys {
    let keys = signers.iter().map(|signer| signer.key().clone()).collect();
    SigningKeys::new(number, keys).unwrap()
}

fn first_list() -> SigningKeys {
    list(1, &[&KEYS.online, &KEYS.offline])
}

fn second_list() -> SigningKeys {
    list(2, &[&KEYS.next, &KEYS.offline])
}

fn signed_list(keys: SigningKeys, by: &Signer) -> (SigningKeys, Signature) {
    let signature = by.sign(keys.to_string().as_bytes()).unwrap();
    (keys, signature)
}

fn package(version: &str) -> (PackageName, PackageDigest) {
    (PackageName::new(version, "arm64").unwrap(), PackageDigest([7; 32]))
}

fn manifest(counter: u64) -> Manifest {
    Manifest {
        gateway: "amsterdam-01".to_owned(),
        counter,
        version: Some("0.2.0".to_owned()),
        min_version: Some("0.1.0".to_owned()),
        tunnel_public_key: None,
        packages: ["0.1.0", "0.2.0"].map(package).into(),
    }
}

fn files() -> BTreeMap<&'static str, &'static [u8]> {
    BTreeMap::from([
        ("gateway.toml", &b"[gateway]\nid = \"amsterdam-01\"\n"[..]),
        ("network/10-edge-machine.network", b"[Match]\n"),
        ("secrets.age", b"age-encryption.org/v1\n"),
    ])
}

fn contents(manifest: Manifest) -> Vec<u8> {
    Bundle::new(manifest, files()).unwrap().render().unwrap()
}

/// Returns a bundle with the first list of keys.
fn sealed(contents: &[u8], by: &Signer) -> Vec<u8> {
    let lists = [signed_list(first_list(), &KEYS.offline)];
    seal(&lists, contents, &by.sign(contents).unwrap()).unwrap()
}

fn bundle(counter: u64) -> Vec<u8> {
    sealed(&contents(manifest(counter)), &KEYS.online)
}

/// What a box knows before its first bundle.
const BLANK: VerifyPolicy<'_> = VerifyPolicy {
    keys: None,
    gateway: None,
    tunnel_public_key: None,
    last_counter: None,
    source: BundleSource::ByHand,
};

fn error(bytes: &[u8], policy: &VerifyPolicy<'_>) -> BundleError {
    verify(bytes, policy).unwrap_err()
}

#[test]
fn a_bundle_comes_back_as_it_was_made() {
    let bytes = bundle(7);
    assert_eq!(bytes, bundle(7), "the same input gives the same bytes");

    let verified = verify(&bytes, &BLANK).unwrap();

    assert_eq!(verified.bundle.manifest(), &manifest(7));
    assert_eq!(verified.bundle.files(), &files());
    assert_eq!(verified.keys, first_list());
    assert!(!verified.bundle.has_clear_secrets());
    let shown = format!("{verified:?}");
    assert!(!shown.contains("age-encryption"), "{shown}");
}

#[test]
fn a_bundle_that_was_cut_or_altered_is_refused_at_every_byte() {
    let bytes = bundle(7);
    for len in 0..bytes.len() {
        let error = error(&bytes[..len], &BLANK);
        assert!(matches!(error, BundleError::Damaged(_)), "{len}: {error}");
    }
    let longer = [bytes.as_slice(), b"x"].concat();
    let trailing = ArchiveError::TrailingBytes { bytes: 1 };
    assert_eq!(error(&longer, &BLANK), BundleError::Damaged(trailing));
    let keys = first_list();
    let trusting = VerifyPolicy { keys: Some(&keys), ..BLANK };
    // A signature takes a while to check: every byte around the signed archive, and some in it.
    let signed = bytes.windows(13).position(|bytes| bytes == b"manifest.toml").unwrap();
    let signed = signed..signed + contents(manifest(7)).len();
    let around = (0..bytes.len()).filter(|at| !signed.contains(at));
    for at in around.chain(signed.clone().step_by(15)) {
        let mut altered = bytes.clone();
        altered[at] ^= 1 << (at % 8);
        assert!(verify(&altered, &trusting).is_err(), "byte {at}");
        let is_list = at < signed.start;
        assert!(!is_list || verify(&altered, &BLANK).is_err(), "byte {at}");
    }
}

#[test]
fn only_keys_of_the_fleet_sign_a_bundle() {
    let keys = first_list();
    let trusting = VerifyPolicy { keys: Some(&keys), ..BLANK };
    let contents = contents(manifest(7));
    for signer in [&KEYS.online, &KEYS.offline] {
        assert!(verify(&sealed(&contents, signer), &trusting).is_ok());
    }
    for policy in [&trusting, &BLANK] {
        let error = error(&sealed(&contents, &KEYS.stranger), policy);
        let BundleError::ForeignSigner { signer, .. } = &error else { panic!("{error}") };
        assert_eq!(*signer, KEYS.stranger.key().id());
        assert!(error.to_string().contains(&KEYS.online.key().id().to_string()), "{error}");
    }
    // A list of keys that a stranger made, signed and used.
    let strange = [signed_list(list(1, &[&KEYS.stranger]), &KEYS.stranger)];
    let bytes = seal(&strange, &contents, &KEYS.stranger.sign(&contents).unwrap()).unwrap();
    assert!(matches!(error(&bytes, &trusting), BundleError::ForeignSigner { .. }));
    // A signature of something else by the right key.
    let lists = [signed_list(first_list(), &KEYS.offline)];
    let bytes = seal(&lists, &contents, &KEYS.online.sign(b"other").unwrap()).unwrap();
    let name = "bundle.tar".to_owned();
    assert_eq!(error(&bytes, &trusting), BundleError::WrongSignature { name });
}

#[test]
fn signing_keys_are_replaced_by_a_list_that_they_signed() {
    let contents = contents(manifest(7));
    let by_next = |lists: &[(SigningKeys, Signature)]| {
        seal(lists, &contents, &KEYS.next.sign(&contents).unwrap()).unwrap()
    };
    let (first, second) = (first_list(), second_list());
    let trusting_first = VerifyPolicy { keys: Some(&first), ..BLANK };
    let trusting_second = VerifyPolicy { keys: Some(&second), ..BLANK };
    let chain =
        [signed_list(first.clone(), &KEYS.offline), signed_list(second.clone(), &KEYS.online)];

    // A box that missed the replacement, a blank one, and one that has it.
    for policy in [&trusting_first, &BLANK, &trusting_second] {
        assert_eq!(verify(&by_next(&chain), policy).unwrap().keys, second);
    }
    // The new list must be signed by a key of the old one.
    let by_stranger = [chain[0].clone(), signed_list(second.clone(), &KEYS.stranger)];
    let error_of = |lists: &[_], policy| error(&by_next(lists), policy);
    let refused = error_of(&by_stranger, &trusting_first);
    assert!(matches!(refused, BundleError::ForeignSigner { .. }), "{refused}");
    // What the old key signs alone is refused after the replacement.
    let old = error(&sealed(&contents, &KEYS.online), &trusting_second);
    assert_eq!(old, BundleError::KeysTooOld { trusted: 2, last: 1 });
    // All lists are there, in their order.
    let third = signed_list(list(3, &[&KEYS.next]), &KEYS.next);
    let misplaced = |name: &str| BundleError::Misplaced { name: name.to_owned() };
    assert_eq!(error_of(&chain[1..], &trusting_first), misplaced("keys-2.txt"));
    assert_eq!(error_of(&[chain[0].clone(), third], &trusting_first), misplaced("keys-3.txt"));
    // Another fleet has lists of the same numbers.
    let other = [signed_list(list(1, &[&KEYS.next, &KEYS.stranger]), &KEYS.next)];
    let refused = error_of(&other, &trusting_first);
    assert!(matches!(refused, BundleError::ForeignSigner { .. }), "{refused}");
}

#[test]
fn a_bundle_for_another_box_or_an_older_one_is_refused() {
    let known = |gateway, last_counter| VerifyPolicy {
        gateway: Some(gateway),
        last_counter: Some(last_counter),
        ..BLANK
    };
    let bytes = bundle(7);
    assert!(verify(&bytes, &known("amsterdam-01", 6)).is_ok());
    let other = error(&bytes, &known("rotterdam-02", 6));
    assert!(matches!(&other, BundleError::OtherGateway { own, .. } if own == "rotterdam-02"));
    let same = error(&bytes, &known("amsterdam-01", 7));
    assert_eq!(same, BundleError::SameCounter { counter: 7 });
    let older = error(&bytes, &known("amsterdam-01", 8));
    assert_eq!(older, BundleError::OlderCounter { counter: 7, last: 8 });

    let (own, bundle) = (PrivateKey::generate().public_key(), PrivateKey::generate().public_key());
    let for_box = sealed(
        &contents(Manifest { tunnel_public_key: Some(bundle), ..manifest(7) }),
        &KEYS.online,
    );
    let with_key = |key| VerifyPolicy { tunnel_public_key: Some(key), ..BLANK };
    assert!(verify(&for_box, &with_key(bundle)).is_ok());
    let gateway = "amsterdam-01".to_owned();
    let refused = error(&for_box, &with_key(own));
    assert_eq!(refused, BundleError::OtherBox { gateway, bundle, own });
}

#[test]
fn secrets_in_clear_come_by_hand_only() {
    let mut files = files();
    files.insert("secrets/mqtt.password", b"secret");
    let contents = Bundle::new(manifest(7), files).unwrap().render().unwrap();
    let bytes = sealed(&contents, &KEYS.online);
    assert!(verify(&bytes, &BLANK).unwrap().bundle.has_clear_secrets());
    let keys = first_list();
    let pulled = VerifyPolicy { keys: Some(&keys), source: BundleSource::Pulled, ..BLANK };
    assert_eq!(error(&bytes, &pulled), BundleError::ClearSecrets);
    assert!(verify(&bundle(7), &pulled).is_ok());
    // The keys of a first bundle are trusted because a person brought them.
    let first = VerifyPolicy { keys: None, ..pulled };
    assert_eq!(error(&bundle(7), &first), BundleError::NoTrustedKeys);
}

#[test]
fn only_known_files_in_their_order_are_in_a_bundle() {
    let signed = |members: &[ArchiveMember<'_>]| {
        error(&sealed(&archive::render(members).unwrap(), &KEYS.online), &BLANK)
    };
    let text = manifest(7).render().unwrap();
    let first: ArchiveMember<'_> = (MANIFEST, text.as_bytes());
    let toml: ArchiveMember<'_> = (GATEWAY_TOML, b"");
    for name in [
        "edge-gateway.service",
        "etc/passwd",
        "network/10-edge.netdev",
        "network/run.sh",
        "certificates/ca.key",
        "secrets/a/b",
        "secrets/a..b",
        "secrets/Key",
        "secret",
        "gateway.toml/x",
    ] {
        let refused = signed(&[first, toml, (name, b"")]);
        // Names that are before gateway.toml are out of order as well.
        assert!(
            matches!(
                &refused,
                BundleError::Contents(
                    ContentsError::Forbidden { .. }
                        | ContentsError::Order
                        | ContentsError::Archive(_)
                )
            ),
            "{name}: {refused}"
        );
    }
    let missing = |name| BundleError::Contents(ContentsError::Missing(name));
    assert_eq!(signed(&[]), missing(MANIFEST));
    assert_eq!(signed(&[toml, first]), missing(MANIFEST));
    assert_eq!(signed(&[first]), missing(GATEWAY_TOML));
    let unsorted = [first, ("network/a.network", &b""[..]), toml];
    assert_eq!(signed(&unsorted), BundleError::Contents(ContentsError::Order));
}

#[test]
fn a_bundle_of_more_than_a_mebibyte_is_refused_unread() {
    let refused = error(&vec![0; MAX_BUNDLE_BYTES + 1], &BLANK);
    assert_eq!(refused, BundleError::TooLarge { bytes: MAX_BUNDLE_BYTES + 1 });
    assert!(error(&vec![0; MAX_BUNDLE_BYTES], &BLANK).to_string().contains("damaged"));
}

#[test]
fn a_manifest_has_one_form() {
    let read = |text: &str| Manifest::read(text.as_bytes());
    let text = manifest(7).render().unwrap();
    assert_eq!(read(&text).unwrap(), manifest(7));
    for (from, to, problem) in [
        ("format = 1", "format = 2", "update edge-gateway"),
        ("format = 1", "format = 0", "`format`"),
        ("format = 1\n", "", "`format`"),
        ("counter = 7", "counter = 0", "`counter`"),
        ("counter = 7", "counter = -7", "`counter`"),
        ("counter = 7", "counter = \"7\"", "`counter`"),
        ("counter = 7", "counter = 07", "not as"),
        ("counter = 7", "counter = 0x7", "not as"),
        ("counter = 7", "counter  = 7", "not as"),
        ("counter = 7", "counter = 7\nexpires = 1", "`expires`"),
        ("amsterdam-01", "Amsterdam", "`gateway`"),
        ("amsterdam-01", "../etc", "`gateway`"),
        ("\"0.2.0\"", "\"0.2.0\\nPin: release *\"", "`version`"),
        ("\"0.2.0\"", "\"*\"", "`version`"),
        ("\"0.1.0\"", "\"../0.1.0\"", "`min_version`"),
        ("[packages]", "packages = 1\n[other]", "`packages`"),
        ("edge-gateway_0.1.0", "edge-gateway_../0.1.0", "`packages`"),
        ("0707", "07G7", "`packages`"),
        ("\n", "\r\n", "not as"),
    ] {
        let refused = read(&text.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(refused.contains(problem), "{to}: {refused}");
    }
}

/// The sentences of all refusals, as an installer reads them.
#[test]
fn every_refusal_says_what_is_wrong_and_what_to_do() {
    let keys = first_list();
    let known = VerifyPolicy {
        keys: Some(&keys),
        gateway: Some("rotterdam-02"),
        last_counter: Some(9),
        ..BLANK
    };
    let mut clear = files();
    clear.insert("secrets/mqtt.password", b"secret");
    let clear = Bundle::new(manifest(7), clear).unwrap().render().unwrap();
    let first = VerifyPolicy { source: BundleSource::Pulled, ..BLANK };
    let pulled = VerifyPolicy { keys: Some(&keys), ..first };
    let errors = [
        error(&vec![0; MAX_BUNDLE_BYTES + 1], &BLANK),
        error(&bundle(7)[..1000], &BLANK),
        error(&bundle(7), &known),
        error(&bundle(7), &VerifyPolicy { gateway: None, ..known }),
        error(&bundle(9), &VerifyPolicy { gateway: None, ..known }),
        error(&bundle(7), &first),
        error(&sealed(&clear, &KEYS.online), &pulled),
    ];
    let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(text.join("\n"));
}

fn has_tool(name: &str) -> bool {
    Command::new(name).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn temp_dir() -> PathBuf {
    let name = format!("edge-bundle-{}-{:08x}", std::process::id(), fastrand::u32(..));
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir(&dir).unwrap();
    dir
}

fn run(dir: &std::path::Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn tar_and_minisign_open_and_verify_a_bundle() {
    assert!(has_tool("minisign"), "the Debian package minisign is missing");
    let dir = temp_dir();
    std::fs::write(dir.join("edge-bundle-amsterdam-01.tar"), bundle(7)).unwrap();
    let key = KEYS.online.key().as_str();
    let offline = KEYS.offline.key().as_str();

    run(&dir, "tar", &["-xf", "edge-bundle-amsterdam-01.tar"]);
    run(&dir, "minisign", &["-Vm", "bundle.tar", "-P", key]);
    run(&dir, "minisign", &["-Vm", "keys-1.txt", "-P", offline]);
    run(&dir, "tar", &["-xf", "bundle.tar"]);

    assert_eq!(std::fs::read(dir.join("gateway.toml")).unwrap(), files()["gateway.toml"]);
    let listed = run(&dir, "tar", &["-tvf", "bundle.tar"]);
    assert!(listed.lines().all(|line| line.starts_with("-rw-------")), "{listed}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_bundle_that_minisign_signed_is_accepted() {
    assert!(has_tool("minisign"), "the Debian package minisign is missing");
    let dir = temp_dir();
    let contents = contents(manifest(7));
    std::fs::write(dir.join("bundle.tar"), &contents).unwrap();
    // The C tool makes the key as well; -W is a key without a password.
    run(&dir, "minisign", &["-GW", "-p", "key.pub", "-s", "key"]);
    run(&dir, "minisign", &["-Sm", "bundle.tar", "-s", "key"]);
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let signer = KeyFile::parse(read("key").into()).unwrap().open(None).unwrap();
    assert_eq!(*signer.key(), SigningKey::from_pub_file(&read("key.pub")).unwrap());

    let signature = Signature::from_minisig(&read("bundle.tar.minisig")).unwrap();
    let lists = [signed_list(list(1, &[&signer]), &signer)];
    let bytes = seal(&lists, &contents, &signature).unwrap();

    assert!(verify(&bytes, &BLANK).is_ok());
    std::fs::remove_dir_all(&dir).unwrap();
}

proptest! {
    #[test]
    fn any_files_of_allowed_names_come_back(
        contents in prop::collection::btree_map(
            "(network/[0-9]{2}-edge-[a-z]{1,9}\\.network|certificates/[a-z]{1,9}\\.pem)",
            prop::collection::vec(any::<u8>(), 0..2000),
            0..5,
        ),
        counter in 1..i64::MAX,
    ) {
        let manifest = manifest(counter.unsigned_abs());
        let files = contents.iter().map(|(name, content)| (name.as_str(), content.as_slice()));
        let files: BTreeMap<_, _> = files.chain([(GATEWAY_TOML, &b"x"[..])]).collect();
        let made = Bundle::new(manifest, files).unwrap();
        let bytes = sealed(&made.render().unwrap(), &KEYS.online);
        prop_assert_eq!(verify(&bytes, &BLANK).unwrap().bundle, made);
    }

    #[test]
    fn blocks_in_another_order_are_refused(from in 0..10_usize, to in 0..10_usize) {
        let bytes = bundle(7);
        let mut blocks: Vec<_> = bytes.chunks(512).collect();
        let (from, to) = (from % blocks.len(), to % blocks.len());
        blocks.swap(from, to);
        let swapped = blocks.concat();
        prop_assert_eq!(verify(&swapped, &BLANK).is_ok(), swapped == bytes);
    }
}
