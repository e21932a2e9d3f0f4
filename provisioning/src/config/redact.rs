//! Redacts secrets in the lines of a configuration that an error shows.
//!
//! No key of a configuration holds a secret: keys name files. So a secret stands at a key that does
//! not exist, and it is recognised by what the key looks like.

use super::suggest::nearest;

/// Words that make the value of a key a secret.
const SECRET_WORDS: [&str; 12] =
    ["psk", "pw", "pwd", "pswd", "pwrd", "cred", "creds", "key", "keys", "pin", "otp", "bearer"];
/// Beginnings of words that do.
const SECRET_BEGINNINGS: [&str; 7] = ["pas", "cred", "secr", "auth", "token", "priv", "presh"];
/// Words that do, also when they are misspelt.
const SECRETS_AS_SPELT: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credentials",
    "private",
    "preshared",
    "authentication",
];

/// Returns the text with each byte of a secret replaced by `*`, so that byte positions are kept.
pub(crate) fn redacted(text: &str) -> String {
    let mut redactor = Redactor::default();
    text.split_inclusive('\n').map(|line| redactor.redact_line(line)).collect()
}

/// What the lines before mean for the next one.
#[derive(Debug, Default)]
struct Redactor {
    /// The end of a secret that has begun and takes more than one line.
    until: Option<&'static str>,
    /// Whether the name of the section looks like a secret: `[mqtt.credentials]`.
    is_secret_section: bool,
}

impl Redactor {
    fn redact_line(&mut self, line: &str) -> String {
        if let Some(end) = self.until {
            self.until = (!line.contains(end)).then_some(end);
            return asterisks(line);
        }
        if line.trim_start().starts_with('[') && !line.contains('=') {
            self.is_secret_section = is_secret(line);
            return line.to_owned();
        }
        let Some(at) = self.secret_start(line) else { return redact_urls(line) };
        let (shown, value) = line.split_at_checked(at).unwrap_or((line, ""));
        self.until = unclosed(value);
        format!("{shown}{}", asterisks(value))
    }

    /// Returns where the first secret of a line begins: after the `=` or `:` of its key, also
    /// inside an inline table, or after a first word without either.
    fn secret_start(&self, line: &str) -> Option<usize> {
        let mut key_start = 0;
        let has_equals = line.contains('=');
        for (at, separator) in line.char_indices() {
            let key = line.get(key_start..at).unwrap_or_default();
            match separator {
                '=' if is_secret(key) => return Some(at + 1),
                ':' if !has_equals && is_secret(key) => return Some(at + 1),
                '=' if self.is_secret_section && !names_file(key) => return Some(at + 1),
                // A line of nothing but colons must not be read once for each of them.
                ':' if !has_equals => key_start = at + 1,
                // The text before is the value of another key.
                '=' | ',' | '{' => key_start = at + 1,
                _ => {}
            }
        }
        let (first, _) = line.trim_start().split_once([' ', '\t'])?;
        let is_bare = !has_equals && is_secret(first);
        is_bare.then(|| line.len() - line.trim_start().len() + first.len())
    }
}

/// Returns the end of a value that goes on in the next line.
fn unclosed(value: &str) -> Option<&'static str> {
    let value = value.trim_start();
    let end = [(r#"""""#, r#"""""#), ("'''", "'''"), ("[", "]"), ("{", "}")]
        .into_iter()
        .find_map(|(start, end)| value.strip_prefix(start).map(|rest| (rest, end)));
    end.filter(|(rest, end)| !rest.contains(end)).map(|(_, end)| end)
}

/// Returns whether the value of this key is the path of a file, which is no secret.
fn names_file(key: &str) -> bool {
    let key = key.trim_end_matches(|c: char| !c.is_alphanumeric()).to_ascii_lowercase();
    key.ends_with("file")
}

/// Returns whether a key looks as if its value were a secret.
fn is_secret(key: &str) -> bool {
    if names_file(key) {
        return false;
    }
    let words: Vec<String> = words(key).collect();
    let is_public = words.iter().any(|word| word.starts_with("pub"));
    words.iter().any(|word| {
        if is_public && word.ends_with("key") {
            return false;
        }
        // `authority` and `author` are none.
        let is_author = word.starts_with("author") && !word.starts_with("authori");
        let is_authority = word.starts_with("authorit");
        !(is_author || is_authority)
            && (SECRET_WORDS.contains(&word.as_str())
                || SECRET_BEGINNINGS.iter().any(|beginning| word.starts_with(beginning))
                || word.ends_with("key")
                || word.len() >= 4 && nearest(word, SECRETS_AS_SPELT).is_some())
    })
}

/// Returns the words of a key in lower case: `mqtt.apiKey_2` has `mqtt`, `api`, `key`, `2`.
fn words(key: &str) -> impl Iterator<Item = String> {
    let mut was_lower = false;
    let mut spaced = String::with_capacity(key.len());
    for c in key.chars() {
        if was_lower && c.is_uppercase() {
            spaced.push(' ');
        }
        was_lower = c.is_lowercase();
        spaced.extend(c.to_lowercase());
    }
    let words: Vec<String> = spaced
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    words.into_iter()
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
    use crate::config::reference;

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

    #[test]
    fn what_looks_like_a_secret_is_redacted() {
        let keys = "psk pw pwd pass passwd pasword passwort passphrase passcode pssword paswd auth \
                    auth_token authToken authentication authorization credential credentials \
                    credentails creds key api_key apiKey apikey API-KEY privatekey private_key \
                    privte_key preshared_key presharedKey token tokn access_token secret secrets \
                    client_secret secert pin mqtt.auth tls.key mqtt.psk.value user_password \
                    EDGE_MQTT__PSK EDGE_MQTT__AUTH \"psk\" 'key'";
        for key in keys.split_whitespace() {
            for (before, after) in [("= \"", "\""), ("='", "'"), (" = ", ""), (": ", "")] {
                let line = format!("{key}{before}hunter2{after}");
                let shown = redacted(&line);
                assert!(!shown.contains("hunter2"), "{shown}");
                assert_eq!(shown.len(), line.len());
            }
        }
        for line in [
            "password hunter2",
            "  # old password = \"hunter2\"",
            "tls = { ca_file = \"x\", psk = \"hunter2\" }",
            "mqtt = { name = \"x\", credentials = { user = \"u\", p = \"hunter2\" } }",
            "[mqtt.credentials]\nuser = \"hunter2\"",
            "secret = \"\"\"\nhunter2\nhunter2\"\"\"",
            "keys = [\n  \"hunter2\",\n  \"hunter2\",\n]",
        ] {
            assert!(!redacted(line).contains("hunter2"), "{}", redacted(line));
            assert_eq!(redacted(line).len(), line.len());
        }
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for line in [
            "public_key = \"x\"",
            "publicKey = \"x\"",
            "pubkey = \"x\"",
            "keep_alive = \"30s\"",
            "keepalive = \"30s\"",
            "key_file = \"/x\"",
            "keyfile = \"/x\"",
            "privte_key_file = \"/x\"",
            "author = \"x\"",
            "authority = \"x\"",
            "adress = \"192.0.2.1:502\"",
            "tag = { name = \"a\", at = \"%MW0\" }",
            "[tunnel]\nmode = \"tun\"",
            "[[plc.tag]]\nname = \"pressure\"",
            "secret = [\"\"]\nname = \"shown\"",
            "name = \"key: value\"",
        ] {
            let shown = redacted(line);
            let hidden = shown.contains('*');
            assert!(!hidden || line.starts_with("secret") && shown.ends_with("shown\""), "{shown}");
        }
    }

    #[test]
    fn no_key_of_a_configuration_is_redacted() {
        let reference = reference();
        let keys: Vec<&str> = reference
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(key, _)| key)
            .collect();
        assert!(keys.len() > 50, "{keys:?}");
        for key in keys {
            let line = format!("{key} = \"shown\"");
            assert_eq!(redacted(&line), line);
        }
    }
}
