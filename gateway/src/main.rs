//! `edge-gateway`: the appliance.

fn main() {}
