//! `write` of a tag, and what else makes the gateway write to a PLC.

use super::tag::{PlcDefaults, has_number_keys, whole_numbers};
use crate::config::context::{KeyLocation, ReadContext};
use crate::config::raw::{RawMqtt, RawTag};
use crate::config::{JsonFormat, Mqtt, Number, Plc, Qos, Scaling, Tag, WritableValue, WriteRule};
use crate::plc::{CodePage, DataType, IecType, Location, PlcModel, Table, ValueKind};

/// What is wrong with a rule, and what to write instead.
type Fault = (String, String);

/// Checks `write` of a tag that has no other problem, and returns the tag with it.
pub(super) fn with_write_rule(
    tag: Tag,
    raw: &RawTag,
    defaults: &PlcDefaults,
    context: &mut ReadContext<'_>,
) -> Option<Tag> {
    let Some(table) = raw.write.optional(context) else { return Some(tag) };
    context.first_write.get_or_insert_with(|| raw.write.key.clone());
    let rule = table.0;
    let model = defaults.model?;
    let place = (tag.location, tag.data_type);
    let fault = read_only_fault(model, &tag.location, &tag.at)
        .or_else(|| (!rule.whole_word).then(|| partial_word_fault(place))?)
        .or_else(|| bounds_fault(&rule, &tag))
        .or_else(|| values_fault(&rule, &tag));
    match fault {
        Some((message, help)) => {
            context.reject(&raw.write.key, message, Some(help));
            None
        }
        None => Some(Tag { write: Some(Box::new(rule)), ..tag }),
    }
}

/// Returns why a location cannot be written.
pub(super) fn read_only_fault(model: PlcModel, location: &Location, at: &str) -> Option<Fault> {
    let what = match location.table {
        Table::DiscreteInput | Table::InputRegister => "Modbus cannot write to inputs".to_owned(),
        Table::Coil | Table::HoldingRegister => {
            let areas = model.memory_areas(location.table);
            let area = areas.iter().find(|area| area.registers.contains(&location.first))?;
            if area.writable {
                return None;
            }
            format!("Modbus cannot write to {} of an {model}", area.name)
        }
    };
    let help = match location.table {
        Table::HoldingRegister | Table::InputRegister => "use a variable in the user area",
        Table::Coil | Table::DiscreteInput => "use a variable, which the program copies to there",
    };
    Some((format!("{at} can only be read: {what}"), help.to_owned()))
}

/// Returns why a value cannot be written alone: it fills only a part of a register.
fn partial_word_fault((location, data): (Location, DataType)) -> Option<Fault> {
    let starts_within = location.byte != 0;
    let is_odd = data.size() % 2 != 0;
    let is_partial = location.bit.is_some() || starts_within || is_odd;
    if location.table.holds_bits() || !is_partial {
        return None;
    }
    let message = format!(
        "the {data} fills only a part of a register, and a write sets the whole one: what the PLC \
         writes to the rest at that moment would be lost"
    );
    let declare = if let IecType::String(letters, _) = data.element
        && data.bounds.is_none()
        && !starts_within
    {
        format!("declare it as STRING({}) in the PLC and here", letters.saturating_add(1))
    } else if data.element.kind() == ValueKind::Text {
        "declare it at the start of a %MW, with an odd length".to_owned()
    } else {
        "declare a variable of 16 bits with a %MW of its own".to_owned()
    };
    Some((message, format!("{declare}; or add whole_word = true if nothing else is in the word")))
}

/// Returns the numbers that a tag can have, after scaling; `None` for a tag that is no number.
fn numbers(tag: &Tag) -> Option<(Number, Number)> {
    if matches!(tag.json_format, JsonFormat::Named(_)) {
        return None;
    }
    let iec = tag.data_type.element;
    match iec.kind() {
        ValueKind::Unsigned | ValueKind::Signed => {
            let range = whole_numbers(iec)?;
            let (low, high) = (Number::Whole(range.start), Number::Whole(range.end - 1));
            let Some(Scaling { scale, offset }) = tag.scaling else { return Some((low, high)) };
            let unit = 10_f64.powi(i32::from(tag.decimals.unwrap_or(15)));
            let ends = [low, high].map(|end| end.to_f64() * scale + offset);
            let ends = ends.map(|end| (end * unit).round() / unit);
            let [low, high] = if scale < 0.0 { [ends[1], ends[0]] } else { ends };
            Some((Number::Real(low), Number::Real(high)))
        }
        ValueKind::Real => {
            let most = if iec == IecType::Real { f64::from(f32::MAX) } else { f64::MAX };
            Some((Number::Real(-most), Number::Real(most)))
        }
        ValueKind::Bool | ValueKind::Text => None,
        ValueKind::Date(_) | ValueKind::TimeOfDay(_) | ValueKind::DateAndTime(_) => None,
    }
}

fn bounds_fault(rule: &WriteRule, tag: &Tag) -> Option<Fault> {
    let bounds = [("min", rule.min), ("max", rule.max)];
    let (name, _) = bounds.into_iter().find(|(_, bound)| bound.is_some())?;
    let Some((low, high)) = numbers(tag) else {
        let message = format!("`{name}` is for numbers, and \"{}\" is none", tag.name);
        return Some((message, format!("remove `{name}`; `values` may list the allowed values")));
    };
    if !rule.values.is_empty() {
        let message = format!("`write` has both `values` and `{name}`");
        return Some((message, "write one of them: `values` lists all allowed values".to_owned()));
    }
    let beyond = bounds.into_iter().find_map(|(name, bound)| {
        let bound = bound.filter(|bound| *bound < low || *bound > high)?;
        Some((name, bound))
    });
    if let Some((name, bound)) = beyond {
        let message = format!("`{name}` is {bound}, which the {} cannot be", tag.data_type);
        let help = format!("write a number from {low} to {high}, or remove `{name}`");
        return Some((message, help));
    }
    (rule.min? > rule.max?).then(|| {
        let message = "`min` of `write` is above its `max`".to_owned();
        (message, "exchange the two numbers".to_owned())
    })
}

fn values_fault(rule: &WriteRule, tag: &Tag) -> Option<Fault> {
    let wrong = rule.values.iter().find(|value| !may_be(value, tag))?;
    let message = format!("`values` contains {wrong}, which \"{}\" cannot be", tag.name);
    let help = match (&tag.json_format, tag.data_type.element.kind()) {
        (JsonFormat::Named(_), _) => "write the names of its `enum`".to_owned(),
        (_, ValueKind::Bool) => "write true or false".to_owned(),
        (_, ValueKind::Text) => format!("write texts that fit into a {}", tag.data_type),
        (_, ValueKind::Unsigned | ValueKind::Signed | ValueKind::Real) => {
            format!("write numbers that the {} can be", tag.data_type)
        }
        _ => "remove `values`: dates have none".to_owned(),
    };
    Some((message, help))
}

/// Returns whether a tag, or an element of its array, can have this value.
fn may_be(value: &WritableValue, tag: &Tag) -> bool {
    let iec = tag.data_type.element;
    match value {
        WritableValue::Bool(_) => iec.kind() == ValueKind::Bool,
        WritableValue::Number(number) => {
            numbers(tag).is_some_and(|(low, high)| low <= *number && *number <= high)
                && (tag.scaling.is_some()
                    || iec.kind() == ValueKind::Real
                    || matches!(number, Number::Whole(_)))
        }
        WritableValue::Text(text) => match (&tag.json_format, iec) {
            (JsonFormat::Named(names), _) => names.number(text).is_some(),
            (_, IecType::String(letters, CodePage::Latin1)) => {
                let is_latin_1 = text.chars().all(|letter| u32::from(letter) < 256);
                is_latin_1 && text.chars().count() <= usize::from(letters)
            }
            (_, IecType::String(letters, _)) => text.len() <= usize::from(letters),
            (_, IecType::Wstring(letters)) => text.encode_utf16().count() <= usize::from(letters),
            _ => false,
        },
    }
}

/// Rejects writes over a connection that a host on the way could forge, and adds a note where the
/// broker cannot keep commands.
pub(super) fn check_way_of_writes(
    raw: &RawMqtt,
    mqtt: &Mqtt,
    plcs: &[Plc],
    context: &mut ReadContext<'_>,
) {
    let Some(first) = context.first_write.clone() else { return };
    if let Some(broker) = mqtt.exposed_broker().filter(|_| !mqtt.writes_in_clear) {
        let message = format!(
            "this makes the gateway write to a PLC, but the connection to {} is neither in the \
             tunnel nor encrypted: any host in between could send the command",
            broker.address
        );
        let help = "reach the broker through [tunnel] or by mqtts://, or set writes_in_clear = \
                    true below [mqtt] if that is no danger";
        context.reject(&first, message, Some(help.to_owned()));
    }
    note_lost_commands(raw, mqtt, plcs, context);
}

/// Adds a note on topics with QoS 2: packet ids of a persistent session would be used twice (MQTT
/// 5.0,
/// 4.4), so the gateway does not keep one.
fn note_lost_commands(raw: &RawMqtt, mqtt: &Mqtt, plcs: &[Plc], context: &mut ReadContext<'_>) {
    let is_writable = plcs.iter().any(Plc::is_writable);
    let two = plcs.iter().find(|plc| plc.publish.qos == Qos::ExactlyOnce);
    let Some(plc) = two.filter(|_| is_writable && !mqtt.session_expiry.is_zero()) else { return };
    let message = format!(
        "commands that are sent while this gateway is away are lost: \"{}\" is published with QoS \
         2, with which the broker keeps no session",
        plc.name
    );
    let help = "set qos = 1 for all PLCs, or session_expiry = \"0s\" if that is intended";
    context.add_note(&raw.session_expiry.key, message, help.to_owned(), None);
}

/// Returns the key of a tag that has `scale`, `offset`, `decimals`, `deadband` or `enum`.
pub(super) fn counter_fault(tag: &Tag, raw: &RawTag) -> Option<Fault> {
    let kind = tag.data_type.element.kind();
    let is_switch = kind == ValueKind::Bool;
    let is_counter = matches!(kind, ValueKind::Unsigned | ValueKind::Signed);
    if tag.data_type.bounds.is_some() || !(is_switch || is_counter) {
        let message = format!("`on` names \"{}\", which is a {}", tag.name, tag.data_type);
        return Some((message, "name a BOOL, or a counter such as an UINT".to_owned()));
    }
    (has_number_keys(raw) || matches!(tag.json_format, JsonFormat::Named(_))).then(|| {
        let message = format!("`on` names \"{}\", which is scaled or has names", tag.name);
        (message, "remove scale, offset, decimals, deadband and enum of this tag".to_owned())
    })
}

/// Returns the place of the word with which events are acknowledged.
pub(super) fn check_acknowledge(
    (key, at): (&KeyLocation, &str),
    model: PlcModel,
    tags: &[Tag],
    context: &mut ReadContext<'_>,
) -> Option<Location> {
    context.first_write.get_or_insert_with(|| key.clone());
    let location = match model.locate(at, IecType::Word) {
        Ok(location) => location,
        Err(error) => {
            context.reject(key, error.message, error.help);
            return None;
        }
    };
    let word = (location.table == Table::HoldingRegister).then_some(location.first);
    let fault = if let Some(word) = word {
        let covers = |tag: &&Tag| {
            let Location { table, first, count, .. } = tag.location;
            table == Table::HoldingRegister && (first..=first + (count - 1)).contains(&word)
        };
        let covered = tags.iter().find(covers).map(|tag| {
            let message = format!("`acknowledge` is {at}, which belongs to \"{}\"", tag.name);
            (message, "give it a word of its own, without a tag".to_owned())
        });
        read_only_fault(model, &location, at).or(covered)
    } else {
        Some((format!("{at} is no word"), "write something like \"%MW100\"".to_owned()))
    };
    if let Some((message, help)) = fault {
        context.reject(key, message, Some(help));
        return None;
    }
    Some(location)
}
