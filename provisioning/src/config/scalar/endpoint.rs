//! Addresses of hosts and brokers.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{TextScalar, ValueError};
use crate::config::{Broker, HostPort, Scheme};

const MODBUS_PORT: u16 = 502;
const MQTT_PORT: u16 = 1883;
const MQTTS_PORT: u16 = 8883;

impl TextScalar for HostPort {
    const KIND: &'static str = "host or host:port";

    /// Parses `host` or `host:port`, with port 502 as the default; rejects a URL.
    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        let example = format!("write something like {key} = \"192.168.1.10:{MODBUS_PORT}\"");
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.trim_end_matches('/');
            let message = format!("`{key}` is a host and a port, without \"://\"");
            return Err(ValueError::new(message, format!("write {key} = \"{host}\"")));
        }
        parse_host_port(text, MODBUS_PORT)
            .map_err(|reason| ValueError::new(format!("`{key}` is \"{text}\": {reason}"), example))
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl TextScalar for Broker {
    const KIND: &'static str = "mqtt://host:port, or mqtts://host:port";

    fn parse(_key: &str, text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(ValueError::new(
                format!("\"{text}\" has no scheme mqtt:// or mqtts://"),
                format!("write \"mqtt://{}\"", text.rsplit('@').next().unwrap_or_default()),
            ));
        };
        if rest.contains('@') {
            return Err(ValueError::new(
                "user name and password do not belong in the address of a broker",
                "write them as username = \"...\" and password_file = \"...\" in [mqtt]",
            ));
        }
        let rest = rest.trim_end_matches('/');
        let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" => (Scheme::Mqtt, MQTT_PORT),
            "mqtts" => (Scheme::Mqtts, MQTTS_PORT),
            "ssl" | "tls" => {
                let message = format!("\"{text}\": the scheme of a broker with TLS is mqtts://");
                return Err(ValueError::new(message, format!("write \"mqtts://{rest}\"")));
            }
            "tcp" => {
                let message = format!("\"{text}\": the scheme of a broker is mqtt://");
                return Err(ValueError::new(message, format!("write \"mqtt://{rest}\"")));
            }
            other => {
                return Err(ValueError::new(
                    format!("\"{text}\": the scheme {other}:// is not supported"),
                    "write the MQTT address of the broker: \"mqtt://10.77.0.1:1883\"",
                ));
            }
        };
        parse_host_port(rest, default_port).map(|address| Self { scheme, address }).map_err(
            |reason| {
                let example = format!("write something like \"mqtt://10.77.0.1:{MQTT_PORT}\"");
                ValueError::new(format!("\"{text}\": {reason}"), example)
            },
        )
    }

    fn to_text(&self) -> String {
        match self.scheme {
            Scheme::Mqtt => format!("mqtt://{}", self.address),
            Scheme::Mqtts => format!("mqtts://{}", self.address),
        }
    }
}

fn parse_host_port(text: &str, default_port: u16) -> Result<HostPort, String> {
    let (host, port) = split_host_port(text)?;
    let port = match port {
        None => default_port,
        Some(digits) => parse_port(digits)?,
    };
    Ok(HostPort { host: host.to_owned(), port })
}

pub(super) fn parse_port(digits: &str) -> Result<u16, String> {
    match digits.parse::<u16>() {
        Ok(port) if port > 0 && !digits.starts_with('+') => Ok(port),
        _ => Err(format!("\"{digits}\" is not a port, ports are 1 to 65535")),
    }
}

/// Splits `host:port`, `host` or `[IPv6]:port`; the host is returned without brackets.
pub(super) fn split_host_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("the bracket [ is not closed")?;
        host.parse::<Ipv6Addr>().map_err(|_| format!("\"{host}\" is not an IPv6 address"))?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("\"{rest}\" follows the bracket ]")),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    check_host_name(host)?;
    Ok((host, port))
}

fn check_host_name(host: &str) -> Result<(), String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let labels_fit = host.split('.').all(|label| (1..=63).contains(&label.len()));
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if let Some(invalid) = host.chars().find(|c| !letter(*c)) {
        return Err(format!("a host name cannot contain {invalid:?}"));
    }
    let digits = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    if digits && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!(
            "\"{host}\" is not an IP address, which has four numbers from 0 to 255"
        ));
    }
    if !labels_fit || host.len() > 253 {
        return Err(format!("\"{host}\" is not a host name"));
    }
    Ok(())
}
