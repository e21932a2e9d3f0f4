//! The measured programs with all their child processes, and their use of processor and memory.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};

/// Children that end with their owner.
#[derive(Debug)]
pub(crate) struct Processes(Vec<Child>);

/// Memory of all processes together, in megabytes (10^6 bytes).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Largest resident set so far, summed over the processes.
    pub(crate) peak: f64,
    /// Proportional set size now: shared memory counted once.
    pub(crate) proportional: f64,
}

/// Unit of the times in /proc/PID/stat (USER_HZ, the same on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;

impl Processes {
    pub(crate) fn start(commands: Vec<Command>) -> Self {
        let start = |mut command: Command| {
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            child.unwrap_or_else(|error| panic!("{command:?}: {error}"))
        };
        Self(commands.into_iter().map(start).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the processor time of all processes so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.tree().into_iter().filter_map(cpu_seconds).sum()
    }

    pub(crate) fn memory(&self) -> Memory {
        let sum = |file: &str, key: &str| {
            let of = |pid| kilobytes(&fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?, key);
            self.tree().into_iter().filter_map(of).sum::<f64>() * 1024.0 / 1e6
        };
        Memory { peak: sum("status", "VmHWM:"), proportional: sum("smaps_rollup", "Pss:") }
    }

    /// Returns the child processes and their descendants.
    fn tree(&self) -> Vec<u32> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let entries = fs::read_dir("/proc").expect("there is a /proc").flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            if let Some(parent) = stat(pid).and_then(|stat| stat.get(1)?.parse().ok()) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut tree: Vec<u32> = self.0.iter().map(Child::id).collect();
        let mut next = 0;
        while let Some(pid) = tree.get(next) {
            tree.extend(children.get(pid).cloned().unwrap_or_default());
            next += 1;
        }
        tree
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let below = self.tree().split_off(self.0.len());
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in below {
            let _ =
                Command::new("sh").args(["-c", "kill -9 \"$1\"", "sh", &pid.to_string()]).status();
        }
    }
}

/// Returns the fields of /proc/PID/stat from the third (the state) on (proc(5)).
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Returns the larger of two counts. That of the scheduler is exact but covers only living threads; that
/// of the process is coarse but includes ended threads and waited-for children.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = stat(pid)?;
    let ticks = |field: usize| stat.get(field)?.parse::<f64>().ok();
    let coarse = (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND;
    let reaped = (ticks(13)? + ticks(14)?) / TICKS_PER_SECOND;
    let nanos = |task: fs::DirEntry| -> Option<f64> {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let exact = tasks.filter_map(nanos).sum::<f64>() / 1e9;
    let has_lost_threads = exact < coarse - 3.0 / TICKS_PER_SECOND;
    Some(reaped + if has_lost_threads { coarse } else { exact })
}

fn kilobytes(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
