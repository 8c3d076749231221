//! Carrying an installation out, or only showing it.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::super::diff;
use super::super::durable::{self, FileError};
use super::super::paths::GatewayPaths;
use super::document::DocumentError;
use super::files::PLUGIN_FILES;
use super::manifest::{Manifest, SCHEMA};
use super::plan::{Plan, PlanError, plan};

/// Largest configuration that is edited, in bytes.
const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;
const PRIVATE_MODE: u32 = 0o600;

/// How to install.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InstallOptions {
    /// Create OpenClaw's configuration when there is none. Off by default: a gateway without
    /// `gateway.mode` does not start.
    pub create_config: bool,
}

/// Why nothing was installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is no OpenClaw configuration.
    #[error(
        "no OpenClaw configuration at {path}; run `openclaw onboard` first, or \
         `openclaw config set gateway.mode local`",
        path = path.display()
    )]
    NoConfig {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The configuration is a link, a directory or another thing that is not to be replaced.
    #[error(
        "{path} is not a regular file; point OPENCLAW_CONFIG_PATH at the file itself",
        path = path.display()
    )]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The configuration is larger than one can be.
    #[error("{path} is larger than {bytes_max} bytes; it is left alone", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        bytes_max: u64,
    },
    /// The configuration cannot be edited.
    #[error("{path} is left alone: {source}", path = path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PlanError,
    },
    /// The configuration cannot be read for removal.
    #[error("{path} is left alone: {source}; remove the plugin `tideover` from it by hand", path = path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DocumentError,
    },
    /// The record of an earlier installation cannot be read.
    #[error("{path} is not a record of this version; move it away and try again", path = path.display())]
    Manifest {
        /// The record.
        path: PathBuf,
    },
    /// The state directory's path is not UTF-8, so that the configuration cannot name it.
    #[error("{path} is not UTF-8 and cannot be named in the configuration", path = path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The configuration was changed by someone else between planning and writing.
    #[error("{path} has changed in the meantime; nothing was written to it, try again", path = path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// One file to be written or removed.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "holds a configuration with secrets")]
pub struct FileChange {
    /// The file.
    pub path: PathBuf,
    /// A description of what changes, as lines of a diff that show only what is ours.
    pub diff: String,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
    /// Whether the file must still be what it was at planning.
    guarded: bool,
}

/// An installation or removal that is planned and not yet done.
#[derive(Clone, PartialEq, Eq)]
#[expect(missing_debug_implementations, reason = "holds a configuration with secrets")]
pub struct Prepared {
    /// The files, in the order in which they are written. Empty when all is in place.
    pub files: Vec<FileChange>,
    /// What changes in the configuration, in words.
    pub changes: Vec<String>,
    /// A directory to create first, or to remove at the end where it is empty.
    dir: PathBuf,
}

impl Prepared {
    /// Every file with its diff, for `--dry-run`.
    pub fn describe(&self) -> String {
        let part = |file: &FileChange| format!("{}\n{}", file.path.display(), file.diff);
        self.files.iter().map(part).collect::<Vec<_>>().join("\n")
    }

    /// Carries it out. The configuration is written last at an installation and first at a
    /// removal: it never names a plugin that is not there.
    pub fn apply(&self) -> Result<(), InstallError> {
        for file in &self.files {
            if file.guarded && read(&file.path)? != file.before {
                return Err(InstallError::Changed { path: file.path.clone() });
            }
            match &file.after {
                Some(bytes) => {
                    if let Some(parent) = file.path.parent() {
                        durable::create_private_dir(parent)?;
                    }
                    durable::replace(&file.path, bytes, PRIVATE_MODE)?;
                }
                None => durable::remove(&file.path)?,
            }
        }
        // A directory that holds anything else stays.
        if self.files.iter().any(|file| file.after.is_none()) {
            fs::remove_dir(&self.dir).ok();
        }
        Ok(())
    }

    /// Takes it back, where a larger installation has failed. A configuration that somebody has
    /// changed since is left alone.
    pub fn take_back(&self) -> Result<(), InstallError> {
        for file in self.files.iter().rev() {
            if file.guarded && read(&file.path)? != file.after {
                continue;
            }
            match &file.before {
                Some(bytes) => {
                    if let Some(parent) = file.path.parent() {
                        durable::create_private_dir(parent)?;
                    }
                    durable::replace(&file.path, bytes, PRIVATE_MODE)?;
                }
                None => durable::remove(&file.path)?,
            }
        }
        if self.files.iter().any(|file| file.before.is_none()) {
            fs::remove_dir(&self.dir).ok();
        }
        Ok(())
    }
}

/// Plans the installation of the plugin into the gateway at `paths`. Writes nothing.
pub fn prepare_install(
    paths: &GatewayPaths,
    options: InstallOptions,
) -> Result<Prepared, InstallError> {
    let dir = paths.tideover_dir().join("plugin");
    let dir_text = dir.to_str().ok_or_else(|| InstallError::Path { path: dir.clone() })?.to_owned();
    let config = &paths.config_file;
    let before = read_config(config)?;
    if before.is_none() && !options.create_config {
        return Err(InstallError::NoConfig { path: config.clone() });
    }
    let text = before.clone().unwrap_or_else(|| b"{\n}\n".to_vec());
    let planned = plan(&text, &dir_text)
        .map_err(|source| InstallError::Plan { path: config.clone(), source })?;
    let mut files = plugin_changes(&dir, true)?;
    if !planned.changes.is_empty() {
        let manifest_path = paths.tideover_dir().join("install.json");
        let old = read(&manifest_path)?;
        let mut manifest = match &old {
            Some(bytes) => parse_manifest(bytes, &manifest_path)?,
            None => Manifest::new(&dir_text, before.is_none()),
        };
        manifest.record(&text, &planned);
        manifest.dir.clone_from(&dir_text);
        let after = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
        let diff = "(the record for `tideover uninstall`)\n".to_owned();
        files.push(FileChange {
            path: manifest_path,
            diff,
            before: old,
            after: Some(after),
            guarded: false,
        });
        let diff = config_diff(&planned);
        let after = Some(planned.after);
        files.push(FileChange { path: config.clone(), diff, before, after, guarded: true });
    }
    Ok(Prepared { files, changes: planned.changes, dir })
}

/// Plans the removal of the plugin. Works without a record of the installation too. Writes
/// nothing.
pub fn prepare_uninstall(paths: &GatewayPaths) -> Result<Prepared, InstallError> {
    let dir = paths.tideover_dir().join("plugin");
    let dir_text = dir.to_str().ok_or_else(|| InstallError::Path { path: dir.clone() })?;
    let manifest_path = paths.tideover_dir().join("install.json");
    let record = read(&manifest_path)?;
    let manifest = match &record {
        Some(bytes) => parse_manifest(bytes, &manifest_path)?,
        None => Manifest::new(dir_text, false),
    };
    let config = &paths.config_file;
    let mut files = Vec::new();
    let mut changes = Vec::new();
    if let Some(before) = read_config(config)? {
        let after = manifest
            .remove_from(&before)
            .map_err(|source| InstallError::Document { path: config.clone(), source })?;
        if after != before {
            changes.push("remove the plugin `tideover`".to_owned());
            // A file that we created goes when nothing of anyone else is in it.
            let ours = manifest.config_created && is_empty_object(&after);
            let diff =
                "-(the plugin `tideover`: its path, its entry, its place in the allow list)\n";
            files.push(FileChange {
                path: config.clone(),
                diff: diff.to_owned(),
                before: Some(before),
                after: (!ours).then_some(after),
                guarded: true,
            });
        }
    }
    if record.is_some() {
        let diff = "-(the record of the installation)\n".to_owned();
        files.push(FileChange {
            path: manifest_path,
            diff,
            before: record,
            after: None,
            guarded: false,
        });
    }
    files.extend(plugin_changes(&dir, false)?);
    Ok(Prepared { files, changes, dir })
}

/// The plugin's files that differ from what is to be there.
fn plugin_changes(dir: &Path, wanted: bool) -> Result<Vec<FileChange>, InstallError> {
    let mut changes = Vec::new();
    for file in PLUGIN_FILES {
        let path = dir.join(file.name);
        let before = read(&path)?;
        let after = wanted.then(|| file.text.as_bytes().to_vec());
        if before == after {
            continue;
        }
        let diff = match (&before, &after) {
            (None, _) => format!("+(new file, {} lines)\n", file.text.lines().count()),
            (Some(_), None) => "-(removed)\n".to_owned(),
            (Some(old), Some(_)) => {
                diff::lines(Some(&String::from_utf8_lossy(old)), Some(file.text))
            }
        };
        changes.push(FileChange { path, diff, before, after, guarded: false });
    }
    Ok(changes)
}

fn config_diff(plan: &Plan) -> String {
    plan.shown.iter().map(|(line, text)| format!("@@ line {line} @@\n{text}\n")).collect()
}

fn is_empty_object(bytes: &[u8]) -> bool {
    bytes.iter().filter(|byte| !byte.is_ascii_whitespace()).eq(b"{}")
}

fn parse_manifest(bytes: &[u8], path: &Path) -> Result<Manifest, InstallError> {
    serde_json::from_slice(bytes)
        .ok()
        .filter(|manifest: &Manifest| manifest.schema == SCHEMA)
        .ok_or_else(|| InstallError::Manifest { path: path.to_owned() })
}

fn read_config(path: &Path) -> Result<Option<Vec<u8>>, InstallError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(InstallError::NotAFile { path: path.to_owned() })
        }
        Ok(_) | Err(_) => read(path),
    }
}

/// The bytes of a file; `None` when there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, InstallError> {
    let mut bytes = Vec::new();
    let result = fs::File::open(path)
        .and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes));
    match result {
        Ok(_) if bytes.len() as u64 > CONFIG_BYTES_MAX => {
            Err(InstallError::TooLarge { path: path.to_owned(), bytes_max: CONFIG_BYTES_MAX })
        }
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new("read", path, error).into()),
    }
}
