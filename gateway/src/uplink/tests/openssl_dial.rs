//! Every fault of TLS that people meet, against `openssl s_server` with certificates that
//! `openssl` made.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use provisioning::config::ClientCertificate;

use super::*;

/// Days of a certificate.
const LONG: &str = "3650";

#[tokio::test]
async fn each_fault_of_a_brokers_certificate_has_its_own_code() {
    let lab = Lab::new();
    let san = "subjectAltName=IP:127.0.0.1";
    let plain = ["-newkey", "rsa:2048", "-sha256"];
    for (name, key, extensions, code) in [
        ("good", plain, &[san][..], "connected"),
        ("cn", plain, &["keyUsage=digitalSignature"], "no_server_name"),
        ("dns", plain, &["subjectAltName=DNS:127.0.0.1"], "wrong_server_name"),
        ("other", plain, &["subjectAltName=IP:10.0.0.1,DNS:b"], "wrong_server_name"),
        ("client", plain, &[san, "extendedKeyUsage=clientAuth"], "not_for_servers"),
        ("authority", plain, &[san, "basicConstraints=CA:TRUE"], "authority_as_server"),
        ("sha1", ["-newkey", "rsa:2048", "-sha1"], &[san], "outdated_signature"),
        ("weak", ["-newkey", "rsa:1024", "-sha256"], &[san], "weak_key"),
        ("v1", plain, &[], "certificate_version"),
    ] {
        lab.certificate(name, &key, extensions, LONG);
        let server = lab.serve(name, &["-cipher", "ALL:@SECLEVEL=0"]);
        assert_eq!(lab.code(&lab.tls(), server.port).await, code, "{name}");
    }
    let unknown = Tls { ca_file: Some(lab.path("good.pem")), ..Tls::default() };
    assert_eq!(lab.code(&unknown, lab.serve("cn", &[]).port).await, "no_authority");
    lab.openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout own.key -out own.pem -subj /CN=own \
         -addext basicConstraints=CA:FALSE",
    );
    assert_eq!(lab.code(&lab.tls(), lab.serve("own", &[]).port).await, "self_signed");
}

#[tokio::test]
async fn a_broker_without_a_common_cipher_key_or_version_is_told_apart() {
    let lab = Lab::new();
    lab.certificate("good", &["-newkey", "rsa:2048"], &["subjectAltName=IP:127.0.0.1"], LONG);
    lab.openssl("ecparam -name secp521r1 -genkey -noout -out p521.key");
    lab.certificate("p521", &["-new", "-key", "p521.key"], &["subjectAltName=IP:127.0.0.1"], LONG);
    for (name, arguments, code) in [
        ("good", &["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"][..], "nothing_in_common"),
        ("good", &["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"], "tls_too_old"),
        ("p521", &["-tls1_2"], "nothing_in_common"),
        ("p521", &["-tls1_3"], "nothing_in_common"),
        ("good", &["-tls1_2"], "connected"),
        ("good", &["-tls1_3"], "connected"),
    ] {
        let server = lab.serve(name, arguments);
        assert_eq!(lab.code(&lab.tls(), server.port).await, code, "{name} {arguments:?}");
    }
}

#[tokio::test]
async fn a_broker_that_asks_for_a_certificate_says_why_it_does_not_accept() {
    let lab = Lab::new();
    let san = "subjectAltName=IP:127.0.0.1";
    let new = ["-newkey", "rsa:2048"];
    lab.certificate("good", &new, &[san], LONG);
    lab.certificate("late", &new, &[san], "-1");
    lab.certificate("server", &new, &[san, "extendedKeyUsage=serverAuth"], LONG);
    lab.openssl("req -x509 -newkey rsa:2048 -nodes -keyout own.key -out own.pem -subj /CN=own");
    for version in ["-tls1_2", "-tls1_3"] {
        for (client, code) in [
            (None, "client_certificate_missing"),
            (Some("own"), "client_authority_unknown"),
            (Some("late"), "file_expired"),
            (Some("server"), "not_for_clients"),
            (Some("good"), "connected"),
        ] {
            let asking = [version, "-Verify", "1", "-verify_return_error", "-CAfile", "ca.pem"];
            let server = lab.serve("good", &asking);
            let client = client.map(|name| ClientCertificate {
                cert_file: lab.path(&format!("{name}.pem")),
                key_file: lab.path(&format!("{name}.key")),
            });
            let tls = Tls { client, ..lab.tls() };
            assert_eq!(lab.code(&tls, server.port).await, code, "{version}");
        }
    }
}

/// A directory with an authority.
struct Lab(PathBuf);

/// A server that sends what it receives back in reverse.
struct OpensslServer {
    process: Child,
    port: u16,
}

impl Lab {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("edge-openssl-{}", fastrand::u64(..)));
        std::fs::create_dir(&dir).unwrap();
        let lab = Self(dir);
        lab.openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca");
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn tls(&self) -> Tls {
        Tls { ca_file: Some(self.path("ca.pem")), ..Tls::default() }
    }

    fn openssl(&self, arguments: &str) {
        self.run(&arguments.split(' ').collect::<Vec<_>>());
    }

    fn run(&self, arguments: &[&str]) {
        let done = Command::new("openssl").args(arguments).current_dir(&self.0).output();
        let done = done.expect("openssl is installed");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Issues `NAME.pem` with the key `NAME.key`; without extensions it is of version 1.
    fn certificate(&self, name: &str, key: &[&str], extensions: &[&str], days: &str) {
        let (request, out) = (format!("{name}.csr"), format!("{name}.pem"));
        let (key_file, file) = (format!("{name}.key"), format!("{name}.ext"));
        let mut make = [&["req"], key, &["-nodes", "-subj", "/CN=127.0.0.1"]].concat();
        if key.contains(&"-newkey") {
            make.extend(["-keyout", &key_file]);
        }
        make.extend(["-out", &request]);
        self.run(&make);
        let mut sign = vec!["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key"];
        sign.extend(["-set_serial", "2", "-days", days, "-out", &out]);
        sign.extend(key.iter().find(|argument| argument.starts_with("-sha")));
        std::fs::write(self.path(&file), extensions.join("\n")).unwrap();
        if !extensions.is_empty() {
            sign.extend(["-extfile", &file]);
        }
        self.run(&sign);
    }

    fn serve(&self, name: &str, arguments: &[&str]) -> OpensslServer {
        let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-rev", "-cert", &cert, "-key", &key])
            .args(arguments)
            .current_dir(&self.0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            line.strip_prefix("ACCEPT 127.0.0.1:").map(|port| port.parse().unwrap())
        });
        OpensslServer { process, port: port.expect("it listens") }
    }

    /// Returns the code of the fault, or `connected` when the server answers a line.
    async fn code(&self, tls: &Tls, port: u16) -> String {
        let broker = Broker { scheme: Scheme::Mqtts, ..broker("127.0.0.1", port) };
        let error = match Uplink::direct(tls.clone()).dial(&broker, DIAL_TIMEOUT).await {
            Ok(mut stream) => {
                let mut answer = [0; 6];
                let echo = async {
                    stream.write_all(b"hello\n").await?;
                    stream.read_exact(&mut answer).await
                };
                match echo.await {
                    Ok(_) => return "connected".to_owned(),
                    Err(error) => error.downcast::<DialError>().expect("it is explained"),
                }
            }
            Err(error) => error,
        };
        let sentence = Sentence::new(&error);
        assert!(sentence.text.ends_with('.') && !sentence.text.contains(".."), "{sentence}");
        sentence.detail.code
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
