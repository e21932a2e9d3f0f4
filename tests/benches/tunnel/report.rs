//! Medians, and their ratios to those of wireguard-go.

use std::collections::BTreeMap;
use std::fmt;

use crate::site::{Contender, SIZES};

/// One direction of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) mbit: f64,
    /// Processor seconds of the site's process per 10^9 bytes.
    pub(crate) cpu_per_gb: f64,
}

/// One direction of a flood of datagrams; only arrived ones count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagrams {
    pub(crate) per_second: f64,
    /// Processor seconds of the site's process per 10^6 datagrams.
    pub(crate) cpu_per_million: f64,
}

/// Up and down.
pub(crate) type BothWays = [Datagrams; 2];

/// Result of one turn of one program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) contender: Contender,
    pub(crate) mtu: u16,
    pub(crate) up: Flow,
    pub(crate) down: Flow,
    /// One for each of [`SIZES`], for programs with a device.
    pub(crate) datagrams: Option<[BothWays; SIZES.len()]>,
    /// Share of a processor while nothing passes; measured in the first turn only.
    pub(crate) idle_percent: Option<f64>,
    pub(crate) rss_mb: f64,
}

/// All rows.
#[derive(Debug, Default)]
pub(crate) struct Table(BTreeMap<(u16, Contender), Vec<Row>>);

impl Table {
    pub(crate) fn add(&mut self, row: Row) {
        self.0.entry((row.mtu, row.contender)).or_default().push(row);
    }

    /// Returns the ratio of a figure to that of wireguard-go in the same turn.
    fn share(&self, mtu: u16, contender: Contender, of: impl Fn(&Row) -> f64) -> Spread {
        let rows = |contender| self.0.get(&(mtu, contender)).map_or(&[][..], Vec::as_slice);
        let pairs = rows(contender).iter().zip(rows(Contender::WireguardGo));
        Spread::of(pairs.map(|(ours, theirs)| of(ours) / of(theirs)))
    }

    /// Writes one line for each size and direction.
    fn write_datagrams(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| MTU | site's end | datagrams of | arrived/s | s per 10^6 | of wireguard-go: arrived | s per 10^6 |"
        )?;
        writeln!(f, "|{}", "---|".repeat(7))?;
        for (&(mtu, contender), rows) in &self.0 {
            if contender == Contender::Userspace {
                continue;
            }
            for (number, size) in SIZES.iter().enumerate() {
                for (way, name) in ["up", "down"].into_iter().enumerate() {
                    let of = |row: &Row| row.datagrams.expect("it has a device")[number][way];
                    let arrived = |row: &Row| of(row).per_second;
                    let cpu = |row: &Row| of(row).cpu_per_million;
                    writeln!(
                        f,
                        "| {mtu} | {} | {size} bytes {name} | {:.0} | {:.2} | {} | {} |",
                        contender.name(),
                        median(rows.iter().map(arrived)),
                        median(rows.iter().map(cpu)),
                        self.share(mtu, contender, arrived),
                        self.share(mtu, contender, cpu),
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// Median and range of one figure over the turns.
#[derive(Clone, Copy, Debug)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
        Self {
            least: at(0),
            median: f64::midpoint(at(low), at(high)),
            most: at(values.len().saturating_sub(1)),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2} to {:.2})", self.median, self.least, self.most)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    Spread::of(values).median
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { contender, mtu, up, down, datagrams, idle_percent, rss_mb } = self;
        write!(
            f,
            "{:24} MTU {mtu}: up {:6.0} Mbit/s {:5.2} s/GB, down {:6.0} Mbit/s {:5.2} s/GB, {rss_mb:.1} MB",
            contender.name(),
            up.mbit,
            up.cpu_per_gb,
            down.mbit,
            down.cpu_per_gb,
        )?;
        if let Some(percent) = idle_percent {
            write!(f, ", idle {percent:.3} %")?;
        }
        for (size, [up, down]) in SIZES.iter().zip(datagrams.iter().flatten()) {
            write!(f, "; {size} bytes: up {up}, down {down}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_second, cpu_per_million } = self;
        write!(f, "{per_second:.0}/s {cpu_per_million:.2} s per 10^6")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| MTU | site's end | up Mbit/s | s/GB | down Mbit/s | s/GB | RSS MB | idle % | of wireguard-go: up | s/GB | down | s/GB |"
        )?;
        writeln!(f, "|{}", "---|".repeat(12))?;
        for (&(mtu, contender), rows) in &self.0 {
            let of = |of: fn(&Row) -> f64| median(rows.iter().map(of));
            let share = |of: fn(&Row) -> f64| self.share(mtu, contender, of);
            writeln!(
                f,
                "| {mtu} | {} | {:.0} | {:.2} | {:.0} | {:.2} | {:.1} | {:.3} | {} | {} | {} | {} |",
                contender.name(),
                of(|row| row.up.mbit),
                of(|row| row.up.cpu_per_gb),
                of(|row| row.down.mbit),
                of(|row| row.down.cpu_per_gb),
                of(|row| row.rss_mb),
                median(rows.iter().filter_map(|row| row.idle_percent)),
                share(|row| row.up.mbit),
                share(|row| row.up.cpu_per_gb),
                share(|row| row.down.mbit),
                share(|row| row.down.cpu_per_gb),
            )?;
        }
        self.write_datagrams(f)
    }
}
