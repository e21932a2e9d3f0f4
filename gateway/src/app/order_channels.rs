//! The channels on which the pump sends write orders to the PLC tasks.

use tokio::sync::mpsc;

use crate::command::{MAX_WAITING, PlcOrder};
use crate::plc::Endpoint;

/// Most orders of one PLC that wait: of new commands, of those that the last run did not end, and
/// of its event one that reads all tags and one that writes `acknowledge`. Only what is above this
/// is refused, in a gateway that runs.
const MAX_ORDERS: usize = 2 * MAX_WAITING + 2;

/// The ends of the channels: one for each PLC, in the order of the configuration, and one for each
/// connection.
pub(super) struct OrderChannels {
    pub(super) senders: Vec<mpsc::Sender<PlcOrder>>,
    pub(super) receivers: Vec<mpsc::Receiver<PlcOrder>>,
}

/// Opens a channel for each connection, with room for all orders that its PLCs may have waiting.
pub(super) fn open(endpoints: &[Endpoint]) -> OrderChannels {
    let mut senders = Vec::new();
    let mut receivers = Vec::new();
    for endpoint in endpoints {
        let (sender, receiver) = mpsc::channel(MAX_ORDERS * endpoint.plcs.len().max(1));
        let plcs = endpoint.plcs.iter().map(|plc| (plc.plc, sender.clone()));
        senders.extend(plcs);
        receivers.push(receiver);
    }
    senders.sort_by_key(|(plc, _)| *plc);
    let senders = senders.into_iter().map(|(_, sender)| sender).collect();
    OrderChannels { senders, receivers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::{plc, testing};

    #[test]
    fn a_channel_has_room_for_all_orders_that_its_plcs_may_have_waiting() {
        let mut config = testing::config(3);
        config.plcs[1].address.port += 1;
        let metrics = Metrics::new(&config, "").unwrap();
        let endpoints = plc::group_by_address(config.plcs, &metrics, 0.0);

        let OrderChannels { senders, receivers } = open(&endpoints);

        assert_eq!((senders.len(), receivers.len()), (3, 2));
        assert!(senders[0].same_channel(&senders[2]) && !senders[0].same_channel(&senders[1]));
        // 16 commands, 16 of the last run, and 2 orders of an event, of each PLC.
        let room = [0, 1, 2].map(|plc: usize| senders[plc].max_capacity());
        assert_eq!(room, [68, 34, 68]);
    }
}
