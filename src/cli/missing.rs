//! `roadstead missing`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::owner::Here;
use super::{files, output, owner};
use crate::clock;

/// What `GET /admin/missing` answers as a list.
const LIST: &str = "/admin/missing?format=list";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Write the list to this file, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Forget what is listed; what is asked for again is missing again
    #[arg(long)]
    clear: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(here: Here, arguments: &Arguments) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    super::told(super::block_on(missing(here, arguments)).map(|()| Vec::new()))
}

/// What is not written is not forgotten.
async fn missing(here: Here, arguments: &Arguments) -> anyhow::Result<()> {
    // What is asked for while the list is written stays.
    let until = clock::now();
    owner::with(here, async |owner| {
        let list = owner.read(Method::GET, LIST, None).await?;
        write(arguments, &list)?;
        if arguments.clear {
            let target = format!("/admin/missing?until={until}");
            owner.ask(Method::DELETE, &target, None).await?;
        }
        Ok(())
    })
    .await
}

fn write(arguments: &Arguments, list: &[u8]) -> anyhow::Result<()> {
    if let Some(path) = &arguments.output {
        return files::replace(path, list);
    }
    output::bytes(list);
    Ok(())
}
