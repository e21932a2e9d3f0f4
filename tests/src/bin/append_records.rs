//! `append_records FILE`: appends numbered records, each flushed before it is acknowledged on
//! standard output. It stands in for a program that keeps what it acknowledges.
#![expect(clippy::print_stdout, reason = "its output is its acknowledgement")]

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("name a file")?;
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let first = file.metadata()?.len() / 64;
    for number in first.. {
        // 64 bytes with the newline: records lie across blocks of the disk.
        writeln!(file, "record {number:056}")?;
        file.sync_data()?;
        println!("acknowledged {number}");
    }
    Ok(())
}
