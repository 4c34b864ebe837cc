//! Tokens in their brackets.

use super::lex::{Kind, Piece, Token};

/// Brackets below this depth are taken for symbols: nobody writes so, and a stack is finite.
const DEPTH: usize = 48;

/// A token, or what stands in a pair of brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Word(String, u32),
    Text(Vec<Piece>, u32),
    Symbol(char),
    /// The opening bracket, and what stands behind it up to its counterpart.
    Group(char, Vec<Node>),
    Line,
}

impl Node {
    pub(crate) fn is(&self, symbol: char) -> bool {
        matches!(self, Self::Symbol(c) if *c == symbol)
    }

    pub(crate) fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word, _) => Some(word),
            _ => None,
        }
    }

    /// A string without interpolated parts.
    pub(crate) fn plain(&self) -> Option<&str> {
        match self {
            Self::Text(pieces, _) => match pieces.as_slice() {
                [Piece::Plain(text)] => Some(text),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Puts tokens into their brackets. Lines' ends within round and square brackets mean nothing, and fall away.
pub(crate) fn nest(tokens: Vec<Token>) -> Vec<Node> {
    let mut open: Vec<(char, Vec<Node>)> = Vec::new();
    let mut current: Vec<Node> = Vec::new();
    for Token { kind, line } in tokens {
        match kind {
            Kind::Symbol(c @ ('(' | '[' | '{')) if open.len() < DEPTH => open.push((c, std::mem::take(&mut current))),
            Kind::Symbol(')' | ']' | '}') if !open.is_empty() => {
                let Some((bracket, before)) = open.pop() else { continue };
                let inner = std::mem::replace(&mut current, before);
                current.push(Node::Group(bracket, inner));
            }
            Kind::Symbol(c) => current.push(Node::Symbol(c)),
            Kind::Word(word) => current.push(Node::Word(word, line)),
            Kind::Text(pieces) => current.push(Node::Text(pieces, line)),
            Kind::Line if open.last().is_some_and(|(bracket, _)| *bracket != '{') => {}
            Kind::Line => current.push(Node::Line),
        }
    }
    // What was left open ends with the text.
    while let Some((bracket, before)) = open.pop() {
        let inner = std::mem::replace(&mut current, before);
        current.push(Node::Group(bracket, inner));
    }
    current
}

/// The parts of a list.
pub(crate) fn split(nodes: &[Node], is_end: impl Fn(&Node) -> bool) -> Vec<&[Node]> {
    nodes.split(is_end).filter(|part| !part.is_empty()).collect()
}

/// The statements of a block. A line that ends with an operator, or before one, goes on.
pub(crate) fn statements(nodes: &[Node]) -> Vec<&[Node]> {
    let joins = |node: Option<&Node>| matches!(node, Some(Node::Symbol('+' | '/' | '|' | '.' | ',' | '=' | '?')));
    let mut found = Vec::new();
    let mut start = 0;
    for (at, node) in nodes.iter().enumerate() {
        let is_end = match node {
            Node::Symbol(';') => true,
            Node::Line => {
                !joins(at.checked_sub(1).and_then(|before| nodes.get(before)))
                    && !joins(nodes[at + 1..].iter().find(|node| **node != Node::Line))
            }
            _ => false,
        };
        if is_end {
            found.push(&nodes[start..at]);
            start = at + 1;
        }
    }
    found.push(&nodes[start..]);
    found.retain(|statement| !statement.is_empty());
    found
}
