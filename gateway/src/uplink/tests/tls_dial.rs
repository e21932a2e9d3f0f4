//! TLS against a server of rustls with certificates made on the spot.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use provisioning::config::ClientCertificate;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::supervise::Stage;

#[tokio::test]
async fn bytes_pass_when_the_broker_is_who_it_should_be() {
    let site = TestAuthority::new();
    let port = site.serve(site.server(&["localhost"]), ClientPolicy::AnyClient).await;

    let mut stream = dial(&site.tls(), "localhost", port).await.unwrap();

    stream.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
}

#[tokio::test]
async fn an_unknown_authority_is_refused_with_advice() {
    let (site, other) = (TestAuthority::new(), TestAuthority::new());
    let port = site.serve(site.server(&["localhost"]), ClientPolicy::AnyClient).await;

    let sentence = refused(&other.tls(), "localhost", port).await;

    assert!(sentence.contains("does not come from an authority"), "{sentence}");
    let none_given = refused(&Tls::default(), "localhost", port).await;
    assert!(none_given.contains("does not come from an authority"), "{none_given}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let site = TestAuthority::new();
    let port = site.serve(site.server(&["broker.example.net"]), ClientPolicy::AnyClient).await;

    let sentence = refused(&site.tls(), "localhost", port).await;

    assert!(sentence.contains("is not for localhost"), "{sentence}");
}

#[tokio::test]
async fn an_expired_certificate_and_one_of_the_future_are_told_apart() {
    let site = TestAuthority::new();
    for (from, until, words) in [(2001, 2002, "has expired"), (2100, 2101, "is not valid yet")] {
        let mut server = site.server(&["localhost"]);
        server.not_before = date_time_ymd(from, 1, 1);
        server.not_after = date_time_ymd(until, 1, 1);
        let port = site.serve(server, ClientPolicy::AnyClient).await;
        let sentence = refused(&site.tls(), "localhost", port).await;
        assert!(sentence.contains(words), "{sentence}");
    }
}

#[tokio::test]
async fn our_certificate_opens_a_broker_that_asks_for_one_and_none_does_not() {
    let site = TestAuthority::new();
    let port = site.serve(site.server(&["localhost"]), ClientPolicy::KnownClient).await;

    for (tls, is_let_in) in [(site.tls_with_client(), true), (site.tls(), false)] {
        let mut stream = dial(&tls, "localhost", port).await.unwrap();
        // In TLS 1.3 a client is through before the server has looked at its certificate.
        let mut echo = [0; 4];
        let answered = match stream.write_all(b"ping").await {
            Ok(()) => stream.read_exact(&mut echo).await,
            Err(error) => Err(error),
        };
        assert_eq!(answered.is_ok(), is_let_in, "{answered:?}");
    }
}

#[tokio::test]
async fn a_file_that_takes_its_time_holds_nobody_else_up() {
    let site = TestAuthority::new();
    let port = site.serve(site.server(&["localhost"]), ClientPolicy::AnyClient).await;
    let slow = site.directory.join("slow.pem");
    assert!(std::process::Command::new("mkfifo").arg(&slow).status().unwrap().success());
    let (path, authority) = (slow.clone(), site.authority.pem());
    let tls = Tls { ca_file: Some(slow), client: None };
    let dialling = dial(&tls, "localhost", port);
    // Whoever opens the pipe waits for the other end, as for a card that is busy. It is written to
    // after many turns of this thread.
    let writing = async {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        tokio::task::spawn_blocking(move || std::fs::write(path, authority)).await.unwrap()
    };

    let (dialled, written) = tokio::join!(dialling, writing);

    dialled.unwrap();
    written.unwrap();
}

#[tokio::test]
async fn a_file_that_holds_no_certificate_is_named() {
    let site = TestAuthority::new();
    let port = site.serve(site.server(&["localhost"]), ClientPolicy::AnyClient).await;
    let empty = site.directory.join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();

    let tls = Tls { ca_file: Some(empty), client: None };
    let sentence = refused(&tls, "localhost", port).await;

    assert!(sentence.contains("empty.pem cannot be used: it holds no certificate"), "{sentence}");
}

#[tokio::test]
async fn a_broker_without_tls_is_told_by_its_answer() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"\x20\x02\x00\x01 this is no TLS").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    };

    let tls = Tls::default();
    let (sentence, ()) = tokio::join!(refused(&tls, "localhost", port), server);

    assert!(sentence.contains("does not speak TLS"), "{sentence}");
}

async fn dial(tls: &Tls, host: &str, port: u16) -> Result<Box<dyn ByteStream>, DialError> {
    let broker = Broker { scheme: Scheme::Mqtts, ..broker(host, port) };
    Uplink::direct(tls.clone()).dial(&broker, DIAL_TIMEOUT).await
}

async fn refused(tls: &Tls, host: &str, port: u16) -> String {
    dial(tls, host, port).await.unwrap_err().sentence()
}

/// Whom the server lets in.
#[derive(Clone, Copy)]
enum ClientPolicy {
    AnyClient,
    KnownClient,
}

/// An authority with its files, in a directory of its own.
struct TestAuthority {
    directory: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
    server: Stage,
}

impl TestAuthority {
    fn new() -> Self {
        let name = format!("edge-gateway-tls-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
        Self { directory, authority, server: Stage::new("server") }
    }

    fn server(&self, names: &[&str]) -> CertificateParams {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        CertificateParams::new(names).unwrap()
    }

    fn tls(&self) -> Tls {
        Tls { ca_file: Some(self.directory.join("ca.pem")), client: None }
    }

    fn tls_with_client(&self) -> Tls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["gateway".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let write = |name: &str, pem: &str| {
            let path: &Path = &self.directory.join(name);
            std::fs::write(path, pem).unwrap();
            path.to_owned()
        };
        let cert_file = write("own.pem", &certificate.pem());
        let key_file = write("own.key", &key.serialize_pem());
        Tls { client: Some(ClientCertificate { cert_file, key_file }), ..self.tls() }
    }

    /// A server that sends back what one client sends.
    async fn serve(&self, params: CertificateParams, client: ClientPolicy) -> u16 {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match client {
            ClientPolicy::AnyClient => builder.with_no_client_auth(),
            ClientPolicy::KnownClient => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .unwrap(),
            ),
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        self.server.spawn(CancellationToken::new(), |_| async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust us breaks the handshake off.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let (mut from, mut to) = tokio::io::split(&mut stream);
                let _ = tokio::io::copy(&mut from, &mut to).await;
            }
        });
        port
    }
}

impl Drop for TestAuthority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
