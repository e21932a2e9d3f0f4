//! No secret in an error: what is shown of a configuration has the values of secrets crossed out.

/// Words in a key that make its value a secret, unless the key names a file.
/// Slips like `pasword` hold secrets too.
const SECRET_WORDS: [&str; 6] = ["pas", "pwd", "secret", "token", "private_key", "preshared"];

/// The text with every secret replaced by as many `*`, so that places in it stay where they are.
pub(super) fn redacted(text: &str) -> String {
    text.split_inclusive('\n').map(redact_line).collect()
}

fn redact_line(line: &str) -> String {
    let Some((key, value)) = line.split_once('=') else { return line.to_owned() };
    let lower = key.to_ascii_lowercase();
    let named = lower.trim_end().rsplit('.').next().unwrap_or_default();
    if SECRET_WORDS.iter().any(|word| named.contains(word)) && !named.ends_with("_file") {
        return format!("{key}={}", asterisks(value));
    }
    redact_urls(line)
}

/// `mqtt://user:password@host` without user and password.
fn redact_urls(line: &str) -> String {
    let Some((scheme, rest)) = line.split_once("://") else { return line.to_owned() };
    let host = rest.find(['"', '\'', ',', ' ']).unwrap_or(rest.len());
    let (url, tail) = rest.split_at_checked(host).unwrap_or((rest, ""));
    let url = match url.rsplit_once('@') {
        Some((user, host)) => format!("{}@{host}", asterisks(user)),
        None => url.to_owned(),
    };
    format!("{scheme}://{url}{}", redact_urls(tail))
}

/// As many bytes as before; quotes and white space stay.
fn asterisks(value: &str) -> String {
    let mask = |c: char| match c {
        '"' | '\'' | ' ' | '\n' | '\r' => c.to_string(),
        c => "*".repeat(c.len_utf8()),
    };
    value.chars().map(mask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_crossed_out_in_place() {
        let text = "password = \"geheim\"\npassword_file = \"/x\"\nEDGE_MQTT__PASSWORD=ü\n";
        let shown = "password = \"******\"\npassword_file = \"/x\"\nEDGE_MQTT__PASSWORD=**\n";
        assert_eq!(redacted(text), shown);
        assert_eq!(redacted("pasword='x'"), "pasword='*'");
        let urls = "brokers = [\"mqtt://me:pw@host:1\", \"mqtt://a@b\"]";
        assert_eq!(redacted(urls), "brokers = [\"mqtt://*****@host:1\", \"mqtt://*@b\"]");
        assert_eq!(redacted("brokers = [\"mqtt://host\"]"), "brokers = [\"mqtt://host\"]");
    }
}
