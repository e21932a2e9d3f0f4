//! A mail server that keeps what it gets (RFC 5321), inside a namespace.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

use e2e::{Namespace, RECOVERY_TIMEOUT};

/// The mails in the order in which they arrived.
pub(crate) struct MailSink(Receiver<Mail>);

/// A mail, and how it was handed over.
pub(crate) struct Mail {
    /// Commands of the session: the user, the sender, the receiver.
    pub(crate) session: String,
    /// Header and body.
    pub(crate) text: String,
}

impl MailSink {
    pub(crate) const ADDRESS: &str = "127.0.0.1:2525";

    pub(crate) fn start(namespace: &Namespace) -> Self {
        let listener = namespace.enter(|| TcpListener::bind(Self::ADDRESS).expect("a free port"));
        let (mails, received) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                receive(&stream, &mails);
            }
        });
        Self(received)
    }

    /// Waits for a mail with this text.
    pub(crate) fn wait_for(&self, part: &str) -> Mail {
        let end = Instant::now() + RECOVERY_TIMEOUT;
        let mut seen = String::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(mail) = self.0.recv_timeout(left) else { panic!("no {part:?} in:\n{seen}") };
            if mail.text.contains(part) {
                return mail;
            }
            seen += &mail.text;
        }
    }
}

/// Plays one session. `None` at its end, whatever that is.
fn receive(stream: &TcpStream, mails: &Sender<Mail>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let answer = |text: &str| write!(&mut &*stream, "{text}\r\n").ok();
    let mut session = String::new();
    answer("220 sink")?;
    loop {
        let line = lines.next()?;
        session += &format!("{line}\n");
        match line.get(..4).unwrap_or_default().to_uppercase().as_str() {
            "EHLO" => answer("250-sink\r\n250 AUTH PLAIN")?,
            "AUTH" => answer("235 welcome")?,
            "DATA" => {
                answer("354 go on")?;
                let text: Vec<_> = lines.by_ref().take_while(|line| line != ".").collect();
                // Long lines are broken (RFC 2045, 6.7).
                let text = text.join("\n").replace("=\n", "");
                mails.send(Mail { session: session.clone(), text }).ok()?;
                answer("250 taken")?;
            }
            "QUIT" => return answer("221 bye"),
            _ => answer("250 fine")?,
        }
    }
}
