//! What the names in a program stand for, as far as its text says it.

use std::collections::{HashMap, HashSet};

use super::value::{MOST, Value};

/// What names stand for, over all files that were read.
#[derive(Debug, Default)]
pub(super) struct Names {
    values: HashMap<String, Vec<Value>>,
    used: HashSet<String>,
    /// Names that stand for other things too: parameters, arguments of the program, what a loop runs through.
    open: HashSet<String>,
    /// The parameters of functions, by the functions' names.
    parameters: HashMap<String, Vec<String>>,
}

impl Names {
    pub(super) fn get(&self, name: &str) -> &[Value] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn define(&mut self, name: &str, values: &[Value]) {
        let known = self.values.entry(name.to_owned()).or_default();
        for value in values.iter().filter(|value| !value.is_any()) {
            if known.len() < MOST && !known.contains(value) {
                known.push(value.clone());
            }
        }
    }

    /// Notes which parameters a function has.
    pub(super) fn function(&mut self, name: &str, parameters: Vec<String>) {
        self.parameters.insert(name.to_owned(), parameters);
    }

    /// Notes what a function is given for a parameter.
    pub(super) fn give(&mut self, function: &str, place: usize, values: &[Value]) {
        if let Some(name) = self.parameters.get(function).and_then(|names| names.get(place)).cloned() {
            self.define_open(&name, values);
        }
    }

    /// Defines a name that stands for other things too.
    pub(super) fn define_open(&mut self, name: &str, values: &[Value]) {
        self.define(name, values);
        self.open.insert(name.to_owned());
    }

    pub(super) fn is_open(&self, name: &str) -> bool {
        self.open.contains(name)
    }

    pub(super) fn use_of(&mut self, name: &str) {
        if !self.used.contains(name) {
            self.used.insert(name.to_owned());
        }
    }

    pub(super) fn is_used(&self, name: &str) -> bool {
        self.used.contains(name)
    }
}
