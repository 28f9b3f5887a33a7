//! What a request says, whichever way it says it.
//!
//! There is one rule for all verbs. A parameter stands in the query, in a part of a multipart body, or in a JSON
//! object; a photo is the body itself (`image/*`), or a multipart part called `photo`. The whole body is read, within
//! its size and its time, before anything is parsed: parsers and workers never wait for a client.

use std::str::FromStr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};
use tokio::sync::OwnedSemaphorePermit;
use vultus::Photo;
use vultus::photo::Limits;

use crate::app::App;
use crate::error::{Failure, Kind};

/// A photo as it was sent, and the memory that it may take.
pub(crate) struct Upload {
    /// The file's bytes.
    pub(crate) bytes: Bytes,
    /// The name that the client's multipart part gives it.
    pub(crate) file_name: Option<String>,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Upload {
    /// Decodes it; takes long enough to need a worker.
    pub(crate) fn decode(&self) -> Result<Photo, Failure> {
        Ok(Photo::decode(&self.bytes, &Limits::default())?)
    }
}

/// The parameters and photos of one request. Handlers take what they know and then [`finish`](Self::finish).
pub(crate) struct Asked {
    params: Vec<(String, Value)>,
    photos: Vec<Upload>,
}

impl FromRequest<Arc<App>> for Asked {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        let (head, body) = request.into_parts();
        let Query(query) = Query::<Vec<(String, String)>>::try_from_uri(&head.uri)
            .map_err(|error| Failure::bad_request(error.body_text()))?;
        let params = query.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
        let mut asked = Self { params, photos: Vec::new() };
        let (bytes, permit) = read(&head.headers, body, app).await?;
        asked.take_body(head, bytes, Arc::new(permit)).await?;
        Ok(asked)
    }
}

impl Asked {
    async fn take_body(&mut self, head: Parts, bytes: Bytes, permit: Arc<OwnedSemaphorePermit>) -> Result<(), Failure> {
        let media_type = media_type(&head.headers);
        match media_type.as_deref() {
            Some("multipart/form-data") => return self.take_parts(head, bytes, permit).await,
            Some("application/json") => {
                let object: Map<String, Value> = serde_json::from_slice(&bytes)
                    .map_err(|error| Failure::bad_request(format!("body: expected a JSON object: {error}")))?;
                self.params.extend(object);
            }
            _ if bytes.is_empty() => {}
            None | Some("application/octet-stream") => {
                self.photos.push(Upload { bytes, file_name: None, _permit: permit });
            }
            Some(other) if other.starts_with("image/") => {
                self.photos.push(Upload { bytes, file_name: None, _permit: permit });
            }
            Some(other) => {
                let taken = "expected image/*, multipart/form-data or application/json";
                return Err(Failure::new(Kind::UnsupportedMediaType, format!("Content-Type {other}: {taken}")));
            }
        }
        Ok(())
    }

    async fn take_parts(
        &mut self,
        head: Parts,
        bytes: Bytes,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> Result<(), Failure> {
        let malformed = |error: &dyn std::fmt::Display| Failure::bad_request(format!("multipart body: {error}"));
        let request = Request::from_parts(head, Body::from(bytes));
        let mut parts = Multipart::from_request(request, &()).await.map_err(|e| malformed(&e.body_text()))?;
        while let Some(part) = parts.next_field().await.map_err(|e| malformed(&e.body_text()))? {
            let Some(name) = part.name().map(str::to_owned) else {
                return Err(malformed(&"a part has no name"));
            };
            if name == "photo" {
                let file_name = part.file_name().map(str::to_owned);
                let bytes = part.bytes().await.map_err(|e| malformed(&e.body_text()))?;
                self.photos.push(Upload { bytes, file_name, _permit: Arc::clone(&permit) });
            } else {
                let text = part.text().await.map_err(|e| malformed(&e.body_text()))?;
                self.params.push((name, Value::String(text)));
            }
        }
        Ok(())
    }

    /// The one photo that the verb is about.
    pub(crate) fn photo(&mut self) -> Result<Upload, Failure> {
        let found = self.photos.len();
        match self.photos.pop() {
            Some(upload) if found == 1 => Ok(upload),
            _ => Err(Failure::bad_request(format!(
                "photo: expected one, found {found}; send it as the body with Content-Type: image/jpeg, \
                 or as the part `photo` of a multipart body"
            ))),
        }
    }

    /// All photos, in order.
    pub(crate) fn photos(&mut self) -> Vec<Upload> {
        std::mem::take(&mut self.photos)
    }

    /// A parameter as its JSON value; text when it came by query or multipart.
    pub(crate) fn value(&mut self, name: &str) -> Result<Option<Value>, Failure> {
        let mut values = self.values(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            many => Err(Failure::bad_request(format!("{name}: expected once, found {many} times"))),
        }
    }

    /// A parameter that is text.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Failure> {
        match self.value(name)? {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Failure::bad_request(format!("{name}: expected text, found {other}"))),
        }
    }

    /// A parameter that is written like a `T`; `expected` tells people how that is.
    pub(crate) fn parsed<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<Option<T>, Failure> {
        self.value(name)?.map(|value| parse(name, &value, expected)).transpose()
    }

    /// A parameter that may be given many times, or as a JSON list.
    pub(crate) fn parsed_list<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<Vec<T>, Failure> {
        let mut flat = Vec::new();
        for value in self.values(name) {
            match value {
                Value::Array(values) => flat.extend(values),
                value => flat.push(value),
            }
        }
        flat.iter().map(|value| parse(name, value, expected)).collect()
    }

    /// Refuses what no handler took: a misspelt parameter must not pass as if it had been heard.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        if let Some((name, _)) = self.params.first() {
            return Err(Failure::bad_request(format!("unknown parameter `{name}`")));
        }
        if !self.photos.is_empty() {
            return Err(Failure::bad_request("this verb takes no photo"));
        }
        Ok(())
    }

    fn values(&mut self, name: &str) -> Vec<Value> {
        // A JSON null says the same as leaving the member out.
        self.params
            .extract_if(.., |(found, _)| found == name)
            .map(|(_, value)| value)
            .filter(|v| !v.is_null())
            .collect()
    }
}

fn parse<T: FromStr>(name: &str, value: &Value, expected: &str) -> Result<T, Failure> {
    let parsed = match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(_) | Value::Bool(_) => value.to_string().parse().ok(),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    parsed.ok_or_else(|| Failure::bad_request(format!("{name}: expected {expected}, found {value}")))
}

/// The media type without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// The whole body, within its size and its time, with the memory that it may take.
async fn read(headers: &HeaderMap, body: Body, app: &App) -> Result<(Bytes, OwnedSemaphorePermit), Failure> {
    let limit = app.options.body_bytes_max;
    let too_large = || Failure::new(Kind::TooLarge, format!("a body may have at most {limit} bytes"));
    let announced: Option<usize> =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let admitted = match announced {
        Some(length) if length > limit => Err(too_large()),
        _ => app.body_permit(announced.unwrap_or(if chunked { limit } else { 0 })),
    };
    let permit = match admitted {
        Ok(permit) => permit,
        Err(refusal) => {
            // A client that waits for "100 Continue" hears the refusal at once. Another one writes first and listens later, and
            // would find the connection reset instead of an answer: let it write, and forget what it says.
            if !headers.contains_key(header::EXPECT) {
                let _ = tokio::time::timeout(app.options.read_timeout, discard(body)).await;
            }
            return Err(refusal);
        }
    };
    let reading = Limited::new(body, limit).collect();
    match tokio::time::timeout(app.options.read_timeout, reading).await {
        Ok(Ok(body)) => Ok((body.to_bytes(), permit)),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Failure::bad_request(format!("body: {error}"))),
        Err(_) => {
            let detail = format!("the body did not arrive within {:?}", app.options.read_timeout);
            Err(Failure::new(Kind::TooSlow, detail))
        }
    }
}

async fn discard(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(params: &[(&str, Value)]) -> Asked {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Asked { params, photos: Vec::new() }
    }

    #[test]
    fn a_number_means_the_same_as_text_and_as_json() {
        for value in [Value::from("10"), Value::from(10)] {
            let mut asked = asked(&[("k", value)]);
            assert_eq!(asked.parsed::<usize>("k", "a number").expect("a number"), Some(10));
            asked.finish().expect("nothing is left");
        }
    }

    #[test]
    fn a_list_means_the_same_as_repeating_the_parameter() {
        let repeated = [("face", Value::from("3")), ("face", Value::from("7"))];
        for params in [&repeated[..], &[("face", Value::from(vec![3, 7]))]] {
            assert_eq!(asked(params).parsed_list::<u64>("face", "an id").expect("two ids"), [3, 7]);
        }
    }

    #[test]
    fn what_is_repeated_misspelt_or_malformed_is_refused() {
        assert!(asked(&[("k", Value::from("1")), ("k", Value::from("2"))]).value("k").is_err());
        assert!(asked(&[("kk", Value::from("1"))]).finish().is_err());
        assert!(asked(&[("k", Value::from("-1"))]).parsed::<usize>("k", "a number").is_err());
        assert!(asked(&[("k", Value::from(vec![1]))]).parsed::<usize>("k", "a number").is_err());
        assert!(asked(&[("filter", Value::from(1))]).text("filter").is_err());
    }
}
