//! `[mqtt]`.

use std::path::Path;
use std::time::Duration;

use super::file::{NamedFile, open_secret};
use super::tunnel::TunnelPresence;
use super::uplink::{check_tls, check_via};
use crate::config::context::{KeyLocation, ReadContext};
use crate::config::raw::{RawMqtt, RawWill};
use crate::config::scalar::{
    Integer, Lowerable, Placeholder, PlainText, SecretFile, VersionChoice,
};
use crate::config::{
    Broker, Credentials, Gateway, Lower, Mqtt, PasswordFile, Plc, Qos, Secret, Will,
};

/// Minimum keep alive that the client library accepts with version 5, and so with `auto`.
const MIN_KEEP_ALIVE_V5: Duration = Duration::from_secs(5);

pub(super) fn check_mqtt(
    raw: &RawMqtt,
    gateway: Option<&Gateway>,
    tunnel: &TunnelPresence<'_>,
    file: &Path,
    context: &mut ReadContext<'_>,
) -> Option<Mqtt> {
    let brokers = check_brokers(raw, context);
    let via = check_via(raw, brokers.as_deref(), tunnel, context);
    let tls = check_tls(raw, brokers.as_deref(), file, context);
    let version = raw.version.optional(context).map(|version| version.0);
    let client_id = check_client_id(raw, gateway, context);
    let keep_alive = check_keep_alive(raw, version, context);
    let credentials = check_credentials(raw, file, context);
    let will = match &raw.will.0 {
        Some(raw) => check_will(raw, gateway, context).map(Some),
        None => Some(None),
    };
    let lower = check_lower(raw, context);
    let session_expiry = raw.session_expiry.optional(context);
    let writes_in_clear = raw.writes_in_clear.optional(context);
    Some(Mqtt {
        brokers: brokers?.into_iter().map(|(_, broker)| broker).collect(),
        via: via?,
        tls: tls?,
        version: version?.fixed(),
        client_id: client_id?,
        keep_alive: keep_alive?,
        credentials: credentials?,
        will: will?,
        lower: lower?,
        session_expiry: session_expiry?.0,
        writes_in_clear: writes_in_clear?.0,
    })
}

fn check_brokers(
    raw: &RawMqtt,
    context: &mut ReadContext<'_>,
) -> Option<Vec<(KeyLocation, Broker)>> {
    let brokers = raw.brokers.values(context);
    let empty = brokers.as_ref().is_some_and(Vec::is_empty);
    if !raw.brokers.already_reported && (empty || raw.brokers.items.is_none()) {
        let example = "brokers = [\"mqtt://10.77.0.1:1883\"]";
        if empty {
            let help = Some(format!("write something like {example}"));
            context.reject(&raw.brokers.key, "`brokers` is empty", help);
        } else {
            context.reject_missing(&raw.brokers.key, example);
        }
        return None;
    }
    brokers
}

fn check_client_id(
    raw: &RawMqtt,
    gateway: Option<&Gateway>,
    context: &mut ReadContext<'_>,
) -> Option<String> {
    let id =
        raw.client_id.derived(context, || gateway.map(|gateway| PlainText(gateway.id.clone())))?.0;
    if id.is_empty() {
        context.reject(
            &raw.client_id.key,
            "`client_id` is empty",
            Some("remove it to use the gateway's id".to_owned()),
        );
        return None;
    }
    Some(id)
}

fn check_keep_alive(
    raw: &RawMqtt,
    version: Option<VersionChoice>,
    context: &mut ReadContext<'_>,
) -> Option<Duration> {
    let keep_alive = raw.keep_alive.optional(context)?.0;
    let version = version?;
    let problem = match version {
        VersionChoice::Auto | VersionChoice::V5 if keep_alive < MIN_KEEP_ALIVE_V5 => Some((
            "`keep_alive` must be at least 5s unless version is \"3.1.1\": the client library \
             requires it for MQTT 5",
            "write keep_alive = \"5s\" or more, or set version = \"3.1.1\", which also allows \
             \"0s\"",
        )),
        _ if keep_alive.subsec_nanos() != 0 => Some((
            "`keep_alive` must be whole seconds, as MQTT transmits it",
            "write something like keep_alive = \"30s\"",
        )),
        VersionChoice::Auto | VersionChoice::V5 | VersionChoice::V311 => None,
    };
    if let Some((message, help)) = problem {
        context.reject(&raw.keep_alive.key, message, Some(help.to_owned()));
        return None;
    }
    Some(keep_alive)
}

fn check_lower(raw: &RawMqtt, context: &mut ReadContext<'_>) -> Option<Lower> {
    if raw.lower.items.is_none() && !raw.lower.already_reported {
        return Some(Lower::default());
    }
    let entries = raw.lower.values(context)?;
    let has = |wanted| entries.iter().any(|(_, entry)| entry.0 == wanted);
    Some(Lower { qos: has(Lowerable::Qos), retain: has(Lowerable::Retain) })
}

/// Returns the credentials, `Some(None)` without any, or `None` after a problem.
#[expect(clippy::option_option, reason = "absent credentials are a good value")]
fn check_credentials(
    raw: &RawMqtt,
    file: &Path,
    context: &mut ReadContext<'_>,
) -> Option<Option<Credentials>> {
    let username = raw.username.optional(context);
    let named = raw.password_file.optional(context);
    if let Some(named) = &named {
        let read = |named: &SecretFile| named.read_secret("password", file);
        match open_secret(&raw.password_file, named, file, context, read) {
            NamedFile::Opened(password) => note_doubtful_password(raw, &password, context),
            NamedFile::Unopened => {}
            NamedFile::Rejected => return None,
        }
    }
    let password = named.map(|named| PasswordFile::new(named, file));
    match (username, password) {
        (Some(username), _) if username.0.is_empty() => {
            let help = Some("remove it to connect without a user name".to_owned());
            context.reject(&raw.username.key, "`username` is empty", help);
            None
        }
        (Some(username), password) => Some(Some(Credentials { username: username.0, password })),
        (None, Some(_)) => {
            context.reject(
                &raw.password_file.key,
                "there is a password but no user name",
                Some("add a line username = \"...\"".to_owned()),
            );
            None
        }
        (None, None) => Some(None),
    }
}

/// Adds a note on a password that an editor or a copy has probably changed.
fn note_doubtful_password(raw: &RawMqtt, password: &Secret, context: &mut ReadContext<'_>) {
    let password = password.reveal();
    let doubt = if password.contains(['\n', '\r']) {
        "has more than one line, and all of them are the password"
    } else if password.starts_with(char::is_whitespace) {
        "begins with a blank, which is part of the password"
    } else if password.ends_with(char::is_whitespace) {
        "ends with a blank, which is part of the password"
    } else if password.contains(char::is_control) {
        "contains a control character, which is part of the password"
    } else {
        return;
    };
    let help = "keep the password alone in that file, on one line; ignore this if intended";
    let message = format!("the password file {doubt}");
    context.add_note(&raw.password_file.key, message, help.to_owned(), None);
}

fn check_will(
    raw: &RawWill,
    gateway: Option<&Gateway>,
    context: &mut ReadContext<'_>,
) -> Option<Will> {
    let topic = raw.topic.required(context, "topic = \"edge/{gateway}/will\"");
    let payload = raw.payload.required(context, "payload = \"Disconnected\"");
    let qos = raw.qos.optional(context);
    let retain = raw.retain.optional(context);
    let gateway = gateway?;
    let filled = topic?.fill(|placeholder| match placeholder {
        Placeholder::Gateway => Ok(gateway.id.as_str()),
        Placeholder::Location if !gateway.location.is_empty() => Ok(gateway.location.as_str()),
        Placeholder::Location | Placeholder::Machine | Placeholder::Device | Placeholder::Plc => {
            Err(placeholder)
        }
    });
    let topic = match filled {
        Ok(topic) => topic,
        Err(Placeholder::Location) => {
            context.reject(
                &raw.topic.key,
                "`topic` contains {location}, but the gateway has no location",
                Some("add location = \"...\" below [gateway]".to_owned()),
            );
            return None;
        }
        Err(other) => {
            context.reject(
                &raw.topic.key,
                format!("`topic` contains {{{}}}, but a will belongs to no PLC", other.name()),
                Some("the placeholders here are {gateway} and {location}".to_owned()),
            );
            return None;
        }
    };
    Some(Will { topic, payload: payload?.0, qos: to_qos(qos?), retain: retain?.0 })
}

/// Adds a note on a will that the broker publishes where the values are.
pub(super) fn note_will_among_values(
    raw: &RawWill,
    will: &Will,
    plcs: &[Plc],
    context: &mut ReadContext<'_>,
) {
    if plcs.iter().any(|plc| plc.publish.topic == will.topic) {
        let topic = &will.topic;
        let message = format!("receivers of the values on {topic} also get this will");
        let help = format!("give the will a topic of its own, like topic = \"{topic}/connection\"");
        context.add_note(&raw.topic.key, message, help, None);
    }
}

/// Converts `qos = 0`, `1` or `2`.
pub(super) const fn to_qos(qos: Integer<0, 2>) -> Qos {
    match qos.0 {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    }
}
