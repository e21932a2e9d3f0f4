//! Redacts secrets in the lines of a configuration that an error shows.

/// Parts of a key that make its value a secret, unless the key names a file. They are short
/// because a misspelt key, such as `pasword`, holds a secret too.
const SECRET_WORDS: [&str; 6] = ["pas", "pwd", "secret", "token", "private_key", "preshared"];

/// Returns the text with each byte of a secret replaced by `*`, so that byte positions are kept.
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

/// Redacts user and password in `mqtt://user:password@host`.
fn redact_urls(line: &str) -> String {
    const SEPARATOR: &str = "://";
    let mut redacted = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((scheme, after)) = rest.split_once(SEPARATOR) {
        let host = after.find(['"', '\'', ',', ' ']).unwrap_or(after.len());
        let (url, tail) = after.split_at_checked(host).unwrap_or((after, ""));
        redacted.push_str(scheme);
        redacted.push_str(SEPARATOR);
        // The last @ ends the credentials: a password may contain one.
        match url.rsplit_once('@') {
            Some((user, host)) => redacted.extend([&asterisks(user), "@", host]),
            None => redacted.push_str(url),
        }
        rest = tail;
    }
    redacted + rest
}

/// Returns one `*` per byte; quotes and white space are kept.
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
    fn secrets_are_redacted_in_place() {
        let text = "password = \"geheim\"\npassword_file = \"/x\"\nEDGE_MQTT__PASSWORD=ü\n";
        let shown = "password = \"******\"\npassword_file = \"/x\"\nEDGE_MQTT__PASSWORD=**\n";
        assert_eq!(redacted(text), shown);
        assert_eq!(redacted("pasword='x'"), "pasword='*'");
        let urls = "brokers = [\"mqtt://me:pw@host:1\", \"mqtt://a@b\"]";
        assert_eq!(redacted(urls), "brokers = [\"mqtt://*****@host:1\", \"mqtt://*@b\"]");
        assert_eq!(redacted("brokers = [\"mqtt://host\"]"), "brokers = [\"mqtt://host\"]");
    }
}
