mod files;
mod hostile_gateway;
mod hostile_stick;
mod power_cuts;
mod updates;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use tunnel::PublicKey;

use crate::bundle::{Bundle, Manifest, PackageDigest, PackageName, Signature, SigningKeys, seal};
use crate::enrolment::{BoxKeys, seal_secrets};
use crate::office::signing::{KeyFile, NewKey, Signer};

/// The keys of a fleet, its next ones, and those of another fleet.
struct FleetKeys {
    first: Signer,
    next: Signer,
    stranger: Signer,
}

static KEYS: LazyLock<FleetKeys> = LazyLock::new(|| {
    let signer = || {
        let key = NewKey::generate(None, "test").unwrap();
        KeyFile::parse(key.secret).unwrap().open(None).unwrap()
    };
    FleetKeys { first: signer(), next: signer(), stranger: signer() }
});

fn key_list(number: u32, signer: &Signer, by: &Signer) -> (SigningKeys, Signature) {
    let keys = SigningKeys::new(number, vec![signer.key().clone()]).unwrap();
    let signature = by.sign(keys.to_string().as_bytes()).unwrap();
    (keys, signature)
}

/// A bundle to be made.
struct BundleDraft<'a> {
    gateway: &'a str,
    counter: u64,
    key: Option<PublicKey>,
    files: BTreeMap<&'a str, Vec<u8>>,
    version: Option<&'a str>,
    packages: BTreeMap<PackageName, PackageDigest>,
}

impl<'a> BundleDraft<'a> {
    /// Returns a bundle with a password that is encrypted to the box.
    fn new(counter: u64, keys: &BoxKeys) -> Self {
        let recipient = keys.enrolment().unwrap().age_recipient;
        let password = format!("horse {counter}").into_bytes();
        let secrets = BTreeMap::from([("secrets/mqtt.password", password.as_slice())]);
        let sealed = seal_secrets(&recipient, &secrets).unwrap();
        let files = [("gateway.toml", b"x".to_vec()), ("secrets.age", sealed)];
        let key = Some(keys.tunnel_public_key());
        let (version, packages) = (None, BTreeMap::new());
        Self { gateway: "amsterdam-01", counter, key, files: files.into(), version, packages }
    }

    fn with(mut self, name: &'a str, content: &str) -> Self {
        self.files.insert(name, content.as_bytes().to_vec());
        self
    }

    fn contents(&self) -> Vec<u8> {
        let manifest = Manifest {
            gateway: self.gateway.to_owned(),
            counter: self.counter,
            version: self.version.map(str::to_owned),
            min_version: None,
            tunnel_public_key: self.key,
            packages: self.packages.clone(),
        };
        let files = self.files.iter().map(|(name, content)| (*name, content.as_slice()));
        Bundle::new(manifest, files.collect()).unwrap().render().unwrap()
    }

    /// Returns the bundle with the first list of keys.
    fn sealed(&self) -> Vec<u8> {
        self.sealed_by(&KEYS.first)
    }

    fn sealed_by(&self, signer: &Signer) -> Vec<u8> {
        let contents = self.contents();
        let lists = [key_list(1, signer, signer)];
        seal(&lists, &contents, &signer.sign(&contents).unwrap()).unwrap()
    }

    /// Returns the bundle with a second list, whose key signs it.
    fn sealed_by_next(&self) -> Vec<u8> {
        let contents = self.contents();
        let lists = [key_list(1, &KEYS.first, &KEYS.first), key_list(2, &KEYS.next, &KEYS.first)];
        seal(&lists, &contents, &KEYS.next.sign(&contents).unwrap()).unwrap()
    }
}

/// Returns the text of the gateway's record.
fn record_text(confirmed: Option<(char, u64)>, on_trial: Option<(char, u64)>) -> String {
    let mut text = "last = 99\n".to_owned();
    if let Some((slot, counter)) = confirmed {
        text += &format!("[confirmed]\nslot = \"{slot}\"\ncounter = {counter}\n");
    }
    if let Some((slot, counter)) = on_trial {
        text += &format!(
            "[tried]\nslot = \"{slot}\"\ncounter = {counter}\norigin = \"by-hand\"\nstarts = 1\n"
        );
        text += "used_ms = 0\n";
    }
    text
}
