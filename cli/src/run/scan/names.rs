//! What the names in a program stand for, as far as its text says it.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use super::value::{MOST, Value};

/// What names stand for, over all files that were read.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// What each stands for in any file.
    values: HashMap<String, Vec<Value>>,
    /// What each stands for in the file that defines it.
    local: HashMap<PathBuf, HashMap<String, Vec<Value>>>,
    /// What functions are given for their parameters, wherever that is.
    given: HashMap<String, Vec<Value>>,
    /// The file that is being read.
    file: PathBuf,
    used: HashSet<String>,
    /// Names that stand for other things too: parameters, arguments of the program, what a loop runs through.
    open: HashSet<String>,
    /// The parameters of functions, by the functions' names.
    parameters: HashMap<String, Vec<String>>,
}

impl Names {
    /// From now on, names are those of this file.
    pub(crate) fn enter(&mut self, file: &Path) {
        file.clone_into(&mut self.file);
    }

    /// What a name stands for here: what this file says of it, or else any other; and what functions are given by that name.
    pub(crate) fn get(&self, name: &str) -> Vec<Value> {
        let local = self
            .local
            .get(&self.file)
            .and_then(|names| names.get(name))
            .filter(|values| !values.is_empty());
        let mut values = local.or_else(|| self.values.get(name)).cloned().unwrap_or_default();
        add(&mut values, self.given.get(name).map_or(&[], Vec::as_slice));
        values
    }

    pub(crate) fn define(&mut self, name: &str, values: &[Value]) {
        add(self.values.entry(name.to_owned()).or_default(), values);
        if !self.local.contains_key(&self.file) {
            self.local.insert(self.file.clone(), HashMap::new());
        }
        if let Some(names) = self.local.get_mut(&self.file) {
            add(names.entry(name.to_owned()).or_default(), values);
        }
    }

    /// Notes which parameters a function has.
    pub(crate) fn function(&mut self, name: &str, parameters: Vec<String>) {
        self.parameters.insert(name.to_owned(), parameters);
    }

    /// Notes what a function is given for a parameter.
    pub(crate) fn give(&mut self, function: &str, place: usize, values: &[Value]) {
        if let Some(name) = self.parameters.get(function).and_then(|names| names.get(place)).cloned() {
            add(self.given.entry(name.clone()).or_default(), values);
            self.open.insert(name);
        }
    }

    /// Defines a name that stands for other things too.
    pub(crate) fn define_open(&mut self, name: &str, values: &[Value]) {
        self.define(name, values);
        self.open.insert(name.to_owned());
    }

    pub(crate) fn is_open(&self, name: &str) -> bool {
        self.open.contains(name)
    }

    pub(crate) fn use_of(&mut self, name: &str) {
        if !self.used.contains(name) {
            self.used.insert(name.to_owned());
        }
    }

    pub(crate) fn is_used(&self, name: &str) -> bool {
        self.used.contains(name)
    }
}

/// Adds what is new and known to what a name stands for, within bounds.
fn add(known: &mut Vec<Value>, values: &[Value]) {
    for value in values.iter().filter(|value| !value.is_any()) {
        if known.len() < MOST && !known.contains(value) {
            known.push(value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_own_names_go_before_those_of_others() {
        let mut names = Names::default();
        let value = |text: &str| vec![Value::text(text)];
        for n in 0..40 {
            names.enter(Path::new(&format!("{n}.py")));
            names.define("HERE", &value(&n.to_string()));
        }
        assert_eq!(names.get("HERE"), value("39"), "however many others there are");
        names.enter(Path::new("other.py"));
        assert_eq!(names.get("HERE").len(), MOST);
        names.function("load", vec!["path".to_owned()]);
        names.give("load", 0, &value("x.csv"));
        names.enter(Path::new("load.py"));
        names.define("path", &value("default.csv"));
        assert_eq!(names.get("path"), [value("default.csv"), value("x.csv")].concat());
    }
}
