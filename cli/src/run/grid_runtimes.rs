//! What the grid's own table says of a run: asked only where the names that are built in do not tell.

use std::{fs::File, io::Read as _, path::Path};

use bus::{
    grid::runtimes::{Alias, IMAGE, RuntimesSet},
    spec::runtime::{is_built_in, of_extension},
};
use model::Runtimes;

use super::RunArgs;
use crate::{failure::usage, values::Pair};

/// Puts what the grid's operator said into the options: what an alias means, and which runtime an extension.
///
/// # Errors
/// If the grid cannot be asked; a usage error where an alias cannot be meant so.
pub(crate) async fn resolve(args: &mut RunArgs) -> anyhow::Result<()> {
    if !is_asked(args) {
        return Ok(());
    }
    let Runtimes { runtimes, aliases } = args.connect.client()?.get("/v1/runtimes", &()).await?;
    let set = RuntimesSet { runtimes, aliases };
    if let Some(runtime) = &args.runtime
        && let Some(alias) = set.alias(runtime).map_err(|refusal| usage(refusal.0))?
    {
        if let (Alias::Image(means), Some(image)) = (alias, &args.image) {
            return Err(usage(format!(
                "--runtime {runtime} stands for the image {means} on this grid, and --image names {image}; leave one of them out"
            )));
        }
        args.runtime = Some(alias.to_string());
    }
    // Behind the user's own, which count more.
    for (name, meaning) in &set.runtimes {
        let pair = |extension: &String| Pair {
            key: extension.clone(),
            value: name.to_string(),
        };
        args.runtimes.extend(meaning.extensions.iter().map(pair));
    }
    Ok(())
}

/// Whether a script is there, and its first line does not say what runs it.
fn says_nothing(script: &Path) -> bool {
    let mut head = Vec::new();
    script.is_file() && File::open(script).is_ok_and(|file| file.take(2).read_to_end(&mut head).is_ok() && head != b"#!")
}

/// Whether something in a command line can only be told by the grid.
fn is_asked(args: &RunArgs) -> bool {
    match args.runtime.as_deref() {
        Some(runtime) if !runtime.starts_with(IMAGE) => !is_built_in(runtime.split(':').next().unwrap_or(runtime)),
        _ if args.program => false,
        _ => {
            let script = args.words.first().map(Path::new);
            let extension = script.and_then(|script| script.extension()?.to_str());
            let own = |extension: &str| {
                args.runtimes
                    .iter()
                    .any(|pair| pair.key.trim_start_matches('.').eq_ignore_ascii_case(extension))
            };
            extension.is_some_and(|extension| of_extension(extension).is_none() && !own(extension)) && script.is_some_and(says_nothing)
        }
    }
}
