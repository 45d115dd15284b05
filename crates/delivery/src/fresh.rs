//! The short way of a row: from its commit to its relay in memory, so that the relay need not read back what was just
//! written. The table stays the truth: whatever is missing or out of order here is read there.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aldis_storage::StoreError;
use tokio::sync::Notify;

use crate::{
    outbox::Outbox,
    window::{MAX_BYTES, MAX_ROWS, Row},
};

/// Most bytes that wait in memory for one relay.
const MAX_FRESH_BYTES: usize = 1024 * 1024;

/// A row that was just written.
#[derive(Debug)]
pub(crate) struct Link {
    /// Under which it is kept.
    pub(crate) key: Cow<'static, str>,
    /// The row before it, of the same key, that was in the table then; 0 when there was none.
    pub(crate) previous: i64,
    pub(crate) row: Row,
}

/// Wakes the relay to one peer and hands it what was just written.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) wake: Notify,
    fresh: Mutex<Fresh>,
}

#[derive(Debug, Default)]
struct Fresh {
    /// By id.
    links: BTreeMap<i64, Link>,
    bytes: usize,
    /// Of which key a relay takes what comes; otherwise it reads the table.
    followed: Option<Cow<'static, str>>,
    /// Whether something came that had no place here.
    missed: bool,
}

/// What is there for a relay.
#[derive(Debug)]
enum Next {
    /// Rows that follow the cursor immediately.
    Rows(Vec<Row>),
    Nothing,
    /// The table knows more.
    Read,
}

impl Tail {
    fn fresh(&self) -> MutexGuard<'_, Fresh> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a row whose commit is done, and wakes the relay.
    pub(crate) fn offer(&self, link: Link) {
        let mut fresh = self.fresh();
        if fresh.followed.as_ref() == Some(&link.key) {
            let bytes = fresh.bytes + link.row.body.len();
            if fresh.links.len() < MAX_ROWS && bytes <= MAX_FRESH_BYTES {
                fresh.bytes = bytes;
                fresh.links.insert(link.row.id, link);
            } else {
                fresh.missed = true;
            }
        }
        drop(fresh);
        self.wake.notify_one();
    }

    /// Rows may be in the table that nobody hands over.
    pub(crate) fn look(&self) {
        self.fresh().missed = true;
        self.wake.notify_one();
    }

    fn follow(&self, key: Cow<'static, str>) {
        *self.fresh() = Fresh { followed: Some(key), ..Fresh::default() };
    }

    /// Forgets what waits here and takes nothing more, until a relay begins anew.
    pub(crate) fn leave(&self) {
        *self.fresh() = Fresh::default();
    }

    /// Whether a relay takes what comes.
    pub(crate) fn is_followed(&self) -> bool {
        self.fresh().followed.is_some()
    }
}

impl Fresh {
    fn pop(&mut self) {
        if let Some((_, link)) = self.links.pop_first() {
            self.bytes -= link.row.body.len();
        }
    }

    /// Takes at most `rows` that follow the cursor, and at most `bytes` unless the first alone is larger.
    fn take(&mut self, mut cursor: i64, rows: usize, bytes: usize) -> Next {
        while self.links.first_key_value().is_some_and(|(id, _)| *id <= cursor) {
            self.pop();
        }
        if std::mem::take(&mut self.missed) || self.followed.is_none() {
            return Next::Read;
        }
        let mut taken: Vec<Row> = Vec::new();
        let mut total = 0;
        while let Some(first) = self.links.first_entry() {
            let link = first.get();
            if link.previous > cursor {
                return if taken.is_empty() { Next::Read } else { Next::Rows(taken) };
            }
            total += link.row.body.len();
            if taken.len() == rows || (total > bytes && !taken.is_empty()) {
                break;
            }
            self.bytes -= link.row.body.len();
            let row = first.remove().row;
            cursor = row.id;
            taken.push(row);
        }
        if taken.is_empty() { Next::Nothing } else { Next::Rows(taken) }
    }
}

/// Reads the rows of one key in order of commit, each once, until it is set back.
pub(crate) struct Reader<'a> {
    outbox: &'a Outbox,
    tail: &'a Tail,
    key: Cow<'static, str>,
    /// Rows up to here were given out.
    cursor: i64,
    /// What was read from the table and not given out yet: with a backlog, room for it comes a few rows at a time.
    ahead: VecDeque<Row>,
    /// Whether the table may hold more than what comes in memory.
    behind: bool,
}

impl<'a> Reader<'a> {
    /// A reader from the first row on; one at a time per tail.
    pub(crate) fn new(outbox: &'a Outbox, tail: &'a Tail, key: Cow<'static, str>) -> Self {
        tail.follow(key.clone());
        Self { outbox, tail, key, cursor: 0, ahead: VecDeque::new(), behind: true }
    }

    /// The next rows: at most `rows`, and at most `bytes` unless the first alone is larger. None: nothing more for now;
    /// the tail wakes when there is.
    pub(crate) async fn next(&mut self, rows: usize, bytes: usize) -> Result<Vec<Row>, StoreError> {
        if self.ahead.is_empty() && !self.behind {
            let next = self.tail.fresh().take(self.cursor, rows, bytes);
            match next {
                Next::Rows(taken) => return Ok(self.passed(taken)),
                Next::Nothing => return Ok(Vec::new()),
                Next::Read => self.behind = true,
            }
        }
        if self.ahead.is_empty() {
            self.ahead = self.outbox.next_rows(&self.key, self.cursor, MAX_ROWS, MAX_BYTES).await?.into();
            self.behind = !self.ahead.is_empty();
        }
        let taken = take_ahead(&mut self.ahead, rows, bytes);
        Ok(self.passed(taken))
    }

    fn passed(&mut self, rows: Vec<Row>) -> Vec<Row> {
        if let Some(last) = rows.last() {
            self.cursor = last.id;
        }
        rows
    }

    /// Reads again what comes after a row; from the first on when it is `None`.
    pub(crate) fn back_to(&mut self, row: Option<i64>) {
        self.cursor = row.unwrap_or(0);
        self.ahead.clear();
        self.behind = true;
    }

    /// Whose rows are read.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Where the reader stands.
    pub(crate) fn cursor(&self) -> i64 {
        self.cursor
    }
}

/// The first rows: at most `rows`, and at most `bytes` unless the first alone is larger.
fn take_ahead(ahead: &mut VecDeque<Row>, rows: usize, bytes: usize) -> Vec<Row> {
    let mut total = 0;
    let fitting = ahead.iter().take(rows).enumerate().take_while(|(at, row)| {
        total += row.body.len();
        *at == 0 || total <= bytes
    });
    let count = fitting.count();
    ahead.drain(..count).collect()
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.tail.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(id: i64, previous: i64, bytes: usize) -> Link {
        let row = Row { id, lane: [1; 16], sequence: 1, kind: 0, body: vec![0; bytes].into(), trace: None };
        Link { key: "beta.test".into(), previous, row }
    }

    fn take(tail: &Tail, cursor: i64, rows: usize, bytes: usize) -> Result<Vec<i64>, &'static str> {
        match tail.fresh().take(cursor, rows, bytes) {
            Next::Rows(rows) => Ok(rows.iter().map(|row| row.id).collect()),
            Next::Nothing => Ok(vec![]),
            Next::Read => Err("read"),
        }
    }

    #[test]
    fn only_an_unbroken_chain_is_taken_from_memory() {
        let tail = Tail::default();
        tail.offer(link(1, 0, 1));
        assert_eq!(take(&tail, 0, 9, 99), Err("read"), "nobody followed");
        tail.follow("beta.test".into());
        tail.offer(Link { key: "beta.test#1".into(), ..link(3, 2, 1) });
        assert_eq!(take(&tail, 2, 9, 99), Ok(vec![]), "it is kept under another key");
        tail.offer(link(4, 3, 1));
        assert_eq!(take(&tail, 2, 9, 99), Err("read"), "row 3 was committed but has not come");
        tail.offer(link(3, 2, 1));
        assert_eq!(take(&tail, 2, 9, 99), Ok(vec![3, 4]));
        tail.offer(link(4, 3, 1));
        assert_eq!(take(&tail, 4, 9, 99), Ok(vec![]), "what was read is not taken again");
        // Rows before it were removed from the table.
        tail.offer(link(9, 0, 1));
        tail.offer(link(12, 11, 1));
        assert_eq!(take(&tail, 4, 9, 99), Ok(vec![9]));
        assert_eq!(take(&tail, 9, 9, 99), Err("read"));
        assert_eq!(take(&tail, 11, 9, 99), Ok(vec![12]));
        tail.offer(link(13, 12, 1));
        tail.leave();
        tail.offer(link(14, 13, 1));
        assert_eq!(take(&tail, 12, 9, 99), Err("read"), "nothing is taken from memory any more");
    }

    #[test]
    fn what_was_read_ahead_is_given_out_by_rows_and_bytes() {
        let mut ahead: VecDeque<Row> = (1..=4).map(|id| link(id, id - 1, 10).row).collect();
        let mut take =
            |rows, bytes| -> Vec<i64> { take_ahead(&mut ahead, rows, bytes).into_iter().map(|row| row.id).collect() };
        assert_eq!(take(0, 99), Vec::<i64>::new());
        assert_eq!(take(1, 99), [1]);
        assert_eq!(take(9, 5), [2], "the first may be larger");
        assert_eq!(take(9, 20), [3, 4]);
        assert_eq!(take(9, 20), Vec::<i64>::new());
    }

    #[test]
    fn memory_is_bounded_and_what_found_no_place_is_read() {
        let tail = Tail::default();
        tail.follow("beta.test".into());
        let most = i64::try_from(MAX_ROWS).unwrap();
        for id in 1..=most + 1 {
            tail.offer(link(id, id - 1, 10));
        }
        assert_eq!(take(&tail, 0, 2, 99), Err("read"));
        assert_eq!(take(&tail, 0, 2, 99), Ok(vec![1, 2]));
        assert_eq!(take(&tail, 2, 9, 25), Ok(vec![3, 4]));
        assert_eq!(take(&tail, 4, 9, 5), Ok(vec![5]), "the first may be larger");
        assert_eq!(take(&tail, most, 9, 99), Ok(vec![]), "and the rest was read");
        assert_eq!(tail.fresh().bytes, 0);
        tail.offer(link(most + 2, most, MAX_FRESH_BYTES + 1));
        assert_eq!(take(&tail, most, 9, 99), Err("read"));
    }
}
