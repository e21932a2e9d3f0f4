//! The way of one PLC's readings to messages: sampler, topic and encoder.

use std::sync::Arc;

use provisioning::config::{Config, Plc, Qos};
use provisioning::plan::plan;

use crate::payload::Encoder;
use crate::queue::{ConfigNames, PlcNames, QueueIdentity, TopicId};
use crate::sampling::Sampler;

/// The topic of events has number 0; the topics of the PLCs follow.
pub(super) const EVENT_TOPIC: TopicId = TopicId::new(0);

/// Sampler, encoder and publish settings of one PLC.
#[derive(Debug)]
pub(super) struct PlcPipeline {
    /// `plc.name`.
    pub(super) name: String,
    pub(super) sampler: Sampler,
    pub(super) encoder: Encoder,
    pub(super) topic: TopicId,
    /// The topic of replies; absent when no tag of any PLC is writable.
    pub(super) reply_topic: Option<TopicId>,
    pub(super) qos: Qos,
    pub(super) retain: bool,
}

/// Returns the pipelines in the order of the configuration, and the names by which the queue stores
/// their records. PLCs with the same topic share its `seq`.
pub(super) fn build_all(config: &Config) -> (Vec<PlcPipeline>, QueueIdentity) {
    let mut topics: Vec<Arc<str>> = vec![format!("edge/{}/event", config.gateway.id).into()];
    let plcs = config.plcs.iter().zip(0u16..);
    let pipelines = plcs.map(|(plc, index)| build(config, plc, index, &mut topics)).collect();
    let tags = |plc: &Plc| plc.tags.iter().map(|tag| &tag.name).collect();
    let names = |plc: &Plc| PlcNames { name: plc.name.clone(), tags: tags(plc) };
    let identity = QueueIdentity {
        names: ConfigNames { topics, plcs: config.plcs.iter().map(names).collect() },
        events: EVENT_TOPIC,
        epoch: std::iter::repeat_with(|| fastrand::char('a'..='z'))
            .take(6)
            .collect::<String>()
            .into(),
        boot: boot_id(),
    };
    (pipelines, identity)
}

/// Returns an id that changes with every boot of the machine; empty where the kernel has none.
fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn build(config: &Config, plc: &Plc, index: u16, topics: &mut Vec<Arc<str>>) -> PlcPipeline {
    PlcPipeline {
        name: plc.name.clone(),
        sampler: Sampler::new(index, plc, &plan(plc)),
        encoder: Encoder::new(&config.gateway, plc),
        topic: intern_topic(topics, &plc.publish.topic),
        reply_topic: config.plcs.iter().any(Plc::is_writable).then(|| {
            let topic = format!("edge/{}/reply/{}", config.gateway.id, plc.name);
            intern_topic(topics, &topic)
        }),
        qos: plc.publish.qos,
        retain: plc.publish.retain,
    }
}

fn intern_topic(topics: &mut Vec<Arc<str>>, topic: &str) -> TopicId {
    let mut known = (0..).zip(topics.iter());
    if let Some((number, _)) = known.find(|(_, known)| ***known == *topic) {
        return TopicId::new(number);
    }
    topics.push(topic.into());
    TopicId::new(u16::try_from(topics.len() - 1).unwrap_or(u16::MAX))
}
