//! How records are spelled in bytes, version 1, and the checksum that every stored value carries.
//!
//! redb's own checksums cover pages and are looked at when the file is opened; the one here covers a key and its value, and
//! is looked at on every read, so that neither a changed byte nor a swapped record is ever believed.
//!
//! Every value is `version (u8, 1) · fields · crc (u32, CRC-32 of the key and of all bytes before)`. Integers and floats
//! are little-endian; `text` is a length in bytes (`u64`) and UTF-8; `list` is a length (`u64`) and its items.
//!
//! | value | key                  | fields                                                                          |
//! |-------|----------------------|---------------------------------------------------------------------------------|
//! | face  | id, `u64`            | photo `[u8; 32]` · x, y, width, height `f32` · landmarks `[f32; 10]` · confidence `f32` · face_px, sharpness, yaw, roll, confidence `f32` · embedding `[f32; 128]` · person `text`, empty for nobody |
//! | photo | hash, `[u8; 32]`     | width, height `u32` · ingested_ms `u64` · path `text` · detector `text` · metadata `text` (JSON) · faces `list` of `u64` · refused `list` of `text` |
//! | log   | sequence, `u64`      | touched `list` of (kind `u8`: 0 named, 1 added, 2 removed · id `u64`)           |
//! | meta  | `format`             | format version of the whole catalog `u64`                                       |
//! | meta  | `model`              | digest of the weights `text`                                                    |
//! | meta  | `state`              | sequence `u64` · next face id `u64`                                             |
//!
//! Keys enter the checksum as the bytes that redb stores: little-endian integers, UTF-8.

use super::{FaceId, FaceRecord, PhotoHash, PhotoRecord};
use crate::face::Quality;
use crate::{Bounds, Embedding, Face, Landmarks};

/// The version that starts every value.
const VERSION: u8 = 1;

/// What is wrong with stored bytes; the caller knows the file and the record.
pub(super) type Damage = &'static str;

/// What a commit did to a face, for views that catch up. Ordered: of several in a row the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Touch {
    /// Its person changed.
    Named,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

/// The state of a catalog besides its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Counts commits.
    pub(super) sequence: u64,
    /// The id that the next face gets.
    pub(super) next_face: u64,
}

pub(super) fn encode_face(record: &FaceRecord) -> Vec<u8> {
    let FaceRecord { id, photo, face, quality, embedding, person } = record;
    let Bounds { x, y, width, height } = face.bounds;
    let mut out = Encoder::new();
    out.0.extend_from_slice(&photo.0);
    out.f32s(&[x, y, width, height]);
    out.f32s(face.landmarks.0.as_flattened());
    out.f32s(&[face.confidence]);
    out.f32s(&[quality.face_px, quality.sharpness, quality.yaw, quality.roll, quality.confidence]);
    out.f32s(embedding.as_slice());
    out.text(person.as_deref().unwrap_or_default());
    out.seal(&id.0.to_le_bytes())
}

pub(super) fn decode_face(id: FaceId, value: &[u8]) -> Result<FaceRecord, Damage> {
    let mut fields = Decoder::unseal(&id.0.to_le_bytes(), value)?;
    let photo = PhotoHash(fields.bytes()?);
    let [x, y, width, height] = fields.f32s()?;
    let points: [f32; 10] = fields.f32s()?;
    let [confidence] = fields.f32s()?;
    let mut landmarks = Landmarks([[0.0; 2]; 5]);
    landmarks.0.as_flattened_mut().copy_from_slice(&points);
    let face = Face { bounds: Bounds { x, y, width, height }, landmarks, confidence };
    let [face_px, sharpness, yaw, roll, confidence] = fields.f32s()?;
    let quality = Quality { face_px, sharpness, yaw, roll, confidence };
    let embedding = Embedding::from_stored(fields.f32s()?).ok_or("an embedding is not of unit length")?;
    let person = Some(fields.text()?).filter(|name| !name.is_empty());
    fields.end()?;
    Ok(FaceRecord { id, photo, face, quality, embedding, person })
}

pub(super) fn encode_photo(record: &PhotoRecord) -> Vec<u8> {
    let PhotoRecord { hash, path, width, height, detector, metadata, ingested_ms, faces, refused } = record;
    let mut out = Encoder::new();
    out.u32(*width);
    out.u32(*height);
    out.u64(*ingested_ms);
    out.text(path);
    out.text(detector);
    out.text(&serde_json::Value::Object(metadata.clone()).to_string());
    out.u64(faces.len() as u64);
    faces.iter().for_each(|face| out.u64(face.0));
    out.u64(refused.len() as u64);
    refused.iter().for_each(|reason| out.text(reason));
    out.seal(&hash.0)
}

pub(super) fn decode_photo(hash: PhotoHash, value: &[u8]) -> Result<PhotoRecord, Damage> {
    let mut fields = Decoder::unseal(&hash.0, value)?;
    let (width, height) = (fields.u32()?, fields.u32()?);
    let ingested_ms = fields.u64()?;
    let path = fields.text()?;
    let detector = fields.text()?;
    let metadata = serde_json::from_str(&fields.text()?).map_err(|_| "metadata is not a JSON object")?;
    let count = fields.u64()?;
    let faces = (0..count).map(|_| fields.u64().map(FaceId)).collect::<Result<_, _>>()?;
    let count = fields.u64()?;
    let refused = (0..count).map(|_| fields.text()).collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(PhotoRecord { hash, path, width, height, detector, metadata, ingested_ms, faces, refused })
}

pub(super) fn encode_touched(sequence: u64, touched: &[(Touch, FaceId)]) -> Vec<u8> {
    let mut out = Encoder::new();
    out.u64(touched.len() as u64);
    for (touch, face) in touched {
        out.0.push(match touch {
            Touch::Named => 0,
            Touch::Added => 1,
            Touch::Removed => 2,
        });
        out.u64(face.0);
    }
    out.seal(&sequence.to_le_bytes())
}

pub(super) fn decode_touched(sequence: u64, value: &[u8]) -> Result<Vec<(Touch, FaceId)>, Damage> {
    let mut fields = Decoder::unseal(&sequence.to_le_bytes(), value)?;
    let count = fields.u64()?;
    let mut one = || {
        let touch = match fields.bytes()? {
            [0] => Touch::Named,
            [1] => Touch::Added,
            [2] => Touch::Removed,
            _ => return Err("a log entry of an unknown kind"),
        };
        Ok((touch, FaceId(fields.u64()?)))
    };
    let touched = (0..count).map(|_| one()).collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(touched)
}

pub(super) fn encode_number(key: &str, number: u64) -> Vec<u8> {
    let mut out = Encoder::new();
    out.u64(number);
    out.seal(key.as_bytes())
}

pub(super) fn decode_number(key: &str, value: &[u8]) -> Result<u64, Damage> {
    let mut fields = Decoder::unseal(key.as_bytes(), value)?;
    let number = fields.u64()?;
    fields.end()?;
    Ok(number)
}

pub(super) fn encode_text(key: &str, text: &str) -> Vec<u8> {
    let mut out = Encoder::new();
    out.text(text);
    out.seal(key.as_bytes())
}

pub(super) fn decode_text(key: &str, value: &[u8]) -> Result<String, Damage> {
    let mut fields = Decoder::unseal(key.as_bytes(), value)?;
    let text = fields.text()?;
    fields.end()?;
    Ok(text)
}

pub(super) fn encode_state(key: &str, state: State) -> Vec<u8> {
    let mut out = Encoder::new();
    out.u64(state.sequence);
    out.u64(state.next_face);
    out.seal(key.as_bytes())
}

pub(super) fn decode_state(key: &str, value: &[u8]) -> Result<State, Damage> {
    let mut fields = Decoder::unseal(key.as_bytes(), value)?;
    let state = State { sequence: fields.u64()?, next_face: fields.u64()? };
    fields.end()?;
    Ok(state)
}

/// Appends fields after the version byte.
struct Encoder(Vec<u8>);

impl Encoder {
    fn new() -> Self {
        Self(vec![VERSION])
    }

    fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn f32s(&mut self, numbers: &[f32]) {
        numbers.iter().for_each(|number| self.0.extend_from_slice(&number.to_le_bytes()));
    }

    fn text(&mut self, text: &str) {
        self.u64(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn seal(mut self, key: &[u8]) -> Vec<u8> {
        let crc = checksum(key, &self.0);
        self.u32(crc);
        self.0
    }
}

/// Takes fields off the front of what [`Encoder`] wrote, after the checksum was found right.
struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn unseal(key: &[u8], value: &'a [u8]) -> Result<Self, Damage> {
        let (body, crc) = value.split_last_chunk().ok_or("a record is too short")?;
        if checksum(key, body) != u32::from_le_bytes(*crc) {
            return Err("a record's checksum does not match");
        }
        match body.split_first() {
            Some((&VERSION, fields)) => Ok(Self(fields)),
            _ => Err("a record of an unknown version"),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (field, rest) = self.0.split_first_chunk().ok_or("a record ends too early")?;
        self.0 = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Damage> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn f32s<const N: usize>(&mut self) -> Result<[f32; N], Damage> {
        let mut numbers = [0.0; N];
        for number in &mut numbers {
            *number = self.bytes().map(f32::from_le_bytes)?;
        }
        Ok(numbers)
    }

    fn text(&mut self) -> Result<String, Damage> {
        let length = usize::try_from(self.u64()?).map_err(|_| "a record ends too early")?;
        let (text, rest) = self.0.split_at_checked(length).ok_or("a record ends too early")?;
        self.0 = rest;
        str::from_utf8(text).map(str::to_owned).map_err(|_| "a text is not UTF-8")
    }

    fn end(self) -> Result<(), Damage> {
        if self.0.is_empty() { Ok(()) } else { Err("a record is too long") }
    }
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn face() -> impl Strategy<Value = FaceRecord> {
        let numbers = proptest::array::uniform20(-1e4f32..1e4);
        let vector =
            proptest::collection::vec(-1.0f32..1.0, 128).prop_filter("not zero", |v| v.iter().any(|x| *x != 0.0));
        (any::<u64>(), any::<[u8; 32]>(), numbers, vector, proptest::option::of(".{1,20}")).prop_map(
            |(id, photo, n, vector, person)| FaceRecord {
                id: FaceId(id),
                photo: PhotoHash(photo),
                face: Face {
                    bounds: Bounds { x: n[0], y: n[1], width: n[2], height: n[3] },
                    landmarks: Landmarks([[n[4], n[5]], [n[6], n[7]], [n[8], n[9]], [n[10], n[11]], [n[12], n[13]]]),
                    confidence: n[14],
                },
                quality: Quality { face_px: n[15], sharpness: n[16], yaw: n[17], roll: n[18], confidence: n[19] },
                embedding: Embedding::normalized(&vector).unwrap(),
                person,
            },
        )
    }

    fn photo() -> impl Strategy<Value = PhotoRecord> {
        let faces = proptest::collection::vec(any::<u64>().prop_map(FaceId), 0..4);
        let refused = proptest::collection::vec(".{0,12}", 0..3);
        let metadata = proptest::collection::hash_map("[a-z]{1,6}", ".{0,12}", 0..4);
        (any::<[u8; 32]>(), ".{0,30}", any::<(u32, u32, u64)>(), faces, refused, metadata).prop_map(
            |(hash, path, (width, height, ingested_ms), faces, refused, metadata)| PhotoRecord {
                hash: PhotoHash(hash),
                path,
                width,
                height,
                detector: "mtcnn-1".into(),
                metadata: metadata.into_iter().map(|(key, value)| (key, value.into())).collect(),
                ingested_ms,
                faces,
                refused,
            },
        )
    }

    proptest! {
        #[test]
        fn a_face_comes_back_bit_for_bit(record in face()) {
            prop_assert_eq!(decode_face(record.id, &encode_face(&record)).unwrap(), record);
        }

        #[test]
        fn a_photo_comes_back(record in photo()) {
            prop_assert_eq!(decode_photo(record.hash, &encode_photo(&record)).unwrap(), record);
        }

        #[test]
        fn bytes_that_nobody_wrote_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..900)) {
            prop_assert!(decode_face(FaceId(1), &bytes).is_err());
            prop_assert!(decode_photo(PhotoHash([1; 32]), &bytes).is_err());
            prop_assert!(decode_touched(1, &bytes).is_err());
        }

        #[test]
        fn fields_that_lie_under_a_right_checksum_are_refused_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 1..900)) {
            bytes[0] = VERSION;
            let sealed = Encoder(bytes).seal(&7u64.to_le_bytes());
            let _ = decode_face(FaceId(7), &sealed);
            let _ = decode_touched(7, &sealed);
        }
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let touched = [(Touch::Named, FaceId(3)), (Touch::Added, FaceId(5)), (Touch::Removed, FaceId(8))];
        let good = encode_touched(9, &touched);
        assert_eq!(decode_touched(9, &good).unwrap(), touched);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_touched(9, &bad).is_err(), "bit {bit} went unnoticed");
        }
    }

    /// Version 1 as it was first written, spelled out by another program. These bytes never change; a new spelling is a new version.
    #[test]
    fn version_1_is_spelled_as_ever() {
        let hash = PhotoHash([7; 32]);
        let photo = PhotoRecord {
            hash,
            path: "a/b.jpg".into(),
            width: 640,
            height: 480,
            detector: "mtcnn-1".into(),
            metadata: [("album".to_owned(), "2019".into())].into_iter().collect(),
            ingested_ms: 1_700_000_000_000,
            faces: vec![FaceId(1), FaceId(258)],
            refused: vec!["too small".into()],
        };
        let hex: String = encode_photo(&photo).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0180020000e00100000068e5cf8b0100000700000000000000612f622e6a706707000000000000006d74636e6e2d31100000\
             00000000007b22616c62756d223a2232303139227d0200000000000000010000000000000002010000000000000100000000\
             0000000900000000000000746f6f20736d616c6c65eb9069"
        );

        let mut vector = [0.0; Embedding::DIMENSIONS];
        vector[0] = 1.0;
        let face = FaceRecord {
            id: FaceId(258),
            photo: hash,
            face: Face {
                bounds: Bounds { x: 1.0, y: 2.0, width: 3.0, height: 4.0 },
                landmarks: Landmarks([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]),
                confidence: 0.5,
            },
            quality: Quality { face_px: 30.0, sharpness: 50.0, yaw: 1.0, roll: 2.0, confidence: 0.5 },
            embedding: Embedding::normalized(&vector).unwrap(),
            person: Some("ana".into()),
        };
        let value = encode_face(&face);
        assert_eq!((value.len(), &value[value.len() - 4..]), (640, 0xa41fc9d5u32.to_le_bytes().as_slice()));
    }

    #[test]
    fn a_record_under_another_key_is_refused() {
        let value = encode_number("format", 1);
        assert_eq!(decode_number("format", &value).unwrap(), 1);
        assert!(decode_number("state", &value).is_err());
    }
}
