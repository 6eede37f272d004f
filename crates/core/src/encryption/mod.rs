//! Encryption with age: recipients to write for, identities to read with. The format and all of its cryptography are the
//! `age` crate's.
//!
//! Nothing here touches files, storages or the environment. A private key is never part of a message.

mod identities;
mod part;
mod plugin;
mod recipients;

pub use identities::{BadIdentity, CannotOpen, Identities};
pub(crate) use part::{PartReader, begin_at};
pub(crate) use recipients::CannotUse;
pub use recipients::{BadRecipient, Recipients};

/// The next move of whoever has no key, or the wrong one.
pub(crate) const IDENTITY_HINT: &str = "`--identity FILE` names the file of the private key";

/// A text under way into an age file; without its `finish` the file is cut off, and no reader takes it.
pub type Sealed<W> = age::stream::StreamWriter<W>;

/// The text of an age file.
pub type Opened<R> = age::stream::StreamReader<R>;
