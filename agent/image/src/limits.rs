//! Named limits on what a file may make us do, each with its reason.

/// Most bytes of a definition that are kept: real ones are a few KiB; generated ones of large conda
/// environments reach tens of KiB. Nothing is concluded from a longer one.
pub const DEFINITION_MAX: usize = 256 << 10;

/// Bytes of the first read of every file: global header, gap and the first seven descriptors of a
/// SIF, the superblock of every file system. Twice a page, so no dearer than less.
pub const HEAD: usize = 8 << 10;

/// Most bytes that probing a SIF may read in all, unless a single metadata object is larger than
/// what is left: what network file systems fetch in one operation.
pub const SIF_READ_BUDGET: usize = 64 << 10;

/// Most reads that probing a SIF may make, unless its metadata objects lie further apart than the
/// budget allows.
pub const SIF_READS: usize = 3;

/// Bytes read beyond the descriptor table when it is read on its own: metadata objects follow it
/// directly in what Apptainer writes (data offset 32176).
pub const TABLE_READ_AHEAD: usize = 8 << 10;

/// Most descriptors of a SIF: native ones have 48, the largest OCI-SIF seen 53, and an OCI image
/// 127 layers; 8192 are 4.6 MiB of table.
pub const DESCRIPTORS_MAX: i64 = 8192;

/// Largest metadata object (`inspect-metadata.json`, labels, OCI blobs of JSON) that is read: it
/// holds the definition, the environment and the scripts, so some multiple of [`DEFINITION_MAX`].
pub const METADATA_OBJECT_MAX: usize = 4 << 20;

/// Objects nearer than this are read together, where memory answers: a page more is cheaper than a read more. Two pages are
/// not: between the metadata objects and the partition of today's SIFs lies
/// `oci-config.json`, and copying it costs as much as another read.
pub const READ_GAP: u64 = 4 << 10;

/// Bytes of a signature object that are looked at: the armour, the `Hash:` line and the first line
/// of what is signed decide how it is encoded.
pub const SIGNATURE_HEAD: usize = 160;

/// Most bytes of a message that says what is wrong with an image. It may quote the file, and every listing
/// shows it.
pub const MESSAGE_MAX: usize = 1 << 10;

/// Longest name of an architecture in OCI JSON; `mips64p32le` is the longest that Go knows.
pub const ARCH_MAX: usize = 32;

/// Most architectures that are named of one OCI-SIF: Docker Hub's official images have about ten.
pub const ARCHITECTURES_MAX: usize = 32;

/// Most labels that are kept: the largest images seen have some dozens.
pub const LABELS_MAX: usize = 4096;

/// Most bytes of the names and values of labels that are kept, as of a definition: real ones have a few KiB.
pub const LABELS_BYTES_MAX: usize = 256 << 10;

/// Most signature objects that are listed and looked at: more than any group of signers.
pub const SIGNATURES_MAX: usize = 64;

/// Most partitions whose beginnings are looked at: real images have one or two, and some overlays.
pub const PARTITIONS_MAX: usize = 16;

/// Most entries taken from one list of OCI JSON: an image has at most 127 layers, an index some
/// dozens of manifests, a configuration about as many steps of history as layers. A list of empty
/// entries would else take thirty times its own size in memory.
pub const OCI_LIST_MAX: usize = 4096;

/// Most manifests, over all nested indexes, of an OCI-SIF: a multi-platform index has about ten.
pub const OCI_MANIFESTS_MAX: usize = 256;

/// How deep OCI indexes may be nested: a root index, one of a multi-platform image, and one spare.
pub const OCI_DEPTH_MAX: usize = 3;

/// Most bytes of OCI JSON read from one image: each manifest and configuration is some KiB.
pub const OCI_JSON_MAX: u64 = 8 << 20;

/// What the smallest of them counts as, for each may cost a read.
pub const OCI_JSON_MIN: u64 = 8 << 10;

/// Most names taken from one directory: `.singularity.d` has about ten, `bootstrap_history` one
/// for each rebuild.
pub const DIRECTORY_ENTRIES_MAX: usize = 1024;

/// Most definitions of a bootstrap history that are read.
pub const HISTORY_MAX: usize = 16;

/// Most bytes of what one definition of a bootstrap history was built from: a reference has less than half as
/// many, and a path hardly more.
pub const HISTORY_TEXT_MAX: usize = 1 << 10;

/// Most bytes that the blocks may have which are read while looking into one squashfs: a handful of metadata
/// blocks, and a data block of at most 1 MiB for each of a few files.
pub const SQUASHFS_BLOCKS_MAX: usize = 24 << 20;

/// Largest dictionary an xz block may ask for: mksquashfs uses no more than the block size, 1 MiB.
pub const XZ_DICTIONARY_MAX: u64 = 8 << 20;

/// Most bytes of one directory that are searched: a root or a `.singularity.d` has some hundred.
pub const DIRECTORY_BYTES_MAX: usize = 256 << 10;

/// Largest labels file inside a file system that is read: some dozens of labels are some KiB.
pub const LABELS_FILE_MAX: usize = 1 << 20;

/// Bytes of a page of an ext file system: what it keeps together (inodes of a directory, a group of
/// descriptors) is within a few blocks.
pub const EXT_PAGE: usize = 16 << 10;

/// Most pages of an ext file system that are read: some dozens answer for everything asked here.
pub const EXT_PAGES_MAX: usize = 512;

/// Largest signature object that is verified: a clear-signed text has some 150 bytes for each object.
pub const SIGNATURE_MAX: u64 = 1 << 20;
