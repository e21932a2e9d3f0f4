//! Creates a series and registers it in one step.

use std::collections::HashMap;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    Result,
};

/// Declares a struct of series and its function `register`. The name and the help text of a series
/// are also the documentation of its field.
macro_rules! series {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($field_vis:vis $field:ident: $type:ty =
            $kind:ident($series:literal, $help:literal $(, $argument:expr)*),)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $(
                #[doc = concat!("`", $series, "`: ", $help)]
                $field_vis $field: $type,
            )+
        }

        impl $name {
            pub(in crate::metrics) fn register(
                registrar: &$crate::metrics::registrar::Registrar,
                labels: $crate::metrics::registrar::Labels<'_>,
            ) -> Result<Self, prometheus::Error> {
                Ok(Self {
                    $($field: registrar.$kind($series, $help, labels $(, $argument)*)?,)+
                })
            }
        }
    };
}
pub(super) use series;

/// Names and values of labels that are the same for the whole series.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A registry under construction. Its methods fail when the series exists already.
#[derive(Debug)]
pub(super) struct Registrar(Registry);

impl Registrar {
    pub(super) fn new() -> Self {
        Self(Registry::new())
    }

    pub(super) fn into_registry(self) -> Registry {
        self.0
    }

    pub(super) fn counter(&self, name: &str, help: &str, labels: Labels<'_>) -> Result<IntCounter> {
        self.add(IntCounter::with_opts(opts(name, help, labels)))
    }

    /// Registers one counter for each value of `label`.
    pub(super) fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: Labels<'_>,
        label: &str,
        values: [&str; N],
    ) -> Result<[IntCounter; N]> {
        let counters = self.add(IntCounterVec::new(opts(name, help, labels), &[label]))?;
        Ok(values.map(|value| counters.with_label_values(&[value])))
    }

    pub(super) fn gauge(&self, name: &str, help: &str, labels: Labels<'_>) -> Result<IntGauge> {
        self.add(IntGauge::with_opts(opts(name, help, labels)))
    }

    pub(super) fn float_gauge(&self, name: &str, help: &str, labels: Labels<'_>) -> Result<Gauge> {
        self.add(Gauge::with_opts(opts(name, help, labels)))
    }

    /// Registers gauges whose values of `label` come later.
    pub(super) fn float_gauges(&self, name: &str, help: &str, label: &str) -> Result<GaugeVec> {
        self.add(GaugeVec::new(Opts::new(name, help), &[label]))
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: Labels<'_>,
        buckets: &[f64],
    ) -> Result<Histogram> {
        let opts =
            HistogramOpts { common_opts: opts(name, help, labels), buckets: buckets.to_vec() };
        self.add(Histogram::with_opts(opts))
    }

    /// Registers a series and returns a handle to it: clones of a collector share its values.
    fn add<C: Collector + Clone + 'static>(&self, series: Result<C>) -> Result<C> {
        let series = series?;
        self.0.register(Box::new(series.clone()))?;
        Ok(series)
    }
}

fn opts(name: &str, help: &str, labels: Labels<'_>) -> Opts {
    let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
    Opts::new(name, help).const_labels(labels.collect::<HashMap<_, _>>())
}
