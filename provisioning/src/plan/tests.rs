use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::{DatetimeFormat, HostPort, JsonFormat, Pacing, PayloadShape, Publish, Qos};
use crate::plc::{DataType, Location};

#[test]
fn adjacent_tags_share_a_request_and_a_wide_gap_separates_them() {
    let plc =
        plc(PlcModel::M241, &[("%MW10", "REAL", 1), ("%MW44", "INT", 1), ("%MW78", "INT", 1)]);
    let plan = plan(&plc);
    let spans: Vec<_> = plan.classes[0].requests.iter().map(|r| (r.first, r.count)).collect();
    assert_eq!(spans, [(10, 35), (78, 1)]);
}

#[test]
fn a_request_does_not_cross_the_border_of_the_system_area() {
    let tags = [("%MW59999", "INT", 1), ("%MW60000", "WORD", 1), ("%MW60200", "INT", 1)];
    let plan = plan(&plc(PlcModel::M241, &tags));
    let firsts: Vec<_> = plan.classes[0].requests.iter().map(|request| request.first).collect();
    assert_eq!(firsts, [59_999, 60_000, 60_200]);
}

#[test]
fn the_class_with_the_shortest_period_comes_first() {
    let plan = plan(&plc(PlcModel::M251, &[("%MW0", "INT", 1000), ("%MW1", "INT", 200)]));
    let classes: Vec<_> =
        plan.classes.iter().map(|class| (class.period, &class.requests[0].tags[..])).collect();
    let millis = Duration::from_millis;
    assert_eq!(classes, [(millis(200), &[1][..]), (millis(1000), &[0])]);
}

#[test]
fn bits_of_one_word_and_the_word_itself_take_one_register() {
    let tags = [("%MX20.3", "BOOL", 1), ("%MX21.0", "BOOL", 1), ("%MW10", "WORD", 1)];
    let plc = plc(PlcModel::M241, &tags);
    let plan = plan(&plc);
    let [request] = &plan.classes[0].requests[..] else { panic!("{plan:?}") };
    assert_eq!((request.first, request.count, request.used_count(&plc)), (10, 1, 1));
    assert_eq!(request.tags, [0, 1, 2]);
}

#[test]
fn a_value_larger_than_max_words_gets_its_own_request() {
    let mut plc = plc(PlcModel::M241, &[("%ML0", "LREAL", 1), ("%MW4", "INT", 1)]);
    plc.max_words = 2;
    let plan = plan(&plc);
    let spans: Vec<_> = plan.classes[0].requests.iter().map(|r| (r.first, r.count)).collect();
    assert_eq!(spans, [(0, 4), (4, 1)]);
}

#[test]
fn the_report_lists_requests_and_their_load() {
    let mut plc = plc(
        PlcModel::M241,
        &[
            ("%MW10", "REAL", 1000),
            ("%MW14", "INT", 1000),
            ("%MW400", "LREAL", 1000),
            ("%MX30.1", "BOOL", 200),
            ("%IX0.0", "BOOL", 200),
            ("%IX1.5", "BOOL", 200),
            ("%QX0.3", "BOOL", 200),
        ],
    );
    for number in 0..20 {
        Arc::make_mut(&mut plc.tags).push(tag(
            PlcModel::M241,
            &format!("%MW{}", 100 + number),
            "INT",
            60_000,
        ));
    }
    insta::assert_snapshot!(report(&plc, &plan(&plc)));
}

#[test]
fn the_report_of_a_generic_device_names_tables_and_warns_of_overload() {
    let tags = [("holding:3", "REAL", 10), ("holding:9", "INT", 10), ("input:7", "INT", 10)];
    let plc = plc(PlcModel::Generic, &tags);
    insta::assert_snapshot!(report(&plc, &plan(&plc)));
}

#[test]
fn plcs_that_share_a_connection_are_added_up_and_the_strictest_limit_applies() {
    let unit = |number: u8, host: &str, scan, max_share| {
        let mut plc =
            plc(PlcModel::Generic, &[("holding:3", "REAL", scan), ("holding:90", "INT", scan)]);
        plc.name = format!("meter{number}");
        plc.address.host = host.into();
        plc.unit_id = number;
        plc.pacing.max_share = max_share;
        plc
    };
    let text = |plcs: &[Plc]| {
        let plans: Vec<_> = plcs.iter().map(plan).collect();
        report_shared(plcs, &plans).join("\n")
    };
    let alone = [unit(1, "a", 1000, 50), unit(2, "b", 1000, 50)];
    assert_eq!(text(&alone), "", "each has a connection of its own");
    let shared: Vec<_> =
        (1..=30).map(|number| unit(number, "gateway.example.net", 1000, 50)).collect();
    let strict = [unit(40, "Gateway.example.net.", 1000, 20), unit(41, "b", 10, 1)];
    let fast: Vec<_> = (1..=9).map(|number| unit(number, "c", 20, 100)).collect();
    insta::assert_snapshot!(text(&[&shared[..], &strict[..], &fast[..]].concat()));
}

proptest! {
    #[test]
    fn every_tag_is_read_once_and_as_a_whole(plc in any_plc()) {
        let plan = plan(&plc);
        let mut served = vec![0; plc.tags.len()];
        for class in &plan.classes {
            for request in &class.requests {
                for &index in &request.tags {
                    let tag = &plc.tags[usize::from(index)];
                    served[usize::from(index)] += 1;
                    prop_assert_eq!(tag.scan, class.period);
                    prop_assert_eq!(tag.location.table, request.table);
                    prop_assert!(tag.location.first >= request.first);
                    prop_assert!(end_of(tag) <= request_end(request));
                }
            }
        }
        prop_assert!(served.iter().all(|&times| times == 1), "{served:?}");
    }

    #[test]
    fn no_request_is_too_long_or_leaves_its_memory_area(plc in any_plc()) {
        for request in plan(&plc).classes.iter().flat_map(|class| &class.requests) {
            let largest = request.tags.iter().map(|&tag| plc.tags[usize::from(tag)].location.count).max();
            let max = if request.table.holds_bits() { MAX_BITS } else { plc.max_words };
            prop_assert!(request.count <= max.max(largest.unwrap()));
            let last = u16::try_from(request_end(request) - 1).unwrap();
            let fits = |w: &crate::plc::MemoryArea| {
                w.registers.contains(&request.first) && w.registers.contains(&last)
            };
            prop_assert!(plc.model.memory_areas(request.table).iter().any(fits));
        }
    }

    #[test]
    fn no_request_reads_through_more_unused_registers_than_allowed(plc in any_plc()) {
        for request in plan(&plc).classes.iter().flat_map(|class| &class.requests) {
            let mut used = vec![false; request.count.into()];
            for &index in &request.tags {
                let location = plc.tags[usize::from(index)].location;
                let from = usize::from(location.first - request.first);
                used[from..from + usize::from(location.count)].fill(true);
            }
            let longest = used.split(|&used| used).map(<[bool]>::len).max().unwrap();
            prop_assert!(longest <= allowed_gap(&plc, request.table));
            prop_assert!(used[0] && used[used.len() - 1]);
            let counted = used.iter().filter(|&&used| used).count();
            prop_assert_eq!(usize::from(request.used_count(&plc)), counted);
        }
    }

    #[test]
    fn requests_are_sorted_and_no_two_adjacent_ones_could_be_joined(plc in any_plc()) {
        for class in &plan(&plc).classes {
            for pair in class.requests.windows(2) {
                let (left, right) = (&pair[0], &pair[1]);
                prop_assert!((left.table, left.first) <= (right.table, right.first));
                prop_assert!(!could_start_earlier(&plc, left, right), "{left:?} {right:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn the_tags_of_a_group_share_a_request_within_all_limits(
        plc in any_plc(),
        picks in proptest::collection::vec(0_usize..4, 120),
    ) {
        let plc = grouped(plc, &picks);
        let plan = plan(&plc);

        let requests: Vec<&ReadRequest> =
            plan.classes.iter().flat_map(|class| &class.requests).collect();
        for request in &requests {
            let largest = request.tags.iter().map(|&tag| plc.tags[usize::from(tag)].location.count).max();
            let max = if request.table.holds_bits() { MAX_BITS } else { plc.max_words };
            prop_assert!(request.count <= max.max(largest.unwrap()));
        }
        for index in (0_u16..).take(plc.tags.len()) {
            let at = requests.iter().filter(|request| request.tags.contains(&index));
            prop_assert_eq!(at.count(), 1);
        }
        for group in plc.tags.iter().filter_map(|tag| tag.group.as_ref()) {
            let holds = |request: &&&ReadRequest| {
                request.tags.iter().any(|&tag| plc.tags[usize::from(tag)].group.as_ref() == Some(group))
            };
            prop_assert_eq!(requests.iter().filter(holds).count(), 1, "{} is split", group);
        }
    }
}

/// Puts tags into three groups, as far as the configuration allows it.
fn grouped(mut plc: Plc, picks: &[usize]) -> Plc {
    let tags = plc.tags.clone();
    let mut groups: BTreeMap<usize, TagGroup<'_>> = BTreeMap::new();
    for ((tag, grouped), &pick) in tags.iter().zip(Arc::make_mut(&mut plc.tags)).zip(picks) {
        let fits = pick > 0
            && groups
                .entry(pick)
                .or_insert_with(|| TagGroup::new(tag))
                .join(tag, plc.model, plc.max_words.max(tag.location.count))
                .is_ok();
        grouped.group = fits.then(|| format!("g{pick}").into());
    }
    plc
}

/// Returns whether the first tag of `right` would fit into `left`.
fn could_start_earlier(plc: &Plc, left: &ReadRequest, right: &ReadRequest) -> bool {
    let begins_right = |&&index: &&u16| plc.tags[usize::from(index)].location.first == right.first;
    let shortest = right
        .tags
        .iter()
        .filter(begins_right)
        .map(|&index| end_of(&plc.tags[usize::from(index)]))
        .min();
    let joined = request_end(left).max(shortest.unwrap()) - u32::from(left.first);
    let max = if left.table.holds_bits() { MAX_BITS } else { plc.max_words };
    let gap = usize::try_from(u32::from(right.first).saturating_sub(request_end(left))).unwrap();
    left.table == right.table
        && joined <= max.into()
        && gap <= allowed_gap(plc, left.table)
        && plc.model.memory_areas(left.table).iter().any(|window| {
            window.registers.contains(&left.first) && window.registers.contains(&right.first)
        })
}

fn allowed_gap(plc: &Plc, table: Table) -> usize {
    usize::from(plc.max_gap) * if table.holds_bits() { 16 } else { 1 }
}

fn request_end(request: &ReadRequest) -> u32 {
    u32::from(request.first) + u32::from(request.count)
}

/// Returns a PLC with many tags at a few places, among them every border of the memory map.
fn any_plc() -> impl Strategy<Value = Plc> {
    let model = proptest::sample::select(&PlcModel::ALL[..]);
    (model, 1_u16..=125, 0_u16..64).prop_flat_map(|(model, max_words, max_gap)| {
        proptest::collection::vec(any_tag(model), 1..120).prop_map(move |tags| Plc {
            tags: Arc::new(tags),
            max_words,
            max_gap,
            ..plc(model, &[])
        })
    })
}

fn any_tag(model: PlcModel) -> impl Strategy<Value = Tag> {
    let near = proptest::sample::select(vec![0_u32, 300, 59_990, 60_190, 61_990, 62_190, 63_990]);
    let scan = proptest::sample::select(vec![200, 1000]);
    let table = proptest::sample::select(&Table::ALL[..]);
    let shape = proptest::sample::select(vec![1_u16, 1, 2, 4]);
    (table, near, 0_u32..250, shape, scan).prop_filter_map(
        "outside the memory map",
        move |(table, near, offset, words, scan)| {
            let count = if table.holds_bits() { 1 } else { words };
            let first = u16::try_from(near + offset).ok()?;
            let last = first.checked_add(count - 1)?;
            let whole = model.memory_areas(table).iter().any(|window| {
                window.registers.contains(&first) && window.registers.contains(&last)
            });
            let location = Location { table, first, count, byte: 0, bit: None };
            whole.then(|| Tag { location, ..tag(model, "", "INT", scan) })
        },
    )
}

fn plc(model: PlcModel, tags: &[(&str, &str, u64)]) -> Plc {
    Plc {
        name: "pump6".into(),
        model,
        machine: "pump6".into(),
        device: model.to_string(),
        address: HostPort { host: "192.168.1.10".into(), port: 502 },
        unit_id: 255,
        timeout: Duration::from_secs(1),
        max_words: 120,
        max_gap: model.default_max_gap(),
        pacing: Pacing::default(),
        accept_program: None,
        publish: publish(),
        tags: Arc::new(tags.iter().map(|&(at, iec, scan)| tag(model, at, iec, scan)).collect()),
    }
}

fn tag(model: PlcModel, at: &str, iec: &str, scan_millis: u64) -> Tag {
    let iec: DataType = iec.parse().unwrap();
    let anywhere =
        Location { table: Table::HoldingRegister, first: 0, count: 1, byte: 0, bit: None };
    Tag {
        name: format!(
            "{}_{}",
            iec.element.keyword().to_lowercase(),
            at.replace(['%', ':', '.'], "_")
        ),
        at: at.into(),
        location: if at.is_empty() { anywhere } else { model.locate(at, iec).unwrap() },
        data_type: iec,
        byte_order: model.default_byte_order(),
        unit: None,
        scaling: None,
        decimals: None,
        json_format: JsonFormat::Plain,
        deadband: None,
        validity: None,
        scan: Duration::from_millis(scan_millis),
        metric: false,
        group: None,
        write: None,
    }
}

fn publish() -> Publish {
    Publish {
        topic: "edge/site/data/pump6".into(),
        shape: PayloadShape::Flat,
        qos: Qos::AtLeastOnce,
        retain: false,
        datetime: DatetimeFormat::Rfc3339,
        heartbeat: Duration::from_secs(60),
        stamp: true,
        extra: serde_json::Map::new(),
        on: None,
    }
}
