//! All secrets of an attempt as one automaton (Aho and Corasick, 1975): one step a byte, whatever the secrets are.
//!
//! The crate of that name tells neither how much of a text may still become a word, nor keeps only the longest word that ends at a
//! place: its list of all of them grows with the square of what hostile words have.

use std::collections::HashMap;

/// Where the text stands: the longest of its ends that begins a word.
pub(super) type State = u32;

/// Words to search for. Memory and time to make them are linear in their length, each step is constant on average.
#[derive(Debug)]
pub(super) struct Words {
    nodes: Vec<Node>,
    /// The children of a node but for its first one.
    branches: HashMap<(State, u8), State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    parent: State,
    /// The first child, and the byte that leads there; the root, which is nobody's child, where there is none.
    child: State,
    child_byte: u8,
    /// The byte that leads here.
    byte: u8,
    depth: u32,
    /// The longest other state that is an end of this one.
    fail: State,
    /// How long the longest word is that ends here; 0: none does.
    ends: u32,
    /// How much of the text's end may become a word with what is still to come.
    open: u32,
}

/// Before anything was read.
pub(super) const START: State = 0;

impl Words {
    /// An automaton for these words, of which none is empty.
    pub(super) fn new<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut made = Self {
            nodes: vec![Node::default()],
            branches: HashMap::new(),
        };
        words.into_iter().for_each(|word| made.insert(word));
        let mut by_depth: Vec<State> = (1..made.nodes.len()).map(state).collect();
        by_depth.sort_by_key(|&at| made.node(at).depth);
        for at in by_depth {
            made.link(at);
        }
        made
    }

    /// The state after one more byte.
    pub(super) fn step(&self, mut at: State, byte: u8) -> State {
        loop {
            match self.child(at, byte) {
                Some(next) => return next,
                None if at == START => return START,
                None => at = self.node(at).fail,
            }
        }
    }

    /// How long the longest word is that ends here, in bytes; 0 where none does.
    pub(super) fn ends(&self, at: State) -> usize {
        self.node(at).ends as usize
    }

    /// How many of the last bytes may be the beginning of a word.
    pub(super) fn open(&self, at: State) -> usize {
        self.node(at).open as usize
    }

    fn node(&self, at: State) -> &Node {
        &self.nodes[at as usize]
    }

    fn child(&self, at: State, byte: u8) -> Option<State> {
        let node = self.node(at);
        match node.child {
            START => None,
            child if node.child_byte == byte => Some(child),
            _ => self.branches.get(&(at, byte)).copied(),
        }
    }

    fn insert(&mut self, word: &[u8]) {
        let mut at = START;
        for &byte in word {
            at = self.child(at, byte).unwrap_or_else(|| self.add(at, byte));
        }
        self.nodes[at as usize].ends = self.node(at).depth;
    }

    fn add(&mut self, parent: State, byte: u8) -> State {
        let (new, depth) = (state(self.nodes.len()), self.node(parent).depth + 1);
        self.nodes.push(Node {
            parent,
            byte,
            depth,
            ..Node::default()
        });
        let above = &mut self.nodes[parent as usize];
        if above.child == START {
            (above.child, above.child_byte) = (new, byte);
        } else {
            self.branches.insert((parent, byte), new);
        }
        new
    }

    /// Works out what only the shorter states tell, which are linked already.
    fn link(&mut self, at: State) {
        let node = *self.node(at);
        let fail = if node.parent == START {
            START
        } else {
            self.step(self.node(node.parent).fail, node.byte)
        };
        let shorter = *self.node(fail);
        let node = &mut self.nodes[at as usize];
        node.fail = fail;
        node.ends = node.ends.max(shorter.ends);
        node.open = if node.child == START { shorter.open } else { node.depth };
    }
}

/// A node's place as a state: an attempt's secrets are a thousand times smaller than what a `u32` counts.
fn state(place: usize) -> State {
    State::try_from(place).unwrap_or(State::MAX)
}
