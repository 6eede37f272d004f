//! What several sessions read, put into its order again.
//!
//! Each COPY has a window of its own, and they stand in line in the order of the dump. A session that is ahead waits
//! when its window is full; whoever reads gets the first one to its end before the next.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::{Buf, Bytes};

use super::{Block, Copies, TAIL};

/// Pieces of 128 KiB that wait for their turn, of one COPY.
const WINDOW: usize = 18;

/// One thing of a COPY's answer.
enum Item {
    Bytes(Bytes),
    End,
    Failed(io::Error),
}

/// The blocks that are still to be read, for all sessions together.
pub(super) struct Line {
    left: Mutex<Left>,
    /// Somebody took the next COPY, or nobody reads any more.
    moved: Condvar,
}

struct Left {
    blocks: Vec<Block>,
    /// The next COPY: which block, and which of its COPYs.
    next: (usize, u64),
    /// Those who read them, in order; none once all were handed out.
    windows: Option<SyncSender<Receiver<Item>>>,
}

/// A COPY that was handed out.
pub(super) struct Task {
    pub(super) copy: String,
    /// What stands behind its rows: the end of the block, or nothing.
    tail: &'static [u8],
    window: SyncSender<Item>,
}

/// The text of the blocks, for a plain thread. `Ok(0)` means that all of them came.
pub struct OwnRows {
    windows: Receiver<Receiver<Item>>,
    current: Option<Receiver<Item>>,
    bytes: Bytes,
    left: u64,
}

/// Prepares to read blocks by so many sessions.
pub(super) fn line(blocks: Vec<Block>, sessions: usize) -> (Arc<Line>, OwnRows) {
    let left = blocks.iter().map(|block| block.copies.count()).sum();
    // Some more than are being filled, so that none of the sessions waits for the reader to take one up.
    let (windows, in_order) = sync_channel(sessions / 2 + 1);
    let line = Line {
        left: Mutex::new(Left {
            blocks,
            next: (0, 0),
            windows: Some(windows),
        }),
        moved: Condvar::new(),
    };
    let rows = OwnRows {
        windows: in_order,
        current: None,
        bytes: Bytes::new(),
        left,
    };
    (Arc::new(line), rows)
}

impl Line {
    /// Takes the next COPY out, for the session of this number; none when there is no more, or nobody reads.
    ///
    /// It waits while too many stand in line, or while the next one is for the first session alone.
    pub(super) fn take(&self, session: usize) -> Option<Task> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        while left.windows.is_some() && left.is_next_alone() && session != 0 {
            left = (self.moved.wait(left)).unwrap_or_else(PoisonError::into_inner);
        }
        let task = left.take();
        if task.is_none() {
            left.windows = None;
        }
        self.moved.notify_all();
        task
    }

    /// Lets nobody take any more: a session failed.
    pub(super) fn close(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.windows = None;
        self.moved.notify_all();
    }
}

impl Left {
    fn is_next_alone(&self) -> bool {
        let next = self.blocks.get(self.next.0);
        next.is_some_and(|block| matches!(block.copies, Copies::Alone(_)))
    }

    fn take(&mut self) -> Option<Task> {
        let (at, copy) = self.next;
        let block = self.blocks.get(at)?;
        let is_last = copy + 1 == block.copies.count();
        let (window, items) = sync_channel(WINDOW);
        let sql = block.copies.copy(copy);
        if copy == 0 {
            // An empty window has room.
            let _ = window.send(Item::Bytes(block.head.clone().into()));
        }
        self.next = if is_last { (at + 1, 0) } else { (at, copy + 1) };
        self.windows.as_ref()?.send(items).ok()?;
        Some(Task {
            copy: sql,
            tail: if is_last { TAIL } else { &[] },
            window,
        })
    }
}

impl Task {
    /// Hands on what came of it; `false` when nobody wants it any more.
    pub(super) fn hand_on(&self, bytes: Bytes) -> bool {
        self.window.send(Item::Bytes(bytes)).is_ok()
    }

    /// Ends it; `false` when nobody wants it any more.
    pub(super) fn end(self) -> bool {
        let tail = Item::Bytes(Bytes::from_static(self.tail));
        self.window.send(tail).is_ok() && self.window.send(Item::End).is_ok()
    }

    /// Says why it did not come.
    pub(super) fn fail(self, error: io::Error) {
        // Whoever is gone knows why.
        let _ = self.window.send(Item::Failed(error));
    }
}

impl Read for OwnRows {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.bytes.is_empty() {
            let Some(current) = &self.current else {
                match self.windows.recv() {
                    Ok(window) => self.current = Some(window),
                    Err(_) if self.left == 0 => return Ok(0),
                    Err(_) => return Err(ended()),
                }
                continue;
            };
            match current.recv() {
                Ok(Item::Bytes(bytes)) => self.bytes = bytes,
                Ok(Item::End) => {
                    self.left -= 1;
                    self.current = None;
                }
                Ok(Item::Failed(error)) => return Err(error),
                Err(_) => return Err(ended()),
            }
        }
        let count = self.bytes.len().min(buffer.len());
        self.bytes.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

fn ended() -> io::Error {
    io::Error::other("a session that reads rows ended")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_model::name::TableName;
    use std::thread;

    fn blocks() -> Vec<Block> {
        (0..5)
            .map(|n| Block {
                table: TableName::new("public", format!("t{n}")),
                head: format!("COPY t{n}\n"),
                copies: match n {
                    1 | 3 => Copies::Alone(format!("alone t{n}")),
                    _ => Copies::Ranges {
                        select: format!("t{n}"),
                        pages: n * 10,
                        step: 7,
                    },
                },
            })
            .collect()
    }

    /// What a session would answer to a COPY: its own text, as often as it is long.
    fn answer(copy: &str) -> Vec<Bytes> {
        (0..copy.len() % 60)
            .map(|_| format!("{copy}\n").into())
            .collect()
    }

    fn expected() -> String {
        let mut text = String::new();
        for block in blocks() {
            text += &block.head;
            for at in 0..block.copies.count() {
                for bytes in answer(&block.copies.copy(at)) {
                    text += std::str::from_utf8(&bytes).unwrap();
                }
            }
            text += "\\.\n\n\n";
        }
        text
    }

    #[test]
    fn however_many_read_it_comes_in_order() {
        for sessions in [1, 2, 4, 9] {
            let (line, mut rows) = line(blocks(), sessions);
            let text = thread::scope(|scope| {
                for session in 0..sessions {
                    let line = &line;
                    scope.spawn(move || {
                        while let Some(task) = line.take(session) {
                            for bytes in answer(&task.copy) {
                                assert!(task.hand_on(bytes));
                            }
                            assert!(task.end());
                        }
                    });
                }
                let mut text = String::new();
                rows.read_to_string(&mut text).map(|_| text)
            });
            assert_eq!(text.unwrap(), expected(), "{sessions}");
        }
    }

    #[test]
    fn a_session_that_ends_early_is_no_end_of_the_rows() {
        for fails in [true, false] {
            let (line, mut rows) = line(blocks(), 2);
            let error = thread::scope(|scope| {
                scope.spawn(|| {
                    line.take(0).unwrap().end();
                    let second = line.take(0).unwrap();
                    if fails {
                        second.fail(io::Error::other("connection lost"));
                    }
                });
                let error = io::read_to_string(&mut rows).unwrap_err();
                drop(rows);
                error
            });
            let words = if fails { "connection lost" } else { "ended" };
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_is_gone() {
        let (line, rows) = line(blocks(), 1);
        drop(rows);
        assert!(line.take(0).is_none());
    }
}
