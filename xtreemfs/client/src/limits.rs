//! Every bound of the client in one place: what is held in memory, for how long, and how long an
//! operation may take. An operation that reaches its deadline fails; none waits for ever.

use std::time::Duration;

/// A whole operation, all its retries included, ends within this time.
pub const OPERATION_DEADLINE: Duration = Duration::from_secs(30);

/// One attempt to open a stream to a service and to hand over a ticket ends within this time.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// A connection serves new calls for so long; then another is made.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3600);

/// One request that was sent is answered within this time; after it the connection counts as dead.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// Pause before the first retry; it doubles up to [`RETRY_PAUSE_MAX`].
pub const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Longest pause between two retries.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// An operation is tried at most so often, whatever the time allows.
pub const ATTEMPTS_MAX: u32 = 40;

/// People who may have a slot on one connection; for one more a new connection is opened.
pub const SLOTS_PER_CONNECTION: usize = 1024;

/// A call is repeated so often after "authenticate again" or "capability lapsed".
pub const PROOFS_MAX: u32 = 3;

/// A call is tried so often when the server says that it is in trouble or cannot check a ticket.
pub const TROUBLES_MAX: u32 = 8;

/// Services with a connection at one time; for one more the unused ones are closed.
pub const CONNECTIONS_MAX: usize = 1024;

/// How long attributes of an open file are shown without asking the MRC.
pub const ATTRIBUTES_TTL: Duration = Duration::from_secs(1);

/// How long a looked-up directory stays known for one person.
pub const DIRECTORY_TTL: Duration = Duration::from_secs(1);

/// How long an entry that came with a directory listing serves one look-up.
pub const LISTED_TTL: Duration = Duration::from_secs(1);

/// Closed files remembered before those are forgotten that no listing can be older than.
pub const LEFT_MAX: usize = 1024;

/// Entries of both kinds kept at most.
pub const CACHED_ENTRIES_MAX: usize = 65_536;

/// Names whose inode is remembered, to settle changes of names whose answer was lost.
pub const SEEN_NAMES_MAX: usize = 16_384;

/// Bytes accepted from a writer and not yet on an OSD, per open inode.
pub const WRITE_BEHIND_BYTES_PER_FILE: usize = 8 << 20;

/// The same over all open inodes of the client. Past it writes wait for their own OSD answer.
pub const WRITE_BEHIND_BYTES: usize = 32 << 20;

/// Small sequential writes are joined up to this many bytes before they are sent.
pub const JOINED_WRITE_BYTES: usize = 256 << 10;

/// The largest piece sent to an OSD in one request, whatever the stripe size.
pub const PIECE_BYTES_MAX: usize = 4 << 20;

/// Pieces of one request that travel at the same time.
pub const PIECES_AT_ONCE: usize = 16;

/// Dirty files are flushed and their size is told to the MRC at least this often.
pub const COMMIT_PERIOD: Duration = Duration::from_secs(5);

/// A capability is renewed when less than this part (1/n) of its life is left.
pub const RENEW_FRACTION: u32 = 3;

/// After a renewal failed, the next is tried no sooner.
pub const RENEW_PAUSE: Duration = Duration::from_secs(5);

/// Bytes read ahead for one sequential reader.
pub const READ_AHEAD_BYTES_PER_FILE: u64 = 4 << 20;

/// Bytes read ahead over all readers of the client.
pub const READ_AHEAD_BYTES: usize = 32 << 20;

/// What was read ahead is used within this time, else it is read again.
pub const READ_AHEAD_TTL: Duration = Duration::from_secs(1);

/// The largest single read or write a caller may ask for.
pub const TRANSFER_BYTES_MAX: usize = 16 << 20;

/// Handles open at one time on one volume.
pub const OPEN_FILES_MAX: usize = 65_536;

/// Files that were closed and may not be on the OSDs' disks yet are remembered for so long: many
/// times what a kernel takes to bring what was written to the disk by itself (half a minute).
pub const CLOSED_UNSYNCED_TTL: Duration = Duration::from_secs(600);

/// How many of them at most; past it the one that was closed first is forgotten.
pub const CLOSED_UNSYNCED_MAX: usize = 16_384;

/// Files whose content is being deleted in the background; for one more unlink itself waits.
pub const DELETIONS_MAX: usize = 64;

/// Open files that are looked after at the same time (size commits, renewals).
pub const CARE_AT_ONCE: usize = 16;
