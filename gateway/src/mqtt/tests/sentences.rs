//! What an installer reads about a failure.

use std::collections::BTreeSet;
use std::io;

use serde_json::json;

use super::inbound_guard::PeerProtocol;
use super::reason_code::BrokerReason;
use super::*;
use crate::uplink::DialError;

/// The page that lists the codes.
const STATUS_PAGE: &str = include_str!("../../../../docs/status.md");

#[test]
fn a_failed_dial_keeps_its_own_code_and_arguments() {
    let error = DialError::Refused { broker: "b:1883".to_owned(), port: 1883 };

    let sentence = sentence(&SessionFailure::Dial(error.clone()));

    assert_eq!(sentence, Sentence::new(&error));
    assert_eq!(sentence.detail.code, "refused");
}

#[test]
fn every_failure_has_a_whole_sentence_and_a_code_of_its_own() {
    let failures = failures();
    let sentences = failures.each_ref().map(sentence);

    let codes: BTreeSet<_> = sentences.iter().map(|sentence| &sentence.detail.code).collect();
    assert_eq!(codes.len(), failures.len(), "{codes:?}");
    for Sentence { text, detail } in &sentences {
        assert!(
            STATUS_PAGE.contains(&format!("`{}`", detail.code)),
            "docs/status.md: {}",
            detail.code
        );
        assert!(text.ends_with('.') && !text.ends_with(".."), "{text}");
        assert_ne!(detail.code, "unknown", "{text}");
        for (name, value) in &detail.arguments {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert!(value == "null" || text.contains(&value), "{name} is not in: {text}");
        }
    }
}

#[test]
fn a_refused_login_says_how_a_corrected_password_reaches_the_gateway() {
    let mut settings = settings(MqttVersion::V5, 1883);
    let refused = |settings: &ClientSettings| connack(NOT_AUTHORIZED).sentence("b:1883", settings);
    let refusal = "The broker b:1883 refuses this gateway (not authorized): check the user name, \
                   the password and the rights of amsterdam-01.";

    let sentence = refused(&settings);
    let reload = "The gateway reads the password file again at the next attempt.";
    assert_eq!(sentence.text, format!("{refusal} {reload}"));
    assert_eq!(
        json!(sentence.detail),
        json!({"code": "unauthorized", "arguments": {
            "broker": "b:1883", "reason": "not authorized", "client_id": "amsterdam-01",
            "reload": "next attempt",
        }})
    );

    let credential = PasswordFile::from_argument("cred:mqtt.password".as_ref()).unwrap();
    settings.mqtt.credentials.as_mut().unwrap().password = Some(credential);
    let reload = "After correcting the password: systemctl restart edge-gateway.";
    assert_eq!(refused(&settings).text, format!("{refusal} {reload}"));

    settings.restarts_on_new_secrets = true;
    let reload = "When the password file changes, the gateway restarts by itself.";
    assert_eq!(refused(&settings).text, format!("{refusal} {reload}"));
}

#[test]
fn a_broker_with_tls_that_closes_at_once_may_require_a_certificate() {
    let mut settings = settings(MqttVersion::V5, 8883);
    let sentence = |settings: &ClientSettings| {
        SessionFailure::ClosedBeforeConnack.sentence("127.0.0.1:8883", settings).text
    };
    assert!(sentence(&settings).contains("without TLS"));
    settings.mqtt.brokers[0].scheme = Scheme::Mqtts;
    assert!(sentence(&settings).contains("this gateway's certificate"), "{}", sentence(&settings));
}

fn failures() -> [SessionFailure; 37] {
    let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
    [
        SessionFailure::PasswordFile("no".to_owned()),
        SessionFailure::Bridge(broken()),
        SessionFailure::NoConnack,
        SessionFailure::NoSuback,
        connack(reason_code::BAD_USER_NAME_OR_PASSWORD),
        connack(NOT_AUTHORIZED),
        connack(reason_code::UNSUPPORTED_VERSION),
        connack(reason_code::CLIENT_ID_NOT_VALID),
        connack(reason_code::SERVER_UNAVAILABLE),
        SessionFailure::ClosedBeforeConnack,
        connack(reason_code::QOS_NOT_SUPPORTED),
        connack(reason_code::RETAIN_NOT_SUPPORTED),
        SessionFailure::NotMqtt(PeerProtocol::Http),
        SessionFailure::NotMqtt(PeerProtocol::Tls),
        SessionFailure::NotMqtt(PeerProtocol::Other),
        SessionFailure::AnswersV3,
        SessionFailure::PacketLimit { bytes: 20 },
        SessionFailure::Disconnected(BrokerReason::bare(reason_code::SESSION_TAKEN_OVER)),
        SessionFailure::Disconnected(BrokerReason {
            code: reason_code::SERVER_MOVED,
            text: None,
            server: Some("other:1883".into()),
        }),
        SessionFailure::Disconnected(BrokerReason {
            code: 0x97,
            text: Some("too many".into()),
            server: None,
        }),
        SessionFailure::Closed,
        SessionFailure::Broken(broken()),
        SessionFailure::NoPingresp,
        SessionFailure::NoAcknowledgement,
        SessionFailure::NotWritten,
        SessionFailure::TooLarge { size: 2_000_000 },
        SessionFailure::Protocol("no".into()),
        SessionFailure::Collision,
        SessionFailure::InflightSlotsLeaked,
        SessionFailure::SubscriptionClosed,
        SessionFailure::UnknownSubscription,
        SessionFailure::KeptSessionEnded,
        SessionFailure::SubscribeRetry,
        SessionFailure::MessagesWaiting,
        SessionFailure::VersionRetry,
        SessionFailure::CertificateRenewed,
        SessionFailure::HubChanged,
    ]
}

fn connack(code: u8) -> SessionFailure {
    SessionFailure::Connack(BrokerReason::bare(code))
}

fn sentence(failure: &SessionFailure) -> Sentence {
    let mut settings = settings(MqttVersion::V5, 1883);
    settings.subscriptions = vec!["edge/amsterdam-01/set/+".to_owned()];
    failure.sentence("b:1883", &settings)
}
