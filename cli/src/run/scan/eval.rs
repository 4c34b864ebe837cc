//! What an expression comes to.

use super::value::{MOST, Value, product};

/// What an expression came to.
#[derive(Debug, Default, Clone)]
pub(crate) struct Eval {
    pub(crate) values: Vec<Value>,
    /// The names that it was made of.
    pub(crate) names: Vec<String>,
    /// Whether it is one string as it is written.
    pub(crate) is_literal: bool,
    /// Whether it is a name as it is written.
    pub(crate) is_variable: bool,
    /// Whether it is compared with something.
    pub(crate) is_weak: bool,
    /// What is meant where none of the values is here: what its variables stand for may be something else.
    pub(crate) fallback: Option<Value>,
    pub(crate) line: u32,
}

impl Eval {
    pub(crate) fn of(values: Vec<Value>) -> Self {
        Self { values, ..Self::default() }
    }

    /// Something that is not known.
    pub(crate) fn unknown() -> Self {
        Self::default()
    }

    pub(crate) fn or_any(&self) -> Vec<Value> {
        if self.values.is_empty() {
            vec![Value::any()]
        } else {
            self.values.clone()
        }
    }

    pub(crate) fn with(mut self, other: Self, combine: impl Fn(&Value, &Value) -> Value) -> Self {
        // Two unknown things make no name.
        self.values = if self.values.is_empty() && other.values.is_empty() {
            Vec::new()
        } else {
            product(&self.or_any(), &other.or_any(), combine)
        };
        self.names.extend(other.names);
        (self.is_literal, self.is_variable) = (false, false);
        self
    }

    /// A template with what is known of its fields (`%s`, `{}`) in their places.
    pub(crate) fn filled(mut self, fields: &[Self]) -> Self {
        let mut made = Vec::new();
        for template in self.values.iter().filter_map(Value::known) {
            let mut pieces = template_pieces(template).into_iter();
            let mut values = vec![Value::text(pieces.next().unwrap_or_default())];
            for (place, piece) in pieces.enumerate() {
                let field = fields.get(place).map_or_else(|| vec![Value::any()], Self::or_any);
                values = product(&values, &field, |a, b| if a.parts.is_empty() { b.clone() } else { a.concat(b) });
                values = values.iter().map(|value| value.concat(&Value::text(piece.as_str()))).collect();
            }
            made.extend(values);
        }
        made.truncate(MOST);
        self.fallback = self.values.iter().filter_map(Value::known).next().map(|template| {
            let pieces = template_pieces(template).into_iter().map(Value::text);
            pieces.reduce(|a, b| a.concat(&Value::any()).concat(&b)).unwrap_or_else(Value::any)
        });
        self.values = made;
        self.names.extend(fields.iter().flat_map(|field| field.names.iter().cloned()));
        self.is_literal = false;
        self
    }

    pub(crate) fn or(mut self, other: Self) -> Self {
        for value in other.values {
            if self.values.len() < MOST && !self.values.contains(&value) {
                self.values.push(value);
            }
        }
        self.names.extend(other.names);
        self
    }

    pub(crate) fn map(mut self, change: impl Fn(&Value) -> Value) -> Self {
        self.values = self.values.iter().map(change).collect();
        (self.is_literal, self.is_variable) = (false, false);
        self
    }
}

/// The texts between the fields of a template: `%s`, `%02d`, `{}`, `{0}`, `{:>4}`.
fn template_pieces(template: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        let field = match c {
            '%' => rest[1..]
                .find(|c: char| c.is_alphabetic())
                .filter(|end| rest[1..=*end].chars().all(|c| "0123456789-+. #".contains(c)))
                .map(|end| end + 1 + rest[1 + end..].chars().next().map_or(1, char::len_utf8)),
            '{' => rest.find('}').map(|end| end + 1),
            _ => None,
        };
        match (field, pieces.last_mut()) {
            (Some(length), _) => {
                pieces.push(String::new());
                rest = &rest[length..];
            }
            (None, Some(last)) => {
                last.push(c);
                rest = &rest[c.len_utf8()..];
            }
            (None, None) => break,
        }
    }
    pieces
}
