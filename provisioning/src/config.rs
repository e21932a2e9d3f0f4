//! `gateway.toml`: from text to a [`Config`] that can only hold valid settings.

mod typed;

pub use typed::{
    Broker, Config, Credentials, Datetime, Gateway, HostPort, Metrics, Mqtt, OnFull, Plc, Publish,
    Qos, Queue, Scaling, Secret, Shape, Tag, Version, Will,
};
