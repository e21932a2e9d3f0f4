//! A command is carried out at most once, whenever the process is killed or the power is cut, and
//! its id asked again gets the truth.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::command::tests::site::{SiteMemory, plc_config, time};
use crate::command::{CommandEffect, CommandProcessor, CommandTime, IncomingCommand};
use crate::model::OrderTask;
use crate::queue::storage::simulated::{DiskFaults, SimulatedDisk};

/// Number of commands, each with an id.
const COMMANDS: u16 = 6;
/// More steps than a life without a crash has.
const MAX_STEPS: usize = 200;

/// How a life ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LifeEnd {
    /// The process is killed: the disk holds what was written.
    Kill,
    /// The power is cut: the disk holds what was synced, and any part of the rest.
    PowerCut,
}

/// What outlives a process: the disk and the PLC.
struct CommandLife {
    disk: SimulatedDisk,
    plc: SiteMemory,
    /// How often each value was written.
    writes: BTreeMap<u16, usize>,
    /// Whether the PLC answers.
    is_silent: bool,
    time: CommandTime,
}

/// One process.
struct Life {
    command_processor: CommandProcessor,
    file: CommandFile<SimulatedDisk>,
    steps_left: usize,
    replies: Vec<Value>,
}

/// The steps of a life are used up.
struct Crashed;

impl CommandLife {
    fn new(seed: u64) -> Self {
        let disk = SimulatedDisk::new(seed);
        Self {
            disk,
            plc: SiteMemory::default(),
            writes: BTreeMap::new(),
            is_silent: false,
            time: time(),
        }
    }

    fn start(&self, steps_left: usize) -> Life {
        let (file, content) = CommandFile::open(self.disk.clone()).unwrap();
        let command_processor = CommandProcessor::new(&[plc_config()], "hash", &content, self.time);
        Life { command_processor, file, steps_left, replies: Vec::new() }
    }
}

impl Life {
    /// Counts a step.
    fn step(&mut self) -> Result<(), Crashed> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or(Crashed)?;
        Ok(())
    }

    fn send(&mut self, world: &CommandLife, value: u16) {
        let payload = format!(r#"{{"id":{value},"write":{{"speed":{value}}}}}"#);
        let incoming = IncomingCommand {
            plc: 0,
            payload: payload.as_bytes(),
            requester: u64::from(value),
            by: None,
            is_retained: false,
            may_be_old: false,
            expires_in: None,
        };
        self.command_processor.on_command(incoming, &|_| None, world.time);
    }

    /// Does everything that is to be done; a crash may come before and after each part.
    fn run(&mut self, world: &mut CommandLife) -> Result<(), Crashed> {
        loop {
            let mut is_idle = true;
            while let Some(effect) = self.command_processor.poll_effect() {
                is_idle = false;
                self.step()?;
                self.obey(effect, world)?;
            }
            if let Some(batch) = self.command_processor.take_batch(world.time.now) {
                is_idle = false;
                self.step()?;
                self.store(batch, world)?;
            }
            if is_idle {
                return Ok(());
            }
        }
    }

    fn obey(&mut self, effect: CommandEffect, world: &mut CommandLife) -> Result<(), Crashed> {
        match effect {
            CommandEffect::Order(order) => {
                let before = world.plc.writes;
                world.plc.is_silent = world.is_silent;
                let report = world.plc.execute(&order, world.time.wall);
                if order.task == OrderTask::Write {
                    let value = world.plc.word(24) / 10;
                    *world.writes.entry(value).or_default() += world.plc.writes - before;
                    self.step()?;
                }
                self.command_processor.on_report(&report, world.time);
            }
            CommandEffect::Reply { reply, .. } => self.replies.push(Value::Object(reply.body)),
            CommandEffect::Audit { .. } | CommandEffect::AckDelivery { .. } => {}
        }
        Ok(())
    }

    /// Writes a batch, then syncs it.
    fn store(&mut self, batch: LedgerBatch, world: &CommandLife) -> Result<(), Crashed> {
        let LedgerBatch { has_intents, replaces_file, .. } = batch;
        let unsynced = LedgerBatch { has_intents: false, ..batch };
        let is_written = self.file.store(&unsynced).is_ok();
        self.step()?;
        let sync = LedgerBatch { bytes: Vec::new(), has_intents, replaces_file: false };
        if is_written && (replaces_file || self.file.store(&sync).is_ok()) {
            self.step()?;
            self.command_processor.on_batch_stored(world.time);
        } else {
            self.command_processor.on_batch_failed(world.time);
        }
        Ok(())
    }
}

/// Returns the state of the only reply, or that of the first command if it is a duplicate.
fn first_state(replies: &[Value]) -> String {
    assert_eq!(replies.len(), 1, "{replies:?}");
    let reply = &replies[0];
    let state = if reply["state"] == "duplicate" { &reply["first"] } else { &reply["state"] };
    state.as_str().unwrap().to_owned()
}

/// Runs a life that ends after this number of steps, then asks again. Returns whether it crashed.
fn check(seed: u64, steps: usize, end: LifeEnd, is_silent: bool) -> bool {
    let world = &mut CommandLife::new(seed);
    world.is_silent = is_silent;
    let mut life = world.start(steps);
    let is_crashed = (1..=COMMANDS)
        .try_for_each(|value| {
            life.send(world, value);
            // Two commands share a batch now and then.
            if value % 3 == 1 { Ok(()) } else { life.run(world) }
        })
        .is_err();
    let told = std::mem::take(&mut life.replies);
    drop(life);
    if end == LifeEnd::PowerCut {
        world.disk.cut_power();
    }
    let taken = world.writes.clone();
    let mut life = world.start(MAX_STEPS * 10);
    assert!(life.run(world).is_ok());
    assert_eq!(world.writes, taken, "nothing is written again by itself");
    for value in 1..=COMMANDS {
        let context = format!("seed {seed}, {steps} steps, {end:?}, command {value}");
        life.replies.clear();
        life.send(world, value);
        assert!(life.run(world).is_ok());
        let state = first_state(&life.replies);
        let writes = world.writes.get(&value).copied().unwrap_or_default();
        assert!(writes <= 1, "{context}: {writes} writes");
        match state.as_str() {
            "done" => assert_eq!(writes, 1, "{context}"),
            "unknown" => {}
            state => panic!("{context}: {state}"),
        }
        // What was told before is not taken back, except that a lost record makes it unknown.
        let before = told.iter().find(|reply| reply["id"] == value);
        if let Some(before) = before.filter(|_| end == LifeEnd::Kill && state != "unknown") {
            assert_eq!(before["state"], state, "{context}");
        }
    }
    is_crashed
}

#[test]
fn a_kill_or_a_power_cut_at_any_step_causes_no_second_write() {
    for is_silent in [false, true] {
        for end in [LifeEnd::Kill, LifeEnd::PowerCut] {
            let mut steps = 0;
            while check(steps as u64, steps, end, is_silent) {
                steps += 1;
                for seed in 1_000..1_003 {
                    check(seed, steps, end, is_silent);
                }
            }
            assert!((30..MAX_STEPS).contains(&steps), "{steps} steps");
        }
    }
}

#[test]
fn a_disk_that_fails_now_and_then_causes_no_write_without_a_record() {
    for seed in 0..300 {
        let world = &mut CommandLife::new(seed);
        let mut life = world.start(usize::MAX);
        world.disk.set_faults(DiskFaults { write: 200, sync: 200, ..DiskFaults::NONE });
        for value in 1..=COMMANDS {
            life.send(world, value);
            assert!(life.run(world).is_ok());
        }
        for reply in &life.replies {
            let value = u16::try_from(reply["id"].as_u64().unwrap()).unwrap();
            let writes = world.writes.get(&value).copied().unwrap_or_default();
            let expected = usize::from(reply["state"] == "done");
            assert_eq!(writes, expected, "seed {seed}: {reply}");
        }
        assert_eq!(life.replies.len(), usize::from(COMMANDS));
        drop(life);
        world.disk.set_faults(DiskFaults::NONE);
        world.disk.cut_power();
        let taken = world.writes.clone();
        let mut life = world.start(usize::MAX);
        assert!(life.run(world).is_ok());
        for value in taken.keys() {
            life.send(world, *value);
        }
        assert!(life.run(world).is_ok());
        assert_eq!(world.writes, taken, "seed {seed}");
    }
}
