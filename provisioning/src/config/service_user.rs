//! The user that the service runs as, and whether that user may read a file.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Extended attribute of a file that has an access control list (acl(5)).
const ACL_ATTRIBUTE: &str = "system.posix_acl_access";
const READ: u32 = 0o4;
const SEARCH: u32 = 0o1;

/// The user that the service runs as, as far as it decides which files the service can read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceUser {
    uid: u32,
    /// The user's own group and those that list the user as a member.
    groups: Vec<u32>,
}

impl ServiceUser {
    /// User in the unit of the package.
    pub const NAME: &str = "edge-gateway";

    /// Returns the user of the service; `None` where the package is not installed.
    #[must_use]
    pub fn find() -> Option<Self> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(Self::NAME, &read("/etc/passwd"), &read("/etc/group"))
    }

    /// Returns the user with this name, from the text of passwd(5) and group(5).
    fn parse(name: &str, passwd: &str, group: &str) -> Option<Self> {
        let user = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| (fields.nth(1), fields.next()))
        });
        let (uid, own_group) = user?;
        let joined = group.lines().filter_map(|line| {
            let mut fields = line.split(':').skip(2);
            let id = fields.next()?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == name).then_some(id)
        });
        let groups = own_group?.parse().into_iter().chain(joined).collect();
        Some(Self { uid: uid?.parse().ok()?, groups })
    }

    /// Returns whether the user may read the file, by the modes of the file and of the directories
    /// above it. A file that cannot be looked at counts as readable: the caller reports that.
    pub(super) fn may_read(&self, path: &Path) -> bool {
        // The target of a symbolic link: the modes above it count, not those above the link.
        let Ok(path) = path.canonicalize() else { return true };
        let is_granted = |path: &Path, access| {
            // With an access control list, the mode does not say who has access.
            let has_acl = rustix::fs::getxattr(path, ACL_ATTRIBUTE, &mut [0_u8; 0]).is_ok();
            has_acl || path.metadata().is_ok_and(|metadata| self.is_granted(&metadata, access))
        };
        is_granted(&path, READ) && path.ancestors().skip(1).all(|dir| is_granted(dir, SEARCH))
    }

    /// Returns whether the mode grants this access. Only the first class that the user is in
    /// counts: the access of the group does not help an owner without access (path_resolution(7)).
    fn is_granted(&self, metadata: &Metadata, access: u32) -> bool {
        let class = match metadata {
            owned if owned.uid() == self.uid => 6,
            shared if self.groups.contains(&shared.gid()) => 3,
            _ => 0,
        };
        metadata.permissions().mode() >> class & access != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
                          edge-gateway:x:104:111::/var/lib/edge-gateway:/usr/sbin/nologin\n";
    const GROUP: &str = "ssl-cert:x:113:postgres,edge-gateway\nedge-gateway:x:111:\nbroken\n";

    #[test]
    fn a_user_is_found_with_its_groups() {
        let found = ServiceUser::parse("edge-gateway", PASSWD, GROUP);
        assert_eq!(found, Some(ServiceUser { uid: 104, groups: vec![111, 113] }));
        assert_eq!(ServiceUser::parse("gateway", PASSWD, GROUP), None);
    }

    #[test]
    fn a_file_is_readable_through_its_owner_its_group_or_its_mode_for_others() {
        let dir = std::env::temp_dir().join(format!("service-user-{}", fastrand::u64(..)));
        fs::create_dir(&dir).unwrap();
        let file = dir.join("key");
        fs::write(&file, "key").unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(&dir, 0o755);
        let metadata = fs::metadata(&file).unwrap();
        let owner = ServiceUser { uid: metadata.uid(), groups: vec![] };
        let member = ServiceUser { uid: metadata.uid() + 1, groups: vec![metadata.gid()] };
        let other = ServiceUser { uid: metadata.uid() + 1, groups: vec![metadata.gid() + 1] };
        for (mode, readable) in [
            (0o600, [true, false, false]),
            (0o640, [true, true, false]),
            (0o604, [true, false, true]),
            (0o044, [false, true, true]),
        ] {
            set(&file, mode);
            let users = [&owner, &member, &other].map(|user| user.may_read(&file));
            assert_eq!(users, readable, "{mode:o}");
        }
        set(&file, 0o644);
        set(&dir, 0o700);
        let users = [&owner, &member, &other].map(|user| user.may_read(&file));
        assert_eq!(users, [true, false, false], "the directory is closed");
        fs::remove_dir_all(dir).unwrap();
    }
}
