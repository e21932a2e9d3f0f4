use std::sync::Arc;

use proptest::prelude::*;
use provisioning::config::{
    DatetimeFormat, EventTrigger, HostPort, JsonFormat, Pacing, Publish as PublishConfig, Qos,
};
use provisioning::plan::{self, ReadRequest};
use provisioning::plc::{ByteOrder, DataType, PlcModel, Table};

use super::*;
use crate::model::Registers;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_first_cycle_publishes_every_tag_in_the_order_of_the_configuration() {
    let mut world = SamplerHarness::new(
        PayloadShape::Flat,
        &[("%MW500", "INT"), ("%MW0", "INT"), ("%IX0.3", "BOOL")],
    );
    let record = world.cycle(|request| good(request, 7)).unwrap();
    let tags: Vec<_> =
        record.samples.iter().map(|sample| (sample.tag, sample.value.clone())).collect();
    let int = Some(Value::Int(7));
    assert_eq!(tags, [(0, int.clone()), (1, int), (2, Some(Value::Bool(true)))]);
}

#[test]
fn the_latest_values_are_those_of_the_last_cycle_whether_published_or_not() {
    for shape in [PayloadShape::Flat, PayloadShape::Samples] {
        let mut world = SamplerHarness::new(shape, &[("%MW0", "INT"), ("%MW500", "INT")]);
        world.tag(0).deadband = Some(5.0);
        world.restart();
        let latest = |world: &SamplerHarness, now| {
            let all = world.sampler.latest(0, 0, now).unwrap();
            all.map(|one| (one.value.cloned(), one.quality)).collect::<Vec<_>>()
        };
        let int = |value, quality| (Some(Value::Int(value)), quality);
        assert_eq!(
            latest(&world, world.now),
            [(None, Quality::Unreachable), (None, Quality::Unreachable)]
        );
        // 9 and 10 are within the deadband of 7 and not published, 20 is.
        for word in [7, 9, 10, 20] {
            world.cycle(|request| good(request, if request.first == 0 { word } else { 1 }));
            let expected = [int(word.into(), Quality::Good), int(1, Quality::Good)];
            assert_eq!(latest(&world, world.now), expected, "{shape:?}");
        }
        world.cycle(|_| Err(ReadFailure::Refused(2)));
        assert_eq!(latest(&world, world.now), [(None, Quality::Refused), (None, Quality::Refused)]);
        world.cycle(|request| good(request, 1));
        let later = world.now + 63 * SECOND;
        assert_eq!(latest(&world, later), [int(1, Quality::Stale), int(1, Quality::Stale)]);
        assert_eq!(world.sampler.latest(0, 1, later).unwrap().count(), 1);
        assert!(world.sampler.latest(1, 0, later).is_none());
    }
}

#[test]
fn an_unchanged_value_is_published_again_after_the_heartbeat_only() {
    for shape in [PayloadShape::Flat, PayloadShape::Nested, PayloadShape::Samples] {
        let mut world = SamplerHarness::new(shape, &[("%MW0", "INT")]);
        let published: Vec<_> =
            (0..=130).filter(|_| world.cycle(|request| good(request, 7)).is_some()).collect();
        assert_eq!(published, [0, 60, 120], "{shape:?}");
    }
}

#[test]
fn a_cycle_that_comes_a_little_early_does_not_skip_a_heartbeat() {
    let mut world = SamplerHarness::new(PayloadShape::Flat, &[("%MW0", "INT")]);
    world.cycle(|request| good(request, 7));
    world.now += SECOND * 59 - Duration::from_millis(3);
    assert!(world.cycle(|request| good(request, 7)).is_some());
}

#[test]
fn a_changed_tag_is_published_with_its_class_when_flat_and_alone_in_samples() {
    let changed_tags = |shape| {
        let mut world = SamplerHarness::new(shape, &[("%MW0", "INT"), ("%MW500", "INT")]);
        world.cycle(|request| good(request, 7));
        let change =
            |request: &ReadRequest| good(request, if request.first == 500 { 8 } else { 7 });
        let record = world.cycle(change).unwrap();
        record.samples.iter().map(|sample| sample.tag).collect::<Vec<_>>()
    };
    assert_eq!(changed_tags(PayloadShape::Flat), [0, 1]);
    assert_eq!(changed_tags(PayloadShape::Nested), [0, 1]);
    assert_eq!(changed_tags(PayloadShape::Samples), [1]);
}

#[test]
fn a_change_within_the_deadband_is_not_published() {
    let mut world = SamplerHarness::new(PayloadShape::Flat, &[("%MW0", "INT")]);
    world.tag(0).deadband = Some(2.0);
    world.restart();
    let published: Vec<_> = [10, 12, 11, 13, 14, 15, 16, 13]
        .into_iter()
        .filter(|&word| world.cycle(|request| good(request, word)).is_some())
        .collect();
    assert_eq!(published, [10, 13, 16, 13]);
}

#[test]
fn a_bad_quality_is_published_once_and_at_once() {
    let mut world = SamplerHarness::new(PayloadShape::Samples, &[("%MW0", "INT")]);
    let outcomes = [
        Ok(Registers::Words(vec![7])),
        Err(ReadFailure::Unreachable),
        Err(ReadFailure::Unreachable),
        Err(ReadFailure::Refused(2)),
        Err(ReadFailure::Refused(3)),
        Ok(Registers::Words(vec![7])),
        Ok(Registers::Words(vec![7])),
    ];
    let reported: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| {
            let record = world.cycle(|_| outcome.clone())?;
            Some((record.samples[0].quality, record.samples[0].value.clone()))
        })
        .collect();
    let good = Some((Quality::Good, Some(Value::Int(7))));
    let unreachable = Some((Quality::Unreachable, None));
    let refused = Some((Quality::Refused, None));
    assert_eq!(reported, [good.clone(), unreachable, None, refused, None, good, None]);
}

#[test]
fn not_a_number_is_invalid_and_has_no_value() {
    let mut world = SamplerHarness::new(PayloadShape::Flat, &[("%MW0", "REAL")]);
    let record = world.cycle(|_| Ok(Registers::Words(vec![0, 0x7FC0]))).unwrap();
    let sample = &record.samples[0];
    assert_eq!((sample.quality, &sample.value), (Quality::Invalid, &None));
}

#[test]
fn a_failed_request_does_not_affect_the_tags_of_another() {
    let mut world = SamplerHarness::new(PayloadShape::Flat, &[("%MW0", "INT"), ("%MW500", "INT")]);
    let record = world
        .cycle(|request| match request.first {
            0 => Err(ReadFailure::Refused(2)),
            _ => good(request, 9),
        })
        .unwrap();
    let qualities: Vec<_> = record.samples.iter().map(|sample| sample.quality).collect();
    assert_eq!(qualities, [Quality::Refused, Quality::Good]);
}

#[test]
fn tags_are_decoded_from_the_requests_that_remain_and_the_others_are_refused() {
    let mut world = SamplerHarness::new(
        PayloadShape::Flat,
        &[("%MW0", "INT"), ("%MW1", "INT"), ("%MW2", "INT")],
    );
    let values = |record: Record| -> Vec<_> {
        record.samples.iter().map(|sample| (sample.value.clone(), sample.quality)).collect()
    };
    let address = |request: &ReadRequest| {
        let words = request.first..request.first + request.count;
        Ok(Registers::Words(words.collect()))
    };
    let good = |value| (Some(Value::Int(value)), Quality::Good);
    let refused = (None, Quality::Refused);
    assert_eq!(values(world.cycle(address).unwrap()), [good(0), good(1), good(2)]);
    world.ask(&[&[0], &[2]]);
    assert_eq!(values(world.cycle(address).unwrap()), [good(0), refused.clone(), good(2)]);
    world.ask(&[]);
    let record = world.cycle(address).unwrap();
    assert_eq!(record.at, UnixTime::from_micros(5));
    assert_eq!(values(record), [refused.clone(), refused.clone(), refused]);
    world.ask(&[&[2], &[0, 1]]);
    assert_eq!(values(world.cycle(address).unwrap()), [good(0), good(1), good(2)]);
}

#[test]
fn a_tag_whose_request_is_being_split_keeps_its_last_sample() {
    for shape in [PayloadShape::Flat, PayloadShape::Samples] {
        let mut world = SamplerHarness::new(shape, &[("%MW0", "INT"), ("%MW500", "INT")]);
        let pending = |request: &ReadRequest| match request.first {
            0 => good(request, 8),
            _ => Err(ReadFailure::Pending),
        };
        assert_eq!(world.cycle(pending), None, "nothing is known about the second tag");
        world.cycle(|request| good(request, 7)).unwrap();
        let record = world.cycle(pending).unwrap();
        let values: Vec<_> =
            record.samples.iter().map(|s| (s.tag, s.value.clone(), s.quality)).collect();
        let first = (0, Some(Value::Int(8)), Quality::Good);
        match shape {
            PayloadShape::Samples => assert_eq!(values, [first]),
            PayloadShape::Flat | PayloadShape::Nested => {
                assert_eq!(values, [first, (1, Some(Value::Int(7)), Quality::Good)]);
            }
        }
    }
}

#[test]
fn a_sample_has_the_time_of_its_request_and_a_record_the_middle_of_all() {
    let mut world = SamplerHarness::new(
        PayloadShape::Flat,
        &[("%MW0", "INT"), ("%MW500", "INT"), ("%MW900", "INT")],
    );
    let times = [30, 10, 20].map(UnixTime::from_micros);
    let reads = times.map(|at| ReadResult { at, outcome: Ok(Registers::Words(vec![1])) });
    let cycle = cycle(&world.plc, &world.requests, reads.to_vec());
    let record = world.sampler.on_cycle(&cycle, world.now).unwrap();
    assert_eq!(record.samples.iter().map(|sample| sample.at).collect::<Vec<_>>(), times);
    assert_eq!((record.at, record.plc), (UnixTime::from_micros(20), 3));
}

#[test]
fn each_tag_is_decoded_at_its_offset_in_the_request() {
    let tags = [("%MW10", "REAL"), ("%MW13", "INT"), ("%MX28.1", "BOOL"), ("%MB29", "USINT")];
    let mut world = SamplerHarness::new(PayloadShape::Flat, &tags);
    let words = vec![0xE979, 0x42F6, 0, 0xFFFE, 0x2A02];
    let record = world.cycle(|_| Ok(Registers::Words(words.clone()))).unwrap();
    let values: Vec<_> =
        record.samples.iter().map(|sample| sample.value.clone().unwrap()).collect();
    assert_eq!(values, [Value::Real(123.456), Value::Int(-2), Value::Bool(true), Value::Uint(42)]);
}

#[test]
fn the_deadband_applies_to_the_scaled_value() {
    let mut world = SamplerHarness::new(PayloadShape::Flat, &[("%MW0", "INT")]);
    world.tag(0).scaling = Some(provisioning::config::Scaling { scale: 0.1, offset: 0.0 });
    world.tag(0).decimals = Some(1);
    world.tag(0).deadband = Some(0.45);
    world.restart();
    let published: Vec<_> = [100, 104, 105]
        .into_iter()
        .filter_map(|word| world.cycle(|request| good(request, word))?.samples[0].value.clone())
        .collect();
    assert_eq!(published, [Value::Lreal(10.0), Value::Lreal(10.5)]);
}

#[test]
fn a_deadband_is_exceeded_by_a_larger_distance_of_two_numbers_of_any_kind() {
    let list = |items: &[Option<i64>]| {
        Value::List(Arc::new(items.iter().map(|item| item.map(Value::Int)).collect()))
    };
    for (old, new, exceeds) in [
        (Value::Int(-5), Value::Int(-2), true),
        (Value::Int(-5), Value::Int(-3), false),
        (Value::Uint(9), Value::Uint(6), true),
        (Value::Uint(9), Value::Uint(7), false),
        (Value::Real(8.0), Value::Real(5.5), true),
        (Value::Real(8.0), Value::Real(6.5), false),
        (Value::Lreal(8.0), Value::Lreal(5.5), true),
        (Value::Lreal(8.0), Value::Lreal(6.5), false),
        // No distance is known: any difference counts, and equal values have none.
        (Value::Bool(false), Value::Bool(true), true),
        (Value::Bool(true), Value::Bool(true), false),
        (Value::Int(1), Value::Uint(1), true),
        (list(&[Some(1), Some(5)]), list(&[Some(1), Some(8)]), true),
        (list(&[Some(1), Some(5)]), list(&[Some(1), Some(7)]), false),
        (list(&[Some(1), None]), list(&[Some(1), None]), false),
        (list(&[Some(1), None]), list(&[Some(1), Some(1)]), true),
        (list(&[Some(1)]), list(&[Some(1), Some(1)]), true),
    ] {
        assert_eq!(exceeds_deadband(2.0, &old, &new), exceeds, "{old:?} {new:?}");
    }
}

#[test]
fn an_array_is_published_when_one_element_exceeds_the_deadband() {
    let mut world = SamplerHarness::new(PayloadShape::Samples, &[("%MW0", "ARRAY[0..2] OF INT")]);
    world.tag(0).deadband = Some(2.0);
    world.restart();
    let published: Vec<_> = [[1, 1, 1], [1, 3, 1], [3, 3, 2], [1, 1, 4]]
        .into_iter()
        .filter(|words| world.cycle(|_| Ok(Registers::Words(words.to_vec()))).is_some())
        .collect();
    assert_eq!(published, [[1, 1, 1], [1, 1, 4]]);
}

#[test]
fn a_bad_element_makes_the_array_invalid_and_keeps_the_others() {
    let mut world = SamplerHarness::new(PayloadShape::Flat, &[("%MW0", "ARRAY[0..1] OF REAL")]);
    let words = vec![0x0000, 0x3F80, 0x0000, 0x7FC0];
    let record = world.cycle(|_| Ok(Registers::Words(words.clone()))).unwrap();
    let items = Value::List(Arc::new(vec![Some(Value::Real(1.0)), None]));
    assert_eq!(record.samples[0].quality, Quality::Invalid);
    assert_eq!(record.samples[0].value, Some(items));
}

#[test]
fn adjacent_coils_are_an_array() {
    let mut world = SamplerHarness::new(PayloadShape::Flat, &[("%QX0.3", "ARRAY[0..1] OF BOOL")]);
    let record = world.cycle(|_| Ok(Registers::Bits(vec![true, false]))).unwrap();
    let items = Value::List(Arc::new([true, false].map(|bit| Some(Value::Bool(bit))).to_vec()));
    assert_eq!(record.samples[0].value, Some(items));
}

#[test]
fn a_change_by_one_of_a_large_integer_is_published() {
    let mut world = SamplerHarness::new(PayloadShape::Flat, &[("%ML0", "ULINT")]);
    let nearly =
        |low: u16| move |_: &ReadRequest| Ok(Registers::Words(vec![low, 0xFFFF, 0xFFFF, 0xFFFF]));
    assert!(world.cycle(nearly(0xFFFE)).is_some());
    assert!(world.cycle(nearly(0xFFFF)).is_some());
}

proptest! {
    /// The last published sample of each tag never differs by more than the deadband from the PLC,
    /// always has the right quality, and is never older than a heartbeat and a period.
    #[test]
    fn the_last_published_samples_are_right_within_the_deadband(
        shape in proptest::sample::select(vec![
            PayloadShape::Flat,
            PayloadShape::Nested,
            PayloadShape::Samples,
        ]),
        deadband in proptest::option::of(0.0..20.0_f64),
        heartbeat in 0_u64..20_000,
        cycles in proptest::collection::vec((truth(), truth(), 500_u64..2_000), 1..60),
    ) {
        let mut world = SamplerHarness::new(shape, &[("%MW0", "INT"), ("%MW500", "INT")]);
        world.tag(0).deadband = deadband;
        world.tag(1).deadband = deadband;
        world.plc.publish.heartbeat = Duration::from_millis(heartbeat);
        world.restart();
        let mut held: [Option<(Sample, Instant)>; 2] = [None, None];
        for (first, second, pause) in cycles {
            let truths = [first, second];
            let now = world.now;
            let record = world.cycle(|request| truths[usize::from(request.first == 500)].clone());
            for sample in record.into_iter().flat_map(|record| record.samples) {
                let tag = usize::from(sample.tag);
                held[tag] = Some((sample, now));
            }
            for (truth, held) in truths.iter().zip(&held) {
                let (sample, since) = held.as_ref().expect("the first cycle publishes every tag");
                prop_assert!(now - *since < Duration::from_millis(heartbeat).max(SECOND / 2));
                match truth {
                    Ok(Registers::Words(words)) => {
                        prop_assert_eq!(sample.quality, Quality::Good);
                        let Some(Value::Int(value)) = sample.value else { panic!("{sample:?}") };
                        let truth = f64::from(words[0].cast_signed());
                        prop_assert!((truth - value as f64).abs() <= deadband.unwrap_or(0.0));
                    }
                    Ok(Registers::Bits(_))
                    | Err(ReadFailure::Unreachable | ReadFailure::Busy) => {
                        prop_assert_eq!(sample.quality, Quality::Unreachable);
                    }
                    Err(ReadFailure::Pending) => unreachable!("not among the truths"),
                    Err(ReadFailure::Refused(_)) => {
                        prop_assert_eq!(sample.quality, Quality::Refused);
                    }
                }
            }
            world.now = now + Duration::from_millis(pause);
        }
    }
}

#[test]
fn with_an_event_nothing_is_published_until_all_tags_are_taken() {
    for shape in [PayloadShape::Flat, PayloadShape::Samples] {
        let mut world = SamplerHarness::new(shape, &[("%MW500", "INT"), ("%MW0", "INT")]);
        let event = EventTrigger { tag: 1, acknowledge: None };
        world.plc.publish.on = Some(event);
        world.restart();
        assert!(
            world.sampler.take_all(UnixTime::default(), world.now).is_none(),
            "nothing is read"
        );
        for word in 1..200 {
            assert_eq!(world.cycle(|request| good(request, word)), None);
        }
        assert_eq!(world.sampler.present(1), Some(&Value::Int(199)));
        for _ in 0..2 {
            let record = world.sampler.take_all(UnixTime::default(), world.now).unwrap();
            let values = record.samples.into_iter().map(|sample| (sample.tag, sample.value));
            let int = Some(Value::Int(199));
            assert_eq!(values.collect::<Vec<_>>(), [(0, int.clone()), (1, int)]);
        }
    }
}

fn truth() -> impl Strategy<Value = Result<Registers, ReadFailure>> {
    prop_oneof![
        6 => (-50..50_i16).prop_map(|word| Ok(Registers::Words(vec![word.cast_unsigned()]))),
        1 => Just(Err(ReadFailure::Unreachable)),
        1 => Just(Err(ReadFailure::Busy)),
        1 => (1..12_u8).prop_map(|code| Err(ReadFailure::Refused(code))),
    ]
}

/// A PLC that is read once a second, and its sampler.
struct SamplerHarness {
    plc: Plc,
    plan: Plan,
    /// The requests of each cycle.
    requests: Arc<[ReadRequest]>,
    sampler: Sampler,
    now: Instant,
}

impl SamplerHarness {
    fn new(shape: PayloadShape, tags: &[(&str, &str)]) -> Self {
        let plc = plc(shape, tags);
        let plan = plan::plan(&plc);
        let requests = plan.classes[0].requests.clone().into();
        Self { sampler: Sampler::new(3, &plc, &plan), plc, plan, requests, now: Instant::now() }
    }

    fn tag(&mut self, index: usize) -> &mut Tag {
        &mut Arc::make_mut(&mut self.plc.tags)[index]
    }

    /// Creates the sampler again, after a change of the settings.
    fn restart(&mut self) {
        self.sampler = Sampler::new(3, &self.plc, &self.plan);
    }

    fn cycle(
        &mut self,
        answer: impl Fn(&ReadRequest) -> Result<Registers, ReadFailure>,
    ) -> Option<Record> {
        let at = UnixTime::from_micros(0);
        let reads = self.requests.iter().map(|request| ReadResult { at, outcome: answer(request) });
        let cycle = cycle(&self.plc, &self.requests, reads.collect());
        let record = self.sampler.on_cycle(&cycle, self.now);
        self.now += SECOND;
        record
    }

    /// Sends only requests for these tags from now on.
    fn ask(&mut self, tags: &[&[u16]]) {
        let request = |tags: &&[u16]| {
            let first = self.plc.tags[usize::from(tags[0])].location.first;
            ReadRequest { table: Table::HoldingRegister, first, count: 100, tags: tags.to_vec() }
        };
        self.requests = tags.iter().map(request).collect();
    }
}

fn cycle(plc: &Plc, requests: &Arc<[ReadRequest]>, results: Vec<ReadResult>) -> Cycle {
    let requests = Arc::clone(requests);
    let at = UnixTime::from_micros(5);
    let location = |tag: u16| {
        let result = requests.iter().position(|request| request.tags.contains(&tag));
        let result = result.ok_or(ReadFailure::Refused(2))?;
        let offset = plc.tags[usize::from(tag)].location.first - requests[result].first;
        Ok(TagLocation { result: result.try_into().unwrap(), offset })
    };
    Cycle {
        plc: 3,
        class: 0,
        at,
        booted_at: UnixTime::default(),
        took: Duration::ZERO,
        is_stopped: false,
        locations: (0_u16..).take(plc.tags.len()).map(location).collect(),
        requests,
        results,
    }
}

/// Returns an answer in which each register holds this word, and each bit whether it is not 0.
#[expect(clippy::unnecessary_wraps, reason = "an outcome is what the tests need")]
fn good(request: &ReadRequest, word: u16) -> Result<Registers, ReadFailure> {
    Ok(if request.table.holds_bits() {
        Registers::Bits(vec![word != 0; request.count.into()])
    } else {
        Registers::Words(vec![word; request.count.into()])
    })
}

fn plc(shape: PayloadShape, tags: &[(&str, &str)]) -> Plc {
    let tag = |&(at, iec): &(&str, &str)| {
        let iec: DataType = iec.parse().unwrap();
        Tag {
            name: at.to_owned(),
            at: at.into(),
            location: PlcModel::M241.locate(at, iec).unwrap(),
            data_type: iec,
            byte_order: ByteOrder::Cdab,
            unit: None,
            scaling: None,
            decimals: None,
            json_format: JsonFormat::Plain,
            deadband: None,
            validity: None,
            scan: SECOND,
            metric: false,
            group: None,
            write: None,
        }
    };
    Plc {
        name: "pump6".into(),
        model: PlcModel::M241,
        machine: "pump6".into(),
        device: "M241".into(),
        address: HostPort { host: "192.168.1.10".into(), port: 502 },
        unit_id: 255,
        timeout: SECOND,
        max_words: 120,
        max_gap: 32,
        pacing: Pacing::default(),
        accept_program: None,
        publish: PublishConfig {
            topic: "edge/site/data/pump6".into(),
            shape,
            qos: Qos::AtLeastOnce,
            retain: false,
            datetime: DatetimeFormat::Rfc3339,
            heartbeat: SECOND * 60,
            stamp: true,
            extra: serde_json::Map::new(),
            on: None,
        },
        tags: Arc::new(tags.iter().map(tag).collect()),
    }
}
