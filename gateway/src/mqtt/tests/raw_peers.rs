//! Peers that answer with given bytes: other versions, other protocols, and what no broker may
//! send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::logging::CapturedLog;

/// Far more than a test needs.
const PATIENCE: Duration = Duration::from_secs(20);
const V5_CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];
const V3_CONNACK: &[u8] = &[0x20, 2, 0, 0];
const V3_REFUSES_VERSION: &[u8] = &[0x20, 2, 0, 1];
const V5_REFUSES_VERSION: &[u8] = &[0x20, 3, 0, 0x84, 0];

/// A client, and a listener that gives each connection the next answer; the last one repeats.
struct RawWorld {
    events: mpsc::Receiver<MqttEvent>,
    connects: mpsc::Receiver<RawConnect>,
    metrics: Metrics,
    outbox: mpsc::Sender<MqttRequest>,
    stop: CancellationToken,
}

/// What a CONNECT asked for.
#[derive(Debug, Eq, PartialEq)]
struct RawConnect {
    version: MqttVersion,
    will_retain: bool,
    will_qos: u8,
    begins_clean: bool,
}

/// What a peer does after CONNECT.
#[derive(Clone)]
enum ScriptedBytes {
    /// Sends this and keeps the connection open.
    Bytes(Vec<u8>),
    /// Sends this and answers nothing else.
    Silence(Vec<u8>),
    /// Closes the connection.
    Close,
    /// Sends this, and closes the connection after the next packet.
    CloseAfter(Vec<u8>),
    /// Sends this again and again until the connection ends.
    Flood(Vec<u8>),
}

impl RawConnect {
    fn read(packet: &[u8]) -> Self {
        // The level and the flags follow header, length and name of the protocol (3.1.2).
        let more = usize::from(packet[1] & 0x80 != 0);
        let (level, flags) = (packet[8 + more], packet[9 + more]);
        let version = if level == 5 { MqttVersion::V5 } else { MqttVersion::V311 };
        let (will_retain, will_qos) = (flags & 0x20 != 0, flags >> 3 & 3);
        Self { version, will_retain, will_qos, begins_clean: flags & 2 != 0 }
    }
}

impl ScriptedBytes {
    fn bytes(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }

    /// Does what comes before the CONNECT is reported: only once the client waits for the answer to
    /// its next packet.
    async fn begin(&self, stream: &mut TcpStream) {
        if let Self::Silence(bytes) = self {
            stream.write_all(bytes).await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
        }
    }
}

impl RawWorld {
    #[expect(clippy::disallowed_methods, reason = "the two ends of a test run side by side")]
    async fn start(answers: Vec<ScriptedBytes>, change: impl FnOnce(&mut ClientSettings)) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut settings = settings(MqttVersion::V5, listener.local_addr().unwrap().port());
        settings.mqtt.version = None;
        change(&mut settings);
        let metrics = Metrics::new(&config(settings.mqtt.clone()), "").unwrap();
        let (outbox, orders) = mpsc::channel(MAX_INFLIGHT);
        let (event, events) = mpsc::channel(1024);
        let (connect, connects) = mpsc::channel(1024);
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, answers, connect));
        tokio::spawn(run(settings, orders, event, metrics.mqtt.clone(), stop.clone()));
        Self { events, connects, metrics, outbox, stop }
    }

    async fn event(&mut self) -> MqttEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").unwrap()
    }

    /// Returns code and text of the first reason for which there is no session.
    async fn failure(&mut self) -> (String, String) {
        match self.event().await {
            MqttEvent::Disconnected { sentence, .. } => (sentence.detail.code, sentence.text),
            other => panic!("{other:?} instead of a failure"),
        }
    }

    async fn connected(&mut self) -> MqttVersion {
        match self.event().await {
            MqttEvent::Connected { version, .. } => version,
            other => panic!("{other:?} instead of a session"),
        }
    }

    async fn next_version(&mut self) -> MqttVersion {
        self.next_connect().await.version
    }

    async fn next_connect(&mut self) -> RawConnect {
        timeout(PATIENCE, self.connects.recv()).await.expect("a CONNECT in time").unwrap()
    }

    fn metric(&self, name: &str) -> String {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    }
}

impl Drop for RawWorld {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(
    listener: TcpListener,
    answers: Vec<ScriptedBytes>,
    connects: mpsc::Sender<RawConnect>,
) {
    let mut open = Vec::new();
    for number in 0.. {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut connect = [0; 1024];
        if stream.read(&mut connect).await.unwrap() == 0 {
            continue;
        }
        let connect = RawConnect::read(&connect);
        let answer = answers.get(number).or_else(|| answers.last()).unwrap();
        answer.begin(&mut stream).await;
        if connects.send(connect).await.is_err() {
            return;
        }
        match answer {
            ScriptedBytes::Silence(_) => open.push(stream),
            ScriptedBytes::Bytes(bytes) => {
                stream.write_all(bytes).await.unwrap();
                open.push(stream);
            }
            ScriptedBytes::Flood(bytes) => while stream.write_all(bytes).await.is_ok() {},
            ScriptedBytes::CloseAfter(bytes) => {
                stream.write_all(bytes).await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await;
            }
            ScriptedBytes::Close => drop(stream),
        }
    }
}

#[tokio::test]
async fn auto_follows_the_word_of_a_broker_to_3_1_1() {
    for word in [V3_CONNACK, V3_REFUSES_VERSION, V5_REFUSES_VERSION] {
        let answers = vec![ScriptedBytes::bytes(word), ScriptedBytes::bytes(V3_CONNACK)];
        let mut world = RawWorld::start(answers, |_| ()).await;

        assert_eq!(world.connected().await, MqttVersion::V311, "{word:?}");

        assert_eq!(world.next_version().await, MqttVersion::V5);
        assert_eq!(world.next_version().await, MqttVersion::V311);
        assert_eq!(world.metric("edge_mqtt_version"), "3");
    }
}

#[tokio::test]
async fn auto_does_not_leave_version_5_after_a_close_or_silence() {
    let answers = vec![ScriptedBytes::Close];
    let mut world = RawWorld::start(answers, |_| ()).await;
    for _ in 0..3 {
        let (code, text) = world.failure().await;
        assert_eq!(code, "closed_at_once");
        assert!(text.contains("version = \"3.1.1\""), "{text}");
        assert_eq!(world.next_version().await, MqttVersion::V5);
    }

    let mut world = RawWorld::start(vec![ScriptedBytes::Bytes(Vec::new())], |_| ()).await;
    assert_eq!(world.next_version().await, MqttVersion::V5);
    advance_clock(Duration::from_secs(16)).await;
    let (code, text) = world.failure().await;
    assert_eq!(code, "no_connack");
    assert!(text.contains("version = \"3.1.1\""), "{text}");
    assert_eq!(world.metric("edge_mqtt_version"), "0");
}

#[tokio::test]
async fn auto_tries_version_5_again_once_a_day() {
    let answers = [V3_CONNACK, V3_CONNACK, V5_CONNACK].map(ScriptedBytes::bytes).to_vec();
    let mut world = RawWorld::start(answers, |settings| {
        settings.mqtt.keep_alive = Duration::from_secs(65_535);
    })
    .await;
    assert_eq!(world.connected().await, MqttVersion::V311);
    // In steps below the keep alive, which this peer does not answer.
    advance_clock(Duration::from_secs(86_401)).await;

    let (code, _) = world.failure().await;
    assert!(["version_retry", "no_pingresp"].contains(&&*code), "{code}");
    assert_eq!(world.connected().await, MqttVersion::V5);
    assert_eq!(world.metric("edge_mqtt_version"), "5");
}

#[tokio::test]
async fn a_version_that_is_configured_is_kept_and_the_key_is_named() {
    for (version, word, expected) in [
        (MqttVersion::V5, V3_CONNACK, ("answers_v3", "version = \"3.1.1\"")),
        (MqttVersion::V5, V3_REFUSES_VERSION, ("unsupported_version", "version = \"3.1.1\"")),
        (MqttVersion::V311, V3_REFUSES_VERSION, ("unsupported_version", "version = \"5\"")),
        (MqttVersion::V311, V5_REFUSES_VERSION, ("unsupported_version", "version = \"5\"")),
    ] {
        let mut world = RawWorld::start(vec![ScriptedBytes::bytes(word)], |settings| {
            settings.mqtt.version = Some(version);
        })
        .await;

        let (code, text) = world.failure().await;

        assert_eq!(code, expected.0, "{text}");
        assert!(text.contains(expected.1), "{text}");
        assert_eq!(world.next_version().await, version);
    }
}

#[tokio::test]
async fn what_is_not_an_mqtt_broker_is_told_at_once() {
    let page = b"HTTP/1.0 403 Forbidden\r\nServer: libwebsockets\r\n\r\n<html> 0123456789 </html>";
    for (answer, code, key) in [
        (&page[..], "http_server", "brokers"),
        (&[0x15, 3, 1, 0, 2, 2, 70], "tls_server", "mqtts://"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not_mqtt", "brokers"),
        (&[0x40, 2, 0, 1], "not_mqtt", "brokers"),
    ] {
        let mut world = RawWorld::start(vec![ScriptedBytes::bytes(answer)], |_| ()).await;
        let (found, text) = world.failure().await;
        assert_eq!(found, code, "{text}");
        assert!(text.contains(key), "{text}");
    }
}

#[tokio::test]
async fn limits_of_zero_and_below_any_message_end_the_session_at_once() {
    for (connack, code, words) in [
        (&[0x20, 6, 0, 0, 3, 0x21, 0, 0][..], "protocol_violation", "Receive Maximum"),
        (&[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 0], "protocol_violation", "Maximum Packet Size"),
        (&[0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 20], "packet_limit", "20 bytes"),
    ] {
        let mut world = RawWorld::start(vec![ScriptedBytes::bytes(connack)], |_| ()).await;
        let (found, text) = world.failure().await;
        assert_eq!(found, code, "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn a_flood_of_topic_aliases_ends_the_session_before_it_takes_memory() {
    for subscriptions in [vec![], vec!["a/#".to_owned()]] {
        let is_subscribed = !subscriptions.is_empty();
        let mut flood = Vec::new();
        for alias in 1..200_u16 {
            flood.extend(alias_message(alias));
        }
        let suback: &[u8] = &[0x90, 4, 0, 1, 0, 1];
        let begin = [V5_CONNACK, if is_subscribed { suback } else { &[] }, &flood].concat();
        let mut world = RawWorld::start(vec![ScriptedBytes::Flood(begin)], |settings| {
            settings.mqtt.version = Some(MqttVersion::V5);
            settings.subscriptions = subscriptions;
        })
        .await;

        let text = loop {
            match world.event().await {
                MqttEvent::Disconnected { sentence, .. } => break sentence.text,
                MqttEvent::Connected { .. } | MqttEvent::SubscriptionRefused { .. } => {}
                other => panic!("{other:?}"),
            }
        };

        let cause = if is_subscribed { "topic alias" } else { "no subscription" };
        assert!(text.contains(cause), "{text}");
    }
}

#[tokio::test]
async fn a_text_of_the_broker_is_cut_and_stays_on_one_line() {
    let text = format!("busy\n FAKE line \u{1b}[31m\u{202e}{}", "x".repeat(60_000));
    let mut properties = vec![0x1F];
    properties.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    properties.extend(text.as_bytes());
    let length = encoded(properties.len());
    let body = [&[0x89][..], &length, &properties].concat();
    let disconnect = [&[0xE0][..], &encoded(body.len()), &body].concat();
    let answer = [V5_CONNACK, &disconnect].concat();
    let mut world = RawWorld::start(vec![ScriptedBytes::Bytes(answer)], |_| ()).await;
    world.connected().await;

    let (code, text) = world.failure().await;

    assert_eq!(code, "disconnected");
    assert!(text.contains("(busy? FAKE line ?[31m?xxx") && text.len() < 400, "{text}");
}

#[tokio::test]
async fn a_broker_without_retain_or_qos_gets_the_gateways_own_will_without_them() {
    for (code, expected) in [(0x9A, (false, 1)), (0x9B, (true, 0))] {
        let refusal = [0x20, 3, 0, code, 0];
        let answers = vec![ScriptedBytes::bytes(&refusal), ScriptedBytes::bytes(V5_CONNACK)];
        let mut world = RawWorld::start(answers, |_| ()).await;
        world.connected().await;
        world.next_connect().await;
        let second = world.next_connect().await;
        assert_eq!((second.will_retain, second.will_qos), expected);

        let mut world = RawWorld::start(vec![ScriptedBytes::bytes(&refusal)], |settings| {
            settings.mqtt.will = Some(will());
        })
        .await;
        let (_, text) = world.failure().await;
        let key = if code == 0x9A { "lower = [\"retain\"]" } else { "lower = [\"qos\"]" };
        assert!(text.contains(key), "{text}");
    }
}

#[tokio::test]
async fn what_is_configured_is_lowered_only_with_permission() {
    for (connack, lower, code) in [
        (&[0x20, 5, 0, 0, 2, 0x24, 0][..], Lower { qos: true, retain: false }, "qos_not_supported"),
        (&[0x20, 5, 0, 0, 2, 0x25, 0], Lower { qos: false, retain: true }, "retain_not_supported"),
    ] {
        let mut world = RawWorld::start(vec![ScriptedBytes::bytes(connack)], |settings| {
            settings.publish_retain = true;
        })
        .await;
        let (found, text) = world.failure().await;
        assert_eq!(found, code, "{text}");
        assert!(text.contains("lower = ["), "{text}");

        let mut world = RawWorld::start(vec![ScriptedBytes::bytes(connack)], |settings| {
            settings.publish_retain = true;
            settings.mqtt.lower = lower;
        })
        .await;
        world.connected().await;
        let message = MqttRequest::Publish(outgoing(1, Qos::AtMostOnce));
        world.outbox.send(message).await.unwrap();
        assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket: 1 });
    }
}

/// Returns a PUBLISH with a topic of 65,000 bytes and this alias.
fn alias_message(alias: u16) -> Vec<u8> {
    let topic = vec![b't'; 65_000];
    let length = u16::try_from(topic.len()).unwrap().to_be_bytes();
    let body = [&length[..], &topic, &[3, 0x23], &alias.to_be_bytes(), b"x"].concat();
    [&[0x30][..], &encoded(body.len()), &body].concat()
}

/// Returns a variable byte integer.
fn encoded(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7F).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes
}

/// Settings of a persistent session with one filter.
fn kept(settings: &mut ClientSettings) {
    settings.subscriptions = vec!["edge/a/set/+".to_owned()];
    settings.persistence = SessionPersistence::Persistent { expiry: Duration::from_hours(24) };
}

#[tokio::test]
async fn a_broker_that_closes_over_the_subscription_still_gets_messages() {
    let closing = ScriptedBytes::CloseAfter(V5_CONNACK.to_vec());
    let answers = vec![closing.clone(), closing, ScriptedBytes::bytes(V5_CONNACK)];
    let mut world = RawWorld::start(answers, kept).await;

    for _ in 0..2 {
        let (code, text) = world.failure().await;
        assert_eq!(code, "subscription_closed");
        assert!(text.contains("topic read edge/a/set/+"), "{text}");
    }
    world.connected().await;
    let event = world.event().await;
    assert!(
        matches!(&event, MqttEvent::SubscriptionRefused { filter, .. } if filter == "edge/a/set/+"),
        "{event:?}"
    );
    world.outbox.send(MqttRequest::Publish(outgoing(1, Qos::AtMostOnce))).await.unwrap();
    assert_eq!(world.event().await, MqttEvent::Acknowledged { ticket: 1 });
    let connects = [world.next_connect().await, world.next_connect().await];
    assert!(connects.iter().all(|connect| !connect.begins_clean));
    assert!(world.next_connect().await.begins_clean, "what the broker stores would come at once");
}

/// A session without subscriptions begins clean, and would end the one that the other broker keeps.
#[tokio::test]
async fn a_broker_that_closes_over_the_subscription_says_nothing_about_another() {
    let closing = ScriptedBytes::CloseAfter(V5_CONNACK.to_vec());
    let answers = [vec![closing; 4], vec![ScriptedBytes::bytes(V5_CONNACK)]].concat();
    let mut world = RawWorld::start(answers, |settings| {
        kept(settings);
        let broker = settings.mqtt.brokers[0].clone();
        settings.mqtt.brokers.push(broker);
    })
    .await;
    for connection in 0..4 {
        let MqttEvent::Disconnected { retry_in, .. } = world.event().await else {
            panic!("a session without SUBACK")
        };
        assert!(!world.next_connect().await.begins_clean, "{connection}");
        tokio::task::yield_now().await;
        advance_clock(retry_in).await;
    }
    world.connected().await;
    assert!(world.next_connect().await.begins_clean, "the second time in a row at this one");
}

#[tokio::test]
async fn a_broker_that_does_not_answer_the_subscription_is_not_said_to_close() {
    let log = CapturedLog::default();
    let _captured = log.capture();
    let silent = ScriptedBytes::Silence(V5_CONNACK.to_vec());
    let answers = vec![silent.clone(), silent, ScriptedBytes::bytes(V5_CONNACK)];
    let mut world = RawWorld::start(answers, kept).await;

    for _ in 0..2 {
        assert!(!world.next_connect().await.begins_clean);
        advance_clock(Duration::from_secs(16)).await;
        let MqttEvent::Disconnected { sentence, retry_in, .. } = world.event().await else {
            panic!("a session without SUBACK")
        };
        assert_eq!(sentence.detail.code, "no_suback");
        tokio::task::yield_now().await;
        advance_clock(retry_in).await;
    }
    world.connected().await;
    let refused = MqttEvent::SubscriptionRefused {
        filter: "edge/a/set/+".to_owned(),
        code: 0x80,
        reason: "the broker does not answer it".to_owned(),
    };
    assert_eq!(world.event().await, refused);
    let lost = "is ended: commands that wait there are lost";
    assert_eq!(log.text().matches(lost).count(), 1, "{}", log.text());
}

/// Returns what a broker sends at the start of a persistent session with commands that wait: all of
/// them before the SUBACK.
fn waiting_commands(version: MqttVersion, count: u8, payload: usize) -> Vec<u8> {
    let (connack, suback, properties): (_, &[u8], &[u8]) = match version {
        MqttVersion::V311 => (V3_CONNACK, &[0x90, 3, 0, 1, 1], &[]),
        MqttVersion::V5 => (V5_CONNACK, &[0x90, 4, 0, 1, 0, 1], &[0]),
    };
    let mut bytes = connack.to_vec();
    bytes[2] = 1;
    for packet_id in 1..=count {
        let topic = b"edge/a/set/p";
        let text = vec![b'x'; payload];
        let body = [&[0, 12][..], topic, &[0, packet_id], properties, &text].concat();
        bytes.push(0x32);
        bytes.extend(encoded(body.len()));
        bytes.extend(body);
    }
    bytes.extend(suback);
    bytes
}

/// What is left unacknowledged would wait until the connection ends by chance, and occupy the
/// Receive Maximum.
#[tokio::test]
async fn commands_before_the_suback_that_do_not_fit_come_in_the_next_session() {
    for (version, count, payload, fitting) in
        [(MqttVersion::V311, 100, 10, 64), (MqttVersion::V5, 6, 900 << 10, 4)]
    {
        let answer = ScriptedBytes::Bytes(waiting_commands(version, count, payload));
        let mut world = RawWorld::start(vec![answer], |settings| {
            kept(settings);
            settings.mqtt.version = Some(version);
        })
        .await;
        world.connected().await;
        for _ in 0..fitting {
            let event = world.event().await;
            let MqttEvent::Received(IncomingMessage { delivery: Some(tag), .. }) = event else {
                panic!("{event:?} instead of a command")
            };
            world.outbox.send(MqttRequest::Acknowledge(tag)).await.unwrap();
        }
        assert!(!world.next_connect().await.begins_clean);

        tokio::task::yield_now().await;
        advance_clock(Duration::from_secs(10)).await;

        assert_eq!(world.failure().await.0, "messages_waiting", "{version:?}");
        advance_clock(Duration::from_secs(1)).await;
        assert!(!world.next_connect().await.begins_clean);
    }
}

/// rumqttc does not know the packet ids of a persistent session: without an end, the broker would
/// send the same PUBREL after every reconnect.
#[tokio::test]
async fn a_persistent_session_that_cannot_be_used_is_ended() {
    for (version, connack, clean) in
        [(MqttVersion::V5, V5_CONNACK, V5_CONNACK), (MqttVersion::V311, V3_CONNACK, V3_CONNACK)]
    {
        let mut resumed = [connack, &[0x62, 2, 0, 7]].concat();
        resumed[2] = 1;
        let resumed = ScriptedBytes::Bytes(resumed);
        let answers = vec![resumed.clone(), resumed, ScriptedBytes::bytes(clean)];
        let mut world = RawWorld::start(answers, |settings| {
            settings.mqtt.version = Some(version);
            kept(settings);
        })
        .await;

        for _ in 0..2 {
            assert_eq!(world.failure().await.0, "protocol_violation", "{version:?}");
            assert!(!world.next_connect().await.begins_clean);
        }
        assert!(world.next_connect().await.begins_clean, "{version:?}");
    }
}

#[tokio::test]
async fn a_message_of_qos_2_is_acknowledged_in_two_steps_when_the_caller_says_so() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut settings = settings(MqttVersion::V5, listener.local_addr().unwrap().port());
    kept(&mut settings);
    let metrics = Metrics::new(&config(settings.mqtt.clone()), "").unwrap();
    let (outbox, orders) = mpsc::channel(MAX_INFLIGHT);
    let (event, mut events) = mpsc::channel(1024);
    let stop = CancellationToken::new();
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(next_packet(&mut stream).await[0], 0x10);
        stream.write_all(V5_CONNACK).await.unwrap();
        assert_eq!(next_packet(&mut stream).await[0], 0x82);
        let message = [&[0x34, 18, 0, 12][..], b"edge/a/set/p", &[0, 9, 0, b'x']].concat();
        let suback = [0x90, 4, 0, 1, 0, 1];
        stream.write_all(&[&suback[..], &message].concat()).await.unwrap();
        let pubrec = next_packet(&mut stream).await;
        assert_eq!(&pubrec[..4], [0x50, 2, 0, 9]);
        stream.write_all(&[0x62, 2, 0, 9]).await.unwrap();
        let pubcomp = next_packet(&mut stream).await;
        assert_eq!(&pubcomp[..4], [0x70, 2, 0, 9]);
    };
    let caller = async {
        assert!(matches!(events.recv().await, Some(MqttEvent::Connected { .. })));
        let Some(MqttEvent::Received(message)) = events.recv().await else { panic!("no message") };
        assert_eq!(
            (message.topic.as_str(), message.payload.as_slice()),
            ("edge/a/set/p", &b"x"[..])
        );
        let delivery = message.delivery.unwrap();
        outbox.send(MqttRequest::Acknowledge(delivery)).await.unwrap();
    };
    let client = run(settings, orders, event, metrics.mqtt.clone(), stop.clone());
    let both = async {
        tokio::join!(peer, caller);
        stop.cancel();
    };
    timeout(PATIENCE, async { tokio::join!(client, both) }).await.expect("the packets in time");
}

/// Reads the next packet, with a length of one byte or two.
async fn next_packet(stream: &mut TcpStream) -> Vec<u8> {
    let header = stream.read_u8().await.unwrap();
    let mut length = usize::from(stream.read_u8().await.unwrap());
    if length >= 0x80 {
        length = length - 0x80 + 0x80 * usize::from(stream.read_u8().await.unwrap());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    [&[header, u8::try_from(length).unwrap_or(u8::MAX)][..], &body].concat()
}
