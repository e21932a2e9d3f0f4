//! Why there is no connection to a broker, as sentences for an installer.

use serde::Serialize;
use thiserror::Error;

use crate::model::{Detail, ForeignText};

/// Why a broker could not be reached. The text says what is wrong and where to look; `broker` is
/// host and port as configured, `cause` the text of the operating system or of the TLS library.
#[derive(Clone, Debug, Error, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the text of each variant says what it means")]
pub enum DialError {
    #[error(
        "The broker's name {host} cannot be resolved: check its spelling, and that a DNS server \
         answers."
    )]
    Unresolved { host: String },
    #[error(
        "The broker {broker} does not answer: check its address, the cable, and that no firewall \
         drops the connection."
    )]
    TimedOut { broker: String },
    #[error(
        "The broker {broker} refuses the connection: the computer is on the network, but no broker \
         listens on port {port}."
    )]
    Refused { broker: String, port: u16 },
    #[error(
        "The broker {broker} cannot be reached ({cause}): check the cable and the gateway's own \
         address."
    )]
    Unreachable { broker: String, cause: ForeignText },
    #[error(
        "The broker {broker} cannot be reached, because this gateway may open no more connections \
         ({cause}): raise LimitNOFILE of its service, and restart it."
    )]
    OutOfConnections { broker: String, cause: ForeignText },
    /// The tunnel has no session. The text is that of the tunnel's own report.
    #[error("{text}")]
    NoTunnel {
        #[serde(skip)]
        text: String,
        tunnel: Detail,
    },
    /// Nothing has come back through the tunnel, which therefore explains the failure.
    #[error(
        "Nothing has come back through the tunnel to {hub} for {seconds} s; the gateway finds out \
         whether the hub still answers."
    )]
    TunnelUnanswered { hub: String, seconds: u64 },
    #[error(
        "The broker {broker} is not behind the hub {hub}, which is in use: add its network to that \
         hub's allowed_ips, or add a broker behind that hub to brokers."
    )]
    NotBehindHub { broker: String, hub: String },
    #[error("The file {path} cannot be used: {cause}.")]
    CertificateFile { path: String, cause: ForeignText },
    #[error("{host} is not a name that a broker's certificate can have.")]
    InvalidServerName { host: String },
    #[error(
        "The certificate of the broker {broker} was not issued by an authority that this gateway \
         knows: put the authority's certificate into ca_file."
    )]
    UnknownAuthority { broker: String },
    #[error(
        "The certificate of the broker is not for {host}: write the broker's name as it is in the \
         certificate."
    )]
    WrongServerName { host: String },
    #[error(
        "The certificate of the broker {broker} has expired: renew it there, or check the clock of \
         this gateway."
    )]
    CertificateExpired { broker: String },
    #[error(
        "The certificate of the broker {broker} is not valid yet: check the clock of this gateway."
    )]
    CertificateNotYetValid { broker: String },
    #[error(
        "The broker {broker} does not accept this gateway's certificate: check cert_file and \
         key_file, and that the broker knows the authority that issued them."
    )]
    ClientCertificateRejected { broker: String },
    #[error(
        "{broker} does not use TLS: check the port, or write mqtt:// for a broker without TLS."
    )]
    NotTls { broker: String },
    #[error(
        "The broker {broker} closed the connection during the TLS handshake ({cause}): check that \
         a broker with TLS listens on port {port}, or write mqtt:// for a broker without TLS."
    )]
    TlsClosed { broker: String, port: u16, cause: ForeignText },
    #[error(
        "{broker} accepts the connection but does not answer the TLS handshake: check that a \
         broker with TLS listens on port {port}, or write mqtt:// for a broker without TLS."
    )]
    TlsTimedOut { broker: String, port: u16 },
    #[error("TLS with the broker {broker} failed: {cause}.")]
    TlsFailed { broker: String, cause: ForeignText },
}
