//! The task, between a broker, a web server and a disk.

use provisioning::config::Tls;

use tokio::task::JoinSet;

use super::fetches::{WebServer, offer_of, ok, serve};
use super::*;
use crate::metrics::Metrics;
use crate::testing;

pub(super) const LIMIT: Duration = Duration::from_secs(20);
pub(super) const HOUR: Duration = Duration::from_hours(1);
pub(super) const ALL: SessionEvidence = SessionEvidence {
    is_connected: true,
    offer_refused: false,
    set_refused: false,
    status_accepted: true,
};

/// A task that runs, and what is around it.
pub(super) struct TestTask {
    offers: watch::Sender<Option<Vec<u8>>>,
    pub(super) session: watch::Sender<SessionEvidence>,
    reports: mpsc::Receiver<BundleReport>,
    pub(super) restart: CancellationToken,
    stop: CancellationToken,
    metrics: Metrics,
    running: JoinSet<()>,
    _web: Option<WebServer>,
}

impl TestTask {
    pub(super) fn start(dir: &StateDir, web: Option<WebServer>, confirm: Duration) -> Self {
        let (offers, session) =
            (watch::Sender::new(None), watch::Sender::new(SessionEvidence::default()));
        let (to_pump, reports) = mpsc::channel(64);
        let (restart, stop) = (CancellationToken::new(), CancellationToken::new());
        let metrics = Metrics::new(&testing::config(1), "hash").unwrap();
        let inputs = ApplyInputs {
            offers: offers.subscribe(),
            session: session.subscribe(),
            tunnel: None,
            uplink: Uplink::direct(Tls::default()),
        };
        let url = web.as_ref().map(|web| web.file.clone());
        let settings = ApplySettings { url, confirm, tunnel_public_key: None };
        let task = BundleTask::new(dir.open(), settings, inputs, to_pump, metrics.bundle.clone());
        let mut running = JoinSet::new();
        running.spawn(task.run(restart.clone(), stop.clone()));
        Self { offers, session, reports, restart, stop, metrics, running, _web: web }
    }

    /// Returns the next report with this state, which is answered.
    pub(super) async fn report(&mut self, state: &str) -> BundleEvent {
        let next = async {
            loop {
                match self.reports.recv().await.expect("the task runs") {
                    BundleReport::Status(Some(event)) if event.state.as_str() == state => {
                        return event;
                    }
                    BundleReport::Event(event, done) => {
                        done.send(()).unwrap();
                        if event.state.as_str() == state {
                            return event;
                        }
                    }
                    BundleReport::Status(_) => {}
                }
            }
        };
        timeout(LIMIT, next).await.unwrap_or_else(|_| panic!("no report of `{state}`"))
    }

    fn offers(&self, outcome: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let name = format!("edge_bundle_offers_total{{outcome=\"{outcome}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
        line.parse().unwrap()
    }

    pub(super) async fn end(mut self) {
        self.stop.cancel();
        timeout(LIMIT, self.running.join_next()).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_offered_bundle_is_fetched_and_tried_with_a_restart() {
    let dir = StateDir::with_confirmed(3);
    let bytes = bundle(4);
    let mut task = TestTask::start(&dir, Some(serve(ok(&bytes)).await), HOUR);
    task.offers.send_replace(Some(offer_of(3, &bundle(3))));
    task.offers.send_replace(Some(b"no offer".to_vec()));
    task.offers.send_replace(Some(offer_of(4, &bytes)));
    assert_eq!(task.report("staged").await.counter, Some(4));
    timeout(LIMIT, task.restart.cancelled()).await.unwrap();
    assert_eq!(task.offers("taken"), 1);
    task.end().await;
    let trial = dir.open().trial().unwrap();
    assert_eq!((trial.counter, trial.source), (4, BundleSource::Pulled));
    assert!(trial.time_left.is_some());
}

#[tokio::test]
async fn old_offers_cost_a_counted_line_and_nothing_else() {
    let dir = StateDir::with_confirmed(3);
    let task = TestTask::start(&dir, Some(serve(Vec::new()).await), HOUR);
    for counter in [1, 2, 3, 3] {
        task.offers.send_replace(Some(offer_of(counter, b"x")));
        let before = task.offers("old");
        timeout(LIMIT, async {
            while task.offers("old") == before {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
    assert_eq!((task.offers("followed"), task.offers("failed")), (0, 0));
    task.end().await;
}

#[tokio::test]
async fn a_bundle_that_is_not_to_be_had_is_shown_with_the_next_attempt() {
    let dir = StateDir::with_confirmed(3);
    let missing = serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    let mut task = TestTask::start(&dir, Some(missing), HOUR);
    task.offers.send_replace(Some(offer_of(4, &bundle(4))));
    let event = task.report("fetching").await;
    assert_eq!(event.counter, Some(4));
    let text = event.sentence.text;
    assert!(text.contains("answered 404") && text.ends_with("Next attempt in 1 min."), "{text}");
    assert!(!task.restart.is_cancelled());
    task.end().await;
    assert_eq!(dir.open().active.unwrap().counter, 3);
}

#[tokio::test]
async fn a_disk_that_does_not_take_a_bundle_is_no_fault_of_the_offer() {
    let dir = StateDir::with_confirmed(3);
    let bytes = bundle(4);
    fs::create_dir_all(dir.path("b.tar.new/in the way")).unwrap();
    let mut task = TestTask::start(&dir, Some(serve(ok(&bytes)).await), HOUR);
    task.offers.send_replace(Some(offer_of(4, &bytes)));
    let text = task.report("fetching").await.sentence.text;
    assert!(text.contains("make room on the disk"), "{text}");
    assert!(text.ends_with("Next attempt in 1 min."), "{text}");
    task.end().await;
    assert_eq!(dir.open().active.unwrap().counter, 3);
}

#[tokio::test]
async fn an_offer_that_is_withdrawn_leaves_nothing_to_report() {
    let dir = StateDir::with_confirmed(3);
    let mut task = TestTask::start(&dir, Some(serve(Vec::new()).await), HOUR);
    task.offers.send_replace(Some(offer_of(4, &bundle(4))));
    task.report("fetching").await;
    task.offers.send_replace(Some(Vec::new()));
    let next = timeout(LIMIT, task.reports.recv()).await.unwrap();
    assert!(matches!(next, Some(BundleReport::Status(None))), "{next:?}");
    task.end().await;
}

#[tokio::test]
async fn a_refused_bundle_of_a_person_is_an_event_and_no_state_of_the_gateway() {
    let dir = StateDir::with_confirmed(3);
    let mut task = TestTask::start(&dir, None, HOUR);
    dir.load(b"no bundle");
    assert_eq!(task.report("refused").await.counter, None);
    let next = timeout(LIMIT, task.reports.recv()).await.unwrap();
    assert!(matches!(next, Some(BundleReport::Status(None))), "{next:?}");
    task.end().await;
}

/// Its hub may be away for weeks.
#[tokio::test]
async fn the_first_bundle_does_not_wear_the_card_while_it_is_tried() {
    let dir = StateDir::new();
    dir.load(&bundle(1));
    let mut task = TestTask::start(&dir, None, HOUR);
    task.report("trying").await;
    let before = fs::read(dir.path("record")).unwrap();
    task.end().await;
    assert_eq!(fs::read(dir.path("record")).unwrap(), before);
}

#[tokio::test]
async fn a_bundle_is_confirmed_when_everything_was_reached_with_it() {
    let dir = StateDir::with_confirmed(3);
    let bytes = bundle(4);
    dir.load(&bytes);
    let mut task = TestTask::start(&dir, Some(serve(ok(&bytes)).await), HOUR);
    let trying = task.report("trying").await;
    assert!(trying.sentence.text.contains("the broker did not accept"), "{trying:?}");
    task.session.send_replace(SessionEvidence { status_accepted: false, ..ALL });
    let trying = task.report("trying").await;
    assert!(trying.sentence.text.contains("did not acknowledge the status"), "{trying:?}");
    task.session.send_replace(ALL);
    assert_eq!(task.report("confirmed").await.counter, Some(4));
    assert!(!task.restart.is_cancelled());
    task.end().await;
    let bundles = dir.open();
    assert_eq!(bundles.trial(), None);
    assert_eq!(bundles.active.unwrap().counter, 4);
}

#[tokio::test]
async fn a_bundle_that_came_by_an_offer_needs_it_again() {
    let dir = StateDir::with_confirmed(3);
    let bytes = bundle(4);
    let task = TestTask::start(&dir, Some(serve(ok(&bytes)).await), HOUR);
    task.offers.send_replace(Some(offer_of(4, &bytes)));
    timeout(LIMIT, task.restart.cancelled()).await.unwrap();
    task.end().await;

    let mut task = TestTask::start(&dir, Some(serve(ok(&bytes)).await), HOUR);
    task.session.send_replace(ALL);
    let trying = task.report("trying").await;
    assert!(trying.sentence.text.contains("the broker sent no offer"), "{trying:?}");
    task.offers.send_replace(Some(offer_of(4, &bytes)));
    assert_eq!(task.report("confirmed").await.counter, Some(4));
    task.end().await;
}

#[tokio::test]
async fn a_web_server_with_another_bundle_confirms_nothing() {
    let dir = StateDir::with_confirmed(3);
    dir.load(&bundle(4));
    let mut task = TestTask::start(&dir, Some(serve(ok(&bundle(3))).await), HOUR);
    task.session.send_replace(ALL);
    loop {
        let trying = task.report("trying").await;
        if trying.sentence.text.contains("could not be fetched again") {
            break;
        }
    }
    task.end().await;
    assert!(dir.open().trial().is_some());
}

#[tokio::test]
async fn a_later_bundle_at_the_web_server_is_as_good() {
    let dir = StateDir::with_confirmed(3);
    dir.load(&bundle(4));
    let mut task = TestTask::start(&dir, Some(serve(ok(&bundle(5))).await), HOUR);
    task.session.send_replace(ALL);
    assert_eq!(task.report("confirmed").await.counter, Some(4));
    task.end().await;
}

#[tokio::test]
async fn a_bundle_that_loses_the_broker_is_rolled_back_with_a_restart_and_an_event() {
    let dir = StateDir::with_confirmed(3);
    dir.load(&bundle(4));
    let mut task = TestTask::start(&dir, None, Duration::ZERO);
    let reverted = task.report("reverted").await;
    let text = reverted.sentence.text;
    assert!(text.contains("the broker did not accept the connection"), "{text}");
    timeout(LIMIT, task.restart.cancelled()).await.unwrap();
    task.end().await;
    // The next start shows it without another event.
    let mut task = TestTask::start(&dir, None, HOUR);
    assert_eq!(task.report("reverted").await.counter, Some(4));
    task.end().await;
}

#[tokio::test]
async fn the_first_bundle_is_tried_for_ever_and_the_next_one_replaces_it() {
    let dir = StateDir::new();
    dir.load(&bundle(1));
    let mut task = TestTask::start(&dir, None, Duration::ZERO);
    let trying = task.report("trying").await;
    assert!(trying.sentence.text.contains("is the first one"), "{trying:?}");
    dir.load(&bundle(2));
    assert_eq!(task.report("staged").await.counter, Some(2));
    timeout(LIMIT, task.restart.cancelled()).await.unwrap();
    task.end().await;
    assert_eq!(dir.open().active.unwrap().counter, 2);
}

#[tokio::test]
async fn the_running_time_is_recorded_at_a_stop() {
    let dir = StateDir::with_confirmed(3);
    dir.load(&bundle(4));
    let mut task = TestTask::start(&dir, None, HOUR);
    task.report("trying").await;
    // Time is what this test is about; the record counts milliseconds.
    tokio::time::sleep(Duration::from_millis(20)).await;
    task.end().await;
    let run_time = dir.open().trials.record().on_trial.as_ref().unwrap().run_time;
    assert!(run_time > Duration::ZERO && run_time < LIMIT, "{run_time:?}");
}
