//! Weights on disk and in the program: one safetensors file, checked before it is trusted.
//!
//! The tensors are those of [`FaceNet`], by name, as `f16`. The metadata holds:
//!
//! | key           | meaning                                                                                     |
//! |---------------|---------------------------------------------------------------------------------------------|
//! | `format`      | `vultus-facenet-1`; a reader refuses every other                                            |
//! | `network`     | [`NetworkConfig`] as JSON                                                                   |
//! | `alignment`   | [`Alignment`] as JSON                                                                       |
//! | `calibration` | [`Calibration`] as JSON                                                                     |
//! | `int8`        | optional: what one step of each value's bytes is worth where the network runs in bytes, JSON |
//! | `ranges`      | BLAKE3 of the text of `int8`                                                                |
//! | `mirrored`    | optional: `true` where an embedding is that of a crop and of its mirror image together      |
//! | `digest`      | BLAKE3 of network, alignment and every tensor, and of that and `mirrored`: what a gallery remembers |
//! | `thresholds`  | BLAKE3 of the text of `calibration`, which may be measured anew for the same weights        |

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::network::{FaceNet, NetworkConfig, input};
use super::onnx::{self, Description, Scaling};
use super::plan::{ByteGraph, LayerTime, Plan, Threads};
use super::{Embed, Precision};
use crate::face::Alignment;
use crate::{Calibration, Crop, Embedding, Error, Result, Task};

const FORMAT: &str = "vultus-facenet-1";

/// Crops that go through the network at once: enough to keep every thread busy, few enough to bound the memory.
const BATCH: usize = 32;

/// The same on a GPU, which idles when it gets less.
const DEVICE_BATCH: usize = 512;

/// The tensors of a trained network and what must be known to use them.
#[derive(Clone)]
pub struct Weights {
    network: NetworkConfig,
    alignment: Alignment,
    calibration: Option<Calibration>,
    tensors: BTreeMap<String, Tensor>,
    /// What one step of each value's bytes is worth, if the ranges of the values were measured.
    steps: Option<Vec<f32>>,
    /// Whether an embedding is that of a crop and of its mirror image together.
    mirrored: bool,
    digest: String,
}

impl Weights {
    /// Takes tensors as they will be stored.
    ///
    /// # Errors
    /// `Tensor` when a tensor's values can't be read.
    pub fn new(network: NetworkConfig, alignment: Alignment, tensors: BTreeMap<String, Tensor>) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(json(&network)?.as_bytes()).update(json(&alignment)?.as_bytes());
        for (name, tensor) in &tensors {
            hasher.update(format!("{name} {:?} {:?}", tensor.dtype(), tensor.dims()).as_bytes());
            hasher.update(&bytes(tensor)?);
        }
        let digest = hasher.finalize().to_hex().to_string();
        Ok(Self { network, alignment, calibration: None, tensors, steps: None, mirrored: false, digest })
    }

    /// With the ranges of its values, measured on `crops`: it can then embed in bytes, and does on a CPU unless told otherwise. The digest
    /// stays: how a network is computed does not make another one of it; distances move by a fraction of what two photos differ in.
    ///
    /// # Errors
    /// `Argument` when there are no crops, or the network can't be put in bytes.
    pub fn quantised(mut self, crops: &[Crop]) -> Result<Self> {
        if crops.is_empty() {
            return Err(Error::argument("crops", "none to measure the ranges of values on"));
        }
        let side = self.network.input_side;
        let x = input(crops, side, &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let graph = self.folded(&Device::Cpu)?.graph()?;
        let steps = ByteGraph::measure(&graph, &x, [crops.len(), side, side, 3])?;
        ByteGraph::new(&graph, steps.clone())?;
        self.steps = Some(steps);
        Ok(self)
    }

    /// Whether the network can embed in bytes.
    pub fn is_quantised(&self) -> bool {
        self.steps.is_some()
    }

    /// An embedding is then the sum, scaled to unit length, of those of a crop and of its mirror image: twice the time, and fewer mistakes, for the same
    /// network. It is another embedding, and gets another digest; a calibration of before means nothing for it, and is dropped.
    #[must_use]
    pub fn mirrored(mut self) -> Self {
        if !self.mirrored {
            self.digest = blake3::hash(format!("{} mirrored", self.digest).as_bytes()).to_hex().to_string();
            (self.mirrored, self.calibration) = (true, None);
        }
        self
    }

    /// Whether an embedding is that of a crop and of its mirror image together.
    pub fn is_mirrored(&self) -> bool {
        self.mirrored
    }

    /// With the operating points that were measured for these weights.
    #[must_use]
    pub fn calibrated(mut self, calibration: Calibration) -> Self {
        self.calibration = Some(calibration);
        self
    }

    /// The weights that ship inside the program.
    ///
    /// # Errors
    /// Only if they can't be read, a fault of the build.
    pub fn bundled() -> Result<Self> {
        Self::parse(include_bytes!("../../models/facenet.safetensors"), Path::new("models/facenet.safetensors"))
    }

    /// Reads a weights file.
    ///
    /// # Errors
    /// `Io`, or `Weights` with what was expected and found.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&std::fs::read(path).map_err(Error::io(path))?, path)
    }

    /// Reads the bytes of a weights file; `path` is for messages.
    ///
    /// # Errors
    /// `Weights` with what was expected and found.
    pub fn parse(file: &[u8], path: &Path) -> Result<Self> {
        let wrong = |what: String| Error::Weights { path: path.to_owned(), what };
        let damaged = |error: safetensors::SafeTensorError| wrong(format!("not a safetensors file: {error}"));
        let views = SafeTensors::deserialize(file).map_err(damaged)?;
        let (_, header) = SafeTensors::read_metadata(file).map_err(damaged)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let entry = |key: &str| metadata.get(key).ok_or_else(|| wrong(format!("metadata `{key}` is missing")));
        if entry("format")? != FORMAT {
            return Err(wrong(format!("format {}, this release reads {FORMAT}", entry("format")?)));
        }
        let network = parse("network", entry("network")?).map_err(wrong)?;
        let alignment = parse("alignment", entry("alignment")?).map_err(wrong)?;
        if blake3::hash(entry("calibration")?.as_bytes()).to_hex().as_str() != entry("thresholds")? {
            return Err(wrong("damaged: the calibration is not the one that was written".into()));
        }
        let calibration = parse("calibration", entry("calibration")?).map_err(wrong)?;
        let tensors = views.iter().map(|(name, view)| Ok((name.to_owned(), tensor(&view, &Device::Cpu)?)));
        let mut weights = Self::new(network, alignment, tensors.collect::<Result<_>>()?)?;
        if metadata.contains_key("int8") || metadata.contains_key("ranges") {
            let steps = entry("int8")?;
            if blake3::hash(steps.as_bytes()).to_hex().as_str() != entry("ranges")? {
                return Err(wrong("damaged: the ranges for int8 are not those that were written".into()));
            }
            weights.steps = Some(parse("int8", steps).map_err(wrong)?);
        }
        match metadata.get("mirrored").map(String::as_str) {
            None => {}
            Some("true") => weights = weights.mirrored(),
            Some(other) => return Err(wrong(format!("metadata `mirrored`: {other:?}, expected \"true\""))),
        }
        if &weights.digest != entry("digest")? {
            return Err(wrong(format!("damaged: digest {}, expected {}", weights.digest, entry("digest")?)));
        }
        Ok(weights.calibrated(calibration))
    }

    /// Writes a weights file.
    ///
    /// # Errors
    /// `Io`; `Argument` when there is no calibration: weights whose distances mean nothing are not shipped.
    pub fn write(&self, path: &Path) -> Result<()> {
        let missing = || Error::argument("weights", "have no calibration: measure it on held-out people first");
        let calibration = json(self.calibration.as_ref().ok_or_else(missing)?)?;
        let mut metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("network".to_owned(), json(&self.network)?),
            ("alignment".to_owned(), json(&self.alignment)?),
            ("thresholds".to_owned(), blake3::hash(calibration.as_bytes()).to_hex().to_string()),
            ("calibration".to_owned(), calibration),
            ("digest".to_owned(), self.digest.clone()),
        ]);
        if let Some(steps) = &self.steps {
            let steps = json(steps)?;
            metadata.insert("ranges".to_owned(), blake3::hash(steps.as_bytes()).to_hex().to_string());
            metadata.insert("int8".to_owned(), steps);
        }
        if self.mirrored {
            metadata.insert("mirrored".to_owned(), "true".to_owned());
        }
        write_tensors(path, &self.tensors, metadata)
    }

    /// Hex digest of everything that an embedding depends on.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The size of the network.
    pub fn network(&self) -> &NetworkConfig {
        &self.network
    }

    /// What it is made of, by name, as `f16`.
    pub(crate) fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The network as the bytes of an ONNX file, batch normalisation folded into its weights.
    ///
    /// - Input `crops`: `(n, 3, side, side)`, `f32`: aligned RGB crops averaged down to the input side, values -1 to 1 (`v / 127.5 - 1`).
    /// - Output `embedding`: `(n, 128)`, `f32`, rows of unit length, of which squared Euclidean distances are compared.
    /// - Metadata: `digest`, `alignment`, `input_side`; `mirrored` where an embedding is the sum, scaled to unit length, of this output for a crop
    ///   and for its mirror image; where these weights are calibrated also `calibration` (JSON) and
    ///   `threshold_verify`, the distance at which one pair of strangers in a thousand passes.
    ///
    /// # Errors
    /// `Weights` when a tensor is missing or has another shape.
    pub fn to_onnx(&self) -> Result<Vec<u8>> {
        let side = self.network.input_side;
        let about = format!(
            "Face crops to embeddings. Input `crops`: (n, 3, {side}, {side}) float32, RGB, -1 to 1 (v / 127.5 - 1), aligned as the metadata \
             says and averaged down from 112 x 112. Output `embedding`: (n, 128) float32 of unit length; compare squared Euclidean \
             distances, 0 to 4.{}",
            if self.mirrored {
                " Add the outputs for a crop and for its mirror image, and scale the sum to unit length."
            } else {
                ""
            }
        );
        let alignment = json(&self.alignment)?.trim_matches('"').to_owned();
        let mut metadata =
            vec![("digest", self.digest.clone()), ("alignment", alignment), ("input_side", side.to_string())];
        if self.mirrored {
            metadata.push(("mirrored", "true".to_owned()));
        }
        if let Some(calibration) = &self.calibration {
            metadata.push(("calibration", json(calibration)?));
            metadata.push(("threshold_verify", calibration.default_threshold(Task::Verify, 1)?.to_string()));
        }
        let input = ("crops", Some([side, side]));
        let scaling = Scaling::UnitLength;
        let description = Description { name: "vultus-facenet", about, input, output: "embedding", scaling, metadata };
        onnx::encode(&self.folded(&Device::Cpu)?.graph()?, &description)
    }

    /// The network that embeds.
    fn folded(&self, device: &Device) -> Result<FaceNet> {
        let wrong = |error| Error::Weights { path: PathBuf::from("weights"), what: format!("{error}") };
        let float = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_dtype(DType::F32)?));
        let tensors = self.tensors.iter().map(float).collect::<Result<HashMap<_, _>>>()?;
        let builder = VarBuilder::from_tensors(tensors, DType::F32, device);
        FaceNet::new(&self.network, &builder).and_then(|net| net.folded()).map_err(wrong)
    }
}

/// A trained network, ready to embed: batch normalisation folded into its weights.
pub struct TrainedEmbedder {
    engine: Engine,
    weights: Weights,
    calibration: Calibration,
}

/// What computes.
enum Engine {
    Cpu(Plan),
    Device(Box<OnDevice>),
}

/// The network in candle's operations, where its tensors are.
struct OnDevice {
    net: FaceNet,
    device: Device,
    dtype: DType,
}

impl OnDevice {
    /// Rows of unit length.
    fn forward(&self, x: &Tensor) -> Result<Vec<f32>> {
        Ok(self.net.forward(&x.to_dtype(self.dtype)?)?.flatten_all()?.to_vec1::<f32>()?)
    }
}

impl TrainedEmbedder {
    /// Takes weights, calibrated or not; without a calibration every threshold is an error. Embeds on the CPU: in bytes where the weights
    /// have ranges for it, otherwise in `f32`.
    ///
    /// # Errors
    /// `Weights` when a tensor is missing or has another shape.
    pub fn new(weights: Weights) -> Result<Self> {
        Self::on(weights, &Device::Cpu, None)
    }

    /// The same on any device and in any of its numbers: on a GPU in large batches, in `f32` unless told otherwise, its convolutions of `f32`
    /// as TF32.
    ///
    /// # Errors
    /// As [`new`](Self::new); `Argument` for numbers that the device does not embed in, or that the weights have no ranges for; `Tensor` when
    /// the device fails.
    pub fn on(weights: Weights, device: &Device, precision: Option<Precision>) -> Result<Self> {
        if device.is_cpu() {
            return Self::on_cpu(weights, precision);
        }
        let dtype = precision.unwrap_or_default().dtype()?;
        let net = weights.folded(device)?.to_dtype(dtype)?;
        // Other threads have streams of their own, and would not wait for the weights.
        device.synchronize()?;
        Ok(Self::with(Engine::Device(Box::new(OnDevice { net, device: device.clone(), dtype })), weights))
    }

    fn on_cpu(weights: Weights, precision: Option<Precision>) -> Result<Self> {
        let graph = weights.folded(&Device::Cpu)?.graph()?;
        let size = [weights.network.input_side; 2];
        let plan = match (precision, &weights.steps) {
            (None | Some(Precision::Int8), Some(steps)) => {
                Plan::in_bytes(&ByteGraph::new(&graph, steps.clone())?, size)
            }
            (None | Some(Precision::F32), _) => Plan::new(&graph, size),
            (Some(Precision::Int8), None) => {
                let what = "int8: these weights have no ranges for it; `vultus quantise` measures them";
                return Err(Error::argument("precision", what));
            }
            (Some(Precision::Bf16), _) => {
                return Err(Error::argument("precision", "bf16: a CPU embeds in int8 or f32"));
            }
        };
        Ok(Self::with(Engine::Cpu(plan), weights))
    }

    fn with(engine: Engine, weights: Weights) -> Self {
        let none = Calibration { data: "nothing".into(), same_pairs: 0, different_pairs: 0, points: Vec::new() };
        let calibration = weights.calibration.clone().unwrap_or(none);
        Self { engine, weights, calibration }
    }

    /// The network alone, on what [`input`] makes of crops.
    ///
    /// - `x`: `(n, side, side, 3)`, values -1 to 1, row after row.
    /// - Returns `(n, 128)`, rows of unit length.
    ///
    /// # Errors
    /// `Argument` when `x` is not a whole number of inputs.
    pub fn forward(&self, x: &[f32]) -> Result<Vec<f32>> {
        let side = self.weights.network.input_side;
        let each = side * side * 3;
        if !x.len().is_multiple_of(each) {
            return Err(Error::argument("x", format!("{} values, expected a multiple of {each}", x.len())));
        }
        let shape = [x.len() / each, side, side, 3];
        let (mut rows, _) = match &self.engine {
            Engine::Cpu(plan) => plan.run(x, shape, Threads::All)?,
            Engine::Device(on) => return on.forward(&Tensor::from_slice(x, &shape, &on.device)?),
        };
        for row in rows.chunks_exact_mut(Embedding::DIMENSIONS) {
            let length = (row.iter().map(|v| v * v).sum::<f32>() + 1e-12).sqrt();
            row.iter_mut().for_each(|v| *v /= length);
        }
        Ok(rows)
    }
}

impl TrainedEmbedder {
    /// What the network makes of crops: rows of unit length.
    fn rows(&self, crops: &[Crop]) -> Result<Vec<f32>> {
        let side = self.weights.network.input_side;
        match &self.engine {
            Engine::Cpu(_) => self.forward(&input(crops, side, &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?),
            Engine::Device(on) => on.forward(&input(crops, side, &on.device)?),
        }
    }

    /// What each convolution costs on one thread, for inputs as [`forward`](Self::forward) takes them.
    ///
    /// # Errors
    /// `Argument` when `x` is not a whole number of inputs.
    pub fn profile(&self, x: &[f32]) -> Result<Vec<LayerTime>> {
        let side = self.weights.network.input_side;
        match &self.engine {
            Engine::Cpu(plan) => plan.profile(x, [x.len() / (side * side * 3), side, side, 3]),
            Engine::Device(_) => Err(Error::argument("network", "layers are timed on the CPU only")),
        }
    }
}

impl Embed for TrainedEmbedder {
    fn embed(&self, crops: &[Crop]) -> Result<Vec<Embedding>> {
        let mut embeddings = Vec::with_capacity(crops.len());
        let batch = if matches!(self.engine, Engine::Device(_)) { DEVICE_BATCH } else { BATCH };
        for crops in crops.chunks(batch) {
            let mut rows = self.rows(crops)?;
            if self.weights.mirrored {
                let others: Vec<Crop> = crops.iter().map(Crop::mirrored).collect();
                rows.iter_mut().zip(self.rows(&others)?).for_each(|(row, other)| *row += other);
            }
            for row in rows.chunks_exact(Embedding::DIMENSIONS) {
                embeddings.push(Embedding::normalized(row)?);
            }
        }
        Ok(embeddings)
    }

    fn digest(&self) -> &str {
        &self.weights.digest
    }

    fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    fn alignment(&self) -> Alignment {
        self.weights.alignment
    }
}

/// Writes tensors and metadata beside `path`, makes them durable, and renames.
pub(crate) fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let stored = tensors.iter().map(|(name, tensor)| Ok((name, tensor, bytes(tensor)?)));
    let stored = stored.collect::<Result<Vec<_>>>()?;
    let views = stored.iter().map(|(name, tensor, bytes)| {
        let dtype = if tensor.dtype() == DType::F16 { safetensors::Dtype::F16 } else { safetensors::Dtype::F32 };
        let view = TensorView::new(dtype, tensor.dims().to_vec(), bytes);
        view.map(|view| (name.as_str(), view)).map_err(|error| Error::argument("tensor", error.to_string()))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let unwritable = |error: String| Error::argument("weights", error);
    let file = safetensors::serialize(views, Some(metadata)).map_err(|error| unwritable(error.to_string()))?;
    let file = sorted(&file).map_err(|error| unwritable(error.to_string()))?;
    let beside = path.with_extension("partial");
    let write = || -> std::io::Result<()> {
        let mut out = File::create(&beside)?;
        out.write_all(&file)?;
        out.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(Error::io(path))
}

/// The same file with the names in its header in order: those of a hash map are not, and the same weights are to be the same bytes.
fn sorted(file: &[u8]) -> serde_json::Result<Vec<u8>> {
    let (length, rest) = file.split_first_chunk().unwrap_or((&[0; 8], file));
    let (header, tensors) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: BTreeMap<String, BTreeMap<String, serde_json::Value>> = serde_json::from_slice(header)?;
    let mut header = serde_json::to_string(&header)?;
    // Tensors begin at a multiple of eight.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    Ok([&(header.len() as u64).to_le_bytes(), header.as_bytes(), tensors].concat())
}

/// One tensor of a file, as it is stored.
pub(crate) fn tensor(view: &TensorView<'_>, device: &Device) -> Result<Tensor> {
    let dtype = match view.dtype() {
        safetensors::Dtype::F16 => DType::F16,
        safetensors::Dtype::F32 => DType::F32,
        other => return Err(Error::argument("tensor", format!("{other:?}: expected F16 or F32"))),
    };
    Ok(Tensor::from_raw_buffer(view.data(), dtype, view.shape(), device)?)
}

/// The values of an `f16` or `f32` tensor, little-endian.
fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let flat = tensor.flatten_all()?;
    if tensor.dtype() == DType::F16 {
        let halves = flat.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        return Ok(halves.into_iter().flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect());
    }
    Ok(flat.to_vec1::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect())
}

fn parse<T: serde::de::DeserializeOwned>(key: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("metadata `{key}`: {error}"))
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::argument("weights", error.to_string()))
}
