//! Tables for people: columns with blanks between them.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

/// The first column is text and stands left, numbers stand right.
pub(crate) fn plain_table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_header(headings.iter().copied())
        .add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_headings() {
        let rows = [["a", "1", "22"], ["long", "333", "4"]];
        let text = plain_table(
            &["path", "x", "y"],
            rows.map(|row| row.map(str::to_owned).to_vec()),
        );
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines, ["path    x   y", "a       1  22", "long  333   4"]);
    }
}
