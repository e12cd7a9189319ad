//! Page tokens: opaque to clients, bound to a generation, a filter and an order.

use sha2::{Digest, Sha256};

/// Version of the token's form.
const VERSION: u8 = 1;

/// Bytes before the check sum.
const LEN: usize = 1 + 8 + 8 + 8 + 8;

/// Where a listing goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageToken {
    /// The snapshot that the listing is of.
    pub generation: u64,
    /// Images before the page.
    pub offset: u64,
    /// The time from which the filter's ages are counted.
    pub now: i64,
    /// What the listing is of: filter and order.
    pub query: u64,
}

impl PageToken {
    /// The number that stands for a filter and an order.
    #[must_use]
    pub fn query_of(filter: &str, order_by: &str) -> u64 {
        let mut hash = Sha256::new();
        hash.update(filter.as_bytes());
        hash.update([0]);
        hash.update(order_by.as_bytes());
        first_u64(&hash.finalize())
    }

    /// The token as clients get it.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(LEN + 8);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.extend_from_slice(&self.now.to_be_bytes());
        bytes.extend_from_slice(&self.query.to_be_bytes());
        let check = first_u64(&Sha256::digest(&bytes));
        bytes.extend_from_slice(&check.to_be_bytes());
        hex::encode(bytes)
    }

    /// A token that a client gave; `None` if it is not one of ours.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let mut bytes = [0; LEN + 8];
        // `0x` before the digits would be taken, too.
        let is_whole = text.len() == 2 * bytes.len();
        hex::decode_to_slice(text, &mut bytes)
            .ok()
            .filter(|()| is_whole)?;
        let (body, check) = bytes.split_at(LEN);
        if first_u64(&Sha256::digest(body)).to_be_bytes() != *check || body[0] != VERSION {
            return None;
        }
        let number = |index: usize| {
            let start = 1 + index * 8;
            body.get(start..start + 8)?
                .try_into()
                .ok()
                .map(u64::from_be_bytes)
        };
        Some(Self {
            generation: number(0)?,
            offset: number(1)?,
            now: number(2)?.cast_signed(),
            query: number(3)?,
        })
    }
}

fn first_u64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(8)
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::PageToken;

    #[test]
    fn tokens_come_back_as_they_were_and_forged_ones_do_not() {
        let token = PageToken {
            generation: 1_795_000_000_123,
            offset: 50,
            now: -1,
            query: PageToken::query_of("tag=x", "size desc"),
        };
        let text = token.encode();
        assert_eq!(PageToken::decode(&text), Some(token));
        for index in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[index] = if forged[index] == b'0' { b'1' } else { b'0' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(PageToken::decode(&forged), None, "digit {index}");
        }
        for text in ["", "zz", "00", &text[2..], &format!("0x{text}")] {
            assert_eq!(PageToken::decode(text), None);
        }
        assert_ne!(PageToken::query_of("a", "b"), PageToken::query_of("ab", ""));
    }
}
