//! The order of the listing: by repository, tag and path.

use std::collections::HashMap;

/// Repository, tag and path of an image.
pub type OrderKey<'k> = (&'k [u8], &'k [u8], &'k [u8]);

/// Images in the order of the listing. There are as many comparisons as would make each look into the key of an
/// image, which is another place in memory, too many: mostly numbers are compared.
pub fn in_order<'k, T: Copy>(images: Vec<T>, key: impl Fn(T) -> OrderKey<'k>) -> Vec<T> {
    // Many images have the same repository: each is looked up once, and has its place when all are known.
    let mut numbers: HashMap<&[u8], usize> = HashMap::new();
    let of_images: Vec<usize> = images
        .iter()
        .map(|image| {
            let next = numbers.len();
            *numbers.entry(key(*image).0).or_insert(next)
        })
        .collect();
    let mut repositories: Vec<(&[u8], usize)> = numbers.into_iter().collect();
    repositories.sort_unstable();
    let mut ranks = vec![0; repositories.len()];
    for (rank, (_, number)) in repositories.into_iter().enumerate() {
        ranks[number] = rank;
    }
    let mut keyed: Vec<(usize, u64, T)> = images
        .into_iter()
        .zip(of_images)
        .map(|(image, number)| (ranks[number], beginning(key(image).1), image))
        .collect();
    keyed.sort_unstable_by(|a, b| {
        let by_numbers = (a.0, a.1).cmp(&(b.0, b.1));
        by_numbers.then_with(|| key(a.2).cmp(&key(b.2)))
    });
    keyed.into_iter().map(|(.., image)| image).collect()
}

/// The first bytes of a text as a number that is in the order of texts, but for those that go on.
fn beginning(text: &[u8]) -> u64 {
    let mut first = [0; 8];
    let length = text.len().min(first.len());
    first[..length].copy_from_slice(&text[..length]);
    u64::from_be_bytes(first)
}
