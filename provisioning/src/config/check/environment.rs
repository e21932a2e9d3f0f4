//! Variables of the environment that begin as those of the gateway do, and set no key.

use crate::config::context::ReadContext;
use crate::config::layers::ENV_PREFIX;
use crate::config::reference::keys_outside_lists;
use crate::config::suggest::nearest;
use crate::diagnostics::{EnvVariable, Problem, SourceSpan};

/// Most variables that the note names.
const MAX_NAMED: usize = 5;

/// Adds one note on all variables `EDGE_*` that set no key, with the names that may be meant.
pub(super) fn note_other_variables(context: &mut ReadContext<'_>) {
    let others = &context.layers.other_variables;
    if others.is_empty() {
        return;
    }
    let keys = keys_outside_lists();
    let mut likely: Vec<(&String, Option<String>)> =
        others.iter().map(|name| (name, likely_variable(name, &keys))).collect();
    // A typing error is more urgent than the variables of a service.
    likely.sort_by_key(|(_, meant)| meant.is_none());
    let Some((first, _)) = likely.first() else { return };
    let named: Vec<_> = likely.iter().take(MAX_NAMED).map(|(name, _)| name.as_str()).collect();
    let more = match others.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = match others.len() {
        1 => format!("the environment variable {first} sets no key"),
        count => {
            format!("{count} environment variables set no key: {}{more}", named.join(", "))
        }
    };
    let meant: Vec<_> = likely
        .iter()
        .take(MAX_NAMED)
        .filter_map(|(name, meant)| Some(format!("{} for {name}", meant.as_ref()?)))
        .collect();
    let help = if meant.is_empty() {
        format!(
            "a variable that sets a key is named {ENV_PREFIX}SECTION__KEY; Kubernetes adds \
             variables for services, unless the pod has enableServiceLinks: false"
        )
    } else {
        format!("did you mean {}?", meant.join(", "))
    };
    // Without its value, which may be a secret.
    let variable = EnvVariable { name: (*first).clone(), line: (*first).clone() };
    let place = SourceSpan::Environment(Box::new(variable));
    context.notes.push(Problem::new(place, message, help));
}

/// Returns the variable whose name differs from `name` by a few letters, or by the underscores or
/// the section that are missing.
fn likely_variable(name: &str, keys: &[String]) -> Option<String> {
    let word = name.strip_prefix(ENV_PREFIX)?.to_ascii_lowercase().replace("__", "_");
    let flat: Vec<_> = keys.iter().map(|key| key.replace('.', "_")).collect();
    let near = nearest(&word, flat.iter().map(String::as_str));
    let near = near.and_then(|near| keys.get(flat.iter().position(|one| one == near)?));
    let without_section = || {
        let ends = |key: &&String| key.rsplit('.').next() == Some(word.as_str());
        let mut all = keys.iter().filter(ends);
        all.next().filter(|_| all.next().is_none())
    };
    let key = near.or_else(without_section)?;
    Some(format!("{ENV_PREFIX}{}", key.to_ascii_uppercase().replace('.', "__")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_recognised_by_its_likeness_or_its_key() {
        let keys = keys_outside_lists();
        for (name, meant) in [
            ("EDGE_MQTT_USERNAME", Some("EDGE_MQTT__USERNAME")),
            ("EDGE_MQTT_BROKER", Some("EDGE_MQTT__BROKERS")),
            ("EDGE_GATWAY__ID", Some("EDGE_GATEWAY__ID")),
            ("EDGE_MQTT_WILL_TOPIC", Some("EDGE_MQTT__WILL__TOPIC")),
            ("EDGE_CLIENT_ID", Some("EDGE_MQTT__CLIENT_ID")),
            ("EDGE_GATEWAY_PORT", None),
            ("EDGE_GATEWAY_SERVICE_HOST", None),
            ("EDGE_MQTT_PORT", None),
            ("EDGE_QUEUE_PORT", None),
            ("EDGE_METRICS_PORT_9464_TCP", None),
        ] {
            assert_eq!(likely_variable(name, &keys).as_deref(), meant, "{name}");
        }
    }
}
