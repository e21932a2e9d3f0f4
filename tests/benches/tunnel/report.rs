//! Medians, and what they are of wireguard-go's.

use std::collections::BTreeMap;
use std::fmt;

use crate::site::Contender;

/// One direction of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) mbit: f64,
    /// Processor seconds of the site's process for 10^9 bytes.
    pub(crate) cpu_per_gb: f64,
}

/// One contender, one turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) contender: Contender,
    pub(crate) mtu: u16,
    pub(crate) up: Flow,
    pub(crate) down: Flow,
    pub(crate) rss_mb: f64,
}

/// All rows.
#[derive(Debug, Default)]
pub(crate) struct Table(BTreeMap<(u16, Contender), Vec<Row>>);

impl Table {
    pub(crate) fn add(&mut self, row: Row) {
        self.0.entry((row.mtu, row.contender)).or_default().push(row);
    }

    /// The median over the turns of what `of` takes from a row, as a share of wireguard-go's in
    /// the same turn.
    fn share(&self, mtu: u16, contender: Contender, of: fn(&Row) -> f64) -> f64 {
        let rows = |contender| self.0.get(&(mtu, contender)).map_or(&[][..], Vec::as_slice);
        let pairs = rows(contender).iter().zip(rows(Contender::WireguardGo));
        median(pairs.map(|(ours, theirs)| of(ours) / of(theirs)))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { contender, mtu, up, down, rss_mb } = self;
        write!(
            f,
            "{:24} MTU {mtu}: up {:6.0} Mbit/s {:5.2} s/GB, down {:6.0} Mbit/s {:5.2} s/GB, {rss_mb:.1} MB",
            contender.name(),
            up.mbit,
            up.cpu_per_gb,
            down.mbit,
            down.cpu_per_gb,
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| MTU | site's end | up Mbit/s | s/GB | down Mbit/s | s/GB | RSS MB | of wireguard-go: up | s/GB | down | s/GB |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|---|")?;
        for (&(mtu, contender), rows) in &self.0 {
            let of = |of: fn(&Row) -> f64| median(rows.iter().map(of));
            let share = |of| self.share(mtu, contender, of);
            writeln!(
                f,
                "| {mtu} | {} | {:.0} | {:.2} | {:.0} | {:.2} | {:.1} | {:.2} | {:.2} | {:.2} | {:.2} |",
                contender.name(),
                of(|row| row.up.mbit),
                of(|row| row.up.cpu_per_gb),
                of(|row| row.down.mbit),
                of(|row| row.down.cpu_per_gb),
                of(|row| row.rss_mb),
                share(|row| row.up.mbit),
                share(|row| row.up.cpu_per_gb),
                share(|row| row.down.mbit),
                share(|row| row.down.cpu_per_gb),
            )?;
        }
        Ok(())
    }
}
