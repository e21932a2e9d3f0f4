use proptest::prelude::*;

use super::*;

fn place(model: PlcModel, at: &str, iec: impl Into<DataType>) -> (Table, u16, u16, u8, Option<u8>) {
    let Location { table, first, count, byte, bit } = model.locate(at, iec).unwrap();
    (table, first, count, byte, bit)
}

#[test]
fn every_prefix_of_a_modicon_counts_in_units_of_its_own_size() {
    use Table::HoldingRegister as Holding;
    let at = |at, iec| place(PlcModel::M241, at, iec);
    assert_eq!(at("%MW10", IecType::Int), (Holding, 10, 1, 0, None));
    assert_eq!(at("%mw10", IecType::Real), (Holding, 10, 2, 0, None));
    assert_eq!(at("%MD5", IecType::Real), (Holding, 10, 2, 0, None));
    assert_eq!(at("%ML3", IecType::Lreal), (Holding, 12, 4, 0, None));
    assert_eq!(at("%MD5", IecType::Int), (Holding, 10, 1, 0, None));
    assert_eq!(at("%MB20", IecType::Real), (Holding, 10, 2, 0, None));
    assert_eq!(at("%MB21", IecType::Usint), (Holding, 10, 1, 1, None));
    assert_eq!(at("%MB21", IecType::Bool), (Holding, 10, 1, 1, None));
    assert_eq!(at("%MW10", IecType::Bool), (Holding, 10, 1, 0, None));
    assert_eq!(at("%MX20.3", IecType::Bool), (Holding, 10, 1, 0, Some(3)));
    assert_eq!(at("%MX21.3", IecType::Bool), (Holding, 10, 1, 1, Some(3)));
    assert_eq!(at("%MW10.12", IecType::Bool), (Holding, 10, 1, 1, Some(4)));
    assert_eq!(at("holding:10.12", IecType::Bool), (Holding, 10, 1, 1, Some(4)));
    assert_eq!(at("holding:10", IecType::Time), (Holding, 10, 2, 0, None));
}

#[test]
fn an_array_has_the_size_of_its_elements_and_bits_are_packed() {
    use Table::HoldingRegister as Holding;
    let at = |at, data: &str| place(PlcModel::M241, at, data.parse::<DataType>().unwrap());
    assert_eq!(at("%MW10", "ARRAY[1..5] OF REAL"), (Holding, 10, 10, 0, None));
    assert_eq!(at("%MB21", "ARRAY[0..2] OF BYTE"), (Holding, 10, 2, 1, None));
    assert_eq!(at("%MB21", "STRING(4)"), (Holding, 10, 3, 1, None));
    assert_eq!(at("%MB20", "ARRAY[0..2] OF BOOL"), (Holding, 10, 2, 0, None));
    assert_eq!(at("%MX20.3", "ARRAY[0..12] OF BOOL"), (Holding, 10, 1, 0, Some(3)));
    assert_eq!(at("%MX20.3", "ARRAY[0..13] OF BOOL"), (Holding, 10, 2, 0, Some(3)));
    assert_eq!(at("%MX21.7", "ARRAY[0..1] OF BOOL"), (Holding, 10, 2, 1, Some(7)));
    assert_eq!(at("%QX1.2", "ARRAY[0..9] OF BOOL"), (Table::Coil, 10, 10, 0, None));
}

#[test]
fn outputs_are_coils_and_inputs_are_discrete_inputs() {
    let at = |at| place(PlcModel::M251, at, IecType::Bool);
    assert_eq!(at("%QX1.2"), (Table::Coil, 10, 1, 0, None));
    assert_eq!(at("%Q1.2"), (Table::Coil, 10, 1, 0, None));
    assert_eq!(at("coil:10"), (Table::Coil, 10, 1, 0, None));
    assert_eq!(at("%IX0.7"), (Table::DiscreteInput, 7, 1, 0, None));
    assert_eq!(at("%I0.7"), (Table::DiscreteInput, 7, 1, 0, None));
    assert_eq!(at("discrete:7"), (Table::DiscreteInput, 7, 1, 0, None));
    assert_eq!(at("%QX8191.7"), (Table::Coil, 65_535, 1, 0, None));
}

#[test]
fn an_m262_has_the_addresses_of_an_m241() {
    for (at, iec) in
        [("%MD5", IecType::Real), ("%MX21.3", IecType::Bool), ("%QX1.2", IecType::Bool)]
    {
        assert_eq!(PlcModel::M262.locate(at, iec), PlcModel::M241.locate(at, iec));
    }
}

#[test]
fn every_prefix_of_an_m221_counts_in_words_and_its_bits_are_coils() {
    use Table::HoldingRegister as Holding;
    let at = |at, iec| place(PlcModel::M221, at, iec);
    assert_eq!(at("%MW10", IecType::Int), (Holding, 10, 1, 0, None));
    assert_eq!(at("%MD10", IecType::Dint), (Holding, 10, 2, 0, None));
    assert_eq!(at("%MF10", IecType::Real), (Holding, 10, 2, 0, None));
    assert_eq!(at("%MW10", IecType::Real), (Holding, 10, 2, 0, None));
    assert_eq!(at("%MW10:X12", IecType::Bool), (Holding, 10, 1, 1, Some(4)));
    assert_eq!(at("%M163", IecType::Bool), (Table::Coil, 163, 1, 0, None));
    assert_eq!(at("coil:163", IecType::Bool), (Table::Coil, 163, 1, 0, None));
    assert_eq!(at("discrete:163", IecType::Bool), (Table::DiscreteInput, 163, 1, 0, None));
}

#[test]
fn a_generic_device_has_four_tables() {
    let at = |at, iec| place(PlcModel::Generic, at, iec);
    assert_eq!(at("input:4", IecType::Udint), (Table::InputRegister, 4, 2, 0, None));
    assert_eq!(at("input:4.9", IecType::Bool), (Table::InputRegister, 4, 1, 1, Some(1)));
    assert_eq!(at("holding:65535", IecType::Int), (Table::HoldingRegister, 65_535, 1, 0, None));
    assert_eq!(at("coil:3", IecType::Bool), (Table::Coil, 3, 1, 0, None));
}

#[test]
fn every_memory_area_can_be_read_up_to_its_last_word() {
    for last in [59_999, 60_199, 61_999, 62_199, 63_999] {
        assert!(PlcModel::M241.locate(&format!("%MW{last}"), IecType::Int).is_ok());
        assert!(PlcModel::M241.locate(&format!("%MW{last}"), IecType::Real).is_err());
    }
    assert!(PlcModel::M241.locate("%MW64000", IecType::Int).is_err());
}

fn any_type() -> impl Strategy<Value = IecType> {
    prop::sample::select(IecType::ALL.to_vec())
}

fn any_model() -> impl Strategy<Value = PlcModel> {
    prop::sample::select(PlcModel::ALL.to_vec())
}

proptest! {
    #[test]
    fn arbitrary_text_does_not_panic(text in ".*", model in any_model(), iec in any_type()) {
        let _ = model.locate(&text, iec);
    }

    #[test]
    fn an_accepted_address_is_inside_one_memory_area(
        text in "(%[MIQ][XBWDLF]?|holding:|input:|coil:|discrete:)[0-9]{1,6}(\\.[0-9]{1,2})?",
        model in any_model(),
        iec in any_type(),
    ) {
        if let Ok(place) = model.locate(&text, iec) {
            let last = place.first + (place.count - 1);
            let inside = |window: &&super::super::MemoryArea| {
                window.registers.contains(&place.first) && window.registers.contains(&last)
            };
            prop_assert!(model.memory_areas(place.table).iter().any(|w| inside(&w)));
            prop_assert!(place.byte <= 1 && place.bit.is_none_or(|bit| bit <= 7));
            prop_assert!(place.bit.is_none() || iec == IecType::Bool);
            let bytes = u16::from(place.byte) + iec.size();
            prop_assert!(place.table.holds_bits() || bytes <= place.count * 2);
        }
    }

    #[test]
    fn an_address_suggested_by_an_error_is_valid(
        text in "(%[MIQ][XBWDLF]?|holding:|coil:|discrete:)[0-9]{1,5}(\\.[0-9]{1,2})?",
        model in any_model(),
        iec in any_type(),
    ) {
        if let Err(LocationError { help: Some(help), .. }) = model.locate(&text, iec)
            && let Some((_, quoted)) = help.split_once("write `")
            && let Some((instead, _)) = quoted.split_once('`')
        {
            let works = model.locate(instead, iec).is_ok()
                || model.locate(instead, IecType::Bool).is_ok();
            prop_assert!(works, "{text} {iec}: {help}");
        }
    }
}
