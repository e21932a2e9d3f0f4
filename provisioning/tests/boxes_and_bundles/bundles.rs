//! From `init` to bundles that boxes load.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use jiff::{Timestamp, ToSpan as _};
use provisioning::bundle::{BundleError, BundleSource, VerifyPolicy, verify};
use provisioning::enrolment::Enrolment;
use provisioning::office::authority;
use provisioning::office::build::BuiltSite;
use provisioning::office::fleet::Fleet;

use crate::office::{Office, SITE, TestBox, contains, files};

#[test]
fn a_bundle_passes_the_code_that_loads_it_and_is_the_same_each_time() {
    let (office, own) = (Office::new(), TestBox::new());
    let told = office.done(&["build"]);
    assert!(told.contains("amsterdam-01: no bundle, its box is not enrolled"), "{told}");
    office.enrol(&own);
    let told = office.done(&["build"]);
    assert!(told.contains("amsterdam-01: bundle 1"), "{told}");
    let first = office.bundle();

    let password = own.load(&first, None);
    assert_eq!(password, office.secret("sites/amsterdam-01/mqtt.password.1"));
    assert_eq!(own.load(&first, Some(&office.keys())), password);
    // The same input gives the same bytes, also in a copy of the fleet without its output.
    let told = office.done(&["build", SITE]);
    assert!(told.contains("0 new bundles, 1 unchanged"), "{told}");
    assert_eq!(office.bundle(), first);
    fs::remove_dir_all(office.path("out")).unwrap();
    office.done(&["build"]);
    assert_eq!(office.bundle(), first);
}

#[test]
fn a_change_gets_the_next_number_and_older_bundles_are_refused() {
    let (office, own) = (Office::new(), TestBox::new());
    office.enrol(&own);
    office.done(&["build"]);
    let first = office.bundle();
    let template = office.path("templates/pump.toml");
    let text = fs::read_to_string(&template).unwrap();
    fs::write(&template, text.replace("scan = \"1s\"", "scan = \"2s\"")).unwrap();
    let told = office.done(&["build"]);
    assert!(told.contains("amsterdam-01: bundle 2"), "{told}");
    let site = fs::read_to_string(office.path("sites/amsterdam-01.toml")).unwrap();
    assert!(site.contains("counter = 2\n") && site.contains("# inside the tunnel"), "{site}");
    let keys = office.keys();
    let after = |counter| VerifyPolicy { last_counter: Some(counter), ..own.policy(Some(&keys)) };
    assert!(verify(&office.bundle(), &after(1)).is_ok());
    let old = verify(&first, &after(2)).unwrap_err();
    assert_eq!(old, BundleError::OlderCounter { counter: 1, last: 2 });
    let other = TestBox::new();
    let refused = verify(&first, &other.policy(None)).unwrap_err();
    assert!(matches!(refused, BundleError::OtherBox { .. }), "{refused}");
    let told = office.done(&["verify", "out/bundles/edge-bundle-amsterdam-01.tar"]);
    assert!(told.contains("bundle 2 of amsterdam-01, secrets encrypted to the box"), "{told}");
    let bundle = "out/bundles/edge-bundle-amsterdam-01.tar";
    let told = office.refused(&["verify", bundle, "--after", "2"]);
    assert!(told.contains("nothing to do"), "{told}");
    let told = office.refused(&["verify", bundle, "--gateway", "rotterdam-02"]);
    assert!(told.contains("load the bundle of `rotterdam-02`"), "{told}");
}

#[test]
fn the_same_content_gets_a_new_number_on_request() {
    let (office, own) = (Office::new(), TestBox::new());
    office.enrol(&own);
    office.done(&["build"]);
    let told = office.done(&["build", "--again", SITE]);
    assert!(told.contains("amsterdam-01: bundle 2"), "{told}");
    let keys = office.keys();
    let policy = VerifyPolicy { last_counter: Some(1), ..own.policy(Some(&keys)) };
    assert!(verify(&office.bundle(), &policy).is_ok());
    let told = office.done(&["build"]);
    assert!(told.contains("1 unchanged"), "{told}");
    // Without a site it would count every bundle of the fleet.
    assert!(office.refused(&["build", "--again"]).contains("SITE"));
}

#[test]
fn no_secret_is_outside_of_its_file() {
    let (office, own) = (Office::new(), TestBox::new());
    office.enrol(&own);
    let password = office.path("secrets/password");
    fs::write(&password, "horse-battery\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    office.done(&["rotate", SITE, "--password"]);
    for command in ["build", "hub", "check", "list", "diff"] {
        let _ = office.run(&[command]);
    }
    office.done(&["rotate", "--signing-key", "--password-file", "secrets/password"]);
    office.done(&["build", "--password-file", "secrets/password"]);
    office.refused(&["build"]);

    let mut secrets: Vec<String> = Vec::new();
    for (path, content) in files(&office.path("secrets")) {
        // Public by its nature: it says nothing about what it is the digest of.
        if !path.ends_with("sealed.digest") {
            let text = String::from_utf8(content).unwrap();
            let lines = text.lines().map(str::trim).filter(|line| !line.contains("---"));
            secrets.extend(lines.filter(|line| !line.contains("comment")).map(str::to_owned));
        }
    }
    for (_, content) in files(&own.dir.0.join("keys")) {
        let text = String::from_utf8(content).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("-----"));
        secrets.extend(lines.map(str::to_owned));
    }
    assert!(secrets.len() > 12, "{}", secrets.len());
    assert!(secrets.iter().all(|secret| secret.len() > 7), "each is long enough to be found");
    let printed = office.printed.borrow().clone();
    for secret in &secrets {
        assert!(!contains(printed.as_bytes(), secret), "a command printed a secret");
        for (path, content) in files(&office.dir.0) {
            // The tunnel of a hub has its key in its own configuration, of mode 0600.
            let is_secret = path.starts_with("secrets") || path.ends_with("wireguard/edge.conf");
            assert!(is_secret || !contains(&content, secret), "{}", path.display());
        }
    }
    for (path, _) in files(&office.path("secrets")) {
        let path = office.path("secrets").join(path);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
    let ignored = fs::read_to_string(office.path(".gitignore")).unwrap();
    assert!(ignored.contains("/secrets/"), "{ignored}");
}

#[test]
fn a_first_key_from_the_office_is_for_the_stick_and_the_first_contact_only() {
    let (office, own) = (Office::empty(), TestBox::new());
    office.done(&["add", SITE, "--template", "pump", "--with-key"]);
    office.done(&["build"]);
    let stick = office.path("secrets/bundles/edge-bundle-amsterdam-01.tar");
    assert_eq!(fs::metadata(&stick).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!office.path("out/bundles/edge-bundle-amsterdam-01.tar").exists());
    let bytes = fs::read(&stick).unwrap();
    // The box has made a key of its own at its first start.
    let blank = own.policy(None);
    let verified = verify(&bytes, &blank).unwrap();
    assert!(verified.bundle.has_clear_secrets());
    let first_key = Fleet::load(&office.dir.0).unwrap().site(SITE).unwrap().public_key.unwrap();
    let keys = office.keys();
    let pulled = VerifyPolicy { keys: Some(&keys), source: BundleSource::Pulled, ..blank };
    assert_eq!(verify(&bytes, &pulled).unwrap_err(), BundleError::ClearSecrets);
    let old_password = office.secret("sites/amsterdam-01/mqtt.password.1");

    office.enrol(&own);
    office.done(&["build"]);

    assert!(!stick.exists() && !office.path("secrets/sites/amsterdam-01/tunnel.key").exists());
    let password = own.load(&office.bundle(), Some(&office.keys()));
    assert_ne!(password, old_password, "it lay on the stick");
    let refused = fs::read_to_string(office.path("enrolled/refused.txt")).unwrap();
    assert!(refused.contains(&first_key.to_string()), "{refused}");
}

#[test]
fn an_enrolment_that_cheats_is_refused_and_changes_nothing() {
    let (office, own, other) = (Office::new(), TestBox::new(), TestBox::new());
    office.done(&["add", "rotterdam-02", "--template", "pump"]);
    let named = office.refused(&["add", "office", "--template", "pump"]);
    assert!(named.contains("the user `office` of the broker may do everything"), "{named}");
    let file = own.enrolment_file();
    let text = fs::read_to_string(&file).unwrap();
    let enrol_text = |text: &str| {
        let path = own.dir.0.join("cheat.txt");
        fs::write(&path, text).unwrap();
        office.refused(&["enrol", "rotterdam-02", path.to_str().unwrap()])
    };
    let named = text.replace("format = 1", "format = 1\ngateway = \"amsterdam-01\"");
    assert!(enrol_text(&named).contains("a box states its public keys and nothing else"));
    let theirs = other.keys.enrolment().unwrap();
    // Each enrolment of a box has other signatures.
    let mine = Enrolment::parse(&text).unwrap();
    let request = text.replace(&mine.certificate_request, &theirs.certificate_request);
    assert!(enrol_text(&request).contains("has parts of two boxes"));
    let key = theirs.tunnel_public_key.to_string();
    let tunnel = text.replace(&mine.tunnel_public_key.to_string(), &key);
    assert!(enrol_text(&tunnel).contains("has parts of two boxes"));
    assert!(enrol_text("nonsense").contains("this is not an enrolment file"));
    let (path, shown) = (file.to_str().unwrap(), "amsterdam-01");
    assert!(office.refused(&["enrol", "paris", path]).contains("there is no site paris"));

    let fleet = fs::read_to_string(office.path("fleet.toml")).unwrap();
    let key = mine.tunnel_public_key;
    let computer = format!(
        "{fleet}\n[[office]]\nname = \"anna\"\naddress = \"10.77.255.2\"\npublic_key = \"{key}\"\n"
    );
    fs::write(office.path("fleet.toml"), computer).unwrap();
    let taken = office.refused(&["enrol", SITE, path]);
    assert!(taken.contains("is the key of the computer anna of the office"), "{taken}");
    fs::write(office.path("fleet.toml"), fleet).unwrap();

    office.enrol(&own);
    // The box of one site at another one, and another box at this site.
    let twice = office.refused(&["enrol", "rotterdam-02", path]);
    assert!(twice.contains(shown) && twice.contains("one site only"), "{twice}");
    let other_file = other.enrolment_file();
    let second = office.refused(&["enrol", SITE, other_file.to_str().unwrap()]);
    assert!(second.contains("edge-provision replace amsterdam-01"), "{second}");
    office.enrol(&own);
}

#[test]
fn a_replaced_or_revoked_box_is_refused_for_ever() {
    let (office, old, new) = (Office::new(), TestBox::new(), TestBox::new());
    office.enrol(&old);
    office.done(&["build"]);
    office.done(&["hub"]);
    let old_key = old.keys.tunnel_public_key().to_string();
    let hub = || {
        let read = |name: &str| fs::read_to_string(office.path("out/hubs/hub-a/etc").join(name));
        ["wireguard/edge.conf", "mosquitto/edge.passwords", "mosquitto/edge.acl"]
            .map(|name| read(name).unwrap())
            .concat()
    };
    assert!(hub().contains(&old_key));
    let site = fs::read_to_string(office.path("sites/amsterdam-01.toml")).unwrap();
    let address = site.lines().find(|line| line.starts_with("address")).unwrap();

    let (old_file, new_file) = (old.enrolment_file(), new.enrolment_file());
    let (old_file, new_file) = (old_file.to_str().unwrap(), new_file.to_str().unwrap());
    let same = office.refused(&["replace", SITE, old_file]);
    assert!(same.contains("has already"), "{same}");
    office.done(&["replace", SITE, new_file]);
    office.done(&["build"]);
    office.done(&["hub"]);

    assert!(!hub().contains(&old_key) && hub().contains(&new.keys.tunnel_public_key().to_string()));
    let site = fs::read_to_string(office.path("sites/amsterdam-01.toml")).unwrap();
    assert!(site.contains(address), "{site}");
    let password = new.load(&office.bundle(), Some(&office.keys()));
    assert_eq!(password, office.secret("sites/amsterdam-01/mqtt.password.2"));
    let back = office.refused(&["replace", SITE, old_file]);
    assert!(back.contains("refused for ever"), "{back}");

    office.done(&["revoke", SITE]);
    office.done(&["hub"]);
    let told = office.done(&["build"]);
    assert!(told.contains("1 revoked"), "{told}");
    let rendered = hub();
    for trace in [SITE, &new.keys.tunnel_public_key().to_string()] {
        assert!(!rendered.contains(trace), "{trace}: {rendered}");
    }
    assert!(!office.path("out/bundles/edge-bundle-amsterdam-01.tar").exists());
    assert!(!office.path("secrets/sites/amsterdam-01").exists());
    office.refused(&["enrol", SITE, new_file]);
    office.done(&["add", "rotterdam-02", "--template", "pump"]);
    let elsewhere = office.refused(&["enrol", "rotterdam-02", new_file]);
    assert!(elsewhere.contains("refused for ever"), "{elsewhere}");
}

#[test]
fn a_new_password_is_at_the_hub_first_and_the_old_one_until_it_is_confirmed() {
    let (office, own) = (Office::new(), TestBox::new());
    office.enrol(&own);
    office.done(&["rotate", SITE, "--password"]);
    office.refused(&["rotate", SITE, "--password"]);
    let users = || {
        office.done(&["hub"]);
        let path = office.path("out/hubs/hub-a/etc/mosquitto/edge.passwords");
        let text = fs::read_to_string(path).unwrap();
        let users = text.lines().map(|line| line.split(':').next().unwrap().to_owned());
        users.filter(|user| user != "office").collect::<Vec<_>>()
    };
    assert_eq!(users(), ["amsterdam-01.2", "amsterdam-01"]);
    office.done(&["build"]);
    let bundle = office.bundle();
    let verified = verify(&bundle, &own.policy(None)).unwrap();
    let toml = str::from_utf8(verified.bundle.files()["gateway.toml"]).unwrap();
    assert!(toml.contains("username = \"amsterdam-01.2\""), "{toml}");
    office.done(&["rotate", SITE, "--confirmed"]);
    assert_eq!(users(), ["amsterdam-01.2"]);
}

#[test]
fn a_new_signing_key_is_trusted_by_boxes_that_missed_it() {
    let (office, own) = (Office::new(), TestBox::new());
    office.enrol(&own);
    office.done(&["build"]);
    let (first, old_bundle) = (office.keys(), office.bundle());
    fs::copy(office.path("secrets/signing.key"), office.path("secrets/stolen.key")).unwrap();
    // The first key is lost: the one that was kept elsewhere signs its successor.
    office.done(&["rotate", "--signing-key", "--key", "secrets/offline.key"]);
    office.done(&["build", "--unsigned"]);
    let told = office.done(&["sign", "out/bundles/amsterdam-01.bundle.tar"]);
    assert!(told.contains("bundle 2 of amsterdam-01"), "{told}");

    let bundle = office.bundle();
    assert_ne!(bundle, old_bundle, "it shows the new list");
    // The box has loaded the bundle before.
    let after = VerifyPolicy { last_counter: Some(1), ..own.policy(Some(&first)) };
    let verified = verify(&bundle, &after).unwrap();
    assert_eq!(verified.keys.number(), 2);
    let told = office.done(&["build"]);
    assert!(told.contains("0 new bundles, 1 unchanged"), "{told}");
    let thief = office.refused(&["build", "--key", "secrets/stolen.key"]);
    assert!(thief.contains("no box takes what it signs"), "{thief}");
    let old = verify(&old_bundle, &own.policy(Some(&verified.keys))).unwrap_err();
    assert!(old.to_string().contains("before the signing keys were replaced"), "{old}");
}

#[test]
fn minisign_signs_on_another_machine() {
    let (office, own) = (Office::new(), TestBox::new());
    office.enrol(&own);
    office.done(&["build"]);
    let signed_here = office.bundle();
    fs::remove_dir_all(office.path("out")).unwrap();
    office.done(&["build", "--unsigned"]);
    let contents = "out/bundles/amsterdam-01.bundle.tar";
    let minisign = |key: &str| {
        let status = Command::new("minisign")
            .args(["-Sm", contents, "-s", key])
            .current_dir(&office.dir.0)
            .output()
            .expect("the Debian package minisign is installed")
            .status;
        assert!(status.success());
    };
    minisign("secrets/signing.key");
    let signature = format!("{contents}.minisig");
    office.done(&["sign", contents, "--signature", &signature]);
    own.load(&office.bundle(), Some(&office.keys()));
    office.done(&["sign", contents]);
    assert_eq!(office.bundle(), signed_here);
    fs::write(office.path(&signature), "nonsense").unwrap();
    let refused = office.refused(&["sign", contents, "--signature", &signature]);
    assert!(refused.contains("not a signature of the content"), "{refused}");
}

#[test]
fn certificates_are_renewed_by_bundles_and_only_the_authority_issues_them() {
    let (office, own) = (Office::new(), TestBox::new());
    let fleet = office.path("fleet.toml");
    let text = fs::read_to_string(&fleet).unwrap();
    let text = text.replace("authentication = \"password\"", "authentication = \"certificate\"");
    fs::write(&fleet, text).unwrap();
    office.enrol(&own);
    let start = Timestamp::now();
    assert_eq!(office.build_at(start).unwrap(), [BuiltSite::Counted(1)]);
    own.load(&office.bundle(), None);
    let certificate =
        || fs::read_to_string(office.path("authority/sites/amsterdam-01.pem")).unwrap();
    let mut renewals = vec![certificate()];
    // Every ten days for four years, and the key of the authority is away in between.
    let (key, away) = (office.path("secrets/ca.key"), office.path("secrets/away.key"));
    for step in 1..146_i64 {
        let now = start + (step * 240).hours();
        let is_due = authority::needs_renewal(renewals.last().unwrap(), now).unwrap();
        if is_due {
            fs::rename(&key, &away).unwrap();
            let refused = office.build_at(now).unwrap_err().to_string();
            assert!(refused.contains("--authority-key"), "{refused}");
            fs::rename(&away, &key).unwrap();
        }
        let expected = renewals.len() + usize::from(is_due);
        let built = office.build_at(now).unwrap();
        let is_counted = matches!(built[..], [BuiltSite::Counted(_)]);
        assert_eq!(is_counted, is_due, "{now}");
        if is_due {
            renewals.push(certificate());
            own.load(&office.bundle(), Some(&office.keys()));
        }
        assert_eq!(renewals.len(), expected);
        assert!(authority::end(renewals.last().unwrap()).unwrap() > now + (59 * 24).hours());
    }
    assert_eq!(renewals.len(), 3, "two renewals");
}

/// More sites than are built at a time.
#[test]
fn every_site_of_a_large_fleet_is_built_and_reported() {
    let office = Office::empty();
    let count = 520;
    for number in 0..count {
        let (id, address) =
            (format!("site-{number}"), format!("10.77.{}.{}", 1 + number / 200, 1 + number % 200));
        let key = tunnel::PrivateKey::generate();
        let text = format!(
            "[site]\naddress = \"{address}\"\npublic_key = \"{}\"\n[[plc]]\nname = \"pump\"\n\
             template = \"pump\"\naddress = \"192.168.1.10:502\"\n",
            key.public_key()
        );
        fs::write(office.path("sites").join(format!("{id}.toml")), text).unwrap();
        for (name, secret) in
            [("tunnel.key", key.expose().as_str()), ("mqtt.password.1", "horse-battery")]
        {
            let path = office.path("secrets/sites").join(&id).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, secret).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
    let told = office.done(&["build"]);
    assert!(told.contains("520 new bundles, 0 unchanged"), "{told}");
    assert!(told.contains("built 520 of 520 sites"), "{told}");
    let bundles = fs::read_dir(office.path("secrets/bundles")).unwrap().count();
    assert_eq!(bundles, count);
}
