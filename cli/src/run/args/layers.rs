//! Where options of `rgrid run` come from: the command line, before the environment, before the script, before `rgrid.toml`.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    path::Path,
};

use clap::{ArgAction, ArgMatches, Args as _, Command, FromArgMatches as _, parser::ValueSource, value_parser};

use super::{
    RunArgs,
    environment::EnvArgs,
    files::from_here,
    resolved::{Origin, Resolved},
    script_head,
};
use crate::{
    failure::usage,
    output::{harmless, typed},
    project::{Project, Setting, Wanted},
    saving::NamedOutputs,
};

/// Options that choose the grid, or are about these files themselves: they are the user's alone.
const USER_ONLY_OPTIONS: [&str; 6] = ["url", "key", "key-file", "data-dir", "dry-run", "no-defaults"];
/// The options that a script's own head may say. A script may be a stranger's, and reading it is not running it: what it says must do
/// nothing that the job could not do by itself. So it may ask for less to come back (`output`: patterns that lead out of the job's directory
/// are rejected for everybody), and may not name files, secrets, an executor, an image, another's job, or who it is.
const SCRIPT_OPTIONS: [&str; 26] = [
    "cpu",
    "memory",
    "shm",
    "timeout",
    "queue-timeout",
    "total-timeout",
    "grace",
    "retries",
    "retry-on",
    "backoff",
    "max-backoff",
    "max-losses",
    "label",
    "name",
    "queue",
    "priority",
    "env",
    "runtime",
    "output",
    "no-outputs",
    "no-download",
    "keep-deleted",
    "keep-outputs",
    "no-scan",
    "no-requirements",
    "verbose",
];
/// Options whose values from all places come together; any other's are those of the first place.
const MERGED_OPTIONS: [&str; 8] = ["env", "env-file", "label", "secret", "include", "exclude", "input", "output"];
/// Options whose value is nobody else's business.
const HIDDEN_OPTIONS: [&str; 2] = ["key", "env"];

/// How many characters of an option are shown at most.
const MAX_SHOWN: usize = 400;

/// Who says an option, where it is not the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Author {
    /// A project's `rgrid.toml`, which the user trusts.
    Project,
    /// A script's head, which nobody vouches for.
    Script,
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
pub(crate) fn resolve(given: &ArgMatches, words: &[OsString]) -> anyhow::Result<RunArgs> {
    let command = RunArgs::augment_args(Command::new("rgrid run"));
    let mut args = RunArgs::from_arg_matches(given)?;
    let (project, script) = if args.no_defaults { Default::default() } else { files(&args)? };
    let mut layers = Vec::new();
    layers.extend(read(&command, project, Author::Project)?);
    let project_count = layers.len();
    layers.extend(read(&command, script, Author::Script)?);
    let top = Layer {
        from: String::new(),
        matches: given.clone(),
    };
    let envs = layers.iter().chain([&top]).map(|layer| EnvArgs::from_arg_matches(&layer.matches));
    let envs = envs.collect::<Result<Vec<_>, _>>()?;
    let (merged, mut origins) = merge(&command, &layers, project_count, &top);
    if !merged.is_empty() {
        let all = [OsString::from("rgrid run")].into_iter();
        let all = all.chain(merged.into_iter().map(Into::into)).chain(words.iter().cloned());
        args = RunArgs::from_arg_matches(&command.try_get_matches_from(all)?)?;
    }
    origins.sort_by(|a, b| a.option.cmp(&b.option));
    let asks = layers[..project_count].iter().chain([&top]);
    let asked = asks.flat_map(|layer| layer.matches.get_many::<String>("output").into_iter().flatten());
    args.resolved = Resolved {
        asked: NamedOutputs::Patterns(asked.map(|pattern| from_here(pattern)).collect()),
        env: EnvArgs::resolve(&envs),
        secrets: EnvArgs::secrets(&envs),
        origins,
    };
    Ok(args)
}

/// What `rgrid.toml` and the script say.
fn files(args: &RunArgs) -> anyhow::Result<(Vec<Setting>, Vec<Setting>)> {
    let project = Project::of_here(Wanted::Run)?.run;
    let script = match args.words.first() {
        Some(script) if !args.program => script_head::options(Path::new(script))?,
        _ => Vec::new(),
    };
    Ok((project, script))
}

/// Reads each setting by itself, so that a message can say where it stands.
fn read(command: &Command, settings: Vec<Setting>, author: Author) -> anyhow::Result<Vec<Layer>> {
    let command = command
        .clone()
        .no_binary_name(true)
        .disable_help_flag(true)
        .mut_args(|arg| arg.required(false).env(None::<&str>))
        // So that an option that does not exist is not a word of the script's.
        .mut_arg("words", |arg| arg.allow_hyphen_values(false).trailing_var_arg(false));
    let mut set: HashMap<String, String> = HashMap::new();
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
                "{from}: `{}` is not an option; only options of `rgrid run` are allowed there",
                word.display()
            )));
        }
        for option in options(&command, &raw) {
            author.check(&option, &values(&command, &raw, &option), &from)?;
            if MERGED_OPTIONS.contains(&option.as_str()) {
                continue;
            }
            if let Some(earlier) = set.insert(option.clone(), from.clone()).filter(|earlier| *earlier != from) {
                return Err(usage(format!("{from}: --{option} was already set ({earlier}); set it once")));
            }
        }
        let matches = command.clone().try_get_matches_from(&words).map_err(wrong)?;
        if let Some(variable) = EnvArgs::from_arg_matches(&matches)?.passed_on_by_a_file() {
            return Err(usage(format!(
                "{from}: the file reads the variable {variable} of this machine; only a trusted rgrid.toml may do that: env = [\"{variable}\"]"
            )));
        }
        layers.push(Layer { from, matches });
    }
    Ok(layers)
}

impl Author {
    /// Rejects an option that is not for its place.
    fn check(self, option: &str, values: &[String], from: &str) -> anyhow::Result<()> {
        let rejected = |what: &str, written: &str| {
            let script = from.split(", line ").next().unwrap_or_default();
            let from = harmless(from);
            Err(usage(format!(
                "{from}: {what}; if you want this, use the command line: rgrid run {written} {}",
                typed(&[script.to_owned()], MAX_SHOWN)
            )))
        };
        match self {
            Self::Project if USER_ONLY_OPTIONS.contains(&option) => {
                Err(usage(format!("{from}: --{option} is allowed only on the command line; remove it")))
            }
            Self::Project => Ok(()),
            Self::Script if !SCRIPT_OPTIONS.contains(&option) => rejected(
                &format!("a script cannot set --{option}, because its author would act with your rights"),
                &written(option, values),
            ),
            Self::Script if option == "env" && values.iter().any(|value| !value.contains('=')) => rejected(
                "a script cannot read a variable of this machine; it may set --env KEY=VALUE",
                &written(option, values),
            ),
            Self::Script if option == "runtime" && values.iter().any(|value| value.starts_with("image:")) => {
                rejected("a script cannot choose an image", &written(option, values))
            }
            Self::Script => Ok(()),
        }
    }
}

/// An option as it is written on the command line.
fn written(option: &str, values: &[String]) -> String {
    if values.is_empty() {
        return format!("--{option}");
    }
    let words: Vec<String> = values.iter().map(|value| format!("--{option}={value}")).collect();
    typed(&words, MAX_SHOWN)
}

/// The words that the lower layers add to the command line, and where every option comes from.
fn merge(command: &Command, layers: &[Layer], project_count: usize, top: &Layer) -> (Vec<String>, Vec<Origin>) {
    let of_top: BTreeSet<String> = options(command, &top.matches).into_iter().collect();
    let (project, script) = layers.split_at(project_count);
    let of_script: BTreeSet<String> = script.iter().flat_map(|layer| options(command, &layer.matches)).collect();
    let (mut merged, mut origins) = (Vec::new(), Vec::new());
    for (layer, is_project) in project
        .iter()
        .map(|layer| (layer, true))
        .chain(script.iter().map(|layer| (layer, false)))
    {
        for option in options(command, &layer.matches) {
            let is_set = of_top.contains(&option) || (is_project && of_script.contains(&option));
            if is_set && !MERGED_OPTIONS.contains(&option.as_str()) {
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
        _ if HIDDEN_OPTIONS.contains(&option) && option != "env" => "…".to_owned(),
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
    let is_set = |arg: &&clap::Arg| {
        let id = arg.get_id().as_str();
        let source = matches.value_source(id);
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) && (takes_value(arg) || matches.get_flag(id))
    };
    let set = command.get_arguments().filter(is_set);
    set.filter_map(|arg| Some(arg.get_long()?.to_owned())).collect()
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
    let set = text
        .split("\n\n")
        .take_while(|part| !part.starts_with("Usage:") && !part.starts_with("For more"));
    let set: Vec<String> = set.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    set.join("; ")
}
