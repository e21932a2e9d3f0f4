//! `[[plc.tag]]`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::note;
use super::publish::RESERVED_KEYS;
use super::write::with_write_rule;
use crate::config::context::{KeyLocation, ReadContext};
use crate::config::field::{Field, FieldState, SectionList};
use crate::config::raw::{RawTag, Scan};
use crate::config::scalar::{Boolean, Choice, DecimalNumber, Integer};
#[cfg(feature = "office")]
use crate::config::scalar::{PlainText, TextScalar};
use crate::config::{EnumNames, JsonFormat, Number, Scaling, Tag, Validity};
use crate::plan::{MAX_BITS, TagGroup};
use crate::plc::{ByteOrder, DataType, IecType, Location, LocationError, PlcModel, ValueKind};

/// Maximum number of tags of one PLC: they are numbered with 16 bits.
pub(crate) const MAX_TAGS: usize = u16::MAX as usize;
/// Maximum length of the name of a tag.
const MAX_NAME_CHARS: usize = 255;

/// Settings that a tag inherits from its PLC; absent when they are invalid.
pub(super) struct PlcDefaults {
    pub(super) model: Option<PlcModel>,
    /// The model that an invalid `model` probably means.
    pub(super) likely_model: Option<PlcModel>,
    pub(super) scan: Option<Scan>,
    pub(super) order: Option<Choice<ByteOrder>>,
    pub(super) max_words: Option<u16>,
    pub(super) zone: Option<TimeZone>,
    /// `metrics.tags`.
    pub(super) metric: bool,
}

/// Checks all tags of one PLC, also after a problem in one of them.
pub(super) fn check_tags(
    raw: &SectionList<RawTag>,
    defaults: &PlcDefaults,
    context: &mut ReadContext<'_>,
) -> Option<Vec<Tag>> {
    if raw.entries.is_empty() && !raw.already_reported {
        context.reject(
            &raw.key,
            "this PLC has no tags, so there is nothing to read",
            Some("add a section [[plc.tag]] with name, at and type below it".to_owned()),
        );
    }
    if let Some(beyond) = raw.entries.get(MAX_TAGS) {
        let message = format!("this PLC has {} tags", raw.entries.len());
        let help = format!("a PLC has at most {MAX_TAGS}; read arrays with one tag each");
        context.reject(&beyond.name.key, message, Some(help));
        return None;
    }
    reject_repeated_names(&raw.entries, context);
    let tags: Vec<_> = raw.entries.iter().map(|raw| check_tag(raw, defaults, context)).collect();
    reject_torn_groups(&raw.entries, &tags, defaults, context);
    let tags = tags.into_iter().collect::<Option<Vec<_>>>()?;
    note::note_tags(&raw.entries, &tags, defaults.model, context);
    Some(tags)
}

/// Rejects groups that do not fit into one request, naming the first tag that does not fit. Tags
/// with problems of their own are left out.
fn reject_torn_groups(
    raw: &[RawTag],
    tags: &[Option<Tag>],
    defaults: &PlcDefaults,
    context: &mut ReadContext<'_>,
) {
    let (Some(model), Some(max_words)) = (defaults.model, defaults.max_words) else { return };
    let mut groups: BTreeMap<&str, TagGroup<'_>> = BTreeMap::new();
    for (raw, tag) in raw.iter().zip(tags) {
        let Some(tag) = tag else { continue };
        let Some(name) = tag.group.as_deref() else { continue };
        let group = groups.entry(name).or_insert_with(|| TagGroup::new(tag));
        if let Err(reason) = group.join(tag, model, max_words) {
            context.reject(
                &raw.group.key,
                format!("the group \"{name}\" cannot be read in one request: {reason}"),
                Some("place its variables together in the PLC, or remove `group`".to_owned()),
            );
        }
    }
}

fn reject_repeated_names(entries: &[RawTag], context: &mut ReadContext<'_>) {
    let mut seen: BTreeMap<&str, &KeyLocation> = BTreeMap::new();
    for entry in entries {
        let FieldState::Valid(name, _) = &entry.name.state else { continue };
        match seen.get(name.0.as_str()) {
            Some(first) => context.reject_duplicate(
                &entry.name.key,
                first,
                format!("two tags of this PLC have the name \"{}\"", name.0),
                "names are keys of one JSON object: give each tag its own name",
            ),
            None => {
                seen.insert(&name.0, &entry.name.key);
            }
        }
    }
}

fn check_tag(raw: &RawTag, defaults: &PlcDefaults, context: &mut ReadContext<'_>) -> Option<Tag> {
    let name = check_name(raw, context);
    let at = raw.at.required(context, "at = \"%MW10\"").map(|at| at.0);
    let data_type = check_type(raw, context);
    let element = data_type.map(|data| data.element);
    let unit = raw.unit.optional(context).map(|unit| unit.0.into());
    let location = check_location(raw, at.as_deref(), data_type, defaults, context);
    let scale = raw.scale.optional(context);
    let offset = raw.offset.optional(context);
    let deadband = raw.deadband.optional(context);
    reject_number_keys(raw, element, context);
    reject_bad_numbers(raw, scale, deadband, context);
    let json_format = check_json_format(raw, element, defaults, context);
    let validity = check_validity(raw, element, context);
    let scan = raw.scan.derived(context, || defaults.scan);
    let metric = check_metric(raw, element, defaults.metric, context);
    let byte_order = raw.order.derived(context, || defaults.order);
    let scaling = scaling(scale, offset);
    let decimals =
        raw.decimals.derived(context, || derived_decimals(scaling, [scale, offset], element?));
    let tag = Tag {
        name: name?,
        at: at?.into(),
        location: location?,
        data_type: data_type?,
        byte_order: byte_order?.0,
        unit,
        scaling,
        decimals: decimals.and_then(|decimals| u8::try_from(decimals.0).ok()),
        json_format: json_format?,
        deadband: deadband.map(|deadband| deadband.value).filter(|deadband| *deadband > 0.0),
        validity,
        scan: scan?.0,
        metric: metric?,
        group: raw.group.optional(context).map(|group| group.0.into()),
        write: None,
    };
    with_write_rule(tag, raw, defaults, context)
}

/// Returns whether the value is served on `/metrics/tags`. Reports a text that should be.
fn check_metric(
    raw: &RawTag,
    element: Option<IecType>,
    default: bool,
    context: &mut ReadContext<'_>,
) -> Option<bool> {
    let is_text = element?.kind() == ValueKind::Text;
    let metric = raw.metric.derived(context, || Some(Boolean(default && !is_text)))?.0;
    if metric && is_text {
        let message = "a text is no number, so it cannot be a metric";
        context.reject(&raw.metric.key, message, Some("remove `metric`".to_owned()));
    }
    Some(metric)
}

/// Returns whether a name is a key that the gateway adds to the payload.
pub(crate) fn is_reserved_tag_name(name: &str) -> bool {
    RESERVED_KEYS.contains(&name)
}

/// Returns why a name that is not reserved cannot be the name of a tag.
#[cfg(feature = "office")]
pub(crate) fn tag_name_error(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("the name is empty".to_owned());
    }
    if name.chars().count() > MAX_NAME_CHARS {
        return Some(format!("the name has more than {MAX_NAME_CHARS} characters"));
    }
    PlainText::parse("name", name).err().map(|error| error.message)
}

/// Returns the name of a tag. Reports one that is missing, empty, or a key of the payload.
fn check_name(raw: &RawTag, context: &mut ReadContext<'_>) -> Option<String> {
    let name = raw.name.required(context, "name = \"temperature\"")?.0;
    let problem = if name.is_empty() {
        Some("the name of a tag is empty".to_owned())
    } else if name.chars().count() > MAX_NAME_CHARS {
        let help = format!("a name has at most {MAX_NAME_CHARS} characters");
        context.reject(&raw.name.key, "the name of a tag is too long", Some(help));
        return None;
    } else if is_reserved_tag_name(&name) {
        Some(format!("`{name}` is a key that the gateway adds to the payload"))
    } else {
        None
    };
    let Some(message) = problem else { return Some(name) };
    let example = if name.is_empty() { "temperature".to_owned() } else { format!("{name}_1") };
    let help = format!("give it another name, for example name = \"{example}\"");
    context.reject(&raw.name.key, message, Some(help));
    None
}

fn check_location(
    raw: &RawTag,
    at: Option<&str>,
    iec: Option<DataType>,
    defaults: &PlcDefaults,
    context: &mut ReadContext<'_>,
) -> Option<Location> {
    let at = at?;
    let (Some(iec), Some(model)) = (iec, defaults.model) else {
        reject_hopeless_address(raw, at, iec, defaults, context);
        return None;
    };
    let location = match model.locate(at, iec) {
        Ok(location) => location,
        Err(error) => {
            context.reject(&raw.at.key, error.message, error.help);
            return None;
        }
    };
    let max_words = defaults.max_words?;
    match size_error(&location, max_words) {
        Some((message, help)) => {
            context.reject(&raw.at.key, format!("the type {iec} takes {message}"), Some(help));
            None
        }
        None => Some(location),
    }
}

/// Rejects an address that is wrong whatever the invalid `type` or `model` should have been, so
/// that all problems are reported at once.
fn reject_hopeless_address(
    raw: &RawTag,
    at: &str,
    data: Option<DataType>,
    defaults: &PlcDefaults,
    context: &mut ReadContext<'_>,
) {
    // A byte fits wherever any number or text does, a bit wherever a BOOL does.
    let types =
        data.map_or_else(|| vec![IecType::Byte.into(), IecType::Bool.into()], |data| vec![data]);
    let model = defaults.model.or(defaults.likely_model);
    let models = model.map_or_else(|| PlcModel::ALL.to_vec(), |model| vec![model]);
    let tries = models.iter().flat_map(|model| types.iter().map(move |data| (*model, *data)));
    let mut errors = Vec::new();
    for (model, data) in tries {
        match model.locate(at, data) {
            Ok(_) => return,
            Err(error) => errors.push((data, error)),
        }
    }
    // Not one that is about a type that was only tried.
    let is_right = |tried: &DataType, error: &LocationError| {
        let text = format!("{} {}", error.message, error.help.as_deref().unwrap_or_default());
        data.is_some() || !text.contains(&tried.to_string())
    };
    let error = errors.into_iter().find(|(tried, error)| is_right(tried, error));
    if let Some((_, error)) = error {
        context.reject(&raw.at.key, error.message, error.help);
    }
}

/// Returns why a value does not fit into one request, and what to do. A value is never split over
/// two requests.
pub(crate) fn size_error(location: &Location, max_words: u16) -> Option<(String, String)> {
    /// Modbus Application Protocol V1.1b3, 6.3.
    const MAX_REQUEST_WORDS: u16 = 125;
    let count = location.count;
    let divide = || "declare several tags, each for a part of it".to_owned();
    if location.table.holds_bits() {
        let message = format!("{count} bits, and a request has at most {MAX_BITS}");
        return (count > MAX_BITS).then(|| (message, divide()));
    }
    if count > MAX_REQUEST_WORDS {
        let message = format!("{count} registers, and a request has at most {MAX_REQUEST_WORDS}");
        return Some((message, divide()));
    }
    let message = format!("{count} registers, max_words is {max_words}");
    let help = format!("set max_words of this PLC to {count} or more");
    (count > max_words).then_some((message, help))
}

/// Returns the type, including the encoding of a STRING. Reports an encoding of any other type.
fn check_type(raw: &RawTag, context: &mut ReadContext<'_>) -> Option<DataType> {
    let data = raw.r#type.required(context, "type = \"REAL\"").map(|declared| declared.0);
    let code_page = raw.encoding.optional(context).map(|choice| choice.0);
    let (data, code_page) = (data?, code_page.unwrap_or_default());
    if let IecType::String(letters, _) = data.element {
        return Some(DataType { element: IecType::String(letters, code_page), ..data });
    }
    if matches!(raw.encoding.state, FieldState::Valid(..)) {
        context.reject(
            &raw.encoding.key,
            format!("`encoding` is for a STRING, and this is {} {data}", article(data)),
            Some("remove `encoding`; a WSTRING is always UTF-16".to_owned()),
        );
    }
    Some(data)
}

/// Returns the names of an enumeration, or the format of its type.
fn check_json_format(
    raw: &RawTag,
    iec: Option<IecType>,
    defaults: &PlcDefaults,
    context: &mut ReadContext<'_>,
) -> Option<JsonFormat> {
    let names = raw.r#enum.optional(context);
    let (iec, zone) = (iec?, defaults.zone.as_ref()?);
    let Some(names) = names else { return Some(JsonFormat::for_type(iec, zone)) };
    let range = whole_numbers(iec).unwrap_or_default();
    let problem = if range.is_empty() {
        Some((format!("`enum` is for whole numbers, and this is {iec}"), "remove `enum`"))
    } else if has_number_keys(raw) {
        let message = "`enum` publishes names, which have no scale and no deadband".to_owned();
        Some((message, "remove `scale`, `offset`, `decimals` and `deadband`"))
    } else {
        let beyond = names.0.keys().find(|number| !range.contains(number));
        beyond.map(|number| {
            (format!("`enum` contains {number}, which a {iec} cannot hold"), "remove that number")
        })
    };
    match problem {
        Some((message, help)) => {
            context.reject(&raw.r#enum.key, message, Some(help.to_owned()));
            None
        }
        None => EnumNames::new(names.0).map(JsonFormat::Named),
    }
}

/// Returns whether a key is set that only a number can have.
pub(super) fn has_number_keys(raw: &RawTag) -> bool {
    let is_set = |field: &Field<DecimalNumber>| matches!(field.state, FieldState::Valid(..));
    [&raw.scale, &raw.offset, &raw.deadband].into_iter().any(is_set)
        || matches!(raw.decimals.state, FieldState::Valid(..))
}

fn article(data: DataType) -> &'static str {
    if data.to_string().starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}

fn reject_number_keys(raw: &RawTag, iec: Option<IecType>, context: &mut ReadContext<'_>) {
    let Some(iec) = iec else { return };
    let (what, number) = match iec.kind() {
        ValueKind::Unsigned | ValueKind::Signed | ValueKind::Real => return,
        ValueKind::Bool => ("true or false", "BYTE or WORD"),
        ValueKind::Date(_) | ValueKind::DateAndTime(_) => ("a date", "UDINT or ULINT"),
        ValueKind::TimeOfDay(_) => ("a time of day", "UDINT or ULINT"),
        ValueKind::Text => ("text", "INT or REAL"),
    };
    let mut refuse = |at: &KeyLocation| {
        context.reject(
            at,
            format!("a {iec} is {what}, it has no `{}`", at.name),
            Some(format!("remove `{}`, or set type to {number} for a number", at.name)),
        );
    };
    for field in [&raw.scale, &raw.offset, &raw.deadband] {
        if matches!(field.state, FieldState::Valid(..)) {
            refuse(&field.key);
        }
    }
    if matches!(raw.decimals.state, FieldState::Valid(..)) {
        refuse(&raw.decimals.key);
    }
    if matches!(raw.invalid_values.state, FieldState::Valid(..)) {
        refuse(&raw.invalid_values.key);
    }
    if matches!(raw.valid.state, FieldState::Valid(..)) {
        refuse(&raw.valid.key);
    }
}

/// Returns which numbers are no values. Reports numbers that the type cannot hold.
fn check_validity(
    raw: &RawTag,
    iec: Option<IecType>,
    context: &mut ReadContext<'_>,
) -> Option<Arc<Validity>> {
    let list = raw.invalid_values.optional(context);
    let range = raw.valid.optional(context);
    let (iec, numbers) = (iec?, list.map(|list| list.0).unwrap_or_default());
    let beyond = whole_numbers(iec).and_then(|range| {
        numbers.iter().find(|number| match number {
            Number::Whole(number) => !range.contains(number),
            Number::Real(_) => true,
        })
    });
    if let Some(number) = beyond {
        context.reject(
            &raw.invalid_values.key,
            format!("`invalid_values` contains {number}, which a {iec} cannot hold"),
            Some(format!("write the numbers as the {iec} reads them, before scaling")),
        );
    }
    let (min, max) = range.map_or((None, None), |range| (range.min, range.max));
    let validity = Validity { invalid_values: numbers, min, max };
    (validity != Validity::default()).then(|| Arc::new(validity))
}

/// Returns the numbers that a type can hold; `None` for a type that holds no whole numbers only.
pub(crate) fn whole_numbers(iec: IecType) -> Option<Range<i128>> {
    let bits = 8 * u32::from(iec.size());
    match iec.kind() {
        ValueKind::Unsigned => Some(0..1_i128 << bits),
        ValueKind::Signed => Some(-(1_i128 << (bits - 1))..1_i128 << (bits - 1)),
        ValueKind::Bool | ValueKind::Real | ValueKind::Text => None,
        ValueKind::Date(_) | ValueKind::TimeOfDay(_) | ValueKind::DateAndTime(_) => None,
    }
}

fn reject_bad_numbers(
    raw: &RawTag,
    scale: Option<DecimalNumber>,
    deadband: Option<DecimalNumber>,
    context: &mut ReadContext<'_>,
) {
    let mut refuse = |field: &Field<DecimalNumber>, message: &str, help: &str| {
        context.reject(&field.key, message, Some(help.to_owned()));
    };
    if scale.is_some_and(|scale| scale.value == 0.0) {
        let help = "write the factor from raw value to engineering unit, for example 0.1";
        refuse(&raw.scale, "`scale` is 0, which would make all values equal", help);
    }
    if deadband.is_some_and(|deadband| deadband.value < 0.0) {
        let help = "write the smallest change to publish, for example 0.1";
        refuse(&raw.deadband, "`deadband` is negative", help);
    }
}

/// Returns the scaling, or `None` when it would not change the value.
#[expect(clippy::float_cmp, reason = "exactly 1 and 0 mean no scaling")]
fn scaling(scale: Option<DecimalNumber>, offset: Option<DecimalNumber>) -> Option<Scaling> {
    let scale = scale.map_or(1.0, |scale| scale.value);
    let offset = offset.map_or(0.0, |offset| offset.value);
    (scale != 1.0 || offset != 0.0).then_some(Scaling { scale, offset })
}

/// Returns the default of `decimals`: a scaled integer has the decimal places of its scale or
/// offset. A REAL has no default, because its precision is unknown.
fn derived_decimals(
    scaling: Option<Scaling>,
    parts: [Option<DecimalNumber>; 2],
    iec: IecType,
) -> Option<Integer<0, 15>> {
    let real = matches!(iec, IecType::Real | IecType::Lreal);
    scaling.filter(|_| !real)?;
    let digits = parts.into_iter().flatten().map(|part| part.decimal_places).max()?;
    Some(Integer(digits.into()))
}
