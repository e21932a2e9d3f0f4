//! A machine of its own for an operator's commands: a network, processes, and the files of this
//! machine under an overlay, which no other process sees. Needs root.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdin, Command, Output};

use crate::sandbox::overlay_script;
use crate::{Namespace, Process};

/// A machine in a network namespace. Dropping it ends every process in it.
#[derive(Debug)]
pub struct Machine {
    _holder: Process,
    /// The first process of the machine, as this machine numbers it.
    id: String,
    /// The holder ends when this closes.
    _leash: ChildStdin,
}

/// Its arguments are files and directories of this machine, each with its place in the new one.
const SETUP_SCRIPT: &str = concat!(
    overlay_script!(),
    r#"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mkdir host-proc root/operator
mount --rbind /proc host-proc
while [ $# -gt 0 ]; do
    mkdir -p "${2%/*}"
    if [ -d "$1" ]; then mkdir -p "$2"; else : >"$2"; fi
    mount --bind "$1" "$2"
    shift 2
done
# Printed when the root is the new one: nsenter(1) takes the root of this process.
exec chroot . sh -c 'echo ready; exec cat'
"#
);

impl Machine {
    /// Starts it with files and directories of this machine at the places that follow each.
    ///
    /// # Panics
    /// When the test does not run as root.
    #[must_use]
    pub fn start(namespace: &Namespace, places: &[(&Path, &str)]) -> Self {
        let mut command = namespace.command("unshare");
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
        command.args(["sh", "-c", SETUP_SCRIPT, "sh"]);
        for (here, there) in places {
            command.arg(here).arg(there.trim_start_matches('/'));
        }
        let mut holder = Process::start(&mut command);
        let leash = holder.stdin();
        let mut ready = String::new();
        let read = BufReader::new(holder.stdout()).read_line(&mut ready);
        assert_eq!(ready.trim(), "ready", "{read:?}: {}", holder.log().text());
        let id = holder.id();
        // ip-netns(8) has become unshare(1), which has one child.
        let children = format!("/proc/{id}/task/{id}/children");
        let children = fs::read_to_string(children).expect("Linux lists children");
        let id = children.trim().to_owned();
        assert!(id.parse::<u32>().is_ok(), "one child: {children:?}");
        Self { _holder: holder, id, _leash: leash }
    }

    /// Returns its first process, as this machine numbers it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns a command that runs inside, as root.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id, "--mount", "--net", "--pid", "--root", "--wd", "--"]);
        command.arg(program).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/root");
        command
    }

    /// Types lines into a shell, which stays in its directory for the next ones, and ends at the
    /// first command that fails.
    #[must_use]
    pub fn try_type(&self, lines: &str) -> Output {
        let script = format!(
            "cd \"$(cat /root/.cwd 2>/dev/null || echo /root/operator)\"\n{lines}\npwd >/root/.cwd\n"
        );
        let arguments = ["-e", "-o", "pipefail", "-c", &script];
        self.command("bash").args(arguments).output().expect("nsenter is installed")
    }

    /// Types lines as [`Self::try_type`] does, and returns what they print.
    ///
    /// # Panics
    /// When one of them fails.
    pub fn type_lines(&self, lines: &str) -> String {
        let output = self.try_type(lines);
        assert!(output.status.success(), "{lines}\n{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Writes a file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let quoted = text.replace('\'', r"'\''");
        self.type_lines(&format!("mkdir -p \"$(dirname {path})\"\nprintf '%s' '{quoted}' >{path}"));
    }
}
