//! `on` and `acknowledge` of `[plc.publish]`.

use std::time::Duration;

use super::write::{check_acknowledge, counter_fault};
use crate::config::context::ReadContext;
use crate::config::raw::{RawPlcPublish, RawTag};
use crate::config::suggest::nearest;
use crate::config::{EventTrigger, Publish, Qos, Tag};
use crate::plc::{PlcModel, ValueKind};

/// A BOOL that is read less often is probably a pulse that is missed.
const LONGEST_PULSE_SCAN: Duration = Duration::from_millis(500);

/// Returns the event, `Some(None)` without one, or `None` after a problem.
#[expect(clippy::option_option, reason = "no event is a good value")]
pub(super) fn check_event(
    raw: &RawPlcPublish,
    raw_tags: &[RawTag],
    tags: &[Tag],
    model: Option<PlcModel>,
    context: &mut ReadContext<'_>,
) -> Option<Option<EventTrigger>> {
    let acknowledge = raw.acknowledge.optional(context);
    let Some(on) = raw.on.optional(context) else {
        if acknowledge.is_some() {
            let help = "add on = \"NAME\" with the name of a BOOL or of a counter, or remove it";
            let message = "`acknowledge` is for the event `on`, which is missing";
            context.reject(&raw.acknowledge.key, message, Some(help.to_owned()));
            return None;
        }
        return Some(None);
    };
    let named = raw_tags.iter().zip(tags).enumerate().find(|(_, (_, tag))| tag.name == on.0);
    let Some((index, (raw_tag, tag))) = named else {
        let help = nearest(&on.0, tags.iter().map(|tag| tag.name.as_str())).map_or_else(
            || "write the name of a BOOL, or of a counter".to_owned(),
            |near| format!("did you mean on = \"{near}\"?"),
        );
        context.reject(&raw.on.key, format!("this PLC has no tag \"{}\"", on.0), Some(help));
        return None;
    };
    if let Some((message, help)) = counter_fault(tag, raw_tag) {
        context.reject(&raw.on.key, message, Some(help));
        return None;
    }
    note_short_pulse(raw, tag, context);
    let Some(word) = acknowledge else {
        return Some(Some(EventTrigger { tag: u16::try_from(index).ok()?, acknowledge: None }));
    };
    if tag.data_type.size() > 2 {
        let message = format!("the counter \"{}\" does not fit into one word", tag.name);
        let help = "count in a variable of 16 bits, such as an UINT";
        context.reject(&raw.acknowledge.key, message, Some(help.to_owned()));
        return None;
    }
    let key = (&raw.acknowledge.key, word.0.as_str());
    let acknowledge = Some(check_acknowledge(key, model?, tags, context)?);
    Some(Some(EventTrigger { tag: u16::try_from(index).ok()?, acknowledge }))
}

/// Returns the settings with the event. Reports an acknowledgement that never comes.
pub(super) fn with_event(
    publish: Publish,
    raw: Option<&RawPlcPublish>,
    on: Option<EventTrigger>,
    context: &mut ReadContext<'_>,
) -> Option<Publish> {
    let acknowledges = on.is_some_and(|on| on.acknowledge.is_some());
    if acknowledges && publish.qos == Qos::AtMostOnce {
        let message = "`acknowledge` needs an acknowledgement of the broker, and QoS 0 has none";
        let help = "set qos = 1 for this PLC, or remove `acknowledge`";
        context.reject(&raw?.acknowledge.key, message, Some(help.to_owned()));
        return None;
    }
    Some(Publish { on, ..publish })
}

/// Adds a note on a BOOL that is read rarely: a pulse between two reads is not seen.
fn note_short_pulse(raw: &RawPlcPublish, tag: &Tag, context: &mut ReadContext<'_>) {
    if tag.data_type.element.kind() != ValueKind::Bool || tag.scan <= LONGEST_PULSE_SCAN {
        return;
    }
    let (name, scan) = (&tag.name, tag.scan);
    let message = format!("\"{name}\" is read every {scan:?}: a shorter pulse is not seen");
    let help = "use a counter, which cannot be missed, or set scan = \"500ms\" or less for the tag";
    context.add_note(&raw.on.key, message, help.to_owned(), None);
}
