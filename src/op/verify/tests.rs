//! Choice and judgement over a storage in memory.
