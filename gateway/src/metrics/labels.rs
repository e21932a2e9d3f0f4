//! Values of labels, as closed sets.

/// Declares an enum with the label of each variant.
macro_rules! labels {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$doc:meta])* $variant:ident = $label:literal,)+
    }) => {
        $(#[$meta])*
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

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

labels! {
    /// Value of the label `outcome` of `edge_plc_requests_total`.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum RequestOutcome {
        /// The PLC answered with the requested values.
        Ok = "ok",
        /// The PLC answered with a Modbus exception.
        Refused = "refused",
        /// The PLC answered with exception 5 or 6: it asks to retry later.
        Busy = "busy",
        /// The PLC did not answer in time.
        TimedOut = "timed_out",
        /// The answer does not match the request.
        Garbled = "garbled",
        /// The connection was lost.
        Disconnected = "disconnected",
    }
}

labels! {
    /// Value of the label `reason` of `edge_samples_dropped_total`.
    #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
    pub enum DropReason {
        /// The queue was full.
        Full = "full",
        /// The broker rejected the message with a reason code.
        Refused = "refused",
        /// The message exceeds the broker's limit, or the broker disconnects because of it.
        TooLarge = "too_large",
        /// The gateway stopped before delivery, and had no storage.
        Shutdown = "shutdown",
        /// The storage failed and the memory limit was reached.
        Storage = "storage",
        /// The stored data is unreadable.
        Corrupt = "corrupt",
        /// The tag is no longer in the configuration.
        Unconfigured = "unconfigured",
    }
}

labels! {
    /// Value of the label `outcome` of `edge_mqtt_messages_total`.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum MessageOutcome {
        /// Acknowledged with a success code, or written to the connection under QoS 0.
        Delivered = "delivered",
        /// Acknowledged with a failure code.
        Refused = "refused",
        /// Acknowledged with a failure code that may be different later; the message is sent again.
        Deferred = "deferred",
        /// Not acknowledged when the connection was lost; the message is sent again.
        Interrupted = "interrupted",
    }
}

labels! {
    /// Value of the label `outcome` of `edge_writes_total`: the states of a reply.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum CommandOutcome {
        /// The PLC took every value.
        Done = "done",
        /// The gateway refused the command.
        Rejected = "rejected",
        /// The PLC refused the command, or does not answer.
        Failed = "failed",
        /// The command was too old.
        Expired = "expired",
        /// The id was used before.
        Duplicate = "duplicate",
        /// Whether the PLC took the values is not known.
        Unknown = "unknown",
    }
}

labels! {
    /// Value of the label `outcome` of `edge_mqtt_replies_total`.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum ReplyOutcome {
        /// Acknowledged with a success code.
        Delivered = "delivered",
        /// The broker does not accept it, or ended the session over it.
        Refused = "refused",
        /// It waited for too long, or there were too many.
        Dropped = "dropped",
    }
}

labels! {
    /// Value of the label `outcome` of `edge_bundle_offers_total`.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum OfferOutcome {
        /// A bundle that is newer than the last one: it is fetched.
        Followed = "followed",
        /// Its bundle was here before, or the offer is repeated.
        Old = "old",
        /// It is no offer.
        Malformed = "malformed",
        /// The office withdrew it.
        Withdrawn = "withdrawn",
        /// An attempt to fetch its bundle has failed.
        Failed = "failed",
        /// Its bundle was fetched, and is tried.
        Taken = "taken",
    }
}

impl DropReason {
    /// Returns the reason with this label, if there is one.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.label() == label)
    }
}
