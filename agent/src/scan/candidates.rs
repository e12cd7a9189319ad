//! Which files are worth opening. An open costs a round trip on a network file system, so what a
//! name or a size rules out is not opened; what neither rules out is decided by content.

use std::ffi::CString;
use std::path::Path;

use crate::config::{Candidates, RootSettings};

/// The smallest file that can hold an image without being called one: less than the smallest
/// squashfs, ext or SIF that holds a container.
pub const SIZE_MIN: u64 = 4096;

/// Endings of names that are plainly something else. Sorted, lower case, without the dot. Endings
/// that image builders or users do give to images are not here.
const OTHER_ENDINGS: &[&str] = &[
    "a", "avi", "bai", "bam", "bash", "bat", "bcf", "bed", "bib", "bigwig", "bmp", "bw", "bz2",
    "c", "cc", "cfg", "chk", "ckpt", "class", "cmake", "conf", "cpp", "crai", "cram", "crt", "csh",
    "csi", "css", "csv", "cu", "cuh", "cxx", "dcd", "deb", "dll", "doc", "docx", "egg", "eps",
    "err", "f", "f03", "f77", "f90", "f95", "fa", "fai", "fasta", "fastq", "fish", "flac", "fna",
    "for", "fq", "gbk", "gff", "gff3", "gif", "go", "gro", "gtf", "gz", "h", "h5", "h5ad", "hdf",
    "hdf5", "hh", "hpp", "htm", "html", "hxx", "ini", "ipynb", "itp", "jar", "java", "jl", "jpeg",
    "jpg", "js", "json", "key", "la", "log", "lz4", "m", "m4", "mat", "md", "mk", "mkv", "mod",
    "mov", "mp3", "mp4", "mpeg", "msh", "nc", "nii", "npy", "npz", "o", "odt", "ogg", "onnx",
    "out", "parquet", "pc", "pdb", "pdf", "pem", "php", "pickle", "pkl", "pl", "pm", "png", "po",
    "pod", "ppt", "pptx", "ps", "pt", "pth", "pxd", "py", "pyc", "pyi", "pyo", "pyx", "r", "rar",
    "rb", "rda", "rdata", "rds", "rmd", "root", "rpm", "rs", "rst", "s", "sam", "sass", "scss",
    "sh", "sha256", "so", "sql", "sqlite", "svg", "swift", "swp", "tar", "tbi", "tcl", "tex",
    "tgz", "tif", "tiff", "tmpl", "toml", "top", "tpr", "trr", "ts", "tsv", "tsx", "ttf", "txt",
    "txz", "vcf", "vtk", "vtu", "wav", "webp", "whl", "woff", "woff2", "xls", "xlsx", "xml", "xsd",
    "xsl", "xtc", "xz", "yaml", "yml", "zip", "zst",
];

/// A regular file in a directory that is being read.
pub(super) struct Candidate {
    pub name: CString,
    pub inode: u64,
    pub if_large: bool,
    /// Which of the files known in its directory it is.
    pub known: Option<u32>,
}

/// What a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidacy {
    /// Not looked at.
    No,
    /// Opened whatever its size.
    Yes,
    /// Opened if it is at least [`SIZE_MIN`] long.
    IfLarge,
}

/// Whether the file `name` in `directory` (relative to the root) is looked into.
#[must_use]
pub fn candidacy(settings: &RootSettings, directory: &[u8], name: &[u8]) -> Candidacy {
    if is_excluded(settings, directory, name) {
        return Candidacy::No;
    }
    match &settings.candidates {
        Candidates::All => Candidacy::Yes,
        Candidates::Globs(globs) if is_match(globs, directory, name) => Candidacy::Yes,
        Candidates::Globs(_) => Candidacy::No,
        // Asked first, for most files are something else. A hidden one may be rsync's copy in
        // progress of an image, whose ending is six letters by chance.
        Candidates::Auto if !name.starts_with(b".") && is_plainly_other(name) => Candidacy::No,
        Candidates::Auto if sifter_image::probe::is_image_name(name) => Candidacy::Yes,
        Candidates::Auto if is_plainly_other(name) => Candidacy::No,
        Candidates::Auto => Candidacy::IfLarge,
    }
}

/// Whether the directory `name` of `directory` (relative to the root) is entered.
#[must_use]
pub fn is_entered(settings: &RootSettings, directory: &[u8], name: &[u8]) -> bool {
    !settings.skip.iter().any(|skip| skip == name) && !is_excluded(settings, directory, name)
}

/// Whether the entry `name` of `directory` is left out by the site's configuration.
#[must_use]
pub fn is_excluded(settings: &RootSettings, directory: &[u8], name: &[u8]) -> bool {
    !settings.exclude.is_empty() && is_match(&settings.exclude, directory, name)
}

fn is_match(globs: &globset::GlobSet, directory: &[u8], name: &[u8]) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let path = super::dir::join(directory, name);
    globs.is_match(Path::new(std::ffi::OsStr::from_bytes(&path)))
}

/// Whether the name's ending says that the file is no image. `libm.so.6` counts as `so`;
/// `samtools:1.9` has no ending that anything is known of.
fn is_plainly_other(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some(dot) = rest.iter().rposition(|byte| *byte == b'.') {
        let ending = &rest[dot + 1..];
        if ending.iter().all(u8::is_ascii_digit) && !ending.is_empty() {
            rest = &rest[..dot];
            continue;
        }
        return is_other_ending(ending);
    }
    false
}

fn is_other_ending(ending: &[u8]) -> bool {
    pack(ending).is_some_and(|ending| PACKED_ENDINGS.binary_search(&ending).is_ok())
}

/// [`OTHER_ENDINGS`] as numbers, in the same order: every file's name is compared with some of them.
static PACKED_ENDINGS: [u64; OTHER_ENDINGS.len()] = {
    let mut packed = [0; OTHER_ENDINGS.len()];
    let mut index = 0;
    while index < packed.len() {
        packed[index] = match pack(OTHER_ENDINGS[index].as_bytes()) {
            Some(ending) => ending,
            None => panic!("an ending is longer than eight bytes"),
        };
        index += 1;
    }
    packed
};

/// Up to eight bytes in lower case, the first in the highest place, zeros behind the last.
const fn pack(ending: &[u8]) -> Option<u64> {
    let mut packed = 0;
    let mut index = 0;
    while index < ending.len() {
        if index == 8 {
            return None;
        }
        packed |= (ending[index].to_ascii_lowercase() as u64) << (56 - 8 * index);
        index += 1;
    }
    Some(packed)
}

#[cfg(test)]
mod tests {
    use super::{Candidacy, OTHER_ENDINGS, PACKED_ENDINGS, candidacy};
    use crate::config::RootSettings;

    #[test]
    fn endings_are_sorted_so_that_the_search_finds_them() {
        assert!(OTHER_ENDINGS.is_sorted());
        assert!(PACKED_ENDINGS.is_sorted());
    }

    #[test]
    fn no_ending_of_an_image_or_of_a_download_is_plainly_something_else() {
        for ending in [
            "sif",
            "simg",
            "img",
            "sqsh",
            "part",
            "partial",
            "tmp",
            "filepart",
            "download",
            "crdownload",
            "pulling",
        ] {
            assert!(!OTHER_ENDINGS.contains(&ending), "{ending}");
        }
    }

    #[test]
    fn names_rule_out_only_what_is_plainly_something_else() {
        let settings = RootSettings::new("/".into());
        for (name, expected) in [
            ("a.sif", Candidacy::Yes),
            ("a.oci.sif", Candidacy::Yes),
            ("a.simg", Candidacy::Yes),
            ("a.img", Candidacy::Yes),
            ("a.py", Candidacy::No),
            ("A.PDF", Candidacy::No),
            ("libm.so.6", Candidacy::No),
            ("libz.so.1.2.11", Candidacy::No),
            ("samtools:1.9--h91753b0_8", Candidacy::IfLarge),
            ("samtools:1.9", Candidacy::IfLarge),
            ("0123456789abcdef", Candidacy::IfLarge),
            ("README", Candidacy::IfLarge),
            ("x.squashfs", Candidacy::IfLarge),
            (".hidden", Candidacy::IfLarge),
            (".hidden.txt", Candidacy::No),
            (".a.sif.sqlite", Candidacy::Yes),
            ("a.img.pulling.1795488039", Candidacy::Yes),
            ("a.sif.part", Candidacy::Yes),
            ("ends.", Candidacy::IfLarge),
            ("1.2.3", Candidacy::IfLarge),
        ] {
            assert_eq!(
                candidacy(&settings, b"", name.as_bytes()),
                expected,
                "{name}"
            );
        }
    }
}
