//! Where options of `rgrid run` come from: the command line, before the environment, before the script, before `rgrid.toml`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    path::Path,
};

use clap::{ArgAction, ArgMatches, Args as _, Command, FromArgMatches as _, parser::ValueSource, value_parser};
use serde::Serialize;

use super::{RunArgs, environment::EnvArgs, script};
use crate::{
    failure::usage,
    project::{Project, Setting},
};

/// Options that choose the grid, or are about these files themselves: they are the user's alone.
const USERS_OWN: [&str; 6] = ["url", "key", "key-file", "data-dir", "dry-run", "no-defaults"];
/// Options that a script may not say either: it does not choose whose it is or how many jobs it becomes, nor pass on what stands
/// in files or variables here.
const NOT_A_SCRIPTS: [&str; 7] = ["namespace", "env-file", "batch", "each-line", "zip", "param", "array"];
/// Options whose values from all places come together; any other's are those of the first place.
const ADDED: [&str; 8] = ["env", "env-file", "label", "secret", "include", "exclude", "input", "output"];
/// Options whose value is nobody else's business.
const HIDDEN: [&str; 2] = ["key", "env"];

/// What the options came to, all places heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    /// The script's environment.
    pub(super) env: BTreeMap<String, String>,
    /// Its secrets: the variable, and the name.
    pub(super) secrets: BTreeMap<String, String>,
    /// Each option that was said, and where.
    pub(super) origins: Vec<Origin>,
}

/// An option, and where it was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Origin {
    /// The option.
    pub(super) option: String,
    /// Its value; of an environment variable its name, and nothing of a flag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) value: String,
    /// Where: the command line, a variable, or a file and its line.
    pub(super) from: String,
}

/// What one place says.
struct Layer {
    /// A file and its line.
    from: String,
    matches: ArgMatches,
}

/// The options of a run, as given and as the files say it.
///
/// # Errors
/// A usage error where a file says what no run has, with its line.
pub(crate) fn hear(given: &ArgMatches, words: &[OsString]) -> anyhow::Result<RunArgs> {
    let command = RunArgs::augment_args(Command::new("rgrid run"));
    let mut args = RunArgs::from_arg_matches(given)?;
    let (project, script) = if args.no_defaults { Default::default() } else { files(&args)? };
    let mut layers = Vec::new();
    layers.extend(read(&command, project, &USERS_OWN)?);
    let scripts_own = layers.len();
    layers.extend(read(&command, script, &[&USERS_OWN[..], &NOT_A_SCRIPTS[..]].concat())?);
    let top = Layer {
        from: String::new(),
        matches: given.clone(),
    };
    let envs = layers.iter().chain([&top]).map(|layer| EnvArgs::from_arg_matches(&layer.matches));
    let envs = envs.collect::<Result<Vec<_>, _>>()?;
    let (merged, mut origins) = merge(&command, &layers, scripts_own, &top);
    if !merged.is_empty() {
        let all = [OsString::from("rgrid run")].into_iter();
        let all = all.chain(merged.into_iter().map(Into::into)).chain(words.iter().cloned());
        args = RunArgs::from_arg_matches(&command.try_get_matches_from(all)?)?;
    }
    origins.sort_by(|a, b| a.option.cmp(&b.option));
    args.heard = Heard {
        env: EnvArgs::resolve(&envs),
        secrets: EnvArgs::secrets(&envs),
        origins,
    };
    Ok(args)
}

/// What `rgrid.toml` and the script say.
fn files(args: &RunArgs) -> anyhow::Result<(Vec<Setting>, Vec<Setting>)> {
    let project = Project::of_here()?.run;
    let script = match args.words.first() {
        Some(script) if !args.program => script::options(Path::new(script))?,
        _ => Vec::new(),
    };
    Ok((project, script))
}

/// Reads each setting by itself, so that a message can say where it stands.
fn read(command: &Command, settings: Vec<Setting>, refused: &[&str]) -> anyhow::Result<Vec<Layer>> {
    let command = command
        .clone()
        .no_binary_name(true)
        .disable_help_flag(true)
        .mut_args(|arg| arg.required(false).env(None::<&str>))
        // So that an option that does not exist is no word of the script's.
        .mut_arg("words", |arg| arg.allow_hyphen_values(false).trailing_var_arg(false));
    let mut said: HashMap<String, String> = HashMap::new();
    let mut layers = Vec::new();
    for Setting { from, words } in settings {
        let wrong = |error: clap::Error| usage(format!("{from}: {}", sentence(&error)));
        // First the words alone: what may not be said is not looked at, least of all the file that it names.
        let unread = command.clone().mut_args(|arg| {
            if takes_value(&arg) {
                arg.value_parser(value_parser!(OsString))
            } else {
                arg
            }
        });
        let raw = unread.try_get_matches_from(&words).map_err(wrong)?;
        if let Some(word) = raw.get_many::<OsString>("words").and_then(|mut words| words.next()) {
            return Err(usage(format!(
                "{from}: `{}` is no option; only options of `rgrid run` can stand there",
                word.display()
            )));
        }
        for option in options(&command, &raw) {
            check(&option, &from, &words, refused)?;
            if ADDED.contains(&option.as_str()) {
                continue;
            }
            if let Some(earlier) = said.insert(option.clone(), from.clone()).filter(|earlier| *earlier != from) {
                return Err(usage(format!("{from}: --{option} was said before ({earlier}); say it once")));
            }
        }
        let matches = command.clone().try_get_matches_from(&words).map_err(wrong)?;
        layers.push(Layer { from, matches });
    }
    Ok(layers)
}

/// Refuses an option that is not for its place.
fn check(option: &str, from: &str, words: &[String], refused: &[&str]) -> anyhow::Result<()> {
    if refused.contains(&option) {
        return Err(usage(format!(
            "{from}: --{option} cannot be said there, only on the command line; take it out"
        )));
    }
    if option == "env" && refused.contains(&"env-file") && passes_on(words) {
        return Err(usage(format!(
            "{from}: a script cannot ask for a variable of this machine; write --env KEY=VALUE, or give --env KEY on the command line"
        )));
    }
    Ok(())
}

/// Whether `--env KEY` stands in there.
fn passes_on(words: &[String]) -> bool {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = if word == "--env" {
            words.next().map(String::as_str)
        } else {
            word.strip_prefix("--env=")
        };
        if value.is_some_and(|value| !value.contains('=')) {
            return true;
        }
    }
    false
}

/// The words that the lower layers add to the command line, and where every option comes from.
fn merge(command: &Command, layers: &[Layer], scripts_own: usize, top: &Layer) -> (Vec<String>, Vec<Origin>) {
    let of_top: BTreeSet<String> = options(command, &top.matches).into_iter().collect();
    let (project, script) = layers.split_at(scripts_own);
    let of_script: BTreeSet<String> = script.iter().flat_map(|layer| options(command, &layer.matches)).collect();
    let (mut merged, mut origins) = (Vec::new(), Vec::new());
    for (layer, is_project) in project
        .iter()
        .map(|layer| (layer, true))
        .chain(script.iter().map(|layer| (layer, false)))
    {
        for option in options(command, &layer.matches) {
            let is_said = of_top.contains(&option) || (is_project && of_script.contains(&option));
            if is_said && !ADDED.contains(&option.as_str()) {
                continue;
            }
            let values = values(command, &layer.matches, &option);
            // What stands in the environment is told apart already, by `EnvArgs`.
            if values.is_empty() {
                merged.push(format!("--{option}"));
            }
            merged.extend(values.iter().map(|value| format!("--{option}={value}")));
            origins.push(origin(&option, &values, layer.from.clone()));
        }
    }
    for option in &of_top {
        let from = source(command, &top.matches, option);
        origins.push(origin(option, &values(command, &top.matches, option), from));
    }
    (merged, origins)
}

fn origin(option: &str, values: &[String], from: String) -> Origin {
    let shown = |value: &String| match value.split_once('=') {
        Some((name, _)) if option == "env" => name.to_owned(),
        _ if HIDDEN.contains(&option) && option != "env" => "…".to_owned(),
        _ => value.clone(),
    };
    Origin {
        option: format!("--{option}"),
        value: values.iter().map(shown).collect::<Vec<_>>().join(" "),
        from,
    }
}

/// The long names of the options that are said, and not just there by default.
fn options(command: &Command, matches: &ArgMatches) -> Vec<String> {
    let is_said = |arg: &&clap::Arg| {
        let id = arg.get_id().as_str();
        let source = matches.value_source(id);
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) && (takes_value(arg) || matches.get_flag(id))
    };
    let said = command.get_arguments().filter(is_said);
    said.filter_map(|arg| Some(arg.get_long()?.to_owned())).collect()
}

fn takes_value(arg: &clap::Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn by_long<'a>(command: &'a Command, option: &str) -> Option<&'a clap::Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(option))
}

/// An option's values, as they are written.
fn values(command: &Command, matches: &ArgMatches, option: &str) -> Vec<String> {
    let Some(arg) = by_long(command, option).filter(|arg| takes_value(arg)) else {
        return Vec::new();
    };
    let raw = matches.get_raw(arg.get_id().as_str());
    raw.into_iter()
        .flatten()
        .map(|value| value.to_string_lossy().into_owned())
        .collect()
}

fn source(command: &Command, matches: &ArgMatches, option: &str) -> String {
    let arg = by_long(command, option);
    let is_variable = |arg: &&clap::Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::EnvVariable);
    match arg.filter(is_variable).and_then(clap::Arg::get_env) {
        Some(variable) => format!("the variable {}", variable.display()),
        None => "the command line".to_owned(),
    }
}

/// What the parser has to say, in one line.
fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let said = text
        .split("\n\n")
        .take_while(|part| !part.starts_with("Usage:") && !part.starts_with("For more"));
    let said: Vec<String> = said.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    said.join("; ")
}
