//! The question for a device's name: of use to people only, so it may cost hardly anything.

use super::{UnitPoll, is_gateway_exception, now};
use crate::metrics::RequestOutcome;
use crate::plc::failed_for_sure;
use crate::plc::session::{Connector, RequestError};

impl<C: Connector> UnitPoll<'_, C> {
    /// Asks for the name, once in a session and behind everything else.
    ///
    /// A server that breaks the connection over it is asked again after a minute, then less often,
    /// at last once an hour, whichever of its units did: that costs 30 connects in the first day and
    /// 24 in every other.
    pub(in crate::plc) async fn identify_device(&mut self) {
        let session = self.connection.session_count();
        let is_asked = self.unit.name_asked_in == session || self.unit.answered_in != session;
        if is_asked || !self.unit.needs_device_name() || self.stop.is_cancelled() {
            return;
        }
        let is_time = self.server.name_backoff.is_none_or(|doubt| doubt.is_due(now()));
        if !is_time || !self.connection.has_spare_connect() || self.is_other_unit_first() {
            return;
        }
        self.unit.name_asked_in = session;
        let exchange =
            self.connection.read_device_identification(self.unit.address(), self.stop).await;
        let Some(answer) = exchange.answer else { return };
        let outcome = answer.as_ref().map_or_else(RequestError::outcome, |_| RequestOutcome::Ok);
        self.unit.metrics.count_request(outcome);
        match answer {
            Ok(naming) => self.unit.identity_probe.on_device_name(naming),
            Err(RequestError::Refused(code)) if is_gateway_exception(code) => {}
            Err(RequestError::Refused(_)) => self.unit.identity_probe.on_no_device_name(),
            Err(error) => self.on_identification_broken(&error),
        }
        self.report_connected().await;
    }

    /// Whether another unit is to be asked first, since it broke fewer sessions over it: one that
    /// always does must not keep the others from telling.
    fn is_other_unit_first(&self) -> bool {
        let (session, breaks) = (self.connection.session_count(), self.unit.name_breaks);
        let mut others = self.others.iter().flat_map(|part| part.iter());
        others.any(|unit| {
            unit.is_answering
                && unit.name_asked_in != session
                && unit.name_breaks < breaks
                && unit.needs_device_name()
        })
    }

    /// Nothing that this server does forgives it: the pauses bound what the question costs.
    fn on_identification_broken(&mut self, error: &RequestError) {
        let plc = self.unit.config.name.as_str();
        tracing::debug!(plc, error = error as &dyn std::error::Error, "broke over its name");
        self.unit.name_breaks = self.unit.name_breaks.saturating_add(1);
        match &mut self.server.name_backoff {
            Some(doubt) => doubt.on_failure(now(), 0.0),
            names @ None => *names = Some(failed_for_sure(now())),
        }
        self.connection.drop_unblamed();
    }
}
