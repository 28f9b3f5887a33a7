//! How far a build is, told to whoever keeps it, so that one that was cut off can go on.

/// So much of a graph is built. What comes before the lower layer's links is not kept: it takes little time, and is the same again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Begun {
    /// CRC-32 of the rows' codes in their order: what tells rows, their order and how codes are made from others.
    pub(crate) rows_crc: u32,
    /// Rows that have their links.
    pub(crate) inserted: usize,
    /// The lists of all rows.
    pub(crate) links: Vec<u32>,
}

/// What a build goes on from, and whom it tells how far it is.
pub(crate) struct Progress<'a> {
    pub(crate) begun: Option<Begun>,
    /// Rows that are inserted from one time that it tells to the next, or more.
    pub(crate) every: usize,
    pub(crate) tell: &'a dyn Fn(&Begun),
}

/// What is kept is as long as the lists: it is told of so many times at most.
const TOLD_MAX: usize = 4;

impl Progress<'_> {
    /// For a build that is short.
    pub(crate) const NONE: Progress<'static> = Progress { begun: None, every: usize::MAX, tell: &|_| () };

    /// What it goes on from; `None` where that is not of these rows.
    ///
    /// - `rows`: of the layer; `inserts`: those that are inserted, which copies are not; `links`: of all lists.
    pub(super) fn of(&mut self, rows_crc: u32, rows: usize, inserts: usize, links: usize) -> Option<Begun> {
        self.begun.take_if(|begun| {
            let is_link = |row: &u32| (*row as usize) < rows || *row == super::NONE;
            let fits = begun.rows_crc == rows_crc && begun.links.len() == links;
            fits && (1..=inserts).contains(&begun.inserted) && begun.links.iter().all(is_link)
        })
    }

    /// Whether it is time to tell that so many of the rows are inserted, after it was told of some.
    pub(super) fn is_due(&self, inserted: usize, told: usize, count: usize) -> bool {
        inserted < count && inserted - told >= self.every.max(count.div_ceil(TOLD_MAX))
    }
}
