//! Topic filters of MQTT.

/// Returns whether a topic filter matches a topic name (MQTT 5.0, 4.7). Both must be valid. A
/// filter that begins with a wildcard does not match a topic that begins with `$`.
#[must_use]
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            // Also the parent level: `a/#` matches `a`.
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            (_, Some(_) | None) => return false,
        }
    }
    levels.next().is_none()
}

/// Returns whether a text is a valid topic filter (MQTT 5.0, 4.7.1): not empty, `#` alone in the
/// last level, `+` alone in a level, no null character.
#[must_use]
pub fn is_topic_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').rev();
    let is_last_valid = levels.next().is_some_and(|last| last == "#" || is_level(last));
    !filter.is_empty() && !filter.contains('\0') && is_last_valid && levels.all(is_level)
}

fn is_level(level: &str) -> bool {
    level == "+" || !level.contains(['+', '#'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The examples of the standard (MQTT 5.0, 4.7.1.2, 4.7.1.3 and 4.7.2).
    #[test]
    fn the_examples_of_the_standard_hold() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "sport/tennis", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("ACCOUNTS", "Accounts", false),
            ("é/+", "é/x", true),
        ] {
            assert_eq!(filter_matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn a_wildcard_stands_alone_in_its_level() {
        for valid in ["a", "#", "+", "a/#", "+/a/+", "/", "a//b", "/+/#"] {
            assert!(is_topic_filter(valid), "{valid}");
        }
        for invalid in ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b#", "a\0"] {
            assert!(!is_topic_filter(invalid), "{invalid}");
        }
    }

    proptest! {
        #[test]
        fn a_topic_matches_itself_and_its_own_wildcards(
            levels in prop::collection::vec("[a-zé]{0,3}", 1..6),
            at in any::<prop::sample::Index>(),
        ) {
            let topic = levels.join("/");
            prop_assume!(!topic.is_empty());
            let at = at.index(levels.len());
            let mut one = levels.clone();
            one[at] = "+".to_owned();
            let rest = [&levels[..at], &["#".to_owned()]].concat();
            for filter in [topic.clone(), one.join("/"), rest.join("/"), "#".to_owned()] {
                prop_assert!(is_topic_filter(&filter));
                prop_assert!(filter_matches(&filter, &topic), "{} {}", filter, topic);
            }
            let longer = format!("{topic}/+");
            prop_assert!(!filter_matches(&longer, &topic));
        }
    }
}
