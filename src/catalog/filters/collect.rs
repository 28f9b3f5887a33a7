//! From tantivy's documents to the ids of faces, without scores and a block at a time.

use roaring::RoaringTreemap;
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::Column;
use tantivy::{COLLECT_BLOCK_BUFFER_LEN, DocId, Score, SegmentOrdinal, SegmentReader};

/// Gathers the numbers in the fast field of this name.
pub(super) struct Ids(pub(super) &'static str);

pub(super) struct SegmentIds {
    column: Column<u64>,
    /// Documents whose ids are not looked up yet: segments with deletions hand them out one by one.
    docs: Vec<DocId>,
    found: RoaringTreemap,
}

impl Collector for Ids {
    type Fruit = RoaringTreemap;
    type Child = SegmentIds;

    fn for_segment(&self, _: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<SegmentIds> {
        let column = segment.fast_fields().u64(self.0)?;
        Ok(SegmentIds { column, docs: Vec::with_capacity(COLLECT_BLOCK_BUFFER_LEN), found: RoaringTreemap::new() })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, segments: Vec<RoaringTreemap>) -> tantivy::Result<RoaringTreemap> {
        Ok(segments.into_iter().fold(RoaringTreemap::new(), |all, segment| all | segment))
    }
}

impl SegmentIds {
    fn look_up(&mut self, docs: &[DocId]) {
        let mut ids = [None; COLLECT_BLOCK_BUFFER_LEN];
        for block in docs.chunks(COLLECT_BLOCK_BUFFER_LEN) {
            let ids = &mut ids[..block.len()];
            self.column.first_vals(block, ids);
            self.found.extend(ids.iter().copied().flatten());
        }
    }

    fn flush(&mut self) {
        let docs = std::mem::take(&mut self.docs);
        self.look_up(&docs);
        self.docs = docs;
        self.docs.clear();
    }
}

impl SegmentCollector for SegmentIds {
    type Fruit = RoaringTreemap;

    fn collect(&mut self, doc: DocId, _: Score) {
        self.docs.push(doc);
        if self.docs.len() == COLLECT_BLOCK_BUFFER_LEN {
            self.flush();
        }
    }

    fn collect_block(&mut self, docs: &[DocId]) {
        self.look_up(docs);
    }

    fn harvest(mut self) -> RoaringTreemap {
        self.flush();
        self.found
    }
}
