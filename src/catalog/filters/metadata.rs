//! What may be said about a photo: flat metadata, within limits that every store of faces can keep.
//!
//! Checked before anything is written, because the search engine drops or refuses some values only when it commits,
//! and takes their neighbors with them.

use serde_json::Value;

use super::values::fold;
use crate::catalog::filter::check_field;
use crate::catalog::{FaceId, Metadata};
use crate::{Error, Result};

/// The most keys of one photo's metadata.
pub const KEYS_MAX: usize = 64;

/// The most values in a list.
pub const LIST_MAX: usize = 256;

/// The longest text in metadata, and the longest path and person, in bytes.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;

/// Fields that every face has; no metadata key may be one of them.
pub const RESERVED: [&str; 3] = ["person", "path", "id"];

/// What the filters know about one face.
#[derive(Clone, Copy, Debug)]
pub struct FilterDocument<'a> {
    /// The face.
    pub id: FaceId,
    /// Whose face it is, when somebody said so.
    pub person: Option<&'a str>,
    /// Where its photo came from.
    pub path: &'a str,
    /// What people say about its photo.
    pub metadata: &'a Metadata,
}

impl FilterDocument<'_> {
    /// Refuses what could not be found again.
    ///
    /// # Errors
    /// [`Error::Argument`] for metadata that [`validate_metadata`] refuses, and for a path or person of more than
    /// [`TEXT_BYTES_MAX`] bytes.
    pub fn validate(&self) -> Result<()> {
        check_text(self.path).map_err(|what| Error::argument("path", what))?;
        check_text(self.person.unwrap_or_default()).map_err(|what| Error::argument("person", what))?;
        validate_metadata(self.metadata)
    }
}

/// Refuses metadata that filters could not answer for: a flat object of strings, numbers, booleans and lists of
/// these is accepted, with keys that are not [`RESERVED`] and sizes within the limits of this module.
///
/// # Errors
/// [`Error::Argument`] that names the key, what was expected and what was found.
pub fn validate_metadata(metadata: &Metadata) -> Result<()> {
    if metadata.len() > KEYS_MAX {
        return Err(Error::argument("metadata", format!("{} keys, at most {KEYS_MAX} are kept", metadata.len())));
    }
    for (key, value) in metadata {
        check_entry(key, value).map_err(|what| {
            let key: String = key.chars().take(100).collect();
            Error::argument("metadata", format!("{key:?}: {what}"))
        })?;
    }
    Ok(())
}

fn check_entry(key: &str, value: &Value) -> Result<(), String> {
    check_field(key)?;
    if RESERVED.contains(&fold(key).as_str()) {
        return Err("this name is taken, every face has such a field; choose another".into());
    }
    match value {
        Value::Array(list) if list.len() > LIST_MAX => {
            Err(format!("a list of {} values, at most {LIST_MAX} are kept", list.len()))
        }
        Value::Array(list) => list.iter().try_for_each(check_scalar),
        scalar => check_scalar(scalar),
    }
}

fn check_scalar(value: &Value) -> Result<(), String> {
    let found = match value {
        Value::String(text) => return check_text(text),
        Value::Number(_) | Value::Bool(_) => return Ok(()),
        Value::Null => "null (leave the key out instead)",
        Value::Array(_) => "a list inside a list",
        Value::Object(_) => "an object",
    };
    Err(format!("expected a string, a number, a boolean or a list of these, found {found}"))
}

fn check_text(text: &str) -> Result<(), String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("{} bytes of text, at most {TEXT_BYTES_MAX} are kept", text.len()));
    }
    Ok(())
}
