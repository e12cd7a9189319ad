//! Tables of text: columns two blanks apart, without lines. Hundreds of thousands of rows are no matter:
//! it keeps what it shows and nothing else.

use std::convert::Infallible;
use std::io::{self, Write};

use unicode_width::UnicodeWidthStr as _;

use super::lines::Lines;

/// Blanks between columns.
const GAP: usize = 2;

/// Rows of cells, printed when the widest of each column is known. What is shown must be escaped already: a
/// cell is one line.
#[derive(Debug)]
pub(super) struct Table {
    /// Whether each column is of numbers.
    numbers: Vec<bool>,
    /// The widest cell of each.
    widths: Vec<usize>,
    rows: Lines,
}

/// Appends a cell to a row that is being made.
pub(super) fn push_cell(row: &mut Vec<u8>, cell: &str) {
    row.extend_from_slice(cell.as_bytes());
    row.push(b'\n');
}

impl Table {
    /// A table with a column for each; those of numbers are shown flush right.
    pub(super) fn new(numbers: impl IntoIterator<Item = bool>) -> Self {
        let numbers: Vec<bool> = numbers.into_iter().collect();
        Self {
            widths: vec![0; numbers.len()],
            numbers,
            rows: Lines::default(),
        }
    }

    /// Adds a row: a cell for each column.
    pub(super) fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let Ok(()) = self.rows.push(|row| {
            for cell in cells {
                push_cell(row, cell.as_ref());
            }
            Ok::<_, Infallible>(())
        });
        self.measure(self.rows.len() - 1);
    }

    /// Adds rows that were made elsewhere, of [cells](push_cell).
    pub(super) fn append(&mut self, rows: &Lines) {
        let first = self.rows.len();
        self.rows.append(rows);
        self.measure(first);
    }

    /// Looks for wider cells in the rows from a number on. Those that were just made are still at hand for the
    /// processor; when all are there, they are not.
    fn measure(&mut self, first: usize) {
        for row in (first..self.rows.len()).filter_map(|row| self.rows.get(row)) {
            for (widest, cell) in self.widths.iter_mut().zip(cells(row)) {
                *widest = width(cell).max(*widest);
            }
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
        if self.numbers.is_empty() {
            return Ok(());
        }
        let mut line = Vec::new();
        for row in rows.into_iter().filter_map(|row| self.rows.get(row)) {
            line.clear();
            for ((is_number, widest), cell) in self.numbers.iter().zip(&self.widths).zip(cells(row))
            {
                let blanks = widest - width(cell);
                let (before, after) = if *is_number {
                    (blanks, GAP)
                } else {
                    (0, blanks + GAP)
                };
                pad(&mut line, before);
                line.extend_from_slice(cell);
                pad(&mut line, after);
            }
            let end = line.iter().rposition(|byte| *byte != b' ');
            line.truncate(end.map_or(0, |last| last + 1));
            line.push(b'\n');
            out.write_all(&line)?;
        }
        Ok(())
    }
}

/// Cells of a row.
fn cells(row: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', row).map(move |end| {
        let cell = &row[start..end];
        start = end + 1;
        cell
    })
}

/// Appends blanks.
fn pad(line: &mut Vec<u8>, blanks: usize) {
    line.resize(line.len() + blanks, b' ');
}

/// Columns that a text takes on a terminal.
fn width(text: &[u8]) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        str::from_utf8(text).unwrap_or_default().width()
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
