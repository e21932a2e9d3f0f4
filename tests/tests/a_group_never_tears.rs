//! Tags of one group come from one request, even with unused registers between them.

use std::time::Duration;

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Pymodbus};
use provisioning::plc::Table;

const LAST: u16 = 300;

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

    for moment in 1..=LAST {
        let mut registers = [0; 90];
        (registers[0], registers[89]) = (moment, moment);
        plc.set_registers(Table::HoldingRegister, 10, &registers);
    }

    let mut moments = 0;
    loop {
        let payload = messages.next(EVENT_TIMEOUT).json();
        assert_eq!(payload["value"], payload["factor"], "torn: {payload}");
        moments += 1;
        if payload["value"] == LAST {
            break;
        }
    }
    assert!(moments > 5, "{moments} messages: too few to have torn");
}
