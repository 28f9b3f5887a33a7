//! Why a request was not answered, as JSON: "Problem Details for HTTP APIs", RFC 9457.

use serde::{Deserialize, Serialize};

/// The body of every answer with a status of 400 and above; its media type is `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem, for programs: `urn:vultus:` and a word, for example `urn:vultus:not-found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for people, in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was expected and what was found, this time.
    pub detail: String,
}
