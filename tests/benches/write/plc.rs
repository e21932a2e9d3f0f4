//! A PLC that can be written to: 100 registers, function codes 3, 6 and 16.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const REGISTERS: usize = 100;

/// Starts a PLC that takes `delay` for every answer, and lives as long as the process. Returns its
/// port.
pub(crate) fn start(delay: Duration) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("ports are free");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // An error only means that the client has disconnected.
            thread::spawn(move || serve(stream, delay));
        }
    });
    port
}

fn serve(mut stream: TcpStream, delay: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut registers = [0_u16; REGISTERS];
    loop {
        let mut header = [0; 7];
        stream.read_exact(&mut header)?;
        let mut request = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) - 1];
        stream.read_exact(&mut request)?;
        thread::sleep(delay);
        let answer = answer(&mut registers, &request);
        let length = u16::try_from(answer.len() + 1).expect("short").to_be_bytes();
        let frame = [&header[..4], &length, &header[6..], &answer].concat();
        stream.write_all(&frame)?;
    }
}

fn answer(registers: &mut [u16; REGISTERS], request: &[u8]) -> Vec<u8> {
    let field = |at: usize| usize::from(u16::from_be_bytes([request[at], request[at + 1]]));
    let (function, first) = (request[0], field(1));
    match function {
        3 if first + field(3) <= REGISTERS => {
            let words =
                registers[first..first + field(3)].iter().flat_map(|word| word.to_be_bytes());
            let words: Vec<u8> = words.collect();
            [&[3, u8::try_from(words.len()).expect("few")], &words[..]].concat()
        }
        6 if first < REGISTERS => {
            registers[first] = field(3) as u16;
            request.to_vec()
        }
        16 if first + field(3) <= REGISTERS => {
            for (place, pair) in registers[first..].iter_mut().zip(request[6..].chunks(2)) {
                *place = u16::from_be_bytes([pair[0], pair[1]]);
            }
            request[..5].to_vec()
        }
        _ => vec![function | 0x80, 2],
    }
}
