//! PLCs of the load test: registers are a function of time, so that a reader can tell how old a
//! value is. Every DINT is the time of the answer in 100 µs.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Starts `count` PLCs and returns their ports. They live as long as the process.
pub(crate) fn start(count: usize, delay: Duration) -> io::Result<Vec<u16>> {
    let mut ports = Vec::new();
    for _ in 0..count {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        ports.push(listener.local_addr()?.port());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // An error only means that the client has gone.
                thread::spawn(move || serve(stream, delay));
            }
        });
    }
    Ok(ports)
}

fn serve(mut stream: TcpStream, delay: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 12];
    loop {
        stream.read_exact(&mut request)?;
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        let [_, _, _, _, _, _, unit, function, first_high, first_low, count_high, count_low] =
            request;
        let first = u16::from_be_bytes([first_high, first_low]);
        let count = u16::from_be_bytes([count_high, count_low]);
        if function != 3 || !(1..=125).contains(&count) {
            let header = [request[0], request[1], 0, 0, 0, 3, unit, function | 0x80, 1];
            stream.write_all(&header)?;
            continue;
        }
        let bytes = count * 2;
        let mut answer = Vec::with_capacity(9 + usize::from(bytes));
        answer.extend(&request[..4]);
        answer.extend((bytes + 3).to_be_bytes());
        answer.extend([unit, 3, bytes.to_be_bytes()[1]]);
        let now = super::now_micros();
        for register in first..first + count {
            answer.extend(word(register, now).to_be_bytes());
        }
        stream.write_all(&answer)?;
    }
}

/// INT, UINT, DINT, REAL repeated; low word first, as a Modicon lays them.
fn word(register: u16, micros: u64) -> u16 {
    let tick = micros / 100_000;
    let [low, high] = match register % 6 {
        0 => [low_word(tick & 0x7fff), 0],
        1 => [low_word(tick), 0],
        2 | 3 => words(super::stamp(micros)),
        _ => words(((tick & 0x7f_ffff) as f32).to_bits()),
    };
    if matches!(register % 6, 3 | 5) { high } else { low }
}

fn low_word(value: u64) -> u16 {
    (value & 0xffff) as u16
}

fn words(value: u32) -> [u16; 2] {
    [low_word(value.into()), low_word((value >> 16).into())]
}
