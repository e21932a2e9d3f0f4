//! Which hub a site uses first, and which ones when that is silent: rendezvous hashing, so that
//! every program computes the same order, and an added hub takes over 1/n of the sites.

use ring::digest::{SHA256, digest};

/// Returns the positions of the hubs in the order in which a site uses them.
///
/// Depends on the names alone: neither the order of `hubs` nor other sites matter.
pub(crate) fn preferred_hubs(site: &str, hubs: &[&str]) -> Vec<usize> {
    let mut scored: Vec<_> =
        hubs.iter().enumerate().map(|(position, hub)| (score(site, hub), *hub, position)).collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.into_iter().map(|(_, _, position)| position).collect()
}

/// Returns a number that looks random but is always the same for this pair.
pub(crate) fn score(site: &str, other: &str) -> u64 {
    // Neither name holds a line break, so that no two pairs give the same text.
    let hash = digest(&SHA256, format!("{site}\n{other}").as_bytes());
    hash.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(prefix: &'static str, count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{prefix}-{number}")).collect()
    }

    proptest! {
        #[test]
        fn an_added_hub_takes_sites_and_moves_none_between_the_others(
            site in "[a-z0-9-]{1,20}",
            mut hubs in prop::collection::btree_set("[a-z0-9-]{1,10}", 2..8),
            added in "[a-z]{11}",
        ) {
            let before: Vec<&str> = hubs.iter().map(String::as_str).collect();
            let order: Vec<String> = preferred_hubs(&site, &before)
                .into_iter()
                .map(|position| before[position].to_owned())
                .collect();
            hubs.insert(added.clone());
            let after: Vec<&str> = hubs.iter().map(String::as_str).collect();
            let without_added: Vec<String> = preferred_hubs(&site, &after)
                .into_iter()
                .map(|position| after[position].to_owned())
                .filter(|hub| *hub != added)
                .collect();
            prop_assert_eq!(order, without_added);
        }

        #[test]
        fn the_order_of_the_file_does_not_matter(
            site in "[a-z0-9-]{1,20}",
            hubs in prop::collection::btree_set("[a-z0-9-]{1,10}", 1..8),
        ) {
            let sorted: Vec<&str> = hubs.iter().map(String::as_str).collect();
            let reversed: Vec<&str> = hubs.iter().rev().map(String::as_str).collect();
            let name = |hubs: &[&str], order: Vec<usize>| -> Vec<String> {
                order.into_iter().map(|position| hubs[position].to_owned()).collect()
            };
            prop_assert_eq!(
                name(&sorted, preferred_hubs(&site, &sorted)),
                name(&reversed, preferred_hubs(&site, &reversed))
            );
        }
    }

    #[test]
    fn adding_a_hub_moves_one_nth_of_the_sites() {
        let sites = names("site", 10_000);
        for count in 1..6 {
            let hubs = names("hub", count + 1);
            let hubs: Vec<&str> = hubs.iter().map(String::as_str).collect();
            let primary =
                |site: &String, hubs: &[&str]| hubs[preferred_hubs(site, hubs)[0]].to_owned();
            let moved = sites
                .iter()
                .filter(|site| primary(site, &hubs) != primary(site, &hubs[..count]))
                .count();
            // Three standard deviations of a binomial distribution are below 150.
            let expected = sites.len() / (count + 1);
            assert!(moved.abs_diff(expected) < 150, "{count} hubs: {moved} moved, not {expected}");
        }
    }

    #[test]
    fn the_choice_of_known_names_never_changes() {
        // A change of this would move the sites of every fleet.
        assert_eq!(preferred_hubs("amsterdam-01", &["hub-a", "hub-b", "hub-c"]), [1, 0, 2]);
    }
}
