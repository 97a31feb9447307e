//! `roadstead lock`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::images::Images;
use super::owner::{self, Here, Owner};
use super::progress::Shown;
use super::{MISUSED, files, output};
use crate::bundle::asked::Asked;
use crate::bundle::lock::{LOCK_MAX, Lock};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    images: Images,
    /// The lock to write, in the place of one that is there; - is standard output
    #[arg(short, long, value_name = "LOCK")]
    output: PathBuf,
    /// Print what goes on as JSON, a line for each event; the last one says what was written
    #[arg(long)]
    json: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(here: Here, arguments: &Arguments, environment: &[(String, String)]) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    let plan = match Plan::read(arguments, environment) {
        Ok(plan) => plan,
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            return ExitCode::from(MISUSED);
        }
    };
    let done = owner::with(here, async |owner| lock(owner, &plan, arguments).await);
    super::told(super::block_on(done))
}

/// What was read before anybody was asked for anything.
struct Plan {
    asked: Asked,
    earlier: Option<Lock>,
}

impl Plan {
    fn read(arguments: &Arguments, environment: &[(String, String)]) -> anyhow::Result<Self> {
        let asked = arguments.images.read(environment)?;
        if asked.lock.is_some() {
            bail!("--locked names a lock that is there; a lock is made of lists and images");
        }
        if is_stdout(&arguments.output) {
            if arguments.json {
                bail!("the lock and --json cannot both go to standard output; name a file with -o");
            }
            return Ok(Self {
                asked,
                earlier: None,
            });
        }
        let path = &arguments.output;
        let earlier = path.symlink_metadata().is_ok().then(|| {
            let text = String::from_utf8(files::read(path, LOCK_MAX)?);
            let lock = Lock::parse(&path.display().to_string(), &text.unwrap_or_default());
            lock.with_context(|| {
                let path = path.display();
                format!("{path} is there and is no lock; name another file, or remove it")
            })
        });
        Ok(Self {
            asked,
            earlier: earlier.transpose()?,
        })
    }
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

async fn lock(owner: &Owner, plan: &Plan, arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    let mut shown = Shown::new(arguments.json, "lock");
    let target = "/admin/lock";
    let worked = owner
        .work(target, &plan.asked, |event| shown.take(event))
        .await;
    shown.finish();
    let worked = worked?;
    let text = worked.result.pointer("/lock").and_then(Value::as_str);
    let text = text.context("the mirror did not say what it locked; is it of another version?")?;
    let path = &arguments.output;
    if is_stdout(path) {
        output::bytes(text.as_bytes());
        return Ok(Vec::new());
    }
    let lock = Lock::parse(&path.display().to_string(), text)?;
    let diff = lock.diff(&plan.earlier.clone().unwrap_or_default());
    if plan.earlier.is_none() || !diff.is_empty() {
        files::replace(path, text.as_bytes())?;
    }
    let images = lock.images().count();
    let changes: Vec<String> = diff.to_string().lines().map(str::to_owned).collect();
    if arguments.json {
        let told =
            json!({ "lock": path.display().to_string(), "images": images, "changes": changes });
        return Ok(vec![told.to_string()]);
    }
    let count = format!(
        "{}\t{images} images, {} changed",
        path.display(),
        changes.len()
    );
    Ok(changes.into_iter().chain([count]).collect())
}
