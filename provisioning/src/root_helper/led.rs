//! The light of a box: by it a person on site sees whether everything works, and where to look if
//! not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::headline::headline_code;

const ON_TIME: Duration = Duration::from_millis(200);
const OFF_TIME: Duration = Duration::from_millis(300);
/// Time between two series of blinks, and between two looks at the gateway while the light is on.
const PAUSE: Duration = Duration::from_millis(1500);

/// What the light shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LedSignal {
    /// All is well: it is on.
    Steady,
    /// It blinks this often, and pauses.
    Blinks(u8),
}

impl LedSignal {
    /// The gateway does not run, or is starting.
    const NO_GATEWAY: Self = Self::Blinks(1);
    /// The way to the broker: the cable or the line to the internet, the hub, the broker.
    const UPLINK: Self = Self::Blinks(2);
    /// A PLC: the cable to the machine, its power, its program.
    const MACHINE: Self = Self::Blinks(3);
    /// Something in the box, or for the office: storage, clock, a certificate, a bundle.
    const BOX: Self = Self::Blinks(4);

    /// Returns the signal for the code of a headline (docs/status.md); none if nothing answers.
    fn of_headline(code: Option<&str>) -> Self {
        match code {
            None => Self::NO_GATEWAY,
            Some("all_well") => Self::Steady,
            Some("disconnected" | "tunnel" | "broker") => Self::UPLINK,
            Some("plcs_disconnected" | "plc") => Self::MACHINE,
            Some(_) => Self::BOX,
        }
    }
}

/// A light of the kernel (Documentation/leds/leds-class.rst).
#[derive(Debug)]
pub(super) struct Led {
    dir: PathBuf,
    full: String,
}

impl Led {
    /// Takes a light in /sys/class/leds from what the kernel shows with it.
    ///
    /// # Errors
    /// When it is not there, or cannot be written.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let full = fs::read_to_string(dir.join("max_brightness"))?.trim().to_owned();
        fs::write(dir.join("trigger"), "none")?;
        Ok(Self { dir: dir.to_owned(), full })
    }

    fn set(&self, is_on: bool) -> io::Result<()> {
        fs::write(self.dir.join("brightness"), if is_on { &self.full } else { "0" })
    }

    /// Shows the state of the gateway until the light cannot be written.
    pub(super) fn show(&self, state_dir: &Path) -> io::Error {
        loop {
            let code = headline_code(state_dir);
            if let Err(error) = self.show_once(LedSignal::of_headline(code.as_deref())) {
                return error;
            }
        }
    }

    fn show_once(&self, signal: LedSignal) -> io::Result<()> {
        match signal {
            LedSignal::Steady => self.set(true)?,
            LedSignal::Blinks(count) => {
                self.set(false)?;
                sleep(OFF_TIME);
                for _ in 0..count {
                    self.set(true)?;
                    sleep(ON_TIME);
                    self.set(false)?;
                    sleep(OFF_TIME);
                }
            }
        }
        sleep(PAUSE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_well_is_steady() {
        for code in ["disconnected", "plc", "waiting", "something new"] {
            assert!(matches!(LedSignal::of_headline(Some(code)), LedSignal::Blinks(2..)), "{code}");
        }
        assert_eq!(LedSignal::of_headline(None), LedSignal::Blinks(1));
        assert_eq!(LedSignal::of_headline(Some("all_well")), LedSignal::Steady);
    }

    #[test]
    fn a_light_is_taken_from_the_kernel_and_driven_with_its_full_brightness() {
        let name = format!("edge-led-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(name);
        assert!(Led::open(&dir).is_err());
        fs::create_dir(&dir).unwrap();
        for (file, content) in
            [("max_brightness", "255\n"), ("trigger", "mmc0"), ("brightness", "0")]
        {
            fs::write(dir.join(file), content).unwrap();
        }
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap();

        let led = Led::open(&dir).unwrap();
        led.show_once(LedSignal::Steady).unwrap();
        assert_eq!((read("trigger"), read("brightness")), ("none".to_owned(), "255".to_owned()));
        led.show_once(LedSignal::Blinks(1)).unwrap();
        assert_eq!(read("brightness"), "0");

        fs::remove_dir_all(&dir).unwrap();
        assert!(led.show_once(LedSignal::Steady).is_err());
    }
}
