//! Accounts of an EMQX cluster: a bootstrap file of its built-in database, and an access list.

use std::fmt::Write as _;

use super::accounts::{Account, Rights};
use super::password_hash::{HASH_BYTES, ITERATIONS, derived_salt, pbkdf2};
use super::{HubFile, public, secret};

/// Returns the files to be included by the cluster's configuration.
pub(super) fn render(accounts: &[Account]) -> Vec<HubFile> {
    vec![
        public("etc/emqx/edge.hocon", settings()),
        secret("etc/emqx/edge-users.csv", users(accounts)),
        secret("etc/emqx/edge-acl.conf", access_list(accounts)),
    ]
}

fn settings() -> String {
    format!(
        "# Made by edge-provision; changes here are lost. Include it in emqx.conf.\n\
         authentication = [{{\n\
         \x20 mechanism = password_based\n\
         \x20 backend = built_in_database\n\
         \x20 user_id_type = username\n\
         \x20 password_hash_algorithm {{ name = pbkdf2, mac_fun = sha512, iterations = {ITERATIONS}, \
         dk_length = {HASH_BYTES} }}\n\
         \x20 bootstrap_file = \"/etc/emqx/edge-users.csv\"\n\
         \x20 bootstrap_type = hash\n\
         }}]\n\
         authorization {{\n\
         \x20 no_match = deny\n\
         \x20 deny_action = ignore\n\
         \x20 sources = [{{ type = file, enable = true, path = \"/etc/emqx/edge-acl.conf\" }}]\n\
         }}\n"
    )
}

/// Returns the hash of a password and its salt: `HASH,SALT`.
pub(super) fn password_hash(password: &str) -> String {
    // EMQX takes the text of the column as salt.
    let salt = hex(&derived_salt::<16>(password, "emqx"));
    format!("{},{salt}", hex(&pbkdf2(password, salt.as_bytes())))
}

fn users(accounts: &[Account]) -> String {
    let mut text = String::from("user_id,password_hash,salt,is_superuser\n");
    for account in accounts {
        if let Some(hash) = &account.password_hash {
            // A String accepts every text.
            let _ = writeln!(text, "{},{hash},false", account.name);
        }
    }
    text
}

fn access_list(accounts: &[Account]) -> String {
    let mut text = String::from("%% Made by edge-provision; changes here are lost.\n");
    for Account { name, rights, .. } in accounts {
        match rights {
            Rights::Everything => {
                let _ = writeln!(text, "{{allow, {{user, \"{name}\"}}, all, [\"#\"]}}.");
            }
            Rights::Site { publish, subscribe, .. } => {
                for (verb, topics) in [("publish", publish), ("subscribe", subscribe)] {
                    let topics: Vec<_> = topics.iter().map(|topic| erlang_text(topic)).collect();
                    let topics = topics.join(", ");
                    let _ = writeln!(text, "{{allow, {{user, \"{name}\"}}, {verb}, [{topics}]}}.");
                }
            }
        }
    }
    text.push_str("{deny, all}.\n");
    text
}

fn erlang_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A String accepts every text.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
