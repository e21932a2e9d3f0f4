//! The variables of the simulated program, as `simulate --list` prints them.

/// A variable of the pump station.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Address, as for `at` in gateway.toml.
    pub at: &'static str,
    /// Name in the program.
    pub name: &'static str,
    /// Type, as for `type` in gateway.toml.
    pub iec_type: &'static str,
    /// Content, with its unit.
    pub meaning: &'static str,
}

/// Every variable of the program, in the order of the addresses. All other `%MW` below 60000 are 0
/// and keep what a client writes.
pub const VARIABLES: [Variable; 23] = [
    variable("%MW0", "life", "WORD", "counts the steps of the program, 100 each second"),
    variable("%MW10", "temperature", "REAL", "water temperature in °C"),
    variable("%MW12", "pressure", "REAL", "pressure behind the pump in bar"),
    variable("%MW14", "level", "INT", "water level in mm, 0 to 2000"),
    variable("%MW15", "speed", "UINT", "pump speed in 1/min, 0 to 2900"),
    variable("%MW16", "starts", "UDINT", "number of pump starts"),
    variable("%MW18", "hours", "TIME", "running time of the pump"),
    variable("%MW20", "setpoint", "REAL", "temperature setpoint in °C; write it here"),
    variable("%MW24", "total", "LREAL", "volume pumped in m³"),
    variable("%MX56.0", "running", "BOOL", "the pump turns"),
    variable("%MX56.1", "heating", "BOOL", "the heater is on"),
    variable("%MX57.0", "alarm_level", "BOOL", "the tank is about to overflow"),
    variable("%MX57.1", "alarm_cold", "BOOL", "more than 5 °C below the setpoint"),
    variable("%MW40", "mode", "UINT", "0 by level, 1 pump off, 2 pump on; write it at %MW62200"),
    variable("%IX0.0", "level_high", "BOOL", "input: level above 1500 mm"),
    variable("%IX0.1", "level_low", "BOOL", "input: level below 500 mm"),
    variable("%IX0.2", "pump_turns", "BOOL", "input: the pump turns"),
    variable("%IX0.3", "flow", "BOOL", "input: water flows"),
    variable("%IX0.4", "door_closed", "BOOL", "input: the door is closed"),
    variable("%QX0.0", "pump", "BOOL", "output: the pump is on"),
    variable("%QX0.1", "heater", "BOOL", "output: the heater is on"),
    variable("%QX0.2", "alarm_lamp", "BOOL", "output: the alarm lamp"),
    variable("%QX0.3", "blink", "BOOL", "output: a lamp that blinks once a second"),
];

const fn variable(
    at: &'static str,
    name: &'static str,
    iec_type: &'static str,
    meaning: &'static str,
) -> Variable {
    Variable { at, name, iec_type, meaning }
}

#[cfg(test)]
mod tests {
    use provisioning::plc::{DataType, PlcModel};

    use super::*;

    #[test]
    fn every_variable_is_at_an_address_of_an_m241_and_an_m251() {
        for variable in VARIABLES {
            let data: DataType = variable.iec_type.parse().unwrap();
            for model in [PlcModel::M241, PlcModel::M251] {
                let location = model.locate(variable.at, data);
                assert!(location.is_ok(), "{variable:?}: {location:?}");
            }
        }
    }
}
