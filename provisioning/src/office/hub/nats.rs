//! Accounts of a NATS cluster with MQTT.

use std::fmt::Write as _;

use super::accounts::{Account, Rights};
use super::password_hash::derived_salt;
use super::{HubError, HubFile, secret};

/// Least work that bcrypt allows. More would protect a password that can be guessed; these hold 192
/// random bits.
const BCRYPT_COST: u32 = 4;

/// What every MQTT client needs in addition to its topics: messages with quality of service 1 reach it
/// through subjects of the server (NATS, "MQTT and permissions").
const SERVER_SUBJECTS: &str = "$MQTT.sub.>";

/// Returns the file to be included by the configuration of each server.
pub(super) fn render(accounts: &[Account]) -> Result<Vec<HubFile>, HubError> {
    Ok(vec![secret("etc/nats/edge-accounts.conf", users(accounts)?)])
}

/// Returns the hash of a password in the form of bcrypt.
pub(super) fn password_hash(password: &str) -> String {
    let salt = derived_salt(password, "bcrypt");
    // It fails for a wrong cost and for passwords with a zero byte only.
    bcrypt::hash_with_salt(password, BCRYPT_COST, salt)
        .map(|hash| hash.format_for_version(bcrypt::Version::TwoA))
        .unwrap_or_default()
}

fn users(accounts: &[Account]) -> Result<String, HubError> {
    let mut text = String::from(
        "# Made by edge-provision; changes here are lost.\n\
         # In nats-server.conf: include \"edge-accounts.conf\"\n\
         authorization {\n  users = [\n",
    );
    for Account { name, password_hash, rights } in accounts {
        let Some(hash) = password_hash else { continue };
        // A String accepts every text.
        let _ = write!(text, "    {{ user: {}, password: {}", quoted(name), quoted(hash));
        if let Rights::Site { publish, subscribe, .. } = rights {
            let publish = subjects(publish)?;
            let subscribe = subjects(subscribe)?;
            let _ = write!(
                text,
                ", permissions: {{ publish: {{ allow: [{publish}] }}, subscribe: {{ allow: \
                 [{subscribe}, {}] }} }}",
                quoted(SERVER_SUBJECTS)
            );
        }
        text.push_str(" }\n");
    }
    text.push_str("  ]\n}\n");
    Ok(text)
}

fn subjects(topics: &[String]) -> Result<String, HubError> {
    let mut all = Vec::new();
    for topic in topics {
        all.push(quoted(&subject(topic)?));
        // `a/#` matches `a` too, and the server subscribes to both: without a right to either, it
        // refuses the subscription.
        if let Some(parent) = topic.strip_suffix("/#") {
            all.push(quoted(&subject(parent)?));
        }
    }
    Ok(all.join(", "))
}

/// Returns the subject of a topic or filter: levels are separated by `.`, `#` is `>`, `+` is `*`.
fn subject(topic: &str) -> Result<String, HubError> {
    let is_level =
        |level: &str| !level.is_empty() && !level.contains(['.', ' ', '*', '>', '"', '\\', '\t']);
    if !topic.split('/').all(is_level) {
        let problem = format!(
            "the topic \"{topic}\": a level of a subject is not empty and has no `.`, blank, `*`, \
             `>` or quote"
        );
        return Err(HubError::Unsupported { software: "NATS", problem });
    }
    let level = |level| match level {
        "#" => ">",
        "+" => "*",
        level => level,
    };
    Ok(topic.split('/').map(level).collect::<Vec<_>>().join("."))
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_becomes_a_subject_or_is_refused() {
        assert_eq!(subject("edge/plant-7/data/#").unwrap(), "edge.plant-7.data.>");
        assert_eq!(subject("+/status").unwrap(), "*.status");
        for topic in ["/topic", "a//b", "a.b/c", "a b", "a/*", "a/>"] {
            assert!(subject(topic).is_err(), "{topic}");
        }
    }

    #[test]
    fn a_hash_is_that_of_bcrypt() {
        let hash = password_hash("secret");
        assert!(hash.starts_with("$2a$04$"), "{hash}");
        assert!(bcrypt::verify("secret", &hash).unwrap());
        assert!(!bcrypt::verify("Secret", &hash).unwrap());
        assert_eq!(hash, password_hash("secret"));
    }
}
