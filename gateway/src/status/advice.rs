//! What the running gateway learned from its PLCs, as keys of gateway.toml.

use std::fmt::{self, Write};

use super::{ConnectionState, PlcStatus, Status};
use crate::model::{Escaped, LearnedLimits, LostSession, QuarantinedTag, Rejection};

/// Returns what to change in the file so that the plan fits the PLCs from the start, one PLC after
/// the other in the order of the file. All lines but the keys are TOML comments.
#[must_use]
pub fn advice(status: &Status) -> String {
    let mut text = String::new();
    for plc in &status.plcs {
        // Writing to a String cannot fail.
        let _ = write_plc(&mut text, plc);
    }
    text
}

fn write_plc(text: &mut String, plc: &PlcStatus) -> fmt::Result {
    let name = Escaped(&plc.name);
    let Some(LearnedLimits { quarantined, max_words, max_gap }) = &plc.learned else {
        let nothing = match plc.state {
            ConnectionState::Connected => "nothing to change",
            ConnectionState::Connecting | ConnectionState::Disconnected => {
                "nothing learned; the PLC does not answer"
            }
        };
        return writeln!(text, "# {name}: {nothing}");
    };
    writeln!(text, "# {name}: write into its [[plc]]")?;
    if let Some(words) = max_words {
        writeln!(text, "max_words = {words}  # longer requests fail")?;
    }
    if let Some(gap) = max_gap {
        writeln!(text, "max_gap = {gap}  # wider gaps hold registers that it refuses")?;
    }
    for QuarantinedTag { tag, at, rejection } in quarantined {
        let (tag, at, meaning) = (Escaped(tag), Escaped(at), rejection_text(*rejection));
        writeln!(text, "# remove or correct the tag {tag}: the PLC {meaning} {at}")?;
    }
    Ok(())
}

/// Returns what the PLC does with a request for a tag in quarantine, with the name of the exception
/// (Modbus Application Protocol V1.1b3, 7).
const fn rejection_text(rejection: Rejection) -> &'static str {
    match rejection {
        Rejection::Exception(1) => "answers exception 1, illegal function, to",
        Rejection::Exception(2) => "answers exception 2, illegal data address, to",
        Rejection::Exception(3) => "answers exception 3, illegal data value, to",
        Rejection::Exception(4) => "answers exception 4, server device failure, to",
        Rejection::Exception(_) => "answers an exception to",
        Rejection::Failure(LostSession::TimedOut) => "does not answer",
        Rejection::Failure(LostSession::Disconnected) => "closes the connection over",
        Rejection::Failure(LostSession::Garbled) => "sends an invalid answer to",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnixTime;

    #[test]
    fn advice_is_valid_toml_for_the_file() {
        let at = UnixTime::from_micros(0);
        let mut status = Status::new("a", "0.1.0", "0", ["pump6", "pump7", "mixer"], at);
        let rejection = Rejection::Exception(2);
        let hole = QuarantinedTag { tag: "hole".to_owned(), at: "%MW3000".to_owned(), rejection };
        let learned =
            LearnedLimits { quarantined: vec![hole], max_words: Some(60), max_gap: Some(4) };
        status.on_plc_learned(0, learned, at);
        status.on_plc_connected(1, None, None, None, at);
        insta::assert_snapshot!(advice(&status), @r"
        # pump6: write into its [[plc]]
        max_words = 60  # longer requests fail
        max_gap = 4  # wider gaps hold registers that it refuses
        # remove or correct the tag hole: the PLC answers exception 2, illegal data address, to %MW3000
        # pump7: nothing to change
        # mixer: nothing learned; the PLC does not answer
        ");
    }
}
