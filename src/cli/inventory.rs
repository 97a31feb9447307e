//! `roadstead inventory`

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use super::owner::{self, Here};
use super::{files, output};
use crate::bundle::archive::{SigningKey, signature};
use crate::bundle::inventory;
use crate::cache::PublicKey;

/// What stands behind the name of a signed file in that of its signature.
const SIGNATURE: &str = ".sig";
/// The longest signature.
const SIGNATURE_MAX: usize = 4096;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to write what this store has, for the other side's `export --have`; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Sign it with this private key (PEM, Ed25519 or ECDSA P-256), into FILE.sig
    #[arg(long, value_name = "KEY")]
    sign_key: Option<PathBuf>,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(here: Here, arguments: &Arguments) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    super::told(super::block_on(write(here, arguments)))
}

async fn write(here: Here, arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    let path = &arguments.output;
    let to_stdout = path == Path::new("-");
    if to_stdout && arguments.sign_key.is_some() {
        bail!("a signature is a file of its own; name a file with -o");
    }
    let key = arguments.sign_key.as_deref().map(signing_key).transpose()?;
    let file = owner::with(here, async |owner| owner.inventory().await).await?;
    let count = inventory::read(&file)?.len();
    if to_stdout {
        output::bytes(&file);
        return Ok(Vec::new());
    }
    files::replace(path, &file)?;
    let mut lines = vec![format!(
        "{}\t{count} blobs, {} bytes",
        path.display(),
        file.len()
    )];
    if let Some(key) = key {
        let signature = beside(path);
        files::replace(&signature, &key.sign(&file)?)?;
        lines.push(format!("{}\tits signature", signature.display()));
    }
    Ok(lines)
}

/// Reads an inventory, which must be signed by `key` where there is one.
pub(super) fn read(path: &Path, key: Option<&PublicKey>) -> anyhow::Result<Vec<String>> {
    let file = files::read(path, inventory::FILE_MAX)?;
    if let Some(key) = key {
        let signed = beside(path);
        let text = files::read(&signed, SIGNATURE_MAX)?;
        signature::verify(key, &file, &text).with_context(|| {
            format!("{} does not vouch for {}", signed.display(), path.display())
        })?;
    }
    let digests = inventory::read(&file);
    let digests = digests.with_context(|| format!("cannot use {}", path.display()))?;
    Ok(digests.iter().map(ToString::to_string).collect())
}

/// The signature of a file lies beside it.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(SIGNATURE);
    name.into()
}

/// A private key.
pub(super) fn signing_key(path: &Path) -> anyhow::Result<SigningKey> {
    SigningKey::from_pem(&files::key(path)?)
        .with_context(|| format!("{} cannot sign", path.display()))
}

/// A public key.
pub(super) fn public_key(path: &Path) -> anyhow::Result<PublicKey> {
    PublicKey::from_pem(&files::key(path)?)
        .with_context(|| format!("{} cannot verify", path.display()))
}
