//! Mutations of every file of wg-quick in the corpus are accepted or explained.
//!
//! Every run tests the same mutations. `E2E_MUTATIONS=1000000` tests more.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use proptest::prelude::*;
use provisioning::diagnostics::RejectedFile;
use provisioning::wg_quick::{self, WgQuick};
use tunnel::MTU_RANGE;

#[path = "support/mutation.rs"]
mod mutation;

const MUTATIONS: usize = 20_000;
const PIECES: [&str; 22] = [
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
fn mutated_files_are_accepted_or_explained() {
    let mutations = mutation::count(MUTATIONS);
    let corpus = mutation::corpus(&["wg_quick/good", "wg_quick/broken"], "conf");
    let mut files = mutation::Mutations::new(&corpus, &PIECES, 7);
    let accepted = (0..mutations).filter(|_| is_accepted(&parse(&files.next_file()))).count();
    assert!((1..mutations).contains(&accepted), "{accepted} of {mutations} are accepted");
}

fn parse(bytes: &[u8]) -> Result<WgQuick, RejectedFile> {
    wg_quick::parse("site.conf".as_ref(), bytes)
}

/// Returns whether a file is accepted. An accepted file has the properties of `Settings`, others
/// are explained.
fn is_accepted(result: &Result<WgQuick, RejectedFile>) -> bool {
    match result {
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
            let problems = &rejected.problems;
            assert!((1..=50).contains(&problems.len()));
            assert!(problems.iter().all(|problem| !problem.message.is_empty()));
            assert!(problems.iter().all(|problem| problem.help.is_some()));
            assert!(problems.is_sorted_by_key(|problem| problem.line));
            assert!(rejected.to_string().len() < 50 * 1000, "{rejected}");
            false
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_rejected(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(!is_accepted(&parse(&bytes)));
    }

    #[test]
    fn an_error_does_not_contain_a_secret(
        secret in "[A-Za-z0-9+/]{25,60}=?",
        name in "(PrivateKey|PresharedKey|PublicKey|PostUp|Adress|Endpoint|#| )",
    ) {
        let text = format!("[Interface]\n{name} = {secret}\n{secret}\n[Peer]\n{name}={secret}\n");
        let rejected = parse(text.as_bytes()).unwrap_err();
        let shown = format!("{rejected}{rejected:?}");
        prop_assert!(!shown.contains(secret.trim_end_matches('=')), "{}", shown);
    }
}
