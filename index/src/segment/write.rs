//! Writes a segment file: sections first, then the checksums of their blocks, then the header that knows theirs.

use std::io::{self, Write};

use rayon::prelude::*;

use super::header::{self, BLOCK, COUNT_MAX, Header, LEN, Sections};
use super::{Row, Stamp, file, kept, widths};
use crate::graph::{self, Progress};
use crate::quantiser::{self, Quantiser};
use crate::stop::{Stop, Stopped};
use crate::storage::Storage;
use crate::storage::durable::{self, Writer};
use crate::{Error, Kept, Result};

/// What is written besides the vectors.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) dimensions: usize,
    /// Whether a graph is built, and then what is kept of the vectors.
    pub(crate) graph: Option<Kept>,
    /// The caller's sequence numbers behind which and up to which the rows were written.
    pub(crate) sequences: [u64; 2],
}

/// Writes `rows` to a new file that is durable on return.
///
/// - `rows`: ids ascend, vectors are of one length; fewer than 2³¹ of them; `progress`: of the graph's build, if there is one.
///
/// # Errors
/// `Io`; of the kind `Interrupted` where it was told to stop.
pub(crate) fn write(
    storage: &dyn Storage,
    number: u64,
    rows: &[Row<'_>],
    layout: Layout,
    progress: Progress<'_>,
    stop: &Stop,
) -> Result<Stamp> {
    let name = file(number);
    let path = storage.path().join(&name);
    if rows.len() >= COUNT_MAX {
        return Err(Error::io(&path)(io::Error::other("a segment holds fewer than 2³¹ vectors")));
    }
    let content = Content::new(rows, layout, progress, stop);
    let content = content.map_err(|Stopped| Error::io(&path)(io::ErrorKind::Interrupted.into()))?;
    let (prepared, stamp) = durable::prepare(storage, &name, |file| {
        let header = content.write(file)?;
        file.rewind()?;
        let encoded = header.encode();
        file.write_all(&encoded)?;
        Ok(Stamp { bytes: header.bytes(), crc: header::crc(&encoded) })
    })?;
    prepared.name()?;
    Ok(stamp)
}

/// The bytes of the sections, or where they come from.
struct Content<'a> {
    rows: Vec<Row<'a>>,
    /// The places of `rows` by ascending id.
    by_id: Vec<u32>,
    quantiser: Vec<f32>,
    codes: Vec<u8>,
    /// The section, in words.
    graph: Vec<u32>,
    header: Header,
}

impl<'a> Content<'a> {
    fn new(rows: &[Row<'a>], layout: Layout, progress: Progress<'_>, stop: &Stop) -> Result<Self, Stopped> {
        let Layout { dimensions, graph, sequences } = layout;
        let count = rows.len() as u32;
        let Some(kept) = graph.filter(|_| !rows.is_empty()) else {
            return Ok(Self {
                rows: rows.to_vec(),
                by_id: (0..count).collect(),
                quantiser: Vec::new(),
                codes: Vec::new(),
                graph: Vec::new(),
                header: Header::new(dimensions as u32, count, sequences, None),
            });
        };
        let vectors: Vec<&[f32]> = rows.iter().map(|row| row.vector).collect();
        let quantiser = quantiser::fit(&vectors);
        let view = Quantiser::view(&quantiser);
        let code_bytes = quantiser::code_bytes(dimensions);
        let mut codes = vec![0; code_bytes * rows.len()];
        vectors.par_iter().zip(codes.par_chunks_exact_mut(code_bytes)).for_each(|(vector, codes)| {
            view.encode(vector, codes);
            // Fine codes say where between the nearest levels a number is.
            if kept != Kept::Codes {
                view.straighten(vector, codes);
            }
        });
        let mut built = graph::build(&vectors, view, &codes, progress, stop)?;
        let mut by_id = vec![0; rows.len()];
        built.order.iter().zip(0..).for_each(|(at, row)| by_id[*at as usize] = row);
        let rows: Vec<Row<'_>> = built.order.iter().map(|at| rows[*at as usize]).collect();
        let codes = std::mem::take(&mut built.halves);
        let entry_codes = built.entry_codes(&codes, code_bytes);
        let graph = built.graph(&entry_codes);
        let vectors = kept::read_back(kept, &view, &rows, &codes);
        let read: Option<Vec<Row<'_>>> = vectors.as_ref().map(|vectors| {
            let pairs = rows.iter().zip(vectors.chunks_exact(dimensions));
            pairs.map(|(row, vector)| Row { vector, ..*row }).collect()
        });
        let measured = widths::measure(read.as_deref().unwrap_or(&rows), &view, &codes, &graph, stop)?;
        let graph = graph.encode(&measured);
        let header = Header::new(dimensions as u32, count, sequences, Some((4 * graph.len(), kept)));
        Ok(Self { rows, by_id, quantiser, codes, graph, header })
    }

    fn write(&self, file: &mut Writer) -> io::Result<Header> {
        file.write_all(&[0; LEN])?;
        let Sections { ids, by_id, vectors, quantiser, codes, graph, checks } = self.header.sections();
        let mut blocks = Blocks { file, at: LEN, crc: crc32fast::Hasher::new(), in_block: 0, crcs: Vec::new() };
        blocks.fill_up(ids.start)?;
        self.rows.iter().try_for_each(|row| blocks.put(&row.id.to_le_bytes()))?;
        blocks.fill_up(by_id.start)?;
        // The target is little-endian, or `storage/map.rs` would not compile.
        blocks.put(bytemuck::cast_slice(&self.by_id))?;
        blocks.fill_up(vectors.start)?;
        kept::encode_rows(self.header.kept, &Quantiser::view(&self.quantiser), &self.rows, &self.codes, |row| {
            blocks.put(row)
        })?;
        for (section, bytes) in [
            (quantiser, bytemuck::cast_slice(&self.quantiser)),
            (codes, self.codes.as_slice()),
            (graph, bytemuck::cast_slice(&self.graph)),
        ] {
            blocks.fill_up(section.start)?;
            blocks.put(bytes)?;
        }
        blocks.fill_up(checks.start)?;
        let crcs: Vec<u8> = blocks.finish().into_iter().flat_map(u32::to_le_bytes).collect();
        file.write_all(&crcs)?;
        Ok(Header { checks_crc: crc32fast::hash(&crcs), ..self.header })
    }
}

/// Bytes on their way into the file, and the checksums of their blocks.
struct Blocks<'a> {
    file: &'a mut Writer,
    /// Bytes that the file has.
    at: usize,
    crc: crc32fast::Hasher,
    /// Bytes that `crc` has seen.
    in_block: usize,
    crcs: Vec<u32>,
}

impl Blocks<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.at += bytes.len();
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.in_block));
            self.crc.update(now);
            self.in_block += now.len();
            if self.in_block == BLOCK {
                self.end_block();
            }
            bytes = later;
        }
        Ok(())
    }

    fn end_block(&mut self) {
        self.crcs.push(std::mem::take(&mut self.crc).finalize());
        self.in_block = 0;
    }

    /// Zeros up to where a section begins.
    fn fill_up(&mut self, to: usize) -> io::Result<()> {
        let zeros = [0; 64];
        self.put(&zeros[..to - self.at])
    }

    fn finish(mut self) -> Vec<u32> {
        if self.in_block > 0 {
            self.end_block();
        }
        self.crcs
    }
}
