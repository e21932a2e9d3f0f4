//! Values of labels, as closed sets.

/// Value of the label `outcome` of `edge_plc_requests_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestOutcome {
    /// The PLC answered with the requested values.
    Ok,
    /// The PLC answered with a Modbus exception.
    Refused,
    /// The PLC did not answer in time.
    TimedOut,
    /// The answer does not match the request.
    Garbled,
    /// The connection broke.
    Disconnected,
}

/// Value of the label `reason` of `edge_samples_dropped_total`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum DropReason {
    /// The queue was full.
    Full,
    /// The broker rejected the message with a reason code.
    Refused,
    /// The message exceeds the broker's limit, or the broker disconnects whenever it receives it.
    TooLarge,
    /// The gateway stopped before delivery, and had no storage.
    Shutdown,
    /// The storage failed and the memory limit was reached.
    Storage,
    /// The stored data is unreadable.
    Corrupt,
    /// The tag is no longer in the configuration.
    Unconfigured,
}

/// Value of the label `outcome` of `edge_mqtt_messages_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MessageOutcome {
    /// Acknowledged with a success code, or written to the connection under QoS 0.
    Delivered,
    /// Acknowledged with a failure code.
    Refused,
    /// Not acknowledged when the connection was lost; the message is sent again.
    Interrupted,
}

macro_rules! labels {
    ($name:ident { $($variant:ident = $label:literal),+ $(,)? }) => {
        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// Returns the value of the metric label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label),+
                }
            }
        }
    };
}

labels!(RequestOutcome {
    Ok = "ok",
    Refused = "refused",
    TimedOut = "timed_out",
    Garbled = "garbled",
    Disconnected = "disconnected",
});
labels!(DropReason {
    Full = "full",
    Refused = "refused",
    TooLarge = "too_large",
    Shutdown = "shutdown",
    Storage = "storage",
    Corrupt = "corrupt",
    Unconfigured = "unconfigured",
});
labels!(MessageOutcome {
    Delivered = "delivered",
    Refused = "refused",
    Interrupted = "interrupted",
});

impl DropReason {
    /// Returns the reason with this label, if there is one.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.label() == label)
    }
}
