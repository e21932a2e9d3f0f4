//! Tags of one group come from one request, even with unused registers between them.

use std::time::Duration;

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Pymodbus};
use provisioning::plc::Table;

/// Messages received while the values change; each could hold a torn pair.
const ENOUGH_MESSAGES: usize = 30;

#[test]
fn a_value_and_its_factor_come_from_one_request() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let messages = broker.subscribe("edge/g/data/p");
    // 89 registers apart: without the group this would be two requests.
    let config = PlcConfig::new("p", "M241", plc.address())
        .scan(Duration::from_millis(10))
        .tag("value", "%MW10", "UINT")
        .set_tag("group", "pair")
        .tag("factor", "%MW99", "UINT")
        .set_tag("group", "pair");
    let config = GatewayConfig::with_broker("g", broker.url()).plc(config);
    let _gateway = Gateway::start_ready(config);
    messages.next(EVENT_TIMEOUT);

    let mut received = 0;
    for moment in 1..=u16::MAX {
        let mut registers = [0; 90];
        (registers[0], registers[89]) = (moment, moment);
        plc.set_registers(Table::HoldingRegister, 10, &registers);
        for message in messages.drain(Duration::ZERO) {
            let payload = message.json();
            assert_eq!(payload["value"], payload["factor"], "torn: {payload}");
            received += 1;
        }
        if received >= ENOUGH_MESSAGES {
            return;
        }
    }
    panic!("{received} messages: too few to have torn");
}
