//! Writes a segment file: sections first, then the header that knows their checksums.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use super::header::{self, Header, LEN};
use super::{Row, Stamp};
use crate::folder::durable;
use crate::{Result, graph};

/// Writes `rows` to a new file that is durable on return.
///
/// - `rows`: ids ascend, vectors are of one length; fewer than 2³² of them.
/// - `graph_vectors_min`: a graph is built from this many rows on.
pub(crate) fn write(path: &Path, rows: &[Row<'_>], dimensions: usize, graph_vectors_min: usize) -> Result<Stamp> {
    let graph = if rows.len() >= graph_vectors_min.max(2) { graph::build(rows) } else { Vec::new() };
    durable::write(path, |file| {
        let header = write_sections(file, rows, dimensions, &graph)?;
        file.seek(SeekFrom::Start(0))?;
        let encoded = header.encode();
        file.write_all(&encoded)?;
        Ok(Stamp { bytes: header.bytes, crc: header::crc(&encoded) })
    })
}

fn write_sections(file: &mut BufWriter<File>, rows: &[Row<'_>], dimensions: usize, graph: &[u8]) -> io::Result<Header> {
    let mut header = Header {
        dimensions: dimensions as u32,
        count: u32::try_from(rows.len()).map_err(|_| io::Error::other("a segment holds fewer than 2³² vectors"))?,
        bytes: 0,
        ids_crc: 0,
        vectors_crc: 0,
        graph_crc: 0,
    };
    header.bytes = header.graph_at() + graph.len() as u64;
    file.write_all(&[0; LEN])?;

    let mut ids = Section::new(file);
    for row in rows {
        ids.put(&row.id.to_le_bytes())?;
    }
    header.ids_crc = ids.finish(header.vectors_at() - LEN as u64)?;

    let mut vectors = Section::new(file);
    for row in rows {
        // The target is little-endian, or `map.rs` would not compile.
        vectors.put(bytemuck::cast_slice(row.vector))?;
    }
    header.vectors_crc = vectors.finish(header.graph_at() - header.vectors_at())?;

    let mut links = Section::new(file);
    links.put(graph)?;
    header.graph_crc = links.finish(graph.len() as u64)?;
    Ok(header)
}

/// Bytes of one section on their way into the file.
struct Section<'a> {
    file: &'a mut BufWriter<File>,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl<'a> Section<'a> {
    fn new(file: &'a mut BufWriter<File>) -> Self {
        Self { file, crc: crc32fast::Hasher::new(), bytes: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Fills the section up with zeros, and returns its checksum.
    fn finish(mut self, section_bytes: u64) -> io::Result<u32> {
        let padding = [0; 64];
        self.put(&padding[..(section_bytes - self.bytes) as usize])?;
        Ok(self.crc.finalize())
    }
}
