//! A PLC that dislikes some registers, or closes connections, in whatever way: the others are read
//! on, and the tags to blame are named.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::support::ScriptedAnswer;
use super::*;

/// What a PLC does with a request that touches registers that it dislikes.
#[derive(Clone, Copy, Debug)]
enum Dislike {
    Exception(u8),
    Silence,
    Close,
    Reset,
    Garbage,
}

impl Dislike {
    fn answer(self) -> ScriptedAnswer {
        let lost = |kind: io::ErrorKind| Err(RequestError::Disconnected(kind.into()));
        let answer = match self {
            Self::Exception(code) => Err(RequestError::Refused(code)),
            Self::Silence => return (SECOND, Err(RequestError::TimedOut(SECOND))),
            Self::Close => lost(io::ErrorKind::UnexpectedEof),
            Self::Reset => lost(io::ErrorKind::ConnectionReset),
            Self::Garbage => Err(RequestError::Garbled(AnswerMismatch::NotModbus)),
        };
        (SECOND / 100, answer)
    }
}

/// A PLC whose registers are tags, and what became of them.
struct ReadPlc {
    world: PollerHarness,
    tags: Vec<u16>,
    /// Good values of each tag.
    good: BTreeMap<u16, u32>,
    named: BTreeSet<String>,
    limits: Vec<Option<RateLimit>>,
    disconnects: u32,
}

impl ReadPlc {
    fn new(tags: &[u16], scan: u64, max_gap: u16, fake: FakePlc) -> Self {
        let addresses: Vec<_> = tags.iter().map(|at| format!("holding:{at}")).collect();
        let specs: Vec<_> = addresses.iter().map(|at| (&**at, scan)).collect();
        let plc = Plc { max_gap, ..plc("generic", &specs) };
        Self {
            world: PollerHarness::start(plc, fake),
            tags: tags.to_vec(),
            good: BTreeMap::new(),
            named: BTreeSet::new(),
            limits: Vec::new(),
            disconnects: 0,
        }
    }

    /// Polls for this time, and returns the good values of each tag in it.
    async fn poll_for(&mut self, time: Duration) -> BTreeMap<u16, u32> {
        self.good.clear();
        let end = time::Instant::now() + time;
        while time::Instant::now() < end {
            match self.world.event().await {
                PlcEvent::Cycle(cycle) => self.count(&cycle),
                PlcEvent::Learned { learned, .. } => {
                    self.named = learned.quarantined.into_iter().map(|tag| tag.at).collect();
                }
                PlcEvent::Throttled { limit, .. } => self.limits.push(limit),
                PlcEvent::State { state: PlcState::Disconnected { .. }, .. } => {
                    self.disconnects += 1;
                }
                PlcEvent::State { .. } | PlcEvent::Changed { .. } | PlcEvent::Written(_) => {}
            }
        }
        self.good.clone()
    }

    fn count(&mut self, cycle: &Cycle) {
        for (tag, location) in self.tags.iter().zip(&*cycle.locations) {
            let read = location.and_then(|TagLocation { result, .. }| {
                cycle.results[usize::from(result)].outcome.as_ref().map(drop).map_err(|e| *e)
            });
            *self.good.entry(*tag).or_default() += u32::from(read.is_ok());
        }
    }
}

fn disliking(dislikes: BTreeMap<u16, Dislike>) -> FakePlc {
    FakePlc::answering_with(move |request: &plan::ReadRequest| {
        let mut disliked = dislikes.range(request.first..request.first + request.count);
        disliked.next().map_or_else(
            || (SECOND / 100, echo_addresses(request).1),
            |(_, dislike)| dislike.answer(),
        )
    })
}

/// Polls a PLC that dislikes some registers: after ten cycles the other tags keep 90 % of their
/// reads, and those are named.
fn assert_others_are_read(tags: &[u16], dislikes: &BTreeMap<u16, Dislike>, scan: u64, gap: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut site = ReadPlc::new(tags, scan, gap, disliking(dislikes.clone()));
        let period = Duration::from_millis(scan);
        site.poll_for(period * 10).await;
        let good = site.poll_for(period * 60).await;
        for tag in tags.iter().filter(|tag| !dislikes.contains_key(tag)) {
            assert!(good[tag] >= 54, "{tag} has {} of 60 values: {dislikes:?}", good[tag]);
        }
        let all: BTreeSet<_> = dislikes.keys().map(|at| format!("holding:{at}")).collect();
        let mut waited = Duration::ZERO;
        while site.named != all {
            assert!(waited < SECOND * 600, "{:?} of {dislikes:?}", site.named);
            site.poll_for(period * 10).await;
            waited += period * 10;
        }
        assert_connects_are_bounded(&site.world.connects());
    });
}

fn dislike() -> impl Strategy<Value = Dislike> {
    prop_oneof![
        proptest::sample::select(&[0, 1, 2, 3, 4, 7, 8, 9, 244][..]).prop_map(Dislike::Exception),
        Just(Dislike::Silence),
        Just(Dislike::Close),
        Just(Dislike::Reset),
        Just(Dislike::Garbage),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_plc_does_with_some_registers_the_others_keep_their_rate(
        count in 3_u16..60,
        stretches in proptest::collection::vec((0_u16..60, 1_u16..3, dislike()), 1..3),
        scan in proptest::sample::select(&[1_000_u64, 2_000, 5_000][..]),
        (step, gap) in proptest::sample::select(&[(1, 0), (2, 32), (40, 0)][..]),
    ) {
        let tags: Vec<u16> = (0..count).map(|tag| tag * step).collect();
        let mut dislikes = BTreeMap::new();
        for (start, len, dislike) in stretches {
            let start = start % (count - 1);
            // The first and the last tag are good, so that there are others.
            for tag in (start..start + len).filter(|tag| (1..count - 1).contains(tag)) {
                dislikes.insert(tag * step, dislike);
            }
        }
        assert_others_are_read(&tags, &dislikes, scan, gap);
    }
}

/// Five tags side by side and one far away, in one request or in two, as people met it.
#[test]
fn one_unknown_register_costs_no_other_tag_its_values() {
    let dislikes = [
        Dislike::Exception(4),
        Dislike::Exception(1),
        Dislike::Exception(2),
        Dislike::Silence,
        Dislike::Close,
        Dislike::Reset,
        Dislike::Garbage,
    ];
    for dislike in dislikes {
        for (far, gap) in [(12, 32), (40, 0), (5, 0)] {
            let tags = [0, 1, 2, 3, 4, far];
            assert_others_are_read(&tags, &[(far, dislike)].into(), 1000, gap);
        }
    }
}

/// What refuses the whole and what ends the session must not keep each other from being found.
#[test]
fn a_register_that_is_refused_and_one_that_ends_the_session_in_one_request_are_both_found() {
    let tags: Vec<u16> = (0..14).collect();
    for (refused, lost) in [(1, 7), (6, 7), (7, 1), (12, 8)] {
        for code in [0, 2, 8] {
            for dislike in [Dislike::Silence, Dislike::Close] {
                let dislikes = [(refused, Dislike::Exception(code)), (lost, dislike)].into();
                assert_others_are_read(&tags, &dislikes, 1000, 0);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_too_long_are_shortened_whatever_the_plc_does_with_them() {
    for dislike in [Dislike::Silence, Dislike::Close, Dislike::Exception(4), Dislike::Garbage] {
        let tags: Vec<u16> = (0..40).collect();
        let fake = FakePlc::answering_with(move |request: &plan::ReadRequest| {
            if request.count > 16 { dislike.answer() } else { echo_addresses(request) }
        });
        let mut site = ReadPlc::new(&tags, 1000, 0, fake);
        site.poll_for(SECOND * 10).await;
        let good = site.poll_for(SECOND * 60).await;
        assert!(tags.iter().all(|tag| good[tag] >= 54), "{dislike:?}: {good:?}");
        assert_eq!(site.named, BTreeSet::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_after_each_answer_is_read_evenly_and_the_reason_is_told() {
    for scan in [1000, 10_000] {
        let mut turn = 0;
        let fake = FakePlc::answering_with(move |request: &plan::ReadRequest| {
            turn += 1;
            if turn % 2 == 1 { echo_addresses(request) } else { Dislike::Close.answer() }
        });
        let mut site = ReadPlc::new(&[0], scan, 0, fake);
        let good = site.poll_for(SECOND * 600).await[&0];
        assert!((56..=61).contains(&good), "{good} values in 10 minutes");
        assert_eq!(site.disconnects, 0);
        let limit = (scan == 1000).then_some(Some(RateLimit::ServerCloses(10)));
        assert_eq!(site.limits, limit.into_iter().collect::<Vec<_>>());
        assert_at_most_six_a_minute(&site.world.connects());
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_after_each_answer_delivers_more_requests_than_a_minute_has_connects()
{
    let mut turn = 0;
    let fake = FakePlc::answering_with(move |request: &plan::ReadRequest| {
        turn += 1;
        if turn % 2 == 1 { echo_addresses(request) } else { Dislike::Close.answer() }
    });
    let tags: Vec<u16> = (0..10).map(|tag| tag * 1000).collect();
    let mut site = ReadPlc::new(&tags, 1000, 0, fake);
    let good = site.poll_for(SECOND * 1200).await;
    // Ten requests a cycle need ten connects, and a minute has six of them.
    assert!(tags.iter().all(|tag| (10..=14).contains(&good[tag])), "{good:?}");
    assert_at_most_six_a_minute(&site.world.connects());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_when_it_idles_is_read_evenly() {
    let (mut last, mut is_new) = (time::Instant::now(), true);
    let fake = FakePlc::answering_with(move |request: &plan::ReadRequest| {
        let idle = std::mem::replace(&mut last, time::Instant::now()).elapsed();
        // The request after a close comes on a new connection.
        is_new = !is_new && idle > SECOND * 3;
        if is_new { Dislike::Close.answer() } else { echo_addresses(request) }
    });
    let mut site = ReadPlc::new(&[0], 5000, 0, fake);
    let good = site.poll_for(SECOND * 600).await[&0];
    assert!((56..=62).contains(&good), "{good} values in 10 minutes");
    assert_eq!((site.disconnects, &*site.limits), (0, &[Some(RateLimit::ServerCloses(10))][..]));
}

#[tokio::test(start_paused = true)]
async fn a_busy_plc_is_asked_again_within_the_cycle() {
    for code in [5, 6] {
        for (every, scan) in [(3, 1000), (2, 20_000), (2, 200)] {
            let mut turn = 0;
            let fake = FakePlc::answering_with(move |request: &plan::ReadRequest| {
                turn += 1;
                match turn % every {
                    0 => (SECOND / 100, Err(RequestError::Refused(code))),
                    _ => (SECOND / 100, echo_addresses(request).1),
                }
            });
            let mut site = ReadPlc::new(&[0], scan, 0, fake);
            let good = site.poll_for(Duration::from_millis(scan) * 100).await[&0];
            assert!(good >= 99, "{good} of 100 values");
            let metrics = site.world.metrics.render().unwrap();
            let refused = "edge_plc_requests_total{outcome=\"refused\",plc=\"pump6\"} 1\n";
            assert!(metrics.contains(refused), "only the request for the device name");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_plc_that_is_always_busy_refuses_nothing() {
    let answers = |_: &plan::ReadRequest| (Duration::ZERO, Err(RequestError::Refused(6)));
    let plc = plc("generic", &[("holding:0", 1000)]);
    let mut world = PollerHarness::start(plc, FakePlc::answering_with(answers));
    for _ in 0..10 {
        assert_eq!(world.words(&[0]).await, [Err(ReadFailure::Busy)]);
    }
    // Each cycle has its request, and three retries after 100, 200 and 400 ms.
    let reads =
        world.fake.wire_events().iter().filter(|seen| matches!(seen, WireEvent::Read(_))).count();
    assert_eq!(reads, 40);
}
