//! The question for a device's name: of use to people only, so it may cost hardly anything.

use super::{Visit, is_behind, now};
use crate::metrics::RequestOutcome;
use crate::plc::learning::doubt::Doubt;
use crate::plc::session::{Connect, RequestError};

impl<C: Connect> Visit<'_, C> {
    /// Asks for the name, once in a session and behind everything else.
    ///
    /// A server that breaks the connection over it is asked again after a minute, then less often,
    /// at last once an hour, whichever of its units did: that costs 30 connects in the first day and
    /// 24 in every other.
    pub(in crate::plc) async fn ask_name(&mut self) {
        let session = self.line.sessions();
        let is_asked = self.unit.named == session || self.unit.answered != session;
        if is_asked || !self.unit.wants_a_name() || self.stop.is_cancelled() {
            return;
        }
        let is_time = self.server.names.is_none_or(|doubt| doubt.is_due(now()));
        if !is_time || !self.line.may_connect_again() || self.is_another_first() {
            return;
        }
        self.unit.named = session;
        let exchange = self.line.ask_name(self.unit.station(), self.stop).await;
        let Some(answer) = exchange.answer else { return };
        let outcome = answer.as_ref().map_or_else(RequestError::outcome, |_| RequestOutcome::Ok);
        self.unit.metrics.count_request(outcome);
        match answer {
            Ok(naming) => self.unit.known.named(naming),
            Err(RequestError::Refused(code)) if is_behind(code) => {}
            Err(RequestError::Refused(_)) => self.unit.known.has_no_name(),
            Err(error) => self.broke_over_its_name(&error),
        }
        self.tell_up().await;
    }

    /// Whether another unit is to be asked first, since it broke fewer sessions over it: one that
    /// always does must not keep the others from telling.
    fn is_another_first(&self) -> bool {
        let (session, breaks) = (self.line.sessions(), self.unit.name_breaks);
        let mut others = self.others.iter().flat_map(|part| part.iter());
        others.any(|unit| {
            unit.answers
                && unit.named != session
                && unit.name_breaks < breaks
                && unit.wants_a_name()
        })
    }

    /// Nothing that this server does forgives it: the pauses bound what the question costs.
    fn broke_over_its_name(&mut self, error: &RequestError) {
        let plc = self.unit.config.name.as_str();
        tracing::debug!(plc, error = error as &dyn std::error::Error, "broke over its name");
        self.unit.name_breaks = self.unit.name_breaks.saturating_add(1);
        match &mut self.server.names {
            Some(doubt) => doubt.fail(now()),
            names @ None => *names = Some(Doubt::confirmed(now())),
        }
        self.line.drop_session();
    }
}
