//! From the report of a PLC to what a reply says.

use serde_json::{Map, Value};

use super::CommandReason;
use super::plc::CommandPlc;
use super::reply::ReplyContent;
use crate::codec::{self, json::FormattedValue};
use crate::model::{
    ImageState, NotSentReason, OrderOutcome, OrderReport, OrderTask, PlcOrder, Registers, TagImage,
};

/// Returns what the reply to an order says.
pub(super) fn content(plc: &CommandPlc, order: &PlcOrder, report: &OrderReport) -> ReplyContent {
    let reason = match (&report.outcome, order.task) {
        // A command of an earlier run: what the PLC holds now does not show what it took.
        (_, OrderTask::ReadBack) => Some(CommandReason::Interrupted),
        (OrderOutcome::Done, OrderTask::Write | OrderTask::ReadAll) => None,
        (OrderOutcome::ExpectationFailed, _) => Some(CommandReason::ExpectationFailed),
        (OrderOutcome::Refused(code), _) => Some(CommandReason::Exception(*code)),
        (OrderOutcome::Unknown, _) => Some(CommandReason::NoAnswer),
        (OrderOutcome::NotSent(reason), _) => Some(not_sent(reason)),
        (OrderOutcome::Partial(reason), _) => {
            Some(CommandReason::Partial(Box::new(not_sent(reason))))
        }
    };
    let exception =
        if let OrderOutcome::Refused(code) = report.outcome { Some(code) } else { None };
    let tags = if report.outcome == OrderOutcome::ExpectationFailed {
        let found = report.found.iter().map(|found| (None, found.as_ref()));
        tags(plc, &order.expect, found)
    } else {
        let images = order.write.iter().zip(&report.images).map(|(image, done)| {
            let is_written = done.state == ImageState::Written;
            (is_written.then(|| image.to_registers()), done.read.as_ref())
        });
        tags(plc, &order.write, images)
    };
    ReplyContent { tags, exception, reason }
}

fn not_sent(reason: &NotSentReason) -> CommandReason {
    match reason {
        NotSentReason::Unreachable(sentence) => {
            CommandReason::Unreachable(Box::new(sentence.clone()))
        }
        NotSentReason::Expired => CommandReason::Expired,
        NotSentReason::ProgramChanged => CommandReason::ProgramChanged,
        NotSentReason::LosesConnection => CommandReason::LosesConnection,
        NotSentReason::Stopping => CommandReason::Stopping,
    }
}

/// Returns `{"setpoint":{"wrote":21.5,"read":21.5}}`.
fn tags<'a>(
    plc: &CommandPlc,
    images: &[TagImage],
    values: impl Iterator<Item = (Option<Registers>, Option<&'a Registers>)>,
) -> Map<String, Value> {
    let named = images.iter().zip(values).filter_map(|(image, (wrote, read))| {
        let tag = plc.tag(image.tag?)?;
        let to_json = |registers: &Registers| {
            let value = codec::decode_tag(tag, registers, 0)?;
            let value = FormattedValue { value: &value, form: &tag.json_format };
            // By way of the text: it has the shortest decimal of a REAL.
            serde_json::from_str(&serde_json::to_string(&value).ok()?).ok()
        };
        let mut members = Map::new();
        members.extend(wrote.and_then(|wrote| Some(("wrote".to_owned(), to_json(&wrote)?))));
        members.extend(read.map(|read| ("read".to_owned(), to_json(read).unwrap_or_default())));
        (!members.is_empty()).then(|| (tag.name.clone(), Value::Object(members)))
    });
    named.collect()
}
