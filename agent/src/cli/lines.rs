//! Pieces of text in few pieces of memory: the lines of a listing, or the rows of a table. Hundreds of
//! thousands are no matter.

/// Bytes of a block of text. What grows in one piece is moved again and again, each time to memory that was not
/// touched before.
const BLOCK: usize = 1 << 20;

/// How far what is added last may go beyond [`BLOCK`] without moving a block.
const SPARE: usize = 64 << 10;

/// Pieces of text, counted from 0.
#[derive(Debug, Default)]
pub(super) struct Lines {
    blocks: Vec<Block>,
    /// Where each ends in its block.
    ends: Vec<usize>,
}

/// Pieces one after the other.
#[derive(Debug)]
struct Block {
    /// The number of the first.
    first: usize,
    text: Vec<u8>,
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
        let text = self.open();
        write(text)?;
        let end = text.len();
        self.ends.push(end);
        Ok(())
    }

    /// Adds all pieces of others.
    pub(super) fn append(&mut self, others: &Self) {
        for (text, ends) in others.blocks() {
            let own = self.open();
            let start = own.len();
            own.extend_from_slice(text);
            self.ends.extend(ends.iter().map(|end| start + end));
        }
    }

    /// The text to which the next piece is added.
    fn open(&mut self) -> &mut Vec<u8> {
        let first = self.ends.len();
        if let Some(last) = self.blocks.last_mut() {
            // What is left of a piece that was never ended, for a panic, is no part of the next one.
            let ends = self.ends.get(last.first..).unwrap_or_default();
            last.text.truncate(ends.last().copied().unwrap_or_default());
        }
        if self
            .blocks
            .last()
            .is_none_or(|last| last.text.len() >= BLOCK)
        {
            self.blocks.push(Block {
                first,
                text: Vec::with_capacity(BLOCK + SPARE),
            });
        }
        let last = self.blocks.len() - 1;
        &mut self.blocks[last].text
    }

    /// The text of each block, and where pieces end in it.
    fn blocks(&self) -> impl Iterator<Item = (&[u8], &[usize])> {
        let next = self.blocks.iter().skip(1).map(|block| block.first);
        let behind = next.chain([self.ends.len()]);
        self.blocks
            .iter()
            .zip(behind)
            .filter_map(|(block, behind)| {
                let ends = self.ends.get(block.first..behind)?;
                Some((block.text.get(..*ends.last()?)?, ends))
            })
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.ends.clear();
        self.blocks.truncate(1);
        if let Some(block) = self.blocks.first_mut() {
            block.text.clear();
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// All of them, one after the other, in few pieces.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks().map(|(text, _)| text)
    }

    /// One of them.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let behind = self.blocks.partition_point(|block| block.first <= index);
        let block = self.blocks.get(behind.checked_sub(1)?)?;
        let start = match index.checked_sub(1) {
            Some(before) if index > block.first => *self.ends.get(before)?,
            _ => 0,
        };
        block.text.get(start..*self.ends.get(index)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Lines, SPARE};

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

    fn text(lines: &Lines) -> String {
        String::from_utf8(lines.texts().collect::<Vec<_>>().concat()).unwrap()
    }

    #[test]
    fn pieces_are_found_by_their_numbers() {
        let mut first = lines(&["a\n", "", "bc\n"]);
        assert_eq!(all(&first), ["a\n", "", "bc\n"]);
        first.append(&lines(&["d", ""]));
        first.append(&lines(&[]));
        assert_eq!(all(&first), ["a\n", "", "bc\n", "d", ""]);
        assert_eq!((first.len(), text(&first)), (5, "a\nbc\nd".to_owned()));
        first.clear();
        assert_eq!((first.len(), text(&first)), (0, String::new()));
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

    #[test]
    fn texts_of_many_blocks_are_found_too() {
        let sizes = [BLOCK - 1, 1, 5, BLOCK, 0, 3 * BLOCK, 1, BLOCK + SPARE, 7];
        let pieces: Vec<String> = sizes.map(|size| "x".repeat(size)).into();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let one = lines(&pieces);
        assert!(all(&one) == pieces);
        let mut twice = lines(&["first"]);
        twice.append(&one);
        twice.append(&one);
        let expected = [&["first"], &pieces[..], &pieces].concat();
        assert!(all(&twice) == expected && text(&twice) == expected.concat());
        twice.clear();
        assert_eq!((twice.len(), text(&twice)), (0, String::new()));
    }
}
