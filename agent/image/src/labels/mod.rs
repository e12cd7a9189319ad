//! Labels by name. A scan reads some of every image and looks at few: they are one piece of text, and not
//! two for each.

mod value;

use std::fmt;

pub(crate) use value::{LabelsObject, Value};

use crate::limits;

/// Labels in the order of their names, each name once.
#[derive(Clone, Default)]
pub struct Labels {
    /// Names and values, in the order in which they came. What was replaced is still there.
    text: String,
    /// In the order of the names.
    places: Vec<Place>,
    cut: bool,
}

/// Labels that an image has, about, and bytes of their texts.
const USUAL: usize = 12;
const USUAL_SIZE: usize = 512;

/// Where a label is in the text: its name, and behind it its value.
#[derive(Clone, Copy)]
struct Place {
    start: u32,
    middle: u32,
    end: u32,
}

impl Place {
    fn name(self, text: &str) -> &str {
        part(text, self.start, self.middle)
    }

    fn value(self, text: &str) -> &str {
        part(text, self.middle, self.end)
    }
}

fn part(text: &str, from: u32, to: u32) -> &str {
    text.get(from as usize..to as usize).unwrap_or_default()
}

impl Labels {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.find(name).ok()?;
        self.places.get(at).map(|place| place.value(&self.text))
    }

    /// Whether there is a label of this name.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Names and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.places
            .iter()
            .map(|place| (place.name(&self.text), place.value(&self.text)))
    }

    /// Those whose names begin with `prefix`.
    pub fn starting_with<'s>(
        &'s self,
        prefix: &'s str,
    ) -> impl Iterator<Item = (&'s str, &'s str)> {
        let (Ok(first) | Err(first)) = self.find(prefix);
        self.iter()
            .skip(first)
            .take_while(move |(name, _)| name.starts_with(prefix))
    }

    /// Whether there were more than are kept.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Sets a label. One with which there would be more than [`limits::LABELS_MAX`], or more bytes of names and
    /// values that were ever set than [`limits::LABELS_BYTES_MAX`], is left out.
    pub fn insert(&mut self, name: &str, value: &str) {
        let start = self.text.len();
        let middle = start + name.len();
        let end = middle + value.len();
        let (Ok(start), Ok(middle), Ok(end), true) = (
            start.try_into(),
            middle.try_into(),
            end.try_into(),
            end <= limits::LABELS_BYTES_MAX,
        ) else {
            self.cut = true;
            return;
        };
        let place = Place { start, middle, end };
        // As they are written they mostly are in order.
        let is_last = self
            .places
            .last()
            .is_none_or(|last| last.name(&self.text) < name);
        let is_full = self.len() >= limits::LABELS_MAX;
        if is_last {
            if is_full {
                self.cut = true;
                return;
            }
            if self.places.is_empty() {
                // Most images have about as many.
                self.places.reserve(USUAL);
                self.text.reserve(USUAL_SIZE);
            }
            self.places.push(place);
        } else {
            match self.find(name) {
                Ok(at) => self.places[at] = place,
                Err(_) if is_full => {
                    self.cut = true;
                    return;
                }
                Err(at) => self.places.insert(at, place),
            }
        }
        self.text.push_str(name);
        self.text.push_str(value);
    }

    /// Sets all of the others, which may have been more than are kept.
    pub(crate) fn merge(&mut self, others: &Self) {
        self.extend(others.iter());
        self.cut |= others.cut;
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.places
            .binary_search_by(|place| place.name(&self.text).cmp(name))
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Extend<(K, V)> for Labels {
    fn extend<T: IntoIterator<Item = (K, V)>>(&mut self, labels: T) {
        for (name, value) in labels {
            self.insert(name.as_ref(), value.as_ref());
        }
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(labels: T) -> Self {
        let mut all = Self::default();
        all.extend(labels);
        all
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::Labels;

    proptest! {
        #[test]
        fn labels_are_a_map(pairs in prop::collection::vec(("[a-c]{0,3}", "[x-z\u{e9}]{0,2}"), 0..40)) {
            let mut labels = Labels::default();
            let mut model = BTreeMap::new();
            for (name, value) in &pairs {
                labels.insert(name, value);
                model.insert(name.as_str(), value.as_str());
                prop_assert!(labels.iter().eq(model.iter().map(|(name, value)| (*name, *value))));
            }
            prop_assert_eq!(labels.len(), model.len());
            prop_assert_eq!(labels.is_empty(), model.is_empty());
            for name in ["", "a", "ab", "c", "d"] {
                prop_assert_eq!(labels.get(name), model.get(name).copied());
                prop_assert_eq!(labels.contains_key(name), model.contains_key(name));
                let expected = model.iter().filter(|(other, _)| other.starts_with(name));
                prop_assert!(labels.starting_with(name).eq(expected.map(|(name, value)| (*name, *value))));
            }
            let again: Labels = pairs.iter().rev().map(|(name, value)| (name, value)).collect();
            let mut first = BTreeMap::new();
            for (name, value) in &pairs {
                first.entry(name.as_str()).or_insert(value.as_str());
            }
            prop_assert!(again.iter().eq(first));
            prop_assert_eq!(labels == again, labels.iter().eq(again.iter()));
        }
    }
}
