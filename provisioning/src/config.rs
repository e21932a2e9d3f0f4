//! `gateway.toml`: from text to a [`Config`] that can only hold valid settings.
//!
//! [`load()`] overrides the file by the `EDGE_*` environment variables (`layers`), reads every key
//! into a raw field (`raw`, `read`, `scalar`), and converts those to the typed configuration
//! (`check`). A problem is recorded and reading goes on:
//! [`RejectedFile`](crate::diagnostics::RejectedFile) holds all problems, each with its place in
//! the file and what to write instead.

mod argument;
mod check;
mod context;
mod field;
mod json_format;
mod keywords;
mod layers;
mod load;
mod named_files;
mod password_file;
mod raw;
mod read;
mod redact;
mod reference;
mod scalar;
mod service_user;
mod settings_hash;
mod suggest;
mod syntax;
mod toml_split;
mod typed;

#[cfg(feature = "office")]
pub(crate) use check::{MAX_TAGS, is_reserved_tag_name, size_error, tag_name_error, whole_numbers};
#[cfg(feature = "office")]
pub(crate) use raw::DEFAULT_MAX_WORDS;

pub use argument::{ArgumentError, parse_duration};
pub use json_format::{EnumNames, JsonFormat};
#[cfg(feature = "office")]
pub(crate) use load::inspect_rendered;
pub use load::{FileCheck, InspectedConfig, LoadedConfig, Setting, inspect, load};
pub use named_files::named_files;
pub use password_file::PasswordFile;
#[cfg(feature = "office")]
pub(crate) use redact::redacted;
pub use reference::{reference, schema};
pub use service_user::ServiceUser;
#[cfg(feature = "office")]
pub(crate) use suggest::nearest;
#[cfg(feature = "office")]
pub(crate) use syntax::{not_toml, not_utf8};
pub use typed::{
    Broker, BundleSettings, BundleUrl, ClientCertificate, Config, Credentials, DatetimeFormat,
    Durability, EventTrigger, Gateway, HostPort, Listen, Lower, Metrics, Mqtt, MqttVersion,
    NotAProgramId, Number, OnFull, Pacing, PayloadShape, Plc, ProgramId, Publish, Qos, Queue,
    QueueOrder, Scaling, Scheme, Secret, Tag, Tls, Tunnel, TunnelMode, Validity, Via, Will,
    WritableValue, WriteRate, WriteRule,
};
