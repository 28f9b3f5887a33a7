//! Which faces does a filter let through? Answered by tantivy, from a folder.
//!
//! The folder is a view over the records: each commit carries the sequence number of the last record in it, `open`
//! checks every byte before it answers, and whatever does not hold is an error on which the owner deletes the folder
//! and fills a fresh one. Nothing here is ever the only copy of anything.
//!
//! What the folder knows per face is a number (the id, to be looked up by block), terms of our own encoding (see
//! `values`), and words. Writes become visible, and durable, with [`FilterIndex::commit`].

mod answer;
mod collect;
mod directory;
mod metadata;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use roaring::RoaringTreemap;
use tantivy::directory::Directory;
use tantivy::directory::error::{LockError, OpenReadError};
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy, MergePolicy, NoMergePolicy};
use tantivy::schema::{
    BytesOptions, FAST, Field, INDEXED, IndexRecordOption, NumericOptions, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{LowerCaser, SimpleTokenizer, TextAnalyzer};
use tantivy::{Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term};

pub use metadata::{FilterDocument, KEYS_MAX, LIST_MAX, RESERVED, TEXT_BYTES_MAX, validate_metadata};

use super::{FaceId, Filter};
use crate::{Error, Result};

/// The version of what is stored, in every commit: the fields, the terms and the words.
const VERSION: u64 = 1;

/// The fast field that holds a face's id.
const ID: &str = "id";

/// The name under which [`words`] is known to tantivy.
const WORDS: &str = "words";

/// Bytes of new terms and words in memory before they are written out.
const ARENA_BYTES: usize = 32 << 20;

/// Share of deleted faces from which a part of the index is written anew. Tantivy's own is all of them.
const DELETED_SHARE_MAX: f32 = 0.2;

/// Which faces filters let through, in a folder.
pub struct FilterIndex {
    folder: PathBuf,
    index: Index,
    fields: Fields,
    reader: IndexReader,
    /// Started by the first write: one who only reads needs neither its thread nor its memory.
    writer: Option<IndexWriter>,
    /// What the last commit contains.
    sequence: u64,
    /// The highest id ever added: a higher one needs no deletion of what was there before.
    highest: Option<u64>,
    state: State,
}

/// What was written since the last commit.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Committed,
    Pending,
    /// A write failed, so a commit might contain less than it says.
    Failed,
}

/// The fields of the schema.
struct Fields {
    id: Field,
    values: Field,
    text: Field,
}

impl FilterIndex {
    /// Opens the folder, or makes an empty one there. Reads every byte of it once.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Version`] for a folder that is not what this release wrote: delete it, open it
    /// again and add every face. [`Error::Io`] when the operating system refuses.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let fail = |error: TantivyError| from_tantivy(folder, error);
        let directory = directory::SealedDirectory::open(folder).map_err(|error| fail(error.into()))?;
        let (schema, fields) = schema();
        let index = if Index::exists(&directory).map_err(|error| fail(error.into()))? {
            // Tantivy checks only files that this list names.
            if !directory.exists(Path::new(".managed.json")).map_err(|error| fail(error.into()))? {
                return Err(Error::corrupt(&folder.join(".managed.json"), "missing"));
            }
            Index::open(directory).map_err(fail)?
        } else {
            Index::create(directory, schema.clone(), IndexSettings::default()).map_err(fail)?
        };
        if let Some(damaged) = index.validate_checksum().map_err(fail)?.into_iter().min() {
            return Err(Error::corrupt(&folder.join(damaged), "its checksum does not hold"));
        }
        let sequence = sequence(folder, index.load_metas().map_err(fail)?.payload.as_deref())?;
        if index.schema() != schema {
            return Err(Error::corrupt(folder, "its fields are not those of this release"));
        }
        index.tokenizers().register(WORDS, words());
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into().map_err(fail)?;
        let highest = highest(&reader).map_err(fail)?;
        let folder = folder.to_owned();
        Ok(Self { folder, index, fields, reader, writer: None, sequence, highest, state: State::Committed })
    }

    /// The number that the last [`commit`](Self::commit) was given; zero in a fresh folder.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Adds these faces, each in place of what was known under its id.
    ///
    /// # Errors
    /// [`Error::Argument`] when a document is refused by [`FilterDocument::validate`]; nothing was added. After any
    /// other error this handle takes no more writes: open the folder again and repeat what came after
    /// [`sequence`](Self::sequence).
    pub fn upsert(&mut self, documents: &[FilterDocument]) -> Result<()> {
        documents.iter().try_for_each(FilterDocument::validate)?;
        self.write(|this, writer| {
            for document in documents {
                let id = document.id.0;
                if this.highest.is_some_and(|highest| id <= highest) {
                    writer.delete_term(Term::from_field_u64(this.fields.id, id));
                }
                this.highest = this.highest.max(Some(id));
                writer.add_document(this.fields.document(document))?;
            }
            Ok(())
        })
    }

    /// Removes these faces; ids that are not there are passed over.
    ///
    /// # Errors
    /// Those of [`upsert`](Self::upsert), except for arguments.
    pub fn remove(&mut self, ids: &[FaceId]) -> Result<()> {
        self.write(|this, writer| {
            for id in ids {
                writer.delete_term(Term::from_field_u64(this.fields.id, id.0));
            }
            Ok(())
        })
    }

    /// Makes all that was written visible and durable, as the state of the records at this sequence number.
    ///
    /// Costs about 0.1 s however little was written, so it is called for batches and not for single faces.
    ///
    /// # Errors
    /// Those of [`upsert`](Self::upsert), except for arguments.
    pub fn commit(&mut self, sequence: u64) -> Result<()> {
        if self.state == State::Committed && sequence == self.sequence {
            return Ok(());
        }
        self.write(|this, writer| {
            let mut commit = writer.prepare_commit()?;
            commit.set_payload(&format!("{VERSION} {sequence}"));
            commit.commit()?;
            // Merged here and now: no thread of ours outlives the call, and segments cannot pile up.
            let mut policy = LogMergePolicy::default();
            policy.set_del_docs_ratio_before_merge(DELETED_SHARE_MAX);
            for merge in policy.compute_merge_candidates(&this.index.searchable_segment_metas()?) {
                writer.merge(&merge.0).wait()?;
            }
            this.reader.reload()
        })?;
        self.sequence = sequence;
        self.state = State::Committed;
        Ok(())
    }

    /// The ids of the committed faces that the filter lets through.
    ///
    /// # Errors
    /// [`Error::Argument`] for a filter that was not parsed and has no meaning: a range between a number and a text,
    /// a value that is not a number, words without a letter or digit.
    pub fn matching(&self, filter: &Filter) -> Result<RoaringTreemap> {
        let searcher = self.reader.searcher();
        answer::Answers { folder: &self.folder, fields: &self.fields, searcher }.ids(filter, 0)
    }

    /// How many faces are committed.
    pub fn len(&self) -> u64 {
        self.reader.searcher().num_docs()
    }

    /// Whether no face is committed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs a write, and remembers when one fails: tantivy's writer may be dead then, and its batch incomplete.
    fn write(&mut self, work: impl FnOnce(&mut Self, &mut IndexWriter) -> tantivy::Result<()>) -> Result<()> {
        if self.state == State::Failed {
            return Err(Error::corrupt(&self.folder, "an earlier write failed; open the gallery again"));
        }
        self.state = State::Failed;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => start_writer(&self.index).map_err(|error| from_tantivy(&self.folder, error))?,
        };
        work(self, &mut writer).map_err(|error| from_tantivy(&self.folder, error))?;
        self.writer = Some(writer);
        self.state = State::Pending;
        Ok(())
    }
}

impl std::fmt::Debug for FilterIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilterIndex").field("folder", &self.folder).field("sequence", &self.sequence).finish()
    }
}

impl Fields {
    fn document(&self, face: &FilterDocument) -> TantivyDocument {
        let mut document = TantivyDocument::new();
        document.add_u64(self.id, face.id.0);
        self.add(&mut document, "id", &face.id.to_string());
        let named = [Some(("path", face.path)), face.person.map(|person| ("person", person))];
        for (field, text) in named.into_iter().flatten() {
            self.add(&mut document, field, text);
            document.add_text(self.text, text);
        }
        for (field, text) in values::texts(face.metadata) {
            self.add(&mut document, field, &text);
            document.add_text(self.text, text);
        }
        document
    }

    fn add(&self, document: &mut TantivyDocument, field: &str, text: &str) {
        for value in values::readings(text) {
            document.add_bytes(self.values, &values::term(field, &value));
        }
    }
}

fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let words = TextFieldIndexing::default()
        .set_tokenizer(WORDS)
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions);
    let fields = Fields {
        id: builder.add_u64_field(ID, NumericOptions::from(FAST | INDEXED)),
        values: builder.add_bytes_field("values", BytesOptions::default().set_indexed()),
        text: builder.add_text_field("text", TextOptions::default().set_indexing_options(words)),
    };
    (builder.build(), fields)
}

/// Runs of letters and digits, in lower case, of any length.
fn words() -> TextAnalyzer {
    TextAnalyzer::builder(SimpleTokenizer::default()).filter(LowerCaser).build()
}

fn start_writer(index: &Index) -> tantivy::Result<IndexWriter> {
    let options = IndexWriterOptions::builder()
        .num_worker_threads(1)
        .memory_budget_per_thread(ARENA_BYTES)
        .num_merge_threads(1)
        .build();
    let writer = index.writer_with_options(options)?;
    writer.set_merge_policy(Box::new(NoMergePolicy));
    Ok(writer)
}

/// Reads what [`FilterIndex::commit`] wrote. A folder without a commit is a fresh one.
fn sequence(folder: &Path, payload: Option<&str>) -> Result<u64> {
    let Some(payload) = payload else { return Ok(0) };
    let numbers = payload.split_once(' ').map(|(version, sequence)| (version.parse::<u64>(), sequence.parse::<u64>()));
    match numbers {
        Some((Ok(VERSION), Ok(sequence))) => Ok(sequence),
        Some((Ok(found), _)) if found != VERSION => {
            Err(Error::Version { path: folder.to_owned(), found, known: VERSION })
        }
        _ => Err(Error::corrupt(folder, "its last commit does not say what it contains")),
    }
}

fn highest(reader: &IndexReader) -> tantivy::Result<Option<u64>> {
    let searcher = reader.searcher();
    let highest = searcher.segment_readers().iter().map(|segment| Ok(segment.fast_fields().u64(ID)?.max_value()));
    highest.collect::<tantivy::Result<Vec<u64>>>().map(|ids| ids.into_iter().max())
}

/// A fault of the disk stays one; whatever else tantivy reports about a folder, the remedy is to fill a fresh one.
fn from_tantivy(folder: &Path, error: TantivyError) -> Error {
    let (path, source) = match &error {
        TantivyError::LockFailure(LockError::LockBusy, _) => return Error::Locked { path: folder.to_owned() },
        TantivyError::OpenReadError(OpenReadError::IoError { io_error, filepath }) => (folder.join(filepath), io_error),
        TantivyError::IoError(io_error) => (folder.to_owned(), io_error),
        _ => return Error::corrupt(folder, error.to_string()),
    };
    match source.raw_os_error() {
        Some(code) => Error::Io { path, source: std::io::Error::from_raw_os_error(code) },
        None => Error::corrupt(&path, source.to_string()),
    }
}
