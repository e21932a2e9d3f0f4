//! How quickly a new user gets there with the commands of the book, download and build apart.
//!
//! A step is a command, a file, or something to do in the editor of Node-RED.

use std::time::{Duration, Instant};

use e2e::NodeRed;

use crate::desk::Desk;
use crate::pages::{Block, page};

/// Start Node-RED, import the flow, deploy it, open the debug pane.
const STEPS_IN_NODE_RED: usize = 4;

/// Blocks of a page without commands that only look at something again.
fn without(blocks: Vec<Block>, left_out: &[&str]) -> Vec<Block> {
    let keep = |block: Block| match block {
        Block::Commands(lines) => {
            let is_kept = |command: &str| !left_out.iter().any(|part| command.contains(part));
            Block::Commands(lines.into_iter().filter(|line| is_kept(&line.command)).collect())
        }
        Block::File { .. } | Block::Fragment(_) | Block::Json(_) => block,
    };
    blocks.into_iter().map(keep).collect()
}

#[test]
fn a_new_user_has_values_in_mosquitto_within_a_minute_and_six_steps() {
    let start_page = page("docs/start.md");
    let start = Instant::now();
    let mut desk = Desk::new();

    let (installed, _) = desk.play(&start_page.section("Install"));
    let values = without(start_page.section("Values in Mosquitto"), &[" status ", " plan "]);
    let (played, message) = desk.play(&values);

    let (steps, time) = (installed + played, start.elapsed());
    println!("values in Mosquitto: {steps} steps, {:.1} s", time.as_secs_f64());
    assert!(message.contains("\"temperature\":"), "{message}");
    assert!(steps <= 6, "{steps} steps");
    assert!(time <= Duration::from_secs(60), "{time:?}");
}

#[test]
fn a_new_user_has_the_message_of_an_m262_in_node_red_within_two_minutes_and_twelve_steps() {
    let (start_page, recipe, flow) =
        (page("docs/start.md"), page("docs/plc/m262.md"), page("docs/plc/node-red.md"));
    let simulator = without(
        start_page.section("Values in Mosquitto"),
        &["check", "run", "mosquitto_sub", "status", "plan"],
    );
    let is_command = |block: &Block| matches!(block, Block::Commands(_));
    let simulator: Vec<_> = simulator.into_iter().filter(is_command).collect();
    let start = Instant::now();
    let mut desk = Desk::new();

    let (installed, _) = desk.play(&start_page.section("Install"));
    let (simulated, _) = desk.play(&simulator);
    let (configured, _) = desk.play(&without(recipe.blocks(), &["mosquitto_sub"]));
    let flow = flow.blocks().into_iter().find_map(|block| match block {
        Block::Json(flow) => {
            Some(flow.replace("\"1883\"", &format!("\"{}\"", desk.broker().port())))
        }
        Block::File { .. } | Block::Fragment(_) | Block::Commands(_) => None,
    });
    let node_red = NodeRed::with_flow(&flow.expect("the page has a flow"));
    let consumer = node_red.start(desk.broker());
    let shown = consumer.log().wait_for_line("M241", Duration::from_secs(100));

    let (steps, time) = (installed + simulated + configured + STEPS_IN_NODE_RED, start.elapsed());
    println!("the M262's message in Node-RED: {steps} steps, {:.1} s", time.as_secs_f64());
    let shown = shown.unwrap_or_else(|| panic!("{}", consumer.log().text()));
    assert!(shown.contains("id: 0") && shown.contains("temp: "), "{shown}");
    assert!(steps <= 12, "{steps} steps");
    assert!(time <= Duration::from_secs(120), "{time:?}");
}
