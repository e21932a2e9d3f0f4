//! The program of the simulated PLC: a pump station with a heated tank.
//!
//! It is deterministic: the same seed, age and writes give the same values.
//!
//! | address | declared as | meaning |
//! |---|---|---|
//! | `%MW0` | `life : WORD` | counts the program's steps of 10 ms, and wraps |
//! | `%MW10` | `temperature : REAL` | of the water, °C; follows the setpoint with inertia |
//! | `%MW12` | `pressure : REAL` | downstream of the pump, bar |
//! | `%MW14` | `level : INT` | of the tank, mm: fills in about 20 s, is pumped out in about 15 s |
//! | `%MW15` | `speed : UINT` | of the pump, 1/min |
//! | `%MW16` | `starts : UDINT` | of the pump |
//! | `%MW18` | `hours : TIME` | that the pump ran |
//! | `%MW20` | `setpoint : REAL` | of the temperature, °C: set by clients, 60 at first |
//! | `%ML6` (`%MW24`) | `total : LREAL` | volume pumped, m³ |
//! | `%MX56.0` | `running : BOOL` | the pump turns |
//! | `%MX56.1` | `heating : BOOL` | the heater is on |
//! | `%MX57.0` | `alarm_level : BOOL` | the tank is about to overflow |
//! | `%MX57.1` | `alarm_cold : BOOL` | more than 5 °C below the setpoint |
//! | `%MW40` | `mode : UINT` | 0 by level, 1 pump off, 2 pump on: comes from `%MW62200` |
//! | `%MW60200`..`%MW60219` | read relocation table | `%MW10`..`%MW29` in one block |
//! | `%MW62200` | write relocation table | to `%MW40`, set by clients |
//! | `%Q0.0` .. `%Q0.3` | outputs | pump, heater, alarm lamp, a lamp that blinks once a second |
//! | `%I0.0` .. `%I0.4` | inputs | level high, level low, pump turns, flow, door closed |
//!
//! The program overwrites what it computes: a client's write to `%MW10` lasts until the next step.
//! A write to `%MW20`, `%MW62200` or to an address that is not in this list stays.

use std::time::Duration;

use super::image::PlcMemory;

/// Time between two steps of the program.
pub(super) const STEP_PERIOD: Duration = Duration::from_millis(10);
const STEP_SECONDS: f64 = 0.01;
const STEP_MS: u32 = 10;

const LEVEL_LOW_MM: f64 = 500.0;
const LEVEL_HIGH_MM: f64 = 1500.0;
const LEVEL_ALARM_MM: f64 = 1700.0;
const LEVEL_FULL_MM: f64 = 2000.0;
/// Litres of water that raise the level by one millimetre: a tank of 0.25 m².
const LITRES_PER_MM: f64 = 0.25;
const INFLOW_LITRES_PER_S: f64 = 12.0;
const PUMP_FLOW_LITRES_PER_S: f64 = 30.0;
const FULL_SPEED_RPM: f64 = 2900.0;
const PUMP_HEAD_BAR: f64 = 6.0;

/// State of the machine.
#[derive(Debug)]
pub(super) struct PumpStation {
    random: fastrand::Rng,
    steps: u64,
    temperature: f64,
    level: f64,
    speed: f64,
    pump: bool,
    starts: u32,
    hours: u32,
    litres: f64,
}

/// Values that clients set, read at the start of a cycle.
struct ClientInputs {
    setpoint: f64,
    mode: u16,
}

impl PumpStation {
    /// Creates a station at an age of zero.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let temperature = 18.0 + 6.0 * random.f64();
        let level = LEVEL_LOW_MM + (LEVEL_HIGH_MM - LEVEL_LOW_MM) * random.f64();
        Self {
            random,
            steps: 0,
            temperature,
            level,
            speed: 0.0,
            pump: false,
            starts: 0,
            hours: 0,
            litres: 0.0,
        }
    }

    /// Sets the variables that have an initial value, as a download does.
    pub(super) fn initialise(&self, image: &mut PlcMemory) {
        image.words.store(20, &60.0_f32.to_le_bytes());
        self.publish(image, &ClientInputs::read(image));
    }

    /// Runs the program for `steps` steps of 10 ms.
    pub(super) fn run(&mut self, image: &mut PlcMemory, steps: u64) {
        image.words.relocate(62_200, 1, 40);
        let inputs = ClientInputs::read(image);
        for _ in 0..steps {
            self.step(&inputs);
        }
        self.publish(image, &inputs);
    }

    fn step(&mut self, inputs: &ClientInputs) {
        self.steps += 1;
        let pump_wanted = inputs.wants_pump(self.level, self.pump);
        self.starts = self.starts.wrapping_add(u32::from(pump_wanted && !self.pump));
        self.pump = pump_wanted;
        let target = if self.pump { FULL_SPEED_RPM } else { 0.0 };
        self.speed += (target - self.speed) * STEP_SECONDS / 1.5;
        if self.is_turning() {
            self.hours = self.hours.wrapping_add(STEP_MS);
        }
        self.move_water();
        self.temperature += (inputs.setpoint - self.temperature) * STEP_SECONDS / 20.0;
        self.temperature += 0.02 * (self.random.f64() - 0.5);
    }

    /// Moves water: in at a rate that varies over a minute, with some noise; out with the pump.
    fn move_water(&mut self) {
        let swing = 1.0 + 0.3 * (self.seconds() / 60.0 * std::f64::consts::TAU).sin();
        let inflow = INFLOW_LITRES_PER_S * swing * (0.9 + 0.2 * self.random.f64()) * STEP_SECONDS;
        let outflow = (PUMP_FLOW_LITRES_PER_S * self.speed / FULL_SPEED_RPM * STEP_SECONDS)
            .min(self.level * LITRES_PER_MM);
        self.litres += outflow;
        self.level = (self.level + (inflow - outflow) / LITRES_PER_MM).clamp(0.0, LEVEL_FULL_MM);
    }

    fn publish(&self, image: &mut PlcMemory, inputs: &ClientInputs) {
        let heating = self.temperature < inputs.setpoint - 0.2;
        let flooded = self.level > LEVEL_ALARM_MM;
        let cold = self.temperature < inputs.setpoint - 5.0;
        let flags = [(self.is_turning(), 0), (heating, 1), (flooded, 8), (cold, 9)]
            .map(|(on, at)| u16::from(on) << at);
        let flags = flags.into_iter().fold(0, |word, flag| word | flag);
        let words = &mut image.words;
        words.store(0, &low_word(self.steps).to_le_bytes());
        words.store(10, &to_real(self.temperature).to_le_bytes());
        words.store(12, &to_real(self.pressure()).to_le_bytes());
        words.store(14, &to_word(self.level).to_le_bytes());
        words.store(15, &to_word(self.speed).to_le_bytes());
        words.store(16, &self.starts.to_le_bytes());
        words.store(18, &self.hours.to_le_bytes());
        words.store(24, &(self.litres / 1000.0).to_le_bytes());
        words.store(28, &flags.to_le_bytes());
        words.relocate(10, 20, 60_200);
        let blink = self.steps / 50 % 2 == 1;
        for (output, on) in (0..).zip([self.pump, heating, flooded || cold, blink]) {
            image.outputs.set(output, on);
        }
        let switches = [
            self.level > LEVEL_HIGH_MM,
            self.level < LEVEL_LOW_MM,
            self.is_turning(),
            self.is_turning(),
            true,
        ];
        for (input, on) in (0..).zip(switches) {
            image.inputs.set(input, on);
        }
    }

    /// Returns the pressure in bar: the height of the water, and what the pump adds.
    fn pressure(&self) -> f64 {
        self.level / 10_200.0 + PUMP_HEAD_BAR * (self.speed / FULL_SPEED_RPM).powi(2)
    }

    fn is_turning(&self) -> bool {
        self.speed > 100.0
    }

    #[expect(clippy::cast_precision_loss, reason = "exact for the first three million years")]
    fn seconds(&self) -> f64 {
        self.steps as f64 * STEP_SECONDS
    }
}

impl ClientInputs {
    fn read(image: &PlcMemory) -> Self {
        let setpoint = f64::from(f32::from_le_bytes(image.words.load(20)));
        let setpoint = if setpoint.is_finite() { setpoint.clamp(-50.0, 150.0) } else { 20.0 };
        Self { setpoint, mode: u16::from_le_bytes(image.words.load(40)) }
    }

    /// Returns whether the pump is to run; by level with hysteresis.
    fn wants_pump(&self, level: f64, was_on: bool) -> bool {
        match self.mode {
            1 => false,
            2 => true,
            _ => level > if was_on { LEVEL_LOW_MM } else { LEVEL_HIGH_MM },
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a WORD that wraps")]
const fn low_word(steps: u64) -> u16 {
    steps as u16
}

#[expect(clippy::cast_possible_truncation, reason = "REAL is what the PLC computes with")]
const fn to_real(value: f64) -> f32 {
    value as f32
}

/// Returns the nearest INT or UINT of a value between 0 and 2900.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn to_word(value: f64) -> u16 {
    value.round() as u16
}

#[cfg(test)]
mod tests {
    use provisioning::plc::PlcModel;

    use super::*;

    const STEPS_PER_SECOND: u64 = 100;

    struct TestStation {
        image: PlcMemory,
        program: PumpStation,
    }

    impl TestStation {
        fn new(seed: u64) -> Self {
            let mut image = PlcMemory::new(PlcModel::M241);
            let program = PumpStation::new(seed);
            program.initialise(&mut image);
            Self { image, program }
        }

        fn run(&mut self, steps: u64) {
            self.program.run(&mut self.image, steps);
        }

        fn real(&self, register: u16) -> f32 {
            f32::from_le_bytes(self.image.words.load(register))
        }

        fn word(&self, register: u16) -> u16 {
            u16::from_le_bytes(self.image.words.load(register))
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_values_for_any_number_of_runs() {
        let (mut often, mut once) = (TestStation::new(7), TestStation::new(7));

        (0..60 * STEPS_PER_SECOND).for_each(|_| often.run(1));
        once.run(60 * STEPS_PER_SECOND);

        assert_eq!(often.image.words.read(0, 125), once.image.words.read(0, 125));
        assert_ne!(TestStation::new(8).word(10), TestStation::new(7).word(10));
    }

    #[test]
    fn the_temperature_follows_the_clients_setpoint_with_inertia() {
        let mut station = TestStation::new(1);
        station.image.words.store(20, &80.0_f32.to_le_bytes());

        station.run(STEPS_PER_SECOND);
        let soon = station.real(10);
        station.run(200 * STEPS_PER_SECOND);

        assert!(soon < 30.0, "{soon}");
        assert!((79.0..81.0).contains(&station.real(10)), "{}", station.real(10));
        assert_eq!(station.image.words.load(20), 80.0_f32.to_le_bytes());
    }

    #[test]
    fn the_tank_fills_and_drains_and_the_pumped_volume_is_counted() {
        let mut station = TestStation::new(1);
        let levels: Vec<_> = (0..120)
            .map(|_| {
                station.run(STEPS_PER_SECOND);
                station.word(14)
            })
            .collect();

        assert!(levels.iter().any(|level| *level < 600), "{levels:?}");
        assert!(levels.iter().any(|level| *level > 1400), "{levels:?}");
        let starts = u32::from_le_bytes(station.image.words.load(16));
        let hours = u32::from_le_bytes(station.image.words.load(18));
        let total = f64::from_le_bytes(station.image.words.load(24));
        assert!((2..6).contains(&starts), "{starts}");
        assert!((20_000..100_000).contains(&hours), "{hours}");
        assert!((0.6..3.0).contains(&total), "{total}");
    }

    #[test]
    fn the_mode_comes_through_the_write_relocation_table() {
        let mut station = TestStation::new(1);
        station.image.words.store(62_200, &2_u16.to_le_bytes());

        station.run(10 * STEPS_PER_SECOND);

        assert_eq!(station.word(40), 2);
        assert!(station.word(15) > 2800, "{}", station.word(15));
        assert!(station.image.outputs.bit(0));
        assert!(station.image.inputs.bit(2));
        assert_eq!(station.word(28) & 1, 1, "running, %MX56.0");
    }

    #[test]
    fn the_read_relocation_table_holds_the_measurements_in_one_block() {
        let mut station = TestStation::new(1);
        station.run(STEPS_PER_SECOND);

        assert_eq!(station.image.words.read(60_200, 20), station.image.words.read(10, 20));
    }

    #[test]
    fn a_setpoint_that_is_not_a_number_is_replaced() {
        let mut station = TestStation::new(1);
        station.image.words.store(20, &f32::NAN.to_le_bytes());

        station.run(100 * STEPS_PER_SECOND);

        assert!((19.0..21.0).contains(&station.real(10)), "{}", station.real(10));
    }
}
