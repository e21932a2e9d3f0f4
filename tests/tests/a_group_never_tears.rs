//! Tags of one group belong to the same moment, although a gap parts them.

use std::time::Duration;

use e2e::{Gateway, Mosquitto, Pymodbus};
use provisioning::plc::Table;

const SOON: Duration = Duration::from_secs(10);
const LAST: u16 = 300;

#[test]
fn a_value_and_its_factor_come_from_one_request() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let messages = broker.subscribe("edge/g/data/p");
    // 89 registers apart: without the group this would be two requests.
    let tag = |name: &str, word: u16| {
        format!(
            "[[plc.tag]]\nname = \"{name}\"\nat = \"%MW{word}\"\ntype = \"UINT\"\ngroup = \"pair\"\n"
        )
    };
    let _gateway = Gateway::start_ready(&format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"{}\"]\n\
         [[plc]]\nname = \"p\"\nmodel = \"M241\"\naddress = \"{}\"\nscan = \"10ms\"\n{}{}",
        broker.url(),
        plc.address(),
        tag("value", 10),
        tag("factor", 99),
    ));
    messages.next(SOON);

    for moment in 1..=LAST {
        let mut registers = [0; 90];
        (registers[0], registers[89]) = (moment, moment);
        plc.set_registers(Table::HoldingRegister, 10, &registers);
    }

    let mut moments = 0;
    loop {
        let payload = messages.next(SOON).json();
        assert_eq!(payload["value"], payload["factor"], "torn: {payload}");
        moments += 1;
        if payload["value"] == LAST {
            break;
        }
    }
    assert!(moments > 5, "{moments} messages: too few to have torn");
}
