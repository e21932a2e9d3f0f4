//! One PLC without its network: memory, program, state. Pure; time is an argument.

use std::time::Duration;

use super::frame::{self, MbapFrame};
use super::image::{PlcMemory, WordMemory};
use super::process::{PumpStation, STEP_PERIOD};
use super::system::RunState;
use super::{SimulatedProgram, SimulatorSettings, pdu, system};

const EMBEDDED_UNIT: u8 = 255;
const SLAVE_UNIT: u8 = 1;
/// Number of words that clients write to the slave device, and number that they read from it.
const SLAVE_WORDS: u16 = 40;

/// A PLC, owned by the task of [`super::serve`].
#[derive(Debug)]
pub(super) struct Controller {
    pub(super) image: PlcMemory,
    slave: WordMemory,
    hardware: system::Hardware,
    program: Option<PumpStation>,
    state: RunState,
    /// Age at the last call.
    age: Duration,
    /// Running time that is less than a step of the program.
    unspent_time: Duration,
    requests: u64,
}

impl Controller {
    /// Creates a PLC at an age of zero.
    pub(super) fn new(settings: &SimulatorSettings) -> Self {
        let hardware = settings.hardware;
        let mut image = PlcMemory::new(hardware.model);
        hardware.fill_plc_r(&mut image.words, settings.serial_number);
        system::write_state(&mut image.words, settings.state);
        system::write_signature(&mut image.words, settings.signature);
        let program = match settings.program {
            SimulatedProgram::PumpStation => Some(PumpStation::new(settings.seed)),
            SimulatedProgram::Idle => None,
        };
        if let Some(program) = &program {
            program.initialise(&mut image);
        }
        Self {
            image,
            slave: WordMemory::new(vec![0..=2 * SLAVE_WORDS - 1], vec![0..=SLAVE_WORDS - 1]),
            hardware,
            program,
            state: settings.state,
            age: Duration::ZERO,
            unspent_time: Duration::ZERO,
            requests: 0,
        }
    }

    /// Runs the program up to this age, in whole steps; while it is stopped, only the age changes.
    pub(super) fn advance(&mut self, age: Duration) {
        let passed = age.saturating_sub(self.age);
        self.age = age;
        if self.state != RunState::Running {
            return;
        }
        self.unspent_time += passed;
        let steps = self.unspent_time.as_nanos() / STEP_PERIOD.as_nanos();
        let Some(program) = self.program.as_mut().filter(|_| steps > 0) else { return };
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        self.unspent_time -= STEP_PERIOD * u32::try_from(steps).unwrap_or(u32::MAX);
        program.run(&mut self.image, steps);
        if let Some(words) = self.image.words.read(0, SLAVE_WORDS) {
            self.slave.store(SLAVE_WORDS, words);
        }
    }

    /// Appends an answer for each whole frame of `requests`, in the same order.
    pub(super) fn answer(&mut self, requests: &[u8], answers: &mut Vec<u8>) {
        let mut rest = requests;
        while let Ok(Some((request, behind))) = frame::split_first(rest) {
            frame::push_answer(&request, answers, |out| self.answer_pdu(&request, out));
            self.requests += 1;
            rest = behind;
        }
    }

    fn answer_pdu(&mut self, request: &MbapFrame<'_>, out: &mut Vec<u8>) {
        match request.unit {
            EMBEDDED_UNIT => {
                pdu::answer_embedded(&mut self.image, &self.hardware, request.pdu, out);
            }
            SLAVE_UNIT => pdu::answer_slave_device(&mut self.slave, request.pdu, out),
            _ => pdu::answer_unknown_unit(request.pdu, out),
        }
    }

    /// Stops or starts the program.
    pub(super) fn set_state(&mut self, state: RunState) {
        self.state = state;
        system::write_state(&mut self.image.words, state);
    }

    /// Turns it into another PLC of the same model.
    pub(super) fn set_serial_number(&mut self, serial_number: u32) {
        self.hardware.fill_plc_r(&mut self.image.words, serial_number);
    }

    /// Writes registers of the slave device as the PLC's own program would, %QW included.
    pub(super) fn set_slave_registers(&mut self, first: u16, bytes: &[u8]) -> bool {
        self.slave.store(first, bytes)
    }

    /// Changes the application signature, as a download does.
    pub(super) fn set_signature(&mut self, signature: [u32; 4]) {
        system::write_signature(&mut self.image.words, signature);
    }

    /// Returns the number of requests answered so far, exceptions included.
    pub(super) const fn requests(&self) -> u64 {
        self.requests
    }
}

#[cfg(test)]
mod tests;
