//! One cycle of one scan class: its requests, and what has to be taken apart.

use std::sync::Arc;
use std::time::Instant;

use provisioning::plan::ReadRequest;

use super::{Visit, now};
use crate::plc::learning::{Agenda, Part, Verdict};
use crate::plc::session::Connect;
use crate::plc::{Cycle, Failure, Read, sentence};

/// Most refused requests that are taken apart in one cycle. Each costs two requests; the search is
/// over after a few cycles, and none of them takes much longer than others.
const MOST_SPLITS: u8 = 16;

impl<C: Connect> Visit<'_, C> {
    /// Reads one class; nothing when `stop` fires before it is whole.
    pub(in crate::plc) async fn cycle(&mut self, class: u16) -> Option<Cycle> {
        let start = now();
        let at = self.began.date(start);
        if !self.unit.standing.is_silent() {
            self.dial().await;
            self.greet().await;
            self.tell_wait().await;
        }
        let agenda = self.unit.learning.agenda(class, now())?;
        let mut taken = Taken::new(&agenda);
        let first = self.unit.begin.get(usize::from(class))? % agenda.requests.len().max(1);
        for index in (first..agenda.requests.len()).chain(0..first) {
            if self.stop.is_cancelled() {
                return None;
            }
            let (Some(request), Some(part)) = (agenda.requests.get(index), agenda.parts.get(index))
            else {
                continue;
            };
            let (read, verdict) = self.request(class, index, request, part, index == first).await;
            taken.put(index, read, verdict);
        }
        let half_period = self.unit.plan.classes.get(usize::from(class))?.period / 2;
        self.take_apart(class, start + half_period, &mut taken).await;
        if self.line.is_connected() {
            self.unit.standing.forgive();
        }
        self.meet().await;
        let (requests, reads) = taken.finish(&agenda);
        self.look_again(class, &reads).await;
        let is_stopped = self.unit.known.stands_still();
        let (plc, took) = (self.unit.plc(), now() - start);
        Some(Cycle { plc, class, at, took, is_stopped, requests, reads })
    }

    /// Another unit has used up the connects of this minute.
    async fn tell_wait(&mut self) {
        if !self.line.is_connected() && self.unit.is_up() {
            let sentence = sentence::must_wait(&self.unit.config);
            self.unit.tell_down(sentence, None, self.events).await;
        }
    }

    async fn request(
        &mut self,
        class: u16,
        index: usize,
        request: &ReadRequest,
        part: &Part,
        is_first: bool,
    ) -> (Read, Verdict) {
        let was_asked = self.line.is_connected() && !self.unit.standing.is_silent();
        let read = if is_first { self.read_first(request).await } else { self.read(request).await };
        if was_asked && !self.line.is_connected() {
            // The next cycle begins behind the request that cost the session, so that one stretch
            // on which the PLC chokes does not hide those after it.
            self.unit.begin_behind(class, index);
        }
        let is_behind = self.unit.standing.is_silent() && self.line.is_connected();
        let verdict =
            if was_asked && !is_behind { self.learn(class, part, &read) } else { Verdict::Final };
        (read, verdict)
    }

    /// Sends the first request of a cycle.
    ///
    /// A server may have closed the connection while it was idle, and only use brings that out.
    /// So when a session that has answered before breaks here, the request goes out once more on a
    /// new one; a slow scan class would lose every other cycle otherwise.
    async fn read_first(&mut self, request: &ReadRequest) -> Read {
        if self.unit.standing.is_silent() || !self.line.was_in_use() {
            return self.read(request).await;
        }
        let exchange = self.ask(request).await;
        if exchange.is_broken() {
            self.line.closed();
            if self.dial().await {
                self.greet().await;
                return self.read(request).await;
            }
        }
        self.settle(exchange).await
    }

    fn learn(&mut self, class: u16, part: &Part, read: &Read) -> Verdict {
        if !self.line.is_connected() && self.line.was_hung_up() {
            self.unit.learning.hung_up(class, part, now());
        }
        self.unit.learning.heard(class, part, &read.outcome, now())
    }

    /// Takes refused requests apart: one at least, and more until `limit`. Tags that are still
    /// under suspicion then say nothing in this cycle.
    async fn take_apart(&mut self, class: u16, limit: Instant, taken: &mut Taken) {
        for splits in 0..MOST_SPLITS {
            let is_over = splits > 0 && now() > limit;
            if is_over || self.stop.is_cancelled() || !self.is_there() {
                break;
            }
            let Some(split) = self.unit.learning.split(class) else { break };
            let [left, right] = &split.halves;
            let left = (left.request.clone(), self.read(&left.request).await);
            let right = (right.request.clone(), self.read(&right.request).await);
            let outcomes = [&left.1.outcome, &right.1.outcome];
            let verdicts = self.unit.learning.halves_heard(class, split, outcomes, now());
            for ((request, read), verdict) in [left, right].into_iter().zip(verdicts) {
                if verdict == Verdict::Final {
                    taken.extra.push((request, read));
                }
            }
        }
        let at = self.began.date(now());
        let failure = if self.is_there() { Failure::Pending } else { Failure::Unreachable };
        for request in self.unit.learning.unresolved(class) {
            taken.extra.push((request, Read { at, outcome: Err(failure) }));
        }
    }

    fn is_there(&self) -> bool {
        self.line.is_connected() && !self.unit.standing.is_silent()
    }
}

/// What a cycle has brought so far.
struct Taken {
    /// One for each request of the agenda.
    reads: Vec<Option<Read>>,
    /// Of requests that were taken apart.
    extra: Vec<(ReadRequest, Read)>,
}

impl Taken {
    fn new(agenda: &Agenda) -> Self {
        Self { reads: vec![None; agenda.requests.len()], extra: Vec::new() }
    }

    fn put(&mut self, index: usize, read: Read, verdict: Verdict) {
        if let Some(place) = self.reads.get_mut(index) {
            *place = Some(read).filter(|_| verdict == Verdict::Final);
        }
    }

    /// The requests of the agenda as they are when all of them count, else those that do.
    fn finish(self, agenda: &Agenda) -> (Arc<[ReadRequest]>, Vec<Read>) {
        if self.extra.is_empty() && self.reads.iter().all(Option::is_some) {
            return (Arc::clone(&agenda.requests), self.reads.into_iter().flatten().collect());
        }
        let asked = agenda.requests.iter().zip(self.reads);
        let asked = asked.filter_map(|(request, read)| Some((request.clone(), read?)));
        let (requests, reads): (Vec<_>, _) = asked.chain(self.extra).unzip();
        (requests.into(), reads)
    }
}
