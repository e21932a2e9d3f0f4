//! Files that keys name: whether they are opened depends on what the configuration is loaded for.

use std::path::{Path, PathBuf};

use crate::config::ServiceUser;
use crate::config::context::{Purpose, ReadContext};
use crate::config::field::Field;
use crate::config::scalar::{PublicFile, Scalar, SecretFile, ValueError};

/// A file that a key names.
pub(super) enum NamedFile<T> {
    /// It was opened, with this result.
    Opened(T),
    /// It was not: the purpose does not need it, or only systemd can give it.
    Unopened,
    /// It cannot be used, and the problem has been recorded.
    Rejected,
}

/// Opens the file of a secret, unless this is not the time for it.
pub(super) fn open_secret<T>(
    field: &Field<SecretFile>,
    named: &SecretFile,
    file: &Path,
    context: &mut ReadContext<'_>,
    open: impl FnOnce(&SecretFile) -> Result<T, ValueError>,
) -> NamedFile<T> {
    match context.purpose {
        Purpose::Look => return NamedFile::Unopened,
        Purpose::Check(_) if let Some(note) = named.only_systemd_has_it() => {
            let help = note.help.unwrap_or_default();
            context.add_note(&field.key, note.message, help, None);
            return NamedFile::Unopened;
        }
        Purpose::Check(_) | Purpose::Run => {}
    }
    // A credential is read by systemd, as root, and not by the user of the service.
    let path = (!named.is_credential()).then(|| named.path(file).ok()).flatten();
    opened(field, open(named), path.as_deref(), "chown edge-gateway", context)
}

/// Opens a file without a secret, unless this is not the time for it.
pub(super) fn open_public(
    field: &Field<PublicFile>,
    named: &PublicFile,
    file: &Path,
    context: &mut ReadContext<'_>,
) -> NamedFile<PathBuf> {
    if let Purpose::Look = context.purpose {
        return NamedFile::Unopened;
    }
    let result = named.readable_path("certificate", file);
    let path = result.as_ref().ok().cloned();
    opened(field, result, path.as_deref(), "chmod a+r", context)
}

/// Returns a result, or records that the file cannot be opened: by this user, or, in a check as
/// root, by the user of the service. `command` gives the service access.
fn opened<T, F: Scalar>(
    field: &Field<F>,
    result: Result<T, ValueError>,
    path: Option<&Path>,
    command: &str,
    context: &mut ReadContext<'_>,
) -> NamedFile<T> {
    let error = match (result, context.purpose) {
        (Err(error), _) => error,
        (Ok(_), Purpose::Check(Some(user)))
            if let Some(path) = path.filter(|p| !user.may_read(p)) =>
        {
            let (user, path) = (ServiceUser::NAME, path.display());
            let message = format!("the service runs as {user}, which may not read {path}");
            let help = format!("{command} {path}, and let {user} enter the directories above it");
            ValueError::new(message, help)
        }
        (Ok(opened), _) => return NamedFile::Opened(opened),
    };
    context.reject(&field.key, error.message, error.help);
    NamedFile::Rejected
}
