use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use gateway::codec;
use gateway::command::{CommandEffect, CommandProcessor, CommandTime, IncomingCommand, PlcOrder};
use gateway::model::{UnixTime, Value};
use provisioning::config::{self, Number, Plc, Tag, WritableValue};

/// A PLC with tags of every kind.
static PLC: LazyLock<Plc> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/command.toml");
    let mut config = config::load(&path).expect("the configuration of the target is valid").config;
    config.plcs.remove(0)
});

/// A payload of a command: what is refused gets one reply, and what is not is within the allow-list
/// of each tag that the order changes. The first byte says how it arrived.
pub fn command(bytes: &[u8]) {
    let Some((first, payload)) = bytes.split_first() else { return };
    let is_set = |bit: u8| first & 1 << bit != 0;
    let wall = UnixTime::from_micros(1_796_119_200_000_000);
    let time = CommandTime { now: Instant::now(), wall, is_clock_set: is_set(2) };
    let mut command_processor =
        CommandProcessor::new(std::slice::from_ref(&*PLC), "hash", &[], time);
    let incoming = IncomingCommand {
        plc: 0,
        payload,
        requester: 1,
        by: None,
        is_retained: is_set(0),
        may_be_old: is_set(1),
        expires_in: None,
    };
    command_processor.on_command(incoming, &|_| None, time);
    let mut effects: Vec<_> = std::iter::from_fn(|| command_processor.poll_effect()).collect();
    let is_refused = !effects.is_empty();
    while command_processor.take_batch(time.now).is_some() {
        command_processor.on_batch_stored(time);
        effects.extend(std::iter::from_fn(|| command_processor.poll_effect()));
    }
    let orders: Vec<&PlcOrder> = effects.iter().filter_map(order_of).collect();
    let replies =
        effects.iter().filter(|effect| matches!(effect, CommandEffect::Reply { .. })).count();
    assert_eq!((replies, orders.len()), if is_refused { (1, 0) } else { (0, 1) });
    assert!(is_refused || !is_set(0), "a retained command is obeyed");
    for image in orders.into_iter().flat_map(|order| &order.write) {
        let tag = image.tag.and_then(|tag| PLC.tags.get(usize::from(tag))).expect("a known tag");
        let value = codec::decode_tag(tag, &image.to_registers(), 0).expect("a value of the tag");
        assert!(is_allowed(tag, &value), "{value:?} is written to {}", tag.name);
    }
}

fn order_of(effect: &CommandEffect) -> Option<&PlcOrder> {
    if let CommandEffect::Order(order) = effect { Some(order) } else { None }
}

/// Returns whether a value is within the rule of a tag, as far as the PLC can hold it exactly.
fn is_allowed(tag: &Tag, value: &Value) -> bool {
    let Some(rule) = &tag.write else { return false };
    let number = match value {
        Value::List(items) => {
            return Arc::clone(items).iter().flatten().all(|item| is_allowed(tag, item));
        }
        Value::Int(number) => Number::Whole((*number).into()),
        Value::Uint(number) => Number::Whole((*number).into()),
        Value::Real(number) => Number::Real((*number).into()),
        Value::Lreal(number) => Number::Real(*number),
        Value::Bool(_) | Value::Text(_) => return rule.values.is_empty(),
    };
    let is_listed = |allowed: &WritableValue| match allowed {
        WritableValue::Number(allowed) => *allowed == number,
        // A name stands for a number.
        WritableValue::Text(name) => {
            let config::JsonFormat::Named(names) = &tag.json_format else { return false };
            names.number(name).is_some_and(|named| Number::Whole(named) == number)
        }
        WritableValue::Bool(_) => false,
    };
    rule.min.is_none_or(|min| min <= number)
        && rule.max.is_none_or(|max| number <= max)
        && (rule.values.is_empty() || rule.values.iter().any(is_listed))
}
