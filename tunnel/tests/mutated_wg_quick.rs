//! Every file of wg-quick that is kept for other tests, and mutations of it: taken or explained.
//!
//! The same ones in every run. For more of them: `E2E_MUTATIONS=1000000`.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::Path;

use fastrand::Rng;
use proptest::prelude::*;
use tunnel::MTU_RANGE;
use tunnel::wg_quick::{Rejected, WgQuick, parse};

const MUTATIONS: u64 = 20_000;
/// Pieces that mean something in a file.
const MEANINGFUL: [&str; 22] = [
    "[Interface]",
    "[Peer]",
    "[",
    "]",
    "=",
    ",",
    "#",
    "\n",
    "\r\n",
    "/",
    ":",
    "::",
    "0",
    "65536",
    "-1",
    "off",
    "PostUp = x\n",
    "Endpoint",
    "AllowedIPs = ",
    "\u{feff}",
    "\u{0}",
    "\u{1F600}",
];

#[test]
fn mutated_files_are_answered() {
    let mutations = test_settings::MUTATIONS.number_or(MUTATIONS);
    let corpus = corpus();
    let mut random = Rng::with_seed(7);
    let mut taken = 0;
    for _ in 0..mutations {
        let mut file = random.choice(&corpus).unwrap().clone();
        for _ in 0..random.u8(1..4) {
            mutate(&mut file, &mut random, &corpus);
        }
        taken += u64::from(is_taken(&parse(&file)));
    }
    assert!((1..mutations).contains(&taken), "{taken} of {mutations} are taken");
}

/// Whether a file is taken. What is taken keeps what `Settings` promises, what is not is explained.
fn is_taken(answer: &Result<WgQuick, Rejected>) -> bool {
    match answer {
        Ok(WgQuick { settings, .. }) => {
            assert!(MTU_RANGE.contains(&settings.mtu));
            assert!(!settings.addresses.is_empty() && !settings.hubs.is_empty());
            for hub in &settings.hubs {
                assert!(hub.endpoint.port > 0 && !hub.endpoint.host.is_empty());
                assert!(!hub.allowed_ips.is_empty());
            }
            true
        }
        Err(rejected) => {
            assert!((1..=50).contains(&rejected.problems.len()));
            assert!(rejected.problems.iter().all(|it| !it.what.is_empty() && !it.help.is_empty()));
            assert!(rejected.problems.is_sorted_by_key(|problem| problem.line));
            assert!(rejected.to_string().len() < 50 * 300, "{rejected}");
            false
        }
    }
}

fn mutate(file: &mut Vec<u8>, random: &mut Rng, corpus: &[Vec<u8>]) {
    let at = random.usize(0..=file.len());
    let to = (at + random.usize(1..30)).min(file.len());
    match random.u8(0..6) {
        0 => drop(file.drain(at..to)),
        1 => drop(file.splice(at..at, [random.u8(..)])),
        2 => {
            let piece = random.choice(MEANINGFUL).unwrap();
            file.splice(at..to.min(at + 1), piece.bytes());
        }
        3 => {
            let copy = file.get(at..to).unwrap_or_default().to_vec();
            let other = random.usize(0..=file.len());
            file.splice(other..other, copy);
        }
        4 => {
            let other = random.choice(corpus).unwrap();
            file.splice(at.., other.iter().skip(at).copied());
        }
        _ => {
            if let Some(byte) = file.get_mut(at) {
                *byte ^= 1 << random.u8(0..8);
            }
        }
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wg_quick");
    let mut paths: Vec<_> = ["good", "broken"]
        .iter()
        .flat_map(|dir| fs::read_dir(root.join(dir)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(!is_taken(&parse(&bytes)));
    }

    /// Whatever is written behind a key that is secret: none of it is in the answer.
    #[test]
    fn no_secret_is_told(secret in "[A-Za-z0-9+/]{25,60}=?", name in "(PrivateKey|PresharedKey| )") {
        let text = format!("[Interface]\n{name} = {secret}\n{secret}\n[Peer]\n{name}={secret}\n");
        let answer = parse(text.as_bytes()).unwrap_err();
        let shown = format!("{answer}{answer:?}");
        prop_assert!(!shown.contains(secret.trim_end_matches('=')), "{}", shown);
    }
}
