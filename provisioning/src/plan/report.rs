//! Text that the `plan` command prints.

use std::fmt::{self, Write};
use std::time::Duration;

use super::{ASSUMED_ANSWER_TIME, Plan, ReadRequest, ScanClass};
use crate::config::{HostPort, Pacing, Plc};
use crate::plc::{PlcFamily, PlcModel, Table};

const LINE_WIDTH: usize = 100;
const INDENT: &str = "      ";

/// Returns a description of the requests to one PLC, with the unused registers that they read and
/// the share of time that they take.
#[must_use]
pub fn report(plc: &Plc, plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_report(&mut text, plc, plan);
    text
}

fn write_report(text: &mut String, plc: &Plc, plan: &Plan) -> fmt::Result {
    let tags = Plural(plc.tags.len(), "tag");
    writeln!(text, "{}: {} at {}, unit {}, {tags}", plc.name, plc.model, plc.address, plc.unit_id)?;
    for class in &plan.classes {
        write_class(text, plc, class)?;
    }
    let sum = ConnectionLoad::of([plan]);
    writeln!(text, "  together: {sum}")?;
    write_warnings(text, &sum, plc.pacing)?;
    write_basis(text)
}

/// Returns a description of each connection that several PLCs share, with the sum of their
/// requests; empty when each PLC has its own connection. The strictest of their limits applies.
#[must_use]
pub fn report_shared(plcs: &[Plc], plans: &[Plan]) -> Vec<String> {
    let mut links: Vec<(HostPort, Vec<(&Plc, &Plan)>)> = Vec::new();
    for member in plcs.iter().zip(plans) {
        let address = member.0.address.normalised();
        match links.iter_mut().find(|(known, _)| *known == address) {
            Some((_, members)) => members.push(member),
            None => links.push((address, vec![member])),
        }
    }
    let shared = links.into_iter().filter(|(_, members)| members.len() > 1);
    shared
        .map(|(address, members)| {
            let mut text = String::new();
            // Writing to a String cannot fail.
            let _ = write_shared(&mut text, &address, &members);
            text
        })
        .collect()
}

fn write_shared(text: &mut String, address: &HostPort, members: &[(&Plc, &Plan)]) -> fmt::Result {
    writeln!(text, "{address}: one connection for {} PLCs", members.len())?;
    write_wrapped(text, members.iter().map(|(plc, _)| plc.name.as_str()))?;
    let sum = ConnectionLoad::of(members.iter().map(|(_, plan)| *plan));
    writeln!(text, "  together: {sum}")?;
    writeln!(
        text,
        "  about {:.1} ms if all are due at once",
        sum.burst_duration.as_secs_f64() * 1000.0
    )?;
    let pacing = members.iter().map(|(plc, _)| plc.pacing).reduce(Pacing::strictest);
    write_warnings(text, &sum, pacing.unwrap_or_default())?;
    write_basis(text)
}

fn write_warnings(text: &mut String, sum: &ConnectionLoad, pacing: Pacing) -> fmt::Result {
    let Pacing { max_share, max_requests, .. } = pacing;
    if sum.busy_fraction > 1.0 {
        writeln!(text, "  warning: more than the PLC can probably answer; cycles will be missed")?;
    }
    if sum.busy_fraction <= 1.0 && sum.busy_fraction * 100.0 > f64::from(max_share) {
        writeln!(text, "  warning: more than max_share = {max_share}; cycles will be skipped")?;
    }
    if sum.requests_per_second > f64::from(max_requests) {
        writeln!(
            text,
            "  warning: more than max_requests = {max_requests}; cycles will be skipped"
        )?;
    }
    Ok(())
}

fn write_basis(text: &mut String) -> fmt::Result {
    writeln!(text, "  (estimated with {} ms per answer)", ASSUMED_ANSWER_TIME.as_millis())
}

/// Load of one connection.
#[derive(Default)]
struct ConnectionLoad {
    /// Share of the time during which a request is under way; 1 is always.
    busy_fraction: f64,
    /// Requests per second.
    requests_per_second: f64,
    /// Duration of all requests if they are due at the same time.
    burst_duration: Duration,
}

impl ConnectionLoad {
    fn of<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> Self {
        let classes = plans.into_iter().flat_map(|plan| &plan.classes);
        classes.fold(Self::default(), |sum, class| Self {
            busy_fraction: sum.busy_fraction + busy_fraction(class),
            requests_per_second: sum.requests_per_second + requests_per_second(class),
            burst_duration: sum.burst_duration + class.estimated_duration(),
        })
    }
}

impl fmt::Display for ConnectionLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { busy_fraction: load, requests_per_second: requests, .. } = self;
        let percent = load * 100.0;
        write!(f, "{requests:.1} requests per second, {percent:.1} % of the connection's time")
    }
}

fn write_class(text: &mut String, plc: &Plc, class: &ScanClass) -> fmt::Result {
    writeln!(
        text,
        "  every {:?}: {}, about {:.1} ms, {:.1} % of the connection's time",
        class.period,
        Plural(class.requests.len(), "request"),
        class.estimated_duration().as_secs_f64() * 1000.0,
        busy_fraction(class) * 100.0,
    )?;
    for request in &class.requests {
        write_request(text, plc, request)?;
    }
    Ok(())
}

fn write_request(text: &mut String, plc: &Plc, request: &ReadRequest) -> fmt::Result {
    let used = request.used_count(plc);
    let unit = if request.table.holds_bits() { "bit" } else { "register" };
    writeln!(
        text,
        "    FC {} {}: {}, {used} used, {} wasted",
        request.function_code(),
        AddressRange { model: plc.model, request },
        Plural(request.count.into(), unit),
        request.count.saturating_sub(used),
    )?;
    let names = request.tags.iter().filter_map(|&index| plc.tags.get(usize::from(index)));
    write_wrapped(text, names.map(|tag| tag.name.as_str()))
}

fn write_wrapped<'a>(text: &mut String, names: impl Iterator<Item = &'a str>) -> fmt::Result {
    let mut column = 0;
    for name in names {
        let width = name.chars().count() + 2;
        if column == 0 {
            write!(text, "{INDENT}{name}")?;
            column = INDENT.len() + width;
        } else if column + width > LINE_WIDTH {
            write!(text, ",\n{INDENT}{name}")?;
            column = INDENT.len() + width;
        } else {
            write!(text, ", {name}")?;
            column += width;
        }
    }
    writeln!(text)
}

fn busy_fraction(class: &ScanClass) -> f64 {
    class.estimated_duration().as_secs_f64() / positive(class.period)
}

#[expect(clippy::cast_precision_loss, reason = "a plan has far fewer than 2^52 requests")]
fn requests_per_second(class: &ScanClass) -> f64 {
    class.requests.len() as f64 / positive(class.period)
}

fn positive(period: Duration) -> f64 {
    period.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// `1 request`, `2 requests`.
struct Plural(usize, &'static str);

impl fmt::Display for Plural {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = *self;
        write!(f, "{count} {noun}{}", if count == 1 { "" } else { "s" })
    }
}

/// The range of a request in the addresses of the PLC's programming tool: `%MW10 to %MW13`.
struct AddressRange<'a> {
    model: PlcModel,
    request: &'a ReadRequest,
}

impl fmt::Display for AddressRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReadRequest { table, first, count, .. } = *self.request;
        self.write_address(f, table, first)?;
        if count > 1 {
            f.write_str(" to ")?;
            self.write_address(f, table, first.saturating_add(count - 1))?;
        }
        Ok(())
    }
}

impl AddressRange<'_> {
    fn write_address(&self, f: &mut fmt::Formatter<'_>, table: Table, address: u16) -> fmt::Result {
        let (byte, bit) = (address / 8, address % 8);
        match (self.model.family(), table) {
            (PlcFamily::MachineExpert | PlcFamily::MachineExpertBasic, Table::HoldingRegister) => {
                write!(f, "%MW{address}")
            }
            (PlcFamily::MachineExpert, Table::Coil) => write!(f, "%QX{byte}.{bit}"),
            (PlcFamily::MachineExpert, Table::DiscreteInput) => write!(f, "%IX{byte}.{bit}"),
            (PlcFamily::MachineExpertBasic, Table::Coil | Table::DiscreteInput) => {
                write!(f, "%M{address}")
            }
            (PlcFamily::MachineExpert | PlcFamily::MachineExpertBasic, Table::InputRegister)
            | (PlcFamily::ModbusTables, _) => {
                write!(f, "{}:{address}", table.keyword())
            }
        }
    }
}
