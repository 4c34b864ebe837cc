//! Tables: aligned for a person, and easy to cut apart for a program.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::harmless::harmless;

/// How a column is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table with a heading and no lines: the same on a terminal and in a pipe, but for what a narrow terminal cuts.
pub(crate) fn table(columns: &[(&str, Align)], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|(name, align)| cell(name, *align)));
    for row in rows {
        table.add_row(row.iter().zip(columns).map(|(text, (_, align))| cell(text, *align)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn cell(text: &str, align: Align) -> Cell {
    Cell::new(harmless(text)).set_alignment(match align {
        Align::Left => CellAlignment::Left,
        Align::Right => CellAlignment::Right,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_one_another() {
        let text = table(
            &[("NAME", Align::Left), ("N", Align::Right)],
            vec![vec!["a".into(), "1".into()], vec!["long".into(), "100".into()]],
        );
        assert_eq!(text, "NAME    N\na       1\nlong  100\n");
    }
}
