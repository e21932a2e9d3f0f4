//! `gateway.toml`: from text to a [`Config`] that can only hold valid settings.
//!
//! [`load()`] lays the `EDGE_*` variables of the environment over the file (`layers`), reads every
//! key into a raw field that is a value, nothing or a noted problem (`raw`, `read`, `leaf`), and
//! draws the typed configuration from that (`check`). Nothing stops at the first problem:
//! [`Rejected`] holds all of them, each with its place in the file and what to write instead.

mod argument;
mod check;
mod document;
mod draft;
mod form;
mod hash;
mod layers;
mod leaf;
mod load;
mod mask;
mod member;
mod near;
mod problem;
mod raw;
mod read;
mod reference;
mod syntax;
mod typed;
mod words;

pub use argument::{ArgumentError, duration, read_secret};
pub use form::{Form, Names};
pub use load::{Loaded, Setting, load};
pub use problem::{Notes, Problem, Rejected};
pub use reference::{reference, schema};
pub use typed::{
    Broker, ClientCertificate, Config, Credentials, Datetime, Durability, Gateway, HostPort,
    Listen, Metrics, Mqtt, OnFull, Pacing, Plc, Publish, Qos, Queue, QueueOrder, Scaling, Scheme,
    Secret, Shape, Tag, Tls, Tunnel, TunnelMode, Version, Via, Will,
};
