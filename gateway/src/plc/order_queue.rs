//! The write orders that wait for one connection, and when the next one may be sent.
//!
//! An order passes the polls, but all orders together take at most half of the time that requests
//! may take, reads of all tags included, so that a flood of them does not stop the polls.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clock;
use crate::model::{OrderTask, PlcOrder};

/// The receiving end of the channel of orders, whose capacity bounds how many wait.
#[derive(Debug)]
pub(super) struct OrderQueue {
    /// Absent when the channel is closed and empty.
    receiver: Option<mpsc::Receiver<PlcOrder>>,
    /// Received while the task waited.
    next: Option<PlcOrder>,
    /// Share of the time that orders may take, in percent, above zero.
    max_share: f64,
    /// End of the pause after the last order.
    paused_until: Option<Instant>,
}

impl OrderQueue {
    /// Creates the queue of a connection with this `plc.max_share`, in percent.
    pub(super) fn new(receiver: mpsc::Receiver<PlcOrder>, max_share: u16) -> Self {
        let max_share = f64::from(max_share.max(1)) / 2.0;
        Self { receiver: Some(receiver), next: None, max_share, paused_until: None }
    }

    /// Waits until an order may be taken; for ever if none can come.
    pub(super) async fn wait(&mut self) {
        if self.next.is_none() {
            self.next = match &mut self.receiver {
                Some(receiver) => receiver.recv().await,
                None => std::future::pending().await,
            };
        }
        if self.next.is_none() {
            self.receiver = None;
            return std::future::pending().await;
        }
        if let Some(until) = self.paused_until {
            clock::sleep_until(Some(until)).await;
        }
    }

    /// Takes the oldest order, if one waits and may be sent now.
    pub(super) fn take(&mut self, now: Instant) -> Option<PlcOrder> {
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        self.take_any()
    }

    /// Takes the oldest order, if it may be carried out within a cycle: one that reads all tags
    /// cannot.
    pub(super) fn take_within_cycle(&mut self, now: Instant) -> Option<PlcOrder> {
        let order = self.take(now)?;
        if order.task == OrderTask::ReadAll {
            self.next = Some(order);
            return None;
        }
        Some(order)
    }

    /// Takes the oldest order, also during a pause.
    pub(super) fn take_any(&mut self) -> Option<PlcOrder> {
        self.next.take().or_else(|| self.receiver.as_mut()?.try_recv().ok())
    }

    /// Records that orders waited for answers for `busy`, until `now`. The pause that follows is as
    /// long as their share needs, and begins after one that is not over.
    pub(super) fn on_done(&mut self, busy: Duration, now: Instant) {
        if !busy.is_zero() {
            let pause = busy.mul_f64(100.0 / self.max_share - 1.0);
            let begin = self.paused_until.map_or(now, |until| until.max(now));
            self.paused_until = Some(begin + pause);
        }
    }

    /// Accepts no more orders; those that wait can still be taken.
    pub(super) fn close(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.close();
        }
    }
}
