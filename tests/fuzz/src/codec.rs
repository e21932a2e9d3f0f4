use gateway::codec::{decode, encode};
use provisioning::plc::{ByteOrder, DataType, PlcModel};

/// An address and a type as `at TYPE`, a line feed, and registers: what they hold as that type is
/// written back as the same value. The first byte chooses the order of bytes and words.
pub fn codec(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let order = ByteOrder::ALL.into_iter().cycle().nth(usize::from(*first)).expect("it is endless");
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let (Some(line), Some(registers)) = (parts.next(), parts.next()) else { return };
    let Ok(line) = std::str::from_utf8(line) else { return };
    let Some((at, data)) = line.split_once(' ') else { return };
    let Ok(data) = data.parse::<DataType>() else { return };
    let Ok(location) = PlcModel::M241.locate(at, data) else { return };
    let words = registers.chunks(2).map(|pair| match *pair {
        [high, low] => u16::from_be_bytes([high, low]),
        _ => 0,
    });
    // Registers that are not there are 0, so that a short input says much.
    let words: Vec<u16> =
        words.chain(std::iter::repeat(0)).take(usize::from(location.count)).collect();
    let Some(value) = decode(&location, data, order, &words) else { return };
    let mut written = vec![0; words.len()];
    // An element of an array may be no value, which cannot be written.
    if encode(&location, data, order, &value, &mut written).is_ok() {
        assert_eq!(decode(&location, data, order, &written), Some(value), "{line}");
    }
}
