//! Data volume of an idle tunnel; docs/how/tunnel.md shows these figures.

use std::time::{Duration, Instant};

use virtual_time::{NetworkConditions, World};

use crate::streams::Streams;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// Bytes that IPv4 and UDP add to a datagram.
const HEADERS: usize = 28;

/// Returns the megabytes in 30 days, if every hour is like the one with these datagrams.
fn megabytes_per_month(seen: &[virtual_time::network::Datagram]) -> usize {
    let hour: usize = seen.iter().map(|datagram| datagram.bytes.len() + HEADERS).sum();
    hour * 24 * 30 / 1_000_000
}

/// Returns the megabytes per month and the handshakes per hour of an idle tunnel.
fn measure_idle_hour(keep_alive: Option<Duration>) -> (usize, u64) {
    let mut world = World::with_settings(120, 1, |settings| settings.keep_alive = keep_alive);
    world.run_for(HOUR);
    let before = world.report().counters.handshakes;
    world.network.captured = Some(Vec::new());
    world.run_for(HOUR);
    let seen = world.network.captured.take().unwrap_or_default();
    (megabytes_per_month(&seen), world.report().counters.handshakes - before)
}

#[test]
fn an_idle_month_costs_23_megabytes_13_with_rarer_keepalives_and_nothing_without() {
    let figures = [25, 60, 300].map(|seconds| measure_idle_hour(Some(seconds * SECOND)));
    assert_eq!(figures, [(23, 80), (13, 45), (7, 30)]);
    assert_eq!(measure_idle_hour(None), (0, 0));
}

#[test]
fn with_an_mqtt_ping_every_30_s_handshakes_only_renew_the_session() {
    let mut streams = Streams::new(121, NetworkConditions::default());
    let ours = streams.connect();
    let mut theirs = None;
    let (mut start, mut pinged, mut before) = (Instant::now(), Instant::now(), None);
    while start.elapsed() < HOUR {
        streams.step();
        theirs = theirs.or_else(|| streams.hub.accept(&mut streams.listener));
        if pinged.elapsed() >= 30 * SECOND {
            pinged = Instant::now();
            streams.site.socket(ours).send_slice(&[0xc0, 0]).expect("it is open");
            if before.is_none() {
                start = Instant::now();
                streams.world.network.captured = Some(Vec::new());
                let report = streams.site.tunnel.report(tunnel::Now::read());
                before = Some(report.counters.handshakes);
            }
        }
        let mut buffer = [0; 2];
        if let Some(theirs) = theirs
            && streams.hub.socket(theirs).recv_queue() == buffer.len()
        {
            streams.hub.socket(theirs).recv_slice(&mut buffer).expect("it can");
            streams.hub.socket(theirs).send_slice(&buffer).expect("it is open");
        }
        while streams.site.socket(ours).can_recv() {
            streams.site.socket(ours).recv_slice(&mut buffer).expect("it can");
        }
    }
    let report = streams.site.tunnel.report(tunnel::Now::read());
    assert_eq!(report.counters.handshakes - before.expect("it has begun"), 30);
    let seen = streams.world.network.captured.take().unwrap_or_default();
    // Nearly half of it are TCP keepalives, every 20 s at both ends.
    assert_eq!(megabytes_per_month(&seen), 78);
}
