use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SECOND: Duration = Duration::from_secs(1);

/// Lines that one thing has to log: two in each period, when a state begins and when it ends.
#[derive(Clone, Debug)]
struct Trouble {
    target: &'static str,
    subject: String,
    period: Duration,
    /// The trouble lasts from the first to the second of these times of the day.
    span: (Duration, Duration),
}

impl Trouble {
    fn new(target: &'static str, subject: &str, period: Duration) -> Self {
        Self { target, subject: subject.to_owned(), period, span: (Duration::ZERO, DAY) }
    }

    fn topic(&self) -> LineTopic {
        LineTopic { target: self.target, subject: self.subject.clone() }
    }

    /// Returns the state that begins at this second, if one does.
    fn change(&self, at: Duration) -> Option<&'static str> {
        let (from, to) = self.span;
        let half = (self.period / 2).max(SECOND).as_secs();
        let since = at.checked_sub(from)?.as_secs();
        let is_due = at <= to && since % half == 0;
        is_due.then(|| if (since / half).is_multiple_of(2) { "begins" } else { "ends" })
    }
}

/// What the troubles of a virtual day logged: times, texts, and the lines left out.
struct Day {
    logged: Vec<(Duration, LineTopic, &'static str)>,
    due: u64,
    left_out: u64,
    last_due: BTreeMap<LineTopic, &'static str>,
}

/// Lives through a day, second by second; what is held is released every ten seconds.
fn live_through(troubles: &[Trouble]) -> Day {
    let (mut limiter, start) = (LineLimiter::default(), Instant::now());
    let (mut logged, mut due, mut left_out) = (Vec::new(), 0, 0);
    let mut last_due = BTreeMap::new();
    let mut at = Duration::ZERO;
    // A few hours longer, so that what is held at the end comes out.
    while at < DAY + 6 * HOUR {
        for trouble in troubles {
            let Some(state) = trouble.change(at) else { continue };
            due += 1;
            let topic = trouble.topic();
            last_due.insert(topic.clone(), state);
            match limiter.admit(&topic, start + at) {
                Admission::Log { left_out: more } => {
                    left_out += more;
                    logged.push((at, topic, state));
                }
                Admission::Hold => {
                    let text = format!("{}\n{}\n{state}", topic.target, topic.subject);
                    limiter.hold(&topic, text, start + at);
                }
            }
        }
        if at.as_secs().is_multiple_of(10) {
            for LateLine { text, left_out: more, .. } in limiter.release(start + at) {
                left_out += more;
                let trouble = troubles.iter().find(|trouble| {
                    text.starts_with(&format!("{}\n{}\n", trouble.target, trouble.subject))
                });
                let state = if text.ends_with("begins") { "begins" } else { "ends" };
                logged.push((at, trouble.unwrap().topic(), state));
            }
        }
        at += SECOND;
    }
    Day { logged, due, left_out, last_due }
}

impl Day {
    /// Returns the largest number of lines within any hour.
    fn busiest_hour(&self) -> usize {
        let (mut window, mut most) = (VecDeque::new(), 0);
        for (at, ..) in &self.logged {
            window.push_back(*at);
            while window.front().is_some_and(|first| *first + HOUR <= *at) {
                window.pop_front();
            }
            most = most.max(window.len());
        }
        most
    }

    /// Fails unless every line is accounted for and the last of each topic is true.
    fn assert_complete(&self) {
        assert_eq!(self.logged.len() as u64 + self.left_out, self.due, "a line disappeared");
        for (topic, state) in &self.last_due {
            let last = self.logged.iter().rfind(|(_, logged, _)| logged == topic);
            assert_eq!(last.map(|(.., state)| state), Some(state), "{topic:?}");
        }
    }
}

#[test]
fn a_day_of_each_sort_of_trouble_logs_at_most_60_lines_an_hour() {
    let every = Duration::from_secs;
    let troubles = [
        ("a PLC that flaps", vec![Trouble::new("plc", "p1", every(10))]),
        ("a broker that flaps", vec![Trouble::new("broker", "", every(2))]),
        ("a broker that refuses every message", vec![Trouble::new("drops", "t", every(1))]),
        ("a storage that fails and works", vec![Trouble::new("storage", "", every(60))]),
        ("a tunnel that flaps", vec![Trouble::new("tunnel", "hub-a", every(30))]),
        ("a clock that is set again and again", vec![Trouble::new("clock", "", every(5))]),
        (
            "20 PLCs behind a loose plug",
            (0..20).map(|plc| Trouble::new("plc", &format!("p{plc}"), every(12))).collect(),
        ),
        (
            "everything at once",
            ["plc", "broker", "drops", "storage", "tunnel", "clock", "pages"]
                .map(|target| Trouble::new(target, "x", every(4)))
                .to_vec(),
        ),
    ];
    for (name, troubles) in troubles {
        let day = live_through(&troubles);
        // Each topic may always log the begin and the end of its first trouble.
        let bound = 60 + if troubles.len() > 10 { 2 * troubles.len() } else { 0 };
        assert!(day.busiest_hour() <= bound, "{name}: {}", day.busiest_hour());
        day.assert_complete();
    }
}

#[test]
fn calm_things_are_logged_at_once_while_another_one_flaps() {
    let mut troubles: Vec<_> = (0..10)
        .map(|plc| Trouble::new("plc", &format!("p{plc}"), Duration::from_secs(4)))
        .collect();
    let outage = (12 * HOUR, 12 * HOUR + 1800 * SECOND);
    let calm = Trouble { span: outage, ..Trouble::new("broker", "", HOUR) };
    troubles.push(calm.clone());

    let day = live_through(&troubles);

    let at: Vec<_> = day
        .logged
        .iter()
        .filter(|(_, topic, _)| *topic == calm.topic())
        .map(|(at, _, state)| (*at, *state))
        .collect();
    assert_eq!(at, [(outage.0, "begins"), (outage.1, "ends")]);
}

#[test]
fn further_subjects_share_a_topic_when_there_are_too_many() {
    let (mut limiter, now) = (LineLimiter::default(), Instant::now());
    for number in 0..MAX_TOPICS + 1000 {
        let topic = LineTopic { target: "t", subject: number.to_string() };
        if limiter.admit(&topic, now) == Admission::Hold {
            limiter.hold(&topic, String::new(), now);
        }
    }
    assert!(limiter.topics.len() <= MAX_TOPICS + 1);
    let shared = LineTopic { target: "t", subject: String::new() };
    assert!(limiter.topics[&shared].held_count > 900);
}

fn any_trouble() -> impl Strategy<Value = Trouble> {
    let target = prop::sample::select(vec!["plc", "broker", "drops", "storage", "tunnel", "clock"]);
    (target, 0..4_u8, 1..4000_u64, 0..86_400_u64, 0..86_400_u64).prop_map(
        |(target, subject, period, from, to)| Trouble {
            span: (Duration::from_secs(from.min(to)), Duration::from_secs(from.max(to))),
            ..Trouble::new(target, &subject.to_string(), Duration::from_secs(period))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_day_is_within_the_bound_and_complete(
        troubles in prop::collection::vec(any_trouble(), 1..7),
    ) {
        let day = live_through(&troubles);
        prop_assert!(day.busiest_hour() <= 60, "{}", day.busiest_hour());
        day.assert_complete();
    }
}
