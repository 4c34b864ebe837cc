//! Names in expressions: commands that are called without brackets, and variables.

use super::{code::Reader, eval::Eval, language::Language, nodes::Node, roles::Role, value::Value};

impl Reader<'_> {
    /// Whether what follows a name are its arguments, without brackets: `require "x"`, `open my $f, '<', $path`.
    pub(super) fn is_command(&self, words: &[&str], rest: &[Node]) -> bool {
        const COMMANDS: [&str; 24] = [
            "require",
            "require_relative",
            "load",
            "include",
            "include_once",
            "require_once",
            "open",
            "do",
            "opendir",
            "system",
            "exec",
            "puts",
            "print",
            "echo",
            "die",
            "warn",
            "unlink",
            "mkdir",
            "rename",
            "raise",
            "copy",
            "move",
            "chdir",
            "autoload",
        ];
        let name = words.last().copied().unwrap_or_default();
        match (self.language, rest.first()) {
            (Language::Ruby, Some(Node::Text(..))) => {
                !matches!(name, "if" | "unless" | "when" | "in" | "return" | "then" | "do" | "end" | "not")
            }
            (Language::Perl | Language::Php | Language::Ruby, Some(Node::Text(..) | Node::Word(..) | Node::Group('[', _))) => {
                COMMANDS.contains(&name)
            }
            (Language::Perl | Language::Ruby, Some(Node::Symbol('*' | '<'))) => matches!(name, "open" | "print"),
            (_, _) => false,
        }
    }

    pub(crate) fn variable(&mut self, words: &[&str]) -> Eval {
        let full = words.join(".");
        match full.as_str() {
            "os.pardir" | "os.path.pardir" => return Eval::of(vec![Value::text("..")]),
            "os.curdir" | "os.path.curdir" => return Eval::of(vec![Value::text(".")]),
            _ => {}
        }
        if let Some(value) = self.here(&full) {
            return Eval::of(vec![value]);
        }
        let last = words.last().copied().unwrap_or_default();
        let (name, climbs) = match words {
            [.., name, "parent"] => (*name, true),
            _ => (last, false),
        };
        let values = self.names.get(name);
        let eval = Eval {
            names: vec![name.to_owned()],
            is_variable: true,
            ..Eval::of(values)
        };
        if climbs { eval.map(Value::parent) } else { eval }
    }

    /// What the languages call the file that runs, and its directory.
    pub(crate) fn here(&self, name: &str) -> Option<Value> {
        let file = || Value::at(self.dir).join(&Value::text(self.path.file_name().unwrap_or_default().to_string_lossy()));
        match name {
            "__file__" | "__filename" | "__FILE__" | "import.meta.url" | "import.meta.filename" => Some(file()),
            "__dirname" | "__dir__" | "__DIR__" | "import.meta.dirname" | "FindBin.Bin" | "FindBin.RealBin" => Some(Value::at(self.dir)),
            "Bin" | "RealBin" if self.language == Language::Perl => Some(Value::at(self.dir)),
            "PROGRAM_NAME" | "0" if matches!(self.language, Language::Perl | Language::Ruby) && !name.is_empty() => Some(file()),
            _ => None,
        }
    }

    pub(crate) fn emit_as(&mut self, role: Role, eval: &Eval) {
        let before = std::mem::replace(&mut self.role, role);
        self.emit(eval);
        self.role = before;
    }
}
