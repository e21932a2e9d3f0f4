//! Asks the gateway how it is, over its status socket. Its user may be hostile: the answer is short
//! and comes soon, or is none.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use serde_json::Value;

/// Status socket in the directory of the gateway.
const SOCKET: &str = "status.sock";
/// Longest answer that is read: a headline has some hundred bytes.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;
/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks a gateway for the code of its headline. `state_dir` is its directory.
pub(super) fn headline_code(state_dir: &Path) -> Option<String> {
    let answer = ask(&state_dir.join(SOCKET)).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if head.split(' ').nth(1) != Some("200") {
        return None;
    }
    let headline: Value = serde_json::from_str(body).ok()?;
    headline.get("code")?.as_str().map(str::to_owned)
}

/// Connects without waiting: a socket whose queue is full would block for ever.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&stream, &SocketAddrUnix::new(socket)?)?;
    let stream = UnixStream::from(stream);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn ask(socket: &Path) -> io::Result<String> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let mut stream = connect(socket)?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(b"GET /headline HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    let mut stream = stream.take(MAX_ANSWER_BYTES);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A time-out of zero would be none.
        stream.get_ref().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut part)? {
            0 => break,
            count => answer.extend_from_slice(part.get(..count).unwrap_or_default()),
        }
    }
    String::from_utf8(answer).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// Answers one request on a socket with this text, and returns what was understood.
    fn answered(answer: &'static str) -> Option<String> {
        let name = format!("edge-box-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let listener = UnixListener::bind(dir.join(SOCKET)).unwrap();
        let gateway = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            assert!(request[..count].starts_with(b"GET /headline "));
            let _ = stream.write_all(answer.as_bytes());
        });
        let code = headline_code(&dir);
        gateway.join().unwrap();
        fs::remove_dir_all(dir).unwrap();
        code
    }

    #[test]
    fn the_code_of_the_headline_is_read_and_everything_else_is_no_answer() {
        let all_well = "HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n{\"text\":\"All is well\",\
                        \"code\":\"all_well\"}";
        assert_eq!(answered(all_well).as_deref(), Some("all_well"));
        for other in [
            "",
            "HTTP/1.0 200 OK",
            "HTTP/1.0 503 Service Unavailable\r\n\r\n{\"code\":\"all_well\"}",
            "HTTP/1.0 200 OK\r\n\r\n{\"code\":7}",
            "HTTP/1.0 200 OK\r\n\r\n[1, 2",
        ] {
            assert_eq!(answered(other), None, "{other}");
        }
        assert_eq!(headline_code(Path::new("/nowhere")), None);
    }

    #[test]
    fn a_gateway_that_accepts_no_connection_is_none() {
        let name = format!("edge-box-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let _listener = UnixListener::bind(dir.join(SOCKET)).unwrap();
        // Until its queue is full.
        let waiting: Vec<_> = std::iter::from_fn(|| connect(&dir.join(SOCKET)).ok()).collect();
        assert!(!waiting.is_empty());
        assert_eq!(headline_code(&dir), None);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_gateway_that_never_stops_answering_is_none() {
        let endless: &'static str = Box::leak("x".repeat(1 << 20).into_boxed_str());
        assert_eq!(answered(endless), None);
    }
}
