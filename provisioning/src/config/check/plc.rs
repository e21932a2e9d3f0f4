//! `[[plc]]`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::event;
use super::publish::{self, PublishDefaults, TopicValues};
use super::tag::{self, PlcDefaults};
use crate::config::context::{KeyLocation, ReadContext};
use crate::config::field::{FieldState, StreamedList};
use crate::config::raw::RawPlc;
use crate::config::read::RawTable;
use crate::config::scalar::{Choice, Integer, NamedZone, PlainText, ProgramText};
use crate::config::suggest::nearest;
use crate::config::{Gateway, HostPort, Metrics, Pacing, Plc};
use crate::diagnostics::SourceSpan;
use crate::plc::{PlcFamily, PlcModel};

/// Maximum number of PLCs, ten times what is tested. They are numbered with 16 bits.
const MAX_PLCS: usize = 10_000;

/// Checks all PLCs, also after a problem in one of them.
pub(super) fn check_plcs(
    raw: &StreamedList<RawPlc>,
    root: &RawTable<'_>,
    gateway: Option<&Gateway>,
    common: Option<&PublishDefaults>,
    metrics: Option<&Metrics>,
    context: &mut ReadContext<'_>,
) -> Option<Vec<Plc>> {
    let metric = metrics.is_some_and(|metrics| metrics.tags);
    let (mut seen, mut hosts) = (BTreeMap::new(), BTreeMap::new());
    let plcs = raw.for_each(root, context, |raw, context| {
        reject_repeated_name(&raw, &mut seen, context);
        let plc = check_plc(&raw, gateway, common, metric, context);
        if let Some(plc) = &plc {
            note_other_spelling(&raw, &plc.address, &mut hosts, context);
        }
        plc
    });
    if plcs.is_empty() && !raw.already_reported {
        context.reject(
            &raw.key,
            "there is no PLC to read",
            Some(
                "add a section [[plc]] with name, model and address, and a [[plc.tag]] below it"
                    .to_owned(),
            ),
        );
        return None;
    }
    if plcs.len() > MAX_PLCS {
        let message = format!("there are {} PLCs", plcs.len());
        let help = format!("a gateway reads at most {MAX_PLCS}; use several gateways");
        context.reject(&raw.key, message, Some(help));
        return None;
    }
    plcs.into_iter().collect()
}

fn reject_repeated_name(
    raw: &RawPlc,
    seen: &mut BTreeMap<String, KeyLocation>,
    context: &mut ReadContext<'_>,
) {
    let FieldState::Valid(name, _) = &raw.name.state else { return };
    match seen.get(&name.0) {
        Some(first) => context.reject_duplicate(
            &raw.name.key,
            first,
            format!("two PLCs have the name \"{}\"", name.0),
            "give each PLC its own name; `machine` may be the same",
        ),
        None => {
            seen.insert(name.0.clone(), raw.name.key.clone());
        }
    }
}

/// Adds a note on a PLC whose host is probably that of an earlier one, spelled in another way: each
/// spelling has a connection of its own, and many devices take only one. `hosts` has the first PLC
/// of each host.
fn note_other_spelling(
    raw: &RawPlc,
    address: &HostPort,
    hosts: &mut BTreeMap<(u16, String), (HostPort, KeyLocation)>,
    context: &mut ReadContext<'_>,
) {
    let address = address.normalised();
    let key = to_ip_address(&address.host).map_or_else(
        || address.host.split('.').next().unwrap_or_default().to_owned(),
        |ip| ip.to_string(),
    );
    let place = || (address.clone(), raw.address.key.clone());
    let (other, place) = hosts.entry((address.port, key)).or_insert_with(place);
    if *other != address && is_same_host(&other.host, &address.host) {
        let message =
            format!("{address} may be the same device as {other}, and gets its own connection");
        let help = "write the same host in both if it is: then they share one connection";
        let here = (&*place, format!("{other} is here"));
        context.add_note(&raw.address.key, message, help.to_owned(), Some(here));
    }
}

/// Returns the address of a host that is one, and one address for the three usual names of this
/// machine. Other loopback addresses may be other servers.
fn to_ip_address(host: &str) -> Option<IpAddr> {
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    let address = host.parse::<IpAddr>().ok()?.to_canonical();
    let is_this_machine = address == IpAddr::V6(Ipv6Addr::LOCALHOST);
    Some(if is_this_machine { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address })
}

/// Returns whether two spellings of a host probably mean the same: this machine, an IPv4 address
/// within IPv6, or a name with and without its domain.
fn is_same_host(one: &str, other: &str) -> bool {
    match (to_ip_address(one), to_ip_address(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => {
            let [one, other] = [one, other].map(|host| host.trim_end_matches('.'));
            let is_in_domain = |long: &str, short: &str| {
                !short.contains('.') && long.split('.').next() == Some(short)
            };
            one == other || is_in_domain(one, other) || is_in_domain(other, one)
        }
        _ => false,
    }
}

fn check_plc(
    raw: &RawPlc,
    gateway: Option<&Gateway>,
    common: Option<&PublishDefaults>,
    metric: bool,
    context: &mut ReadContext<'_>,
) -> Option<Plc> {
    let name = raw.name.required(context, "name = \"pump6\"").map(|name| name.0);
    let model = raw.model.required(context, "model = \"M241\"").map(|model| model.0);
    let machine = raw.machine.derived(context, || name.clone().map(PlainText)).map(|text| text.0);
    let device = raw.device.derived(context, || model.map(|model| PlainText(model.to_string())));
    let device = device.map(|text| text.0);
    let address = raw.address.required(context, "address = \"192.168.1.10:502\"");
    let unit_id =
        raw.unit_id.derived(context, || model.map(|model| Integer(model.default_unit_id().into())));
    let scan = raw.scan.optional(context);
    let timeout = raw.timeout.optional(context);
    let max_words = raw.max_words.optional(context).map(|words| words.0);
    let max_gap =
        raw.max_gap.derived(context, || model.map(|model| Integer(model.default_max_gap())));
    let pacing = check_pacing(raw, context);
    let order =
        raw.order.derived(context, || model.map(|model| Choice(model.default_byte_order())));
    let zone =
        raw.timezone.derived(context, || gateway.map(|one| NamedZone::from_zone(&one.timezone)));
    let zone = zone.map(|zone| zone.0);
    let likely_model = likely_model(raw, context);
    let accept_program = check_program(raw, model, context);
    let owner = PlcDefaults { model, likely_model, scan, order, max_words, zone, metric };
    let tags = tag::check_tags(&raw.tag, &owner, context);
    let own = raw.publish.0.as_ref();
    let overridden = common.map(|common| publish::with_overrides(common, own, context));
    let (name, machine, device) = (name?, machine?, device?);
    let names = TopicValues { gateway: gateway?, plc: &name, machine: &machine, device: &device };
    let tags = tags?;
    let tag_names: Vec<_> = tags.iter().map(|tag| tag.name.clone()).collect();
    let publish = publish::publish_of_plc(overridden?, &names, &tag_names, context);
    let on = own.map(|own| event::check_event(own, &raw.tag.entries, &tags, model, context));
    let publish = event::with_event(publish?, own, on.unwrap_or(Some(None))?, context)?;
    Some(Plc {
        model: model?,
        address: address?,
        unit_id: u8::try_from(unit_id?.0).ok()?,
        timeout: timeout?.0,
        max_words: max_words?,
        max_gap: max_gap?.0,
        pacing: pacing?,
        accept_program: accept_program.map(|program| program.0),
        publish,
        tags: Arc::new(tags),
        name: name.clone(),
        machine: machine.clone(),
        device: device.clone(),
    })
}

/// Returns the model that an invalid `model` probably means, such as M241 for a reference.
fn likely_model(raw: &RawPlc, context: &ReadContext<'_>) -> Option<PlcModel> {
    let SourceSpan::File(span) = &raw.model.key.span else { return None };
    let FieldState::Invalid = raw.model.state else { return None };
    let word = context.text.get(span.clone())?.trim_matches(['"', '\'']);
    PlcModel::named_in(word)
        .or_else(|| nearest(word, PlcModel::ALL.map(PlcModel::name))?.parse().ok())
}

/// Returns the program that the PLC must have. Reports one of a device that does not name its own.
fn check_program(
    raw: &RawPlc,
    model: Option<PlcModel>,
    context: &mut ReadContext<'_>,
) -> Option<ProgramText> {
    let program = raw.accept_program.optional(context)?;
    if let Some(model) = model.filter(|model| model.family() != PlcFamily::MachineExpert) {
        let message = format!("an {model} does not say which program it has");
        let help = "remove `accept_program`: only an M241, M251 or M262 has a signature";
        context.reject(&raw.accept_program.key, message, Some(help.to_owned()));
    }
    Some(program)
}

fn check_pacing(raw: &RawPlc, context: &mut ReadContext<'_>) -> Option<Pacing> {
    let connect_pause = raw.connect_pause.optional(context);
    let request_pause = raw.request_pause.optional(context);
    let max_share = raw.max_share.optional(context);
    let max_requests = raw.max_requests.optional(context);
    Some(Pacing {
        connect_pause: connect_pause?.0,
        request_pause: request_pause?.0,
        max_share: max_share?.0,
        max_requests: max_requests?.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_host_are_recognised() {
        let same = [
            ("127.0.0.1", "localhost"),
            ("::1", "localhost"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("plc1", "plc1.lan"),
            ("plc1.lan.", "plc1.lan"),
        ];
        for (one, other) in same {
            assert!(is_same_host(one, other) && is_same_host(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("192.0.2.7", "192.0.2.8"),
            ("plc1", "plc2"),
            ("plc1.a", "plc1.b"),
            ("plc1", "10.0.0.1"),
            ("127.0.0.1", "127.0.0.2"),
        ] {
            assert!(!is_same_host(one, other) && !is_same_host(other, one), "{one} {other}");
        }
    }
}
