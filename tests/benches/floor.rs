//! The floor of the load tests: the cost of tokio-modbus, `write!` and rumqttc alone, without a plan,
//! quality, a queue or reconnects. The difference to the gateway is the cost of those.
//!
//! `floor BROKER_PORT TAGS PERIOD_MS PLC_PORT...`
#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a bare loop may stop on the spot"
)]

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::{AsyncClient, MqttOptions, QoS};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, interval_at};
use tokio_modbus::client::tcp::attach_slave;
use tokio_modbus::prelude::{Reader, Slave};

/// Registers of four tags: INT, UINT, DINT, REAL.
const QUAD: usize = 6;
/// Most registers in one request that end at the boundary of a quad.
const BLOCK: usize = 120;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<u16> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [broker, tags, period, plcs @ ..] = &args[..] else { return }; // plain `cargo bench`
    let mut options = MqttOptions::new("floor", "127.0.0.1", *broker);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut events) = AsyncClient::new(options, 100);
    // Like edge-gateway, the PLCs are read one after the other, spread over the period.
    let start = Instant::now();
    for (&port, index) in plcs.iter().zip(0u32..) {
        let period = Duration::from_millis((*period).into());
        let phase = period * index / u32::try_from(plcs.len()).unwrap_or(u32::MAX);
        let ticks = (!period.is_zero()).then(|| interval_at(start + phase, period));
        tokio::spawn(poll(port, usize::from(*tags), ticks, client.clone()));
    }
    loop {
        events.poll().await.expect("the broker stays");
    }
}

async fn poll(port: u16, tags: usize, mut ticks: Option<Interval>, client: AsyncClient) {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await;
    let stream = stream.expect("the PLC listens");
    stream.set_nodelay(true).expect("a TCP stream takes the option");
    let mut modbus = attach_slave(stream, Slave(255));
    let registers = tags / 4 * QUAD;
    let mut words = Vec::with_capacity(registers);
    let topic = format!("edge/floor/data/{port}");
    loop {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        words.clear();
        for first in (0..registers).step_by(BLOCK) {
            let count = BLOCK.min(registers - first);
            let (first, count) = (first.try_into().expect("fits"), count.try_into().expect("fits"));
            let answer = modbus.read_holding_registers(first, count).await;
            words.extend(answer.expect("the PLC answers").expect("the registers exist"));
        }
        let payload = json(&words);
        client.publish(&topic, QoS::AtLeastOnce, false, payload).await.expect("the loop runs");
    }
}

fn json(words: &[u16]) -> String {
    let mut json = String::with_capacity(words.len() * 16);
    json.push('{');
    for (quad, w) in words.chunks_exact(QUAD).enumerate() {
        let dint = u32::from(w[3]) << 16 | u32::from(w[2]);
        let real = f32::from_bits(u32::from(w[5]) << 16 | u32::from(w[4]));
        let comma = if quad == 0 { "" } else { "," };
        write!(
            json,
            "{comma}\"t{quad}_i16\":{},\"t{quad}_u16\":{},\"t{quad}_i32\":{},\"t{quad}_f32\":{}",
            w[0].cast_signed(),
            w[1],
            dint.cast_signed(),
            real
        )
        .expect("a String accepts text");
    }
    json.push('}');
    json
}
