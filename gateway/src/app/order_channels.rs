//! The channels on which the pump sends write orders to the PLC tasks.

use tokio::sync::mpsc;

use crate::command::{MAX_WAITING, WriteOrder};
use crate::plc::Endpoint;

/// The ends of the channels: one for each PLC, in the order of the configuration, and one for each
/// connection.
pub(super) struct OrderChannels {
    pub(super) senders: Vec<mpsc::Sender<WriteOrder>>,
    pub(super) receivers: Vec<mpsc::Receiver<WriteOrder>>,
}

/// Opens a channel for each connection, with room for all orders that its PLCs may have waiting.
pub(super) fn open(endpoints: &[Endpoint]) -> OrderChannels {
    let mut senders = Vec::new();
    let mut receivers = Vec::new();
    for endpoint in endpoints {
        let (sender, receiver) = mpsc::channel(MAX_WAITING * endpoint.plcs.len().max(1));
        let plcs = endpoint.plcs.iter().map(|plc| (plc.plc, sender.clone()));
        senders.extend(plcs);
        receivers.push(receiver);
    }
    senders.sort_by_key(|(plc, _)| *plc);
    let senders = senders.into_iter().map(|(_, sender)| sender).collect();
    OrderChannels { senders, receivers }
}
