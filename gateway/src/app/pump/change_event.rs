//! Event messages for changes at a PLC, and for certificates that end soon.

use serde_json::{Map, Value};

use crate::app::certificates::ExpiryNotice;
use crate::model::UnixTime;
use crate::plc::PlcChange;

/// Returns the members of the event:
/// `{"event":"state","plc":..,"at":..,"was":"running","is":"stopped","cause":"user"}` and
/// `{"event":"program","plc":..,"at":..,"changed":"signature","was":..,"is":..}`, with `serial`
/// instead of `signature` when the PLC was replaced by another.
pub(super) fn event_body(plc: &str, change: PlcChange, at: UnixTime) -> Map<String, Value> {
    let (event, changed, [was, is], cause): (_, _, [Value; 2], _) = match change {
        PlcChange::State { was, is, cause } => {
            ("state", None, [was.as_str().into(), is.as_str().into()], cause)
        }
        PlcChange::Program { was, is } => {
            let values = [was, is].map(|signature| signature.to_string().into());
            ("program", Some("signature"), values, None)
        }
        PlcChange::Device { was, is } => ("program", Some("serial"), [was.into(), is.into()], None),
    };
    let members = [
        ("event", Some(event.into())),
        ("plc", Some(plc.into())),
        ("at", Some(at.to_string().into())),
        ("changed", changed.map(Value::from)),
        ("was", Some(was)),
        ("is", Some(is)),
        ("cause", cause.map(|cause| cause.as_str().into())),
    ];
    let present = |(key, value): (&str, Option<Value>)| Some((key.to_owned(), value?));
    members.into_iter().filter_map(present).collect()
}

/// Returns the members of the event for a certificate that ends soon:
/// `{"event":"certificate","file":..,"not_after":..,"days":13,"at":..}`.
pub(super) fn expiry_body(notice: &ExpiryNotice, at: UnixTime) -> Map<String, Value> {
    let ExpiryNotice { file, not_after, days } = notice;
    let not_after = UnixTime::from_whole_seconds(*not_after);
    let members = [
        ("event", "certificate".into()),
        ("file", file.clone().into()),
        ("not_after", not_after.to_string().into()),
        ("days", (*days).into()),
        ("at", at.to_string().into()),
    ];
    members.map(|(key, value): (&str, Value)| (key.to_owned(), value)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plc::{ProgramSignature, ProgramState, StopCause};

    #[test]
    fn an_event_has_the_value_before_and_after() {
        let at = UnixTime::from_micros(1_592_992_904_250_000);
        let state = |was, is, cause| PlcChange::State { was, is, cause };
        let (running, stopped) = (ProgramState::Running, ProgramState::Stopped);
        let texts = [
            state(running, stopped, Some(StopCause::User)),
            state(stopped, running, None),
            PlcChange::Program {
                was: ProgramSignature([1, 2, 3, 4]),
                is: ProgramSignature([5, 6, 7, 0xABCD_EF01]),
            },
            PlcChange::Device { was: 80_201_001, is: 80_201_002 },
        ]
        .map(|change| serde_json::to_string(&event_body("pump6", change, at)).unwrap());
        insta::assert_snapshot!(texts.join("\n"));
    }
}
