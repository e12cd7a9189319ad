//! Pieces of text in one piece of memory: the lines of a listing, or the rows of a table. Hundreds of
//! thousands are no matter.

/// Pieces of text, counted from 0.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Lines {
    /// Adds a piece: what `write` appends.
    ///
    /// # Errors
    ///
    /// Those of `write`, which then has added nothing.
    pub(super) fn push<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        // What is left of a piece that was never ended, for a panic, is no part of the next one.
        let start = self.ends.last().copied().unwrap_or_default();
        self.text.truncate(start);
        write(&mut self.text)?;
        self.ends.push(self.text.len());
        Ok(())
    }

    /// Adds all pieces of others.
    pub(super) fn append(&mut self, others: &Self) {
        let start = self.ends.last().copied().unwrap_or_default();
        self.text.truncate(start);
        self.text.extend_from_slice(&others.text);
        self.ends.extend(others.ends.iter().map(|end| start + end));
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// All of them, one after the other.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// One of them.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.text.get(start..*self.ends.get(index)?)
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    fn lines(pieces: &[&str]) -> Lines {
        let mut lines = Lines::default();
        for piece in pieces {
            let written = lines.push(|text| {
                text.extend_from_slice(piece.as_bytes());
                Ok::<_, ()>(())
            });
            written.unwrap();
        }
        lines
    }

    fn all(lines: &Lines) -> Vec<&str> {
        let pieces = (0..).map_while(|index| lines.get(index));
        pieces.map(|piece| str::from_utf8(piece).unwrap()).collect()
    }

    #[test]
    fn pieces_are_found_by_their_numbers() {
        let mut first = lines(&["a\n", "", "bc\n"]);
        assert_eq!(all(&first), ["a\n", "", "bc\n"]);
        first.append(&lines(&["d", ""]));
        first.append(&lines(&[]));
        assert_eq!(all(&first), ["a\n", "", "bc\n", "d", ""]);
        assert_eq!((first.len(), first.text()), (5, &b"a\nbc\nd"[..]));
        first.clear();
        assert_eq!((first.len(), first.text()), (0, &b""[..]));
    }

    #[test]
    fn what_was_not_ended_is_no_part_of_the_next() {
        for append in [false, true] {
            let mut torn = lines(&["a"]);
            let failed = torn.push(|text| {
                text.push(b'x');
                Err(())
            });
            failed.unwrap_err();
            if append {
                torn.append(&lines(&["b"]));
            } else {
                let written = torn.push(|text| {
                    text.push(b'b');
                    Ok::<_, ()>(())
                });
                written.unwrap();
            }
            assert_eq!(all(&torn), ["a", "b"]);
        }
    }
}
