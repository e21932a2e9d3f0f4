//! Why there is no connection to a broker, as sentences for an installer.

use provisioning::certificates::CertificateFault;
use serde::Serialize;
use thiserror::Error;

use crate::model::{Detail, UntrustedText};

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
    Unreachable { broker: String, cause: UntrustedText },
    #[error(
        "The broker {broker} cannot be reached, because this gateway may open no more connections \
         ({cause}): raise LimitNOFILE of its service, and restart it."
    )]
    OutOfConnections { broker: String, cause: UntrustedText },
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
    #[error("{host} is not a name that a broker's certificate can have.")]
    InvalidServerName { host: String },
    #[error(
        "The certificate of the broker {broker} was not issued by an authority that this gateway \
         knows, but by {issuer}: put the certificate of that authority into ca_file, or have the \
         broker send its intermediate certificates too."
    )]
    UnknownAuthority { broker: String, issuer: UntrustedText },
    #[error(
        "The certificate of the broker {broker} is signed by itself and not among those that this \
         gateway trusts: put a copy of it into ca_file."
    )]
    SelfSigned { broker: String },
    #[error(
        "The certificate of the broker is not for {host}, but for {names}: write one of these into \
         brokers, or have a certificate issued with subjectAltName {wanted}."
    )]
    WrongServerName { host: String, names: UntrustedText, wanted: String },
    #[error(
        "The certificate of the broker names no host; a common name (CN) does not count. Have one \
         issued with subjectAltName {wanted}."
    )]
    NoServerName { wanted: String },
    #[error(
        "The certificate of the broker {broker} expired on {not_after}, and the clock of this \
         gateway shows {now}: renew it there, or correct the clock."
    )]
    CertificateExpired { broker: String, not_after: String, now: String },
    #[error(
        "The certificate of the broker {broker} is not valid before {not_before}, and the clock of \
         this gateway shows {now}: correct the clock, or the certificate."
    )]
    CertificateNotYetValid { broker: String, not_before: String, now: String },
    #[error(
        "The certificate of the broker {broker} cannot be checked, because the clock of this \
         gateway is not set (it shows {now}): set it, or give it access to a time server (NTP)."
    )]
    ClockUnset { broker: String, now: String },
    #[error(
        "The certificate of the broker {broker} has an RSA key of {bits} bits, which is too weak: \
         make one with 2048 bits or more, or with P-256."
    )]
    WeakKey { broker: String, bits: usize },
    #[error(
        "The certificate of the broker {broker} was not issued by an authority that this gateway \
         knows, but by another one of the same name: put the certificate of that one into ca_file."
    )]
    WrongSignature { broker: String },
    #[error(
        "The certificate of the broker {broker} is signed with SHA-1 or MD5, which are broken: have \
         one issued with SHA-256."
    )]
    OutdatedSignature { broker: String },
    #[error(
        "The certificate of the broker {broker} is signed with an algorithm or a key that this \
         gateway does not support: use RSA of 2048 bits or more, P-256, P-384 or Ed25519."
    )]
    UnsupportedSignature { broker: String },
    #[error(
        "The certificate of the broker {broker} is that of an authority itself: have one issued \
         for the broker, with basicConstraints CA:FALSE."
    )]
    AuthorityAsServer { broker: String },
    #[error(
        "The broker {broker} sends its certificates in the wrong order: its own one has to be the \
         first in its certfile, then that of the authority that issued it."
    )]
    ServerChainOrder { broker: String },
    #[error(
        "The certificate of the broker {broker} is of version 1, without extensions: have one \
         issued with subjectAltName, for example with openssl x509 -extfile."
    )]
    CertificateVersion { broker: String },
    #[error(
        "The certificate of the broker {broker} is not for servers: have one issued with the \
         extended key usage serverAuth."
    )]
    NotForServers { broker: String },
    #[error("The certificate of the broker {broker} has been revoked: have a new one issued.")]
    Revoked { broker: String },
    #[error(
        "The certificate of the broker {broker} violates a rule for certificates (RFC 5280, \
         {rule}): have a new one issued."
    )]
    InvalidCertificate { broker: String, rule: UntrustedText },
    #[error(
        "The broker {broker} requires a certificate of this gateway: set cert_file and key_file."
    )]
    ClientCertificateMissing { broker: String },
    /// A broker may ask for a certificate without requiring one, and close for another reason.
    #[error(
        "The broker {broker} asked for a certificate of this gateway, which has none, and closed \
         the connection: set cert_file and key_file if it requires one; else try another version."
    )]
    ClosedWithoutCertificate { broker: String },
    #[error(
        "The broker {broker} does not know the authority that issued the certificate in cert_file: \
         add it to the broker's cafile, and put intermediate certificates into cert_file."
    )]
    ClientAuthorityUnknown { broker: String },
    #[error(
        "The broker {broker} says that the certificate in cert_file has expired: renew it, or \
         check the clock of the broker."
    )]
    ClientCertificateExpired { broker: String },
    #[error(
        "The broker {broker} does not accept this gateway's certificate ({alert}): check \
         cert_file and key_file, and that the broker knows the authority that issued them."
    )]
    ClientCertificateRejected { broker: String, alert: UntrustedText },
    #[error(
        "The broker {broker} speaks only TLS 1.1 or older, which is insecure: enable TLS 1.2 or \
         1.3 there."
    )]
    TlsTooOld { broker: String },
    #[error(
        "The broker {broker} and this gateway have no TLS cipher or kind of key in common: the \
         broker needs TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20, and a key for RSA of \
         2048 bits or more, P-256, P-384 or Ed25519."
    )]
    NothingInCommon { broker: String },
    #[error(
        "The broker {broker} does not know the name {host} (SNI): write the broker's name as the \
         broker has it."
    )]
    UnknownServerName { broker: String, host: String },
    #[error(
        "The broker {broker} does not accept the application protocols in alpn: remove the key, or \
         write those that its operator names, such as alpn = [\"mqtt\"]."
    )]
    AlpnRefused { broker: String },
    #[error(
        "{broker} does not use TLS: check the port, or write mqtt:// for a broker without TLS."
    )]
    NotTls { broker: String },
    #[error(
        "The broker {broker} closed the connection during the TLS handshake ({cause}): check that \
         a broker with TLS listens on port {port}, or write mqtt:// for a broker without TLS."
    )]
    TlsClosed { broker: String, port: u16, cause: UntrustedText },
    #[error(
        "{broker} accepts the connection but does not answer the TLS handshake: check that a \
         broker with TLS listens on port {port}, or write mqtt:// for a broker without TLS."
    )]
    TlsTimedOut { broker: String, port: u16 },
    #[error(
        "This machine has no list of authorities to verify the broker {broker} with: install the \
         package ca-certificates (ca-bundle on OpenWrt), or name the authority's file in ca_file."
    )]
    NoAuthorities { broker: String },
    #[error("TLS with the broker {broker} failed: {cause}.")]
    TlsFailed { broker: String, cause: UntrustedText },
    /// A file of certificates or the private key. Serialised like the fault itself.
    #[error(transparent)]
    #[serde(untagged)]
    File(CertificateFault),
}
