//! Container image from scratch: an OCI layout in a tar, one index for all architectures.
//!
//! The layout is four kinds of small JSON and one layer for each architecture (OCI Image Format
//! Specification 1.1), so that buildah and a storage driver are not needed to write it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::architecture::PackageArch;
use super::archive::Compression;
use super::programs::Programs;
use super::staging::StagingDir;
use super::{PACKAGE_NAME, VERSION, archive, sums};
use crate::run::{command, output_of};

/// User and group of the program: the "nonroot" of other images from scratch.
const USER: &str = "65532";
const STATE_DIR: &str = "var/lib/edge-gateway";

/// Writes the image of these architectures and returns its path.
pub(super) fn image(
    programs: &[(PackageArch, Programs)],
    output: &Path,
    built_at: &str,
    compression: Compression,
) -> Result<PathBuf> {
    let layout = StagingDir::new(output.join(format!("oci.{}", std::process::id())))?;
    let mut manifests = Vec::new();
    for (arch, programs) in programs {
        let manifest = manifest(*arch, programs, &layout, built_at, compression)?;
        let entry = put_json(&layout, "application/vnd.oci.image.manifest.v1+json", &manifest)?;
        manifests.push(with(entry, "platform", platform(*arch)));
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    let index = put_json(&layout, "application/vnd.oci.image.index.v1+json", &index)?;
    // podman names the image by it.
    let name = format!("{PACKAGE_NAME}:{VERSION}");
    let name = json!({ "org.opencontainers.image.ref.name": name });
    let index = with(index, "annotations", name);
    layout.write("index.json", &json!({ "schemaVersion": 2, "manifests": [index] }).to_string())?;
    layout.write("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
    let image = output.join(format!("{PACKAGE_NAME}-{VERSION}-oci.tar"));
    archive::tar(layout.root(), &["."], &image, built_at)?;
    Ok(image)
}

/// Writes layer and configuration of one architecture and returns its manifest.
fn manifest(
    arch: PackageArch,
    programs: &Programs,
    layout: &StagingDir,
    built_at: &str,
    compression: Compression,
) -> Result<Value> {
    let root = StagingDir::new(layout.root().join("root"))?;
    programs.copy_to(PACKAGE_NAME, arch, &root, PACKAGE_NAME)?;
    for dir in ["etc/edge-gateway", "tmp", STATE_DIR] {
        root.make_dir(dir)?;
    }
    root.set_mode("tmp", 0o1777)?;
    root.set_mode(STATE_DIR, 0o750)?;
    let layer = layout.root().join("layer.tar");
    // Each path once: podman refuses a layer that has one twice.
    let of_root = [PACKAGE_NAME, "etc", "etc/edge-gateway", "tmp", "var", "var/lib"];
    archive::append(root.root(), &of_root, &layer, built_at, "0")?;
    // A new volume takes the owner from the image.
    archive::append(root.root(), &[STATE_DIR], &layer, built_at, USER)?;
    let diff_id = sums::sha256(&layer)?;
    archive::gzip(&layer, compression)?;
    let layer = put(layout, "application/vnd.oci.image.layer.v1.tar+gzip", &layer_gz(layout))?;
    let execution = json!({
        "User": format!("{USER}:{USER}"),
        "Entrypoint": [format!("/{PACKAGE_NAME}")],
        "Cmd": ["run"],
        "Volumes": { format!("/{STATE_DIR}"): {} },
        "Labels": {
            "org.opencontainers.image.title": PACKAGE_NAME,
            "org.opencontainers.image.version": VERSION,
            "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        },
    });
    let rootfs = json!({ "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] });
    let config = with(platform(arch), "created", json!(iso_date(built_at)?));
    let config = with(with(config, "config", execution), "rootfs", rootfs);
    Ok(json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put_json(layout, "application/vnd.oci.image.config.v1+json", &config)?,
        "layers": [layer],
    }))
}

fn layer_gz(layout: &StagingDir) -> PathBuf {
    layout.root().join("layer.tar.gz")
}

fn platform(arch: PackageArch) -> Value {
    match arch {
        PackageArch::Amd64 => json!({ "architecture": "amd64", "os": "linux" }),
        PackageArch::Arm64 => json!({ "architecture": "arm64", "os": "linux" }),
        PackageArch::Armv7 => json!({ "architecture": "arm", "os": "linux", "variant": "v7" }),
    }
}

/// Adds a member to a JSON object.
fn with(mut object: Value, key: &str, value: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.insert(key.to_owned(), value);
    }
    object
}

fn put_json(layout: &StagingDir, media_type: &str, value: &Value) -> Result<Value> {
    layout.write("blob", &value.to_string())?;
    put(layout, media_type, &layout.root().join("blob"))
}

/// Moves a file to the place of its digest and returns its descriptor.
fn put(layout: &StagingDir, media_type: &str, file: &Path) -> Result<Value> {
    let digest = sums::sha256(file)?;
    let size = fs::metadata(file).with_context(|| file.display().to_string())?.len();
    layout.move_in(file, &format!("blobs/sha256/{digest}"))?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size }))
}

fn iso_date(built_at: &str) -> Result<String> {
    let date = format!("@{built_at}");
    let text = output_of(&mut command("date", &["-u", "-d", &date, "+%Y-%m-%dT%H:%M:%SZ"]))?;
    Ok(text.trim().to_owned())
}
