use jiff::Timestamp;
use provisioning::office::site_report::{SiteReports, SiteState};

/// A message on `edge/ID/status`, which a hostile gateway wrote. What is shown of it has no control
/// characters, and a site is current only with the counter that was built.
pub fn site_status(bytes: &[u8]) {
    let now = Timestamp::from_second(1_790_000_000).expect("it is in range");
    for (built, received_at) in [(0, None), (1, None), (1, Some(now)), (u64::MAX, Some(now))] {
        let mut reports = SiteReports::default();
        reports.on_message(0, "plant-7", bytes, received_at);
        let verdict = reports.verdict("plant-7", built, now);
        if verdict.state == SiteState::Current {
            assert!(built > 0 && verdict.runs == Some(built));
        }
        let shown = verdict.reason.map(|reason| reason.to_string()).unwrap_or_default();
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }
}
