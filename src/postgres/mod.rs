//! PostgreSQL's own programs: the only place that spawns a process.
