//! Answers request PDUs as the Modbus server of an M241 or M251 does.
//!
//! Checks are in the order of Modbus Application Protocol V1.1b3, chapter 6: function code,
//! quantity, address. An answer is never longer than [`super::frame::MAX_PDU_LEN`].

use super::image::{BitMemory, PlcMemory, WordMemory};
use super::system::Hardware;

const MEI_TYPE: u8 = 14;
/// Basic objects, stream and individual access.
const CONFORMITY_LEVEL: u8 = 0x81;
const INDIVIDUAL_ACCESS: u8 = 4;

/// Exception codes (Modbus Application Protocol V1.1b3, 7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Exception {
    IllegalFunction = 1,
    IllegalAddress = 2,
    IllegalValue = 3,
    /// Gateway target device failed to respond: no device has this unit id.
    NoSuchUnit = 11,
}

/// Appends the answer of the embedded server, unit id 255.
pub(super) fn answer_embedded(
    image: &mut PlcMemory,
    hardware: &Hardware,
    request: &[u8],
    out: &mut Vec<u8>,
) {
    answer(request, out, |function, data, out| match function {
        1 => read_bits(&image.outputs, data, out),
        2 => read_bits(&image.inputs, data, out),
        8 => answer_diagnostics(data, out),
        15 => write_bits(&mut image.outputs, data, out),
        43 => identify(hardware, data, out),
        _ => answer_registers(&mut image.words, function, data, out),
    });
}

/// Appends the answer of a "Modbus TCP Slave Device", unit id 1.
pub(super) fn answer_slave_device(words: &mut WordMemory, request: &[u8], out: &mut Vec<u8>) {
    answer(request, out, |function, data, out| answer_registers(words, function, data, out));
}

/// Appends the answer for a unit id that no device has.
pub(super) fn answer_unknown_unit(request: &[u8], out: &mut Vec<u8>) {
    answer(request, out, |_, _, _| Err(Exception::NoSuchUnit));
}

/// Appends function code and data, or the exception if `act` fails.
fn answer(
    request: &[u8],
    out: &mut Vec<u8>,
    act: impl FnOnce(u8, &[u8], &mut Vec<u8>) -> Result<(), Exception>,
) {
    let (&function, data) = request.split_first().unwrap_or((&0, &[]));
    let start = out.len();
    out.push(function);
    if let Err(exception) = act(function, data, out) {
        out.truncate(start);
        out.extend([function | 0x80, exception as u8]);
    }
}

fn answer_registers(
    words: &mut WordMemory,
    function: u8,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Exception> {
    match function {
        3 => read_registers(words, data, out),
        6 => write_register(words, data, out),
        16 => write_registers(words, data, out),
        23 => read_write_registers(words, data, out),
        _ => Err(Exception::IllegalFunction),
    }
}

fn read_bits(bits: &BitMemory, data: &[u8], out: &mut Vec<u8>) -> Result<(), Exception> {
    let [first, count] = fields(data)?;
    check_count(count, 2000)?;
    if !bits.contains(first, count) {
        return Err(Exception::IllegalAddress);
    }
    out.push(bytes_for_bits(count));
    for byte in (0..count).step_by(8) {
        let bits = (byte..count.min(byte + 8)).map(|bit| bits.bit(first + bit));
        out.push(bits.zip(0..).fold(0, |packed, (on, shift)| packed | u8::from(on) << shift));
    }
    Ok(())
}

fn write_bits(bits: &mut BitMemory, data: &[u8], out: &mut Vec<u8>) -> Result<(), Exception> {
    let (head, values) = counted::<4>(data)?;
    let [first, count] = fields(head)?;
    check_count(count, 1968)?;
    if values.len() != usize::from(bytes_for_bits(count)) {
        return Err(Exception::IllegalValue);
    }
    if !bits.contains(first, count) {
        return Err(Exception::IllegalAddress);
    }
    let values = values.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    for (address, on) in (first..=first + (count - 1)).zip(values) {
        bits.set(address, on);
    }
    out.extend(head);
    Ok(())
}

fn read_registers(words: &WordMemory, data: &[u8], out: &mut Vec<u8>) -> Result<(), Exception> {
    let [first, count] = fields(data)?;
    check_count(count, 125)?;
    push_registers(words.read(first, count).ok_or(Exception::IllegalAddress)?, out);
    Ok(())
}

fn write_register(words: &mut WordMemory, data: &[u8], out: &mut Vec<u8>) -> Result<(), Exception> {
    let [address, value] = fields(data)?;
    let target = words.write(address, 1).ok_or(Exception::IllegalAddress)?;
    target.copy_from_slice(&value.to_le_bytes());
    out.extend(data);
    Ok(())
}

fn write_registers(
    words: &mut WordMemory,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Exception> {
    let (head, values) = counted::<4>(data)?;
    let [first, count] = fields(head)?;
    check_count(count, 123)?;
    check_len(values, count)?;
    set_registers(words.write(first, count).ok_or(Exception::IllegalAddress)?, values);
    out.extend(head);
    Ok(())
}

/// Writes, then reads (Modbus Application Protocol V1.1b3, 6.17); does neither if one fails.
fn read_write_registers(
    words: &mut WordMemory,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Exception> {
    let (head, values) = counted::<8>(data)?;
    let [read, count, write, write_count] = fields(head)?;
    check_count(count, 125)?;
    check_count(write_count, 121)?;
    check_len(values, write_count)?;
    words.read(read, count).ok_or(Exception::IllegalAddress)?;
    set_registers(words.write(write, write_count).ok_or(Exception::IllegalAddress)?, values);
    push_registers(words.read(read, count).ok_or(Exception::IllegalAddress)?, out);
    Ok(())
}

/// Answers sub-function 0 with the query. The others, port statistics for tools, are not
/// simulated.
fn answer_diagnostics(data: &[u8], out: &mut Vec<u8>) -> Result<(), Exception> {
    match data {
        [0, 0, query @ ..] if !query.is_empty() && query.len().is_multiple_of(2) => {
            out.extend(data);
            Ok(())
        }
        [0, 0, ..] | [] | [_] => Err(Exception::IllegalValue),
        _ => Err(Exception::IllegalFunction),
    }
}

/// Reads the device identification: function code 43, MEI type 14 (Modbus Application Protocol
/// V1.1b3, 6.21).
///
/// A request for more than the basic objects gets the basic ones, and an unknown first object
/// starts from the beginning, as the specification demands.
fn identify(hardware: &Hardware, request: &[u8], out: &mut Vec<u8>) -> Result<(), Exception> {
    let &[MEI_TYPE, access, first] = request else {
        let known = request.first().is_none_or(|mei| *mei == MEI_TYPE);
        return Err(if known { Exception::IllegalValue } else { Exception::IllegalFunction });
    };
    let revision = hardware.revision();
    let objects = [(0, hardware.vendor), (1, hardware.reference), (2, revision.as_str())];
    let requested = match access {
        1..=3 if objects.iter().any(|(id, _)| *id == first) => first..=2,
        1..=3 => 0..=2,
        INDIVIDUAL_ACCESS => first..=first,
        _ => return Err(Exception::IllegalValue),
    };
    let requested = objects.iter().filter(|(id, _)| requested.contains(id));
    let count = match requested.clone().count() {
        0 => return Err(Exception::IllegalAddress),
        some => u8::try_from(some).unwrap_or(u8::MAX),
    };
    out.extend([MEI_TYPE, access, CONFORMITY_LEVEL, 0, 0, count]);
    for (id, text) in requested {
        out.extend([*id, u8::try_from(text.len()).unwrap_or(u8::MAX)]);
        out.extend(text.as_bytes());
    }
    Ok(())
}

/// Returns the 16-bit fields of `data`, which has exactly `N` of them.
fn fields<const N: usize>(data: &[u8]) -> Result<[u16; N], Exception> {
    let (fields, rest) = data.as_chunks();
    let fields: &[[u8; 2]; N] = fields.try_into().map_err(|_| Exception::IllegalValue)?;
    rest.is_empty().then(|| fields.map(u16::from_be_bytes)).ok_or(Exception::IllegalValue)
}

/// Splits at the byte count that follows `HEAD` bytes of fields. The count must match the rest.
fn counted<const HEAD: usize>(data: &[u8]) -> Result<(&[u8], &[u8]), Exception> {
    match data.split_at_checked(HEAD) {
        Some((head, [count, values @ ..])) if values.len() == usize::from(*count) => {
            Ok((head, values))
        }
        _ => Err(Exception::IllegalValue),
    }
}

fn check_count(count: u16, most: u16) -> Result<(), Exception> {
    (1..=most).contains(&count).then_some(()).ok_or(Exception::IllegalValue)
}

fn check_len(values: &[u8], registers: u16) -> Result<(), Exception> {
    (values.len() == 2 * usize::from(registers)).then_some(()).ok_or(Exception::IllegalValue)
}

/// Returns the number of bytes for `bits` bits: at most 250, as quantities are checked before.
fn bytes_for_bits(bits: u16) -> u8 {
    u8::try_from(bits.div_ceil(8)).unwrap_or(u8::MAX)
}

/// Appends byte count and registers: low byte first in memory, high byte first on the wire.
fn push_registers(memory: &[u8], out: &mut Vec<u8>) {
    out.push(u8::try_from(memory.len()).unwrap_or(u8::MAX));
    for [low, high] in memory.as_chunks().0 {
        out.extend([*high, *low]);
    }
}

fn set_registers(memory: &mut [u8], wire: &[u8]) {
    for (register, [high, low]) in memory.as_chunks_mut().0.iter_mut().zip(wire.as_chunks().0) {
        *register = [*low, *high];
    }
}
