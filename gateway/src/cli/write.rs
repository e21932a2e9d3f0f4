//! `write`: writes one tag of a PLC through the running gateway.

use std::io::{self, BufRead, Write as _};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use provisioning::config::{JsonFormat, Plc, Tag};
use provisioning::plc::ValueKind;
use serde_json::{Map, Value};

use super::{ConfigFile, EXIT_NEGATIVE, EXIT_OK, configuration, print_line, runtime, status};
use crate::app;
use crate::web::{HttpTarget, post};

/// `write`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo edge-gateway write pump6 setpoint 21.5             asks, writes, reads back
  sudo edge-gateway write pump6 mode run --yes            without the question, for a script
  sudo edge-gateway write pump6 limits '[1, 2, 3]'        an array
  sudo edge-gateway write pump6 recipe Rye gateway.toml   with another configuration file

The same checks apply as to a command by MQTT: the tag needs `write` in gateway.toml. Connects to
the gateway that runs with the same configuration, over the socket in its state_dir, which only its
user and root may open. Prints the reply as JSON. Exit code 0 if the PLC took the value, 1 if not or
if that is not known, 2 for a usage error.")]
pub(super) struct WriteOptions {
    /// Name of the PLC.
    plc: String,
    /// Name of the tag.
    tag: String,
    /// Value, as it is published: a number, true, false, a text, a date, or an array in JSON.
    #[arg(allow_negative_numbers = true)]
    value: String,
    #[command(flatten)]
    file: ConfigFile,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
}

/// Asks, sends the command to the gateway that runs with this configuration, prints the reply.
pub(super) fn write(options: &WriteOptions) -> anyhow::Result<u8> {
    let inspected = configuration::inspect_running(&options.file.path)?;
    let Some(inspected) = inspected else { return Ok(EXIT_NEGATIVE) };
    let (plc, tag) = find_tag(&inspected.plcs, options)?;
    let value = to_json(tag, &options.value)?;
    if !options.yes && !is_confirmed(plc, tag, &value)? {
        print_line("Nothing was written.")?;
        return Ok(EXIT_NEGATIVE);
    }
    let body = Value::Object(Map::from_iter([(
        "write".to_owned(),
        Value::Object(Map::from_iter([(tag.name.clone(), value)])),
    )]));
    let reply = send(&inspected.gateway.state_dir, &plc.name, &body)?;
    print_line(&reply)?;
    let is_done = reply.get("state").is_some_and(|state| state == "done");
    Ok(if is_done { EXIT_OK } else { EXIT_NEGATIVE })
}

fn find_tag<'a>(plcs: &'a [Plc], options: &WriteOptions) -> anyhow::Result<(&'a Plc, &'a Tag)> {
    let WriteOptions { plc: plc_name, tag: tag_name, file, .. } = options;
    let file = file.path.display();
    let Some(plc) = plcs.iter().find(|plc| plc.name == *plc_name) else {
        let names: Vec<_> = plcs.iter().map(|plc| plc.name.as_str()).collect();
        bail!("{file} has no PLC {plc_name:?}; it has {}", names.join(", "));
    };
    let tag = plc.tags.iter().find(|tag| tag.name == *tag_name);
    let tag = tag.ok_or_else(|| anyhow!("{plc_name} has no tag {tag_name:?} in {file}"))?;
    if tag.write.is_none() {
        bail!(
            "{tag_name:?} is read-only; add `write` to the tag in {file} and restart the gateway \
             to allow writes"
        );
    }
    Ok((plc, tag))
}

/// Returns the value of an argument: text for a tag that is one, so that `12` needs no quotes.
fn to_json(tag: &Tag, text: &str) -> anyhow::Result<Value> {
    let is_array = tag.data_type.bounds.is_some();
    let is_text =
        tag.json_format != JsonFormat::Plain || tag.data_type.element.kind() == ValueKind::Text;
    if is_text && !is_array {
        return Ok(text.into());
    }
    serde_json::from_str(text).with_context(|| {
        let Tag { name, data_type, .. } = tag;
        format!("{text:?} is no value of {name:?}, which is a {data_type}")
    })
}

/// Asks, and returns whether the answer is yes; the end of the input is a no.
fn is_confirmed(plc: &Plc, tag: &Tag, value: &Value) -> anyhow::Result<bool> {
    let (plc, Tag { name, at, .. }) = (&plc.name, tag);
    write!(io::stdout(), "Write {value} to {name} ({at}) of {plc}? [y/N] ")?;
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn send(state_dir: &Path, plc: &str, command: &Value) -> anyhow::Result<Value> {
    let target = HttpTarget::Unix(app::socket_path(state_dir));
    let path = format!("/write/{}", percent_encoded(plc));
    let answer = runtime()?
        .block_on(post(&target, &path, command.to_string()))
        .map_err(|error| status::explain_error(error, state_dir))?;
    match answer.code {
        200 => serde_json::from_slice(&answer.body).context("the gateway has another version"),
        404 => bail!("the running gateway has no PLC {plc:?}: restart it after a change of FILE"),
        504 => bail!(
            "the PLC has not answered: it is not known whether it took the value; an event on \
             edge/{{gateway}}/event will say what it holds"
        ),
        _ => bail!("the gateway is stopping, so nothing was written"),
    }
}

/// Returns a name as one segment of a path (RFC 3986, 2.1).
fn percent_encoded(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tag(iec: &str) -> Tag {
        let like = crate::testing::plc("pump6", &["any"]).tags[0].clone();
        Tag { data_type: iec.parse().unwrap(), ..like }
    }

    #[test]
    fn a_text_needs_no_quotes_and_a_number_is_one() {
        assert_eq!(to_json(&tag("STRING(20)"), "12").unwrap(), json!("12"));
        assert_eq!(to_json(&tag("REAL"), "-21.5").unwrap(), json!(-21.5));
        assert_eq!(to_json(&tag("BOOL"), "true").unwrap(), json!(true));
        assert_eq!(to_json(&tag("ARRAY[0..1] OF INT"), "[1, 2]").unwrap(), json!([1, 2]));
        let error = to_json(&tag("REAL"), "21,5").unwrap_err().to_string();
        assert_eq!(error, "\"21,5\" is no value of \"any\", which is a REAL");
    }

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        assert_eq!(percent_encoded("pump 6/ü"), "pump%206%2F%C3%BC");
    }
}
