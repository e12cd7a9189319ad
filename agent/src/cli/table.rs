//! Tables of text: columns two blanks apart, without lines. Hundreds of thousands of rows are no matter:
//! it keeps what it shows and nothing else.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr as _;

/// Blanks between columns.
const GAP: usize = 2;

/// Rows of cells, printed when the widest of each column is known. What is shown must be escaped already: a
/// cell is one line.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    /// Row by row, each cell with a line break at its end.
    cells: String,
    /// Where each row begins.
    rows: Vec<usize>,
}

#[derive(Debug)]
struct Column {
    is_number: bool,
    /// Of its widest cell.
    width: usize,
}

impl Table {
    /// A table with a column for each; those of numbers are shown flush right.
    pub(super) fn new(numbers: impl IntoIterator<Item = bool>) -> Self {
        let columns = numbers.into_iter().map(|is_number| Column {
            is_number,
            width: 0,
        });
        Self {
            columns: columns.collect(),
            cells: String::new(),
            rows: Vec::new(),
        }
    }

    /// Adds a row: a cell for each column.
    pub(super) fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(self.cells.len());
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            let cell = cell.as_ref();
            column.width = column.width.max(width(cell));
            self.cells.push_str(cell);
            self.cells.push('\n');
        }
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Prints the table.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_rows(out, 0..self.rows.len())
    }

    /// Prints some rows of the table, which are counted from 0.
    ///
    /// # Errors
    ///
    /// What writing says.
    pub(super) fn write_rows(
        &self,
        out: &mut dyn Write,
        rows: impl IntoIterator<Item = usize>,
    ) -> io::Result<()> {
        if self.columns.is_empty() {
            return Ok(());
        }
        let mut line = String::new();
        for start in rows.into_iter().filter_map(|row| self.rows.get(row)) {
            let mut cells = Cells(self.cells.get(*start..).unwrap_or_default());
            line.clear();
            for (column, cell) in self.columns.iter().zip(&mut cells) {
                let blanks = column.width - width(cell);
                let (before, after) = if column.is_number {
                    (blanks, GAP)
                } else {
                    (0, blanks + GAP)
                };
                pad(&mut line, before);
                line.push_str(cell);
                pad(&mut line, after);
            }
            line.truncate(line.trim_end_matches(' ').len());
            line.push('\n');
            out.write_all(line.as_bytes())?;
        }
        Ok(())
    }
}

/// Cells that are still to be printed.
struct Cells<'t>(&'t str);

impl<'t> Iterator for Cells<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let end = memchr::memchr(b'\n', self.0.as_bytes())?;
        let cell = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(cell)
    }
}

/// Appends blanks.
fn pad(line: &mut String, mut blanks: usize) {
    const BLANKS: &str = "                                ";
    while blanks > 0 {
        let some = &BLANKS[..blanks.min(BLANKS.len())];
        line.push_str(some);
        blanks -= some.len();
    }
}

/// Columns that a text takes on a terminal.
fn width(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.width()
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        let mut table = Table::new([false, true, false]);
        table.row(["NAME", "SIZE", "PATH"]);
        table.row(["a", "1 kB", "/a "]);
        table.row(["镜像", "12 MB", "/b"]);
        table.row(["é", "-", ""]);
        let mut written = Vec::new();
        table.write(&mut written).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "NAME   SIZE  PATH\n\
             a      1 kB  /a\n\
             镜像  12 MB  /b\n\
             é         -\n"
        );
    }

    #[test]
    fn a_column_is_as_wide_as_its_widest_cell() {
        for width in [1, 31, 32, 33, 64, 100] {
            let mut table = Table::new([false, false]);
            table.row([&*"x".repeat(width), "|"]);
            table.row(["", "|"]);
            let mut written = Vec::new();
            table.write(&mut written).unwrap();
            let (x, blanks) = ("x".repeat(width), " ".repeat(width));
            let expected = format!("{x}  |\n{blanks}  |\n");
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }

    #[test]
    fn rows_are_printed_in_any_order() {
        let mut table = Table::new([true, false]);
        for row in [["1", "a"], ["22", ""], ["333", "c"]] {
            table.row(row);
        }
        let mut written = Vec::new();
        table.write_rows(&mut written, [2, 0, 7, 1]).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), "333  c\n  1  a\n 22\n");
    }

    #[test]
    fn without_rows_or_columns_nothing_is_printed() {
        for columns in [0, 2] {
            let mut table = Table::new(vec![false; columns]);
            if columns == 0 {
                table.row(["x"]);
            }
            let mut written = Vec::new();
            table.write(&mut written).unwrap();
            assert_eq!(written, b"");
        }
    }
}
