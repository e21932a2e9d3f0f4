//! Directories and ports that belong to one test, and the paths of programs.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, Socket, Type};
use test_settings::Setting;

/// A temporary directory, removed with its content when dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

/// Creates an empty directory, readable by its owner only.
#[must_use]
pub fn temp_dir() -> TempDir {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("edge-e2e-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = env::temp_dir().join(name);
    // Process ids are reused: an earlier test may have left a directory of this name.
    if path.exists() {
        fs::remove_dir_all(&path).expect("a stale directory can be removed");
    }
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&path).expect("the temporary directory is writable");
    TempDir(path)
}

impl TempDir {
    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it and returns its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap_or_else(|e| panic!("cannot write {name}: {e}"));
        path
    }

    /// Writes a file that only its owner can read (mode 0600) and returns its path.
    pub fn write_private(&self, name: &str, content: &str) -> String {
        let path = self.write(name, content);
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&path, mode).expect("the test owns the file");
        path.display().to_string()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A failure here must not hide the failure of the test.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A TCP port of 127.0.0.1 that stays reserved until this is dropped, so that a peer can be stopped
/// and started again without losing it.
///
/// The reservation is a socket that is bound but does not listen: connections are refused until a
/// peer listens, and peers can bind the address because they all set `SO_REUSEADDR`.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: Socket,
}

impl Port {
    /// Reserves a free port.
    #[must_use]
    pub fn reserve() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("sockets can be made");
        socket.set_reuse_address(true).expect("the option exists");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("loopback has a free port");
        let bound = socket.local_addr().expect("a bound socket has an address");
        let number = bound.as_socket().expect("it is an IP address").port();
        Self { number, _reservation: socket }
    }

    /// Returns the number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Returns 127.0.0.1 with this port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

/// Returns the path of one of the workspace's programs: as `setting` says, or else next to the
/// test.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn workspace_program(name: &str, setting: Setting) -> PathBuf {
    if let Some(path) = setting.path() {
        return path;
    }
    let test = env::current_exe().expect("the test knows its own path");
    let found = test.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built: run `cargo build --workspace --bins`"))
}

/// Returns the path of an installed program, by its name or its path.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn system_program(program: &Path) -> PathBuf {
    // /usr/sbin and /sbin are not in the PATH of every user.
    let mut dirs: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = dirs.iter().map(|dir| dir.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no {}: `cargo xtask test`, or `long`, installs it", program.display())
    })
}

/// Returns a free UDP port of 127.0.0.1. It is not reserved, but the kernel is unlikely to assign
/// it again soon.
#[must_use]
pub fn free_udp_port() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    socket.local_addr().expect("a bound socket has an address").port()
}

/// Returns the target directory of cargo that the test was built in.
pub(crate) fn target_dir() -> PathBuf {
    let test = env::current_exe().expect("the test knows its own path");
    // target/PROFILE/deps/TEST
    test.ancestors().nth(3).expect("a test lies in target/PROFILE/deps").to_owned()
}
