//! Enrols a box at each site of a fleet that has none, for measurements:
//! `cargo run -p provisioning --example many_boxes -- DIR`.
#![expect(clippy::print_stdout, reason = "an example says what it did")]

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use provisioning::enrolment::BoxKeys;
use provisioning::office::boxes::Boxes;
use provisioning::office::fleet::Fleet;
use provisioning::office::site_edit::{SiteValue, set};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("give the directory of a fleet")?);
    let fleet = Fleet::load(&dir)?;
    let boxes = Boxes::of_fleet(&dir);
    let mut count = 0;
    for site in fleet.sites().iter().filter(|site| site.public_key.is_none()) {
        let enrolment = BoxKeys::generate()?.enrolment()?;
        boxes.store(&site.id, &enrolment)?;
        let path = dir.join("sites").join(format!("{}.toml", site.id));
        let key = SiteValue::Text(enrolment.tunnel_public_key.to_string());
        let text = set(&fs::read_to_string(&path)?, "public_key", &key);
        fs::write(&path, text.ok_or("the file of a site has no section [site]")?)?;
        count += 1;
    }
    println!("{count} boxes");
    Ok(())
}
