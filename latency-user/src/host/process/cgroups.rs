//! The cgroup of a process, and the container and pod that its path names.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// A process's cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Its path below the root of the hierarchy.
    pub path: String,
    /// Container id: 64 hexadecimal digits.
    pub container: Option<String>,
    /// Kubernetes UID of the pod.
    pub pod: Option<String>,
}

/// Length of a container id.
const ID_LENGTH: usize = 64;

/// The cgroup of process `pid` in the unified hierarchy, or, when that is the root, in the first
/// hierarchy where it is not the root.
///
/// # Errors
///
/// When the process is gone, or its file cannot be read.
pub fn of_process(root: &Path, pid: u32) -> Result<Cgroup> {
    let path = root.join(format!("proc/{pid}/cgroup"));
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(parse(&text))
}

/// Lines such as `0::/kubepods.slice/...`, `4:memory:/docker/...`.
fn parse(text: &str) -> Cgroup {
    let paths = || text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let unified = text.lines().find_map(|line| line.strip_prefix("0::"));
    let path = unified
        .filter(|path| *path != "/")
        .or_else(|| paths().find(|path| *path != "/"))
        .or(unified)
        .unwrap_or("/");
    Cgroup { path: path.to_owned(), container: container(path), pod: pod(path) }
}

/// `docker-<id>.scope`, `cri-containerd-<id>.scope`, `/docker/<id>`, `crio-<id>`.
fn container(path: &str) -> Option<String> {
    path.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let id = part.rsplit(['-', ':']).next()?;
        let is_id = id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| id.to_owned())
    })
}

/// `kubepods-burstable-pod<uid with _>.slice`, `/kubepods/burstable/pod<uid>`.
fn pod(path: &str) -> Option<String> {
    path.split('/').find_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let uid = match part.strip_prefix("kubepods") {
            Some(rest) => rest.split("-pod").nth(1)?,
            None => part.strip_prefix("pod")?,
        };
        let uid = uid.replace('_', "-");
        let is_uid = !uid.is_empty() && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        is_uid.then_some(uid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9f6b1b2c3d4e5f60718293a4b5c6d7e8f90123456789abcdef0123456789abcd";

    #[test]
    fn containers_and_pods_by_the_paths_of_their_runtimes() {
        let uid = "1f3a5b7c-0123-4567-89ab-cdef01234567";
        let underscored = uid.replace('-', "_");
        let cases = [
            (format!("0::/system.slice/docker-{ID}.scope"), true, false),
            (format!("4:memory:/docker/{ID}\n0::/"), true, false),
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/\
                     kubepods-burstable-pod{underscored}.slice/cri-containerd-{ID}.scope"
                ),
                true,
                true,
            ),
            (format!("0::/kubepods/besteffort/pod{uid}/{ID}"), true, true),
            (format!("0::/kubepods.slice/kubepods-pod{underscored}.slice/crio-{ID}"), true, true),
            ("0::/system.slice/podman-helper.service".into(), false, false),
            ("0::/user.slice/user-1000.slice/session-3.scope".into(), false, false),
            ("0::/".into(), false, false),
            (String::new(), false, false),
        ];
        for (text, has_container, has_pod) in cases {
            let cgroup = parse(&text);
            assert_eq!(cgroup.container.as_deref(), has_container.then_some(ID), "{text}");
            assert_eq!(cgroup.pod.as_deref(), has_pod.then_some(uid), "{text}");
        }
    }

    #[test]
    fn the_unified_hierarchy_comes_first_unless_it_is_the_root() {
        assert_eq!(parse("1:cpu:/a\n0::/b\n").path, "/b");
        assert_eq!(parse("1:cpu:/a\n0::/\n").path, "/a");
        assert_eq!(parse("1:cpu:/\n0::/\n").path, "/");
    }
}
