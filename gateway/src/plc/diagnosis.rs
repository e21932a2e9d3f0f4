//! What an installer is told about a PLC that does not answer: what was seen, and what to check.

use provisioning::config::Plc;

use super::plc_r;
use super::session::{ConnectError, RequestError};

/// Where the Modbus server of an M2xx is switched on; it is off in a new project.
const SERVER_SWITCH: &str = "Machine Expert: Ethernet_1 > Security parameters > Modbus Server";

/// Tells why no connection came about.
pub(super) fn not_connected(plc: &Plc, error: &ConnectError) -> String {
    let address = &plc.address;
    match error {
        ConnectError::UnknownHost(_) => format!(
            "The name `{}` has no address: write the PLC's IP address, or make the name known to \
             this site's DNS",
            address.host
        ),
        ConnectError::Refused(_) if is_modicon(plc) => format!(
            "PLC {address} refuses the connection: the Modbus server may be off ({SERVER_SWITCH}) \
             or its firewall closed"
        ),
        ConnectError::Refused(_) => format!(
            "PLC {address} refuses the connection: nothing serves Modbus on this port, or a \
             firewall is closed"
        ),
        ConnectError::TimedOut(_) if is_modicon(plc) => format!(
            "PLC {address} is silent: check power, cable and address; if it answers a ping, the \
             Modbus server may be off ({SERVER_SWITCH}) or its firewall closed"
        ),
        ConnectError::TimedOut(_) => format!(
            "PLC {address} is silent: check power, cable and address; if it answers a ping, a \
             firewall may be closed"
        ),
        ConnectError::NoRoute(_) => format!(
            "There is no way to PLC {address}: check the cable, the PLC's power, and that this \
             gateway has an address in the PLC's network"
        ),
        ConnectError::Failed(error) => {
            format!("The connection to PLC {address} cannot be opened: {error}")
        }
    }
}

/// Tells why a connection was given up; `has_answered` before, or never.
pub(super) fn lost(plc: &Plc, error: &RequestError, has_answered: bool) -> String {
    let Plc { address, unit_id, timeout, .. } = plc;
    match error {
        RequestError::TimedOut(_) if has_answered => format!(
            "PLC {address} stopped answering: no answer within {timeout:?}; it may be restarting, \
             overloaded, or its cable is out"
        ),
        RequestError::TimedOut(_) => format!(
            "PLC {address} takes the connection but answers nothing within {timeout:?}: check \
             that unit_id {unit_id} is right and that a Modbus server listens there"
        ),
        RequestError::Garbled(_) | RequestError::Refused(_) => format!(
            "PLC {address} sends answers that do not fit the requests: check that a Modbus TCP \
             server listens there and nothing sits in between"
        ),
        RequestError::Disconnected(_) => format!(
            "PLC {address} closed the connection{}: it may be restarting or loading a program, or \
             too many clients are connected{}",
            if has_answered {
                ""
            } else {
                " without an answer (check that a Modbus server listens there)"
            },
            if is_modicon(plc) { " (it takes 8 and closes the oldest)" } else { "" }
        ),
    }
}

/// Tells that a device between us and the unit answered in its place with this exception.
pub(super) fn nobody_behind(plc: &Plc, code: u8) -> String {
    let Plc { address, unit_id, .. } = plc;
    let seen =
        if code == 0x0A { "knows no way to the device" } else { "gets no answer from the device" };
    format!(
        "The Modbus server at {address} {seen} with unit_id {unit_id} (exception {code}): check \
         that unit_id is right, and power and cable of the device behind it"
    )
}

/// Tells that other units on the same connection broke it too often.
pub(super) fn must_wait(plc: &Plc) -> String {
    format!(
        "The connection to {} broke too often within a minute, and another one has to wait; other \
         units share it, of which one may be silent",
        plc.address
    )
}

const fn is_modicon(plc: &Plc) -> bool {
    plc_r::has_plc_r(plc.model)
}
