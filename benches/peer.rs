//! Our side of every measurement against others: asked a line at a time, it answers with seconds.
//!
//! `benches/peers/*.py` ask, alternating with the other side. A question is `NAME key=value …`, an answer `ok key=value …` or
//! `error TEXT`; bulk data goes through files of little-endian `f32` (photos: bytes). One question by hand:
//!
//! ```text
//! RAYON_NUM_THREADS=1 cargo bench --bench peer -- detect photo=samples/groups/group00.jpg repeat=30
//! ```
//!
//! Reading files and making inputs is not part of any figure.

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, anyhow, bail, ensure};
use candle_core::Device;
use pulp::{Arch, Simd, WithSimd};
use vultus::detect::{Detect, Mtcnn, MtcnnNet};
use vultus::model::network::input;
use vultus::model::weights::{TrainedEmbedder, Weights};
use vultus::model::{Compute, Embed, Precision};
use vultus::photo::Limits;
use vultus::training::{Recipe, Stage, Trainer};
use vultus::{Crop, Photo, Recognizer};

/// Candidates that the detector shows to a net at once.
const CANDIDATES: usize = 16;
/// Crops of each person in a training batch.
const CROPS_EACH: usize = 4;

fn main() -> anyhow::Result<()> {
    let mut ours = Ours {
        floats: embedder(Precision::F32)?,
        bytes: embedder(Precision::Int8)?,
        mtcnn: Mtcnn::bundled()?,
        training: None,
        embedding: None,
    };
    let by_hand: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if !by_hand.is_empty() {
        println!("{}", ours.answer(&by_hand.join(" "))?);
        return Ok(());
    }
    if std::io::stdin().is_terminal() {
        println!("benches/peers/README.md says what asks this program, and how to ask by hand");
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        match ours.answer(&line?) {
            Ok(answer) => writeln!(out, "ok {answer}")?,
            Err(error) => writeln!(out, "error {}", format!("{error:#}").replace('\n', " "))?,
        }
        out.flush()?;
    }
    Ok(())
}

/// What is measured.
struct Ours {
    floats: TrainedEmbedder,
    bytes: TrainedEmbedder,
    mtcnn: Mtcnn,
    training: Option<Training>,
    embedding: Option<Embedding>,
}

/// What embeds on a GPU, and what is embedded.
struct Embedding {
    embedder: TrainedEmbedder,
    crops: Vec<Crop>,
}

struct Training {
    trainer: Trainer,
    crops: Vec<Crop>,
    labels: Vec<usize>,
}

impl Ours {
    /// One question.
    fn answer(&mut self, line: &str) -> anyhow::Result<String> {
        let mut words = line.split_whitespace();
        let name = words.next().context("an empty question")?;
        let question = Question::parse(words)?;
        let Self { floats, bytes, mtcnn, training, embedding } = self;
        match name {
            "crops" => crops(&question),
            "export-embedding" => export(&question, &Weights::bundled()?.to_onnx()?),
            "export-proposal" => export(&question, &mtcnn.to_onnx(MtcnnNet::Proposal)?),
            "export-refine" => export(&question, &mtcnn.to_onnx(MtcnnNet::Refine)?),
            "export-output" => export(&question, &mtcnn.to_onnx(MtcnnNet::Output)?),
            "embed-int8" => embed(&question, |x| Ok(bytes.forward(x)?)),
            "embed-fp32" => embed(&question, |x| Ok(floats.forward(x)?)),
            "photo" => photo(&question),
            "detect" => detect(&question, mtcnn),
            "net-proposal" => net(&question, mtcnn, MtcnnNet::Proposal),
            "net-refine" => net(&question, mtcnn, MtcnnNet::Refine),
            "net-output" => net(&question, mtcnn, MtcnnNet::Output),
            "train-begin" => train_begin(&question, training),
            "train" => train(&question, training.as_mut().context("train-begin comes first")?),
            "gpu" => Ok(gpu()),
            "embed-gpu-begin" => embed_gpu_begin(&question, embedding),
            "embed-gpu" => embed_gpu(&question, embedding.as_ref().context("embed-gpu-begin comes first")?),
            "layers" => layers(&question, floats),
            _ => bail!("unknown measure {name}"),
        }
    }
}

/// The `key=value` words of a question.
struct Question<'a>(HashMap<&'a str, &'a str>);

impl<'a> Question<'a> {
    fn parse(words: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        let pair = |word: &'a str| word.split_once('=').ok_or_else(|| anyhow!("{word}: expected key=value"));
        Ok(Self(words.map(pair).collect::<anyhow::Result<_>>()?))
    }

    fn get<T: FromStr>(&self, key: &str) -> anyhow::Result<T> {
        let value = self.0.get(key).ok_or_else(|| anyhow!("{key} is missing"))?;
        value.parse().map_err(|_| anyhow!("{key}={value}: not understood"))
    }

    /// What computes; the CPU if not given.
    fn device(&self) -> anyhow::Result<Compute> {
        if self.0.contains_key("device") { self.get("device") } else { Ok(Compute::Cpu) }
    }

    fn precision(&self) -> anyhow::Result<Precision> {
        Ok(self.0.get("precision").copied().unwrap_or("f32").parse()?)
    }

    /// Does it `repeat` times; returns the seconds of one, and what the last gave.
    fn timed<T>(&self, mut run: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
        let repeat: u32 = self.get("repeat")?;
        ensure!(repeat > 0, "repeat=0: expected at least one");
        let begin = Instant::now();
        let mut last = run()?;
        for _ in 1..repeat {
            last = run()?;
        }
        Ok((begin.elapsed().as_secs_f64() / f64::from(repeat), last))
    }

    /// Writes `values` where the question wants them.
    fn put(&self, values: &[f32]) -> anyhow::Result<()> {
        self.put_at("output", values)
    }

    /// The same under another key.
    fn put_at(&self, key: &str, values: &[f32]) -> anyhow::Result<()> {
        let Some(path) = self.0.get(key) else { return Ok(()) };
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(path, bytes).with_context(|| (*path).to_owned())
    }

    /// The values of the file `input`.
    fn take(&self) -> anyhow::Result<Vec<f32>> {
        let path: String = self.get("input")?;
        let bytes = std::fs::read(&path).with_context(|| path.clone())?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// The bundled network on the CPU.
fn embedder(precision: Precision) -> anyhow::Result<TrainedEmbedder> {
    Ok(TrainedEmbedder::on(Weights::bundled()?, &Device::Cpu, Some(precision))?)
}

/// `crops photos=FOLDER output=FILE`: the faces of all photos as inputs `(count, side, side, 3)`.
fn crops(question: &Question<'_>) -> anyhow::Result<String> {
    let recognizer = Recognizer::bundled()?;
    let mut paths = Vec::new();
    jpegs(&question.get::<PathBuf>("photos")?, &mut paths)?;
    let mut crops = Vec::new();
    for path in paths {
        let photo = decode(&path)?;
        crops.extend(recognizer.find(&photo)?.into_iter().map(|found| found.crop));
    }
    let side = Weights::bundled()?.network().input_side;
    question.put(&input(&crops, side, &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?)?;
    Ok(format!("count={} side={side}", crops.len()))
}

fn jpegs(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        match path.extension().is_some_and(|extension| extension == "jpg") {
            true => found.push(path),
            false if path.is_dir() => jpegs(&path, found)?,
            false => {}
        }
    }
    Ok(())
}

fn decode(path: &Path) -> anyhow::Result<Photo> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Photo::decode(&bytes, &Limits::default()).with_context(|| path.display().to_string())
}

/// `export-… output=FILE`: a network as ONNX.
fn export(question: &Question<'_>, model: &[u8]) -> anyhow::Result<String> {
    let output: PathBuf = question.get("output")?;
    std::fs::write(&output, model).with_context(|| output.display().to_string())?;
    Ok(String::new())
}

/// `embed-… input=FILE repeat=N [output=FILE]`: the whole file is one batch.
fn embed(question: &Question<'_>, run: impl Fn(&[f32]) -> anyhow::Result<Vec<f32>>) -> anyhow::Result<String> {
    let x = question.take()?;
    let (seconds, rows) = question.timed(|| run(&x))?;
    question.put(&rows)?;
    Ok(format!("seconds={seconds:e}"))
}

/// `photo photo=FILE output=FILE`: 640 x 480 RGB bytes of it.
fn photo(question: &Question<'_>) -> anyhow::Result<String> {
    let photo = vga(&decode(&question.get::<PathBuf>("photo")?)?)?;
    let output: PathBuf = question.get("output")?;
    std::fs::write(&output, photo.pixels()).with_context(|| output.display().to_string())?;
    Ok(String::new())
}

/// The photo at 640 pixels of width, by the nearest pixel, above grey rows up to 480.
fn vga(photo: &Photo) -> vultus::Result<Photo> {
    let (width, height) = (photo.width() as usize, photo.height() as usize);
    let mut pixels = vec![128; 640 * 480 * 3];
    for y in 0..(height * 640 / width).min(480) {
        for x in 0..640 {
            let from = (y * width / 640 * width + x * width / 640) * 3;
            pixels[(y * 640 + x) * 3..][..3].copy_from_slice(&photo.pixels()[from..from + 3]);
        }
    }
    Photo::from_rgb(640, 480, pixels)
}

/// `detect photo=FILE repeat=N`: all of the detector on 640 x 480 pixels, smallest face 40 px.
fn detect(question: &Question<'_>, mtcnn: &Mtcnn) -> anyhow::Result<String> {
    let photo = vga(&decode(&question.get::<PathBuf>("photo")?)?)?;
    let (seconds, faces) = question.timed(|| Ok(mtcnn.detect(&photo)?))?;
    Ok(format!("seconds={seconds:e} faces={}", faces.len()))
}

/// `net-… input=FILE count=N height=H width=W repeat=N [output=FILE]`: one net, in batches as the detector makes them.
fn net(question: &Question<'_>, mtcnn: &Mtcnn, net: MtcnnNet) -> anyhow::Result<String> {
    let x = question.take()?;
    let [count, height, width] = [question.get("count")?, question.get("height")?, question.get("width")?];
    let each: usize = height * width * 3;
    ensure!(count > 0 && x.len() == count * each, "{} values are not {count} x {height} x {width} x 3", x.len());
    let (seconds, heads) = question.timed(|| {
        let mut heads = Vec::new();
        for x in x.chunks(CANDIDATES * each) {
            heads.extend(mtcnn.forward(net, x, [x.len() / each, height, width, 3])?);
        }
        Ok(heads)
    })?;
    question.put(&heads)?;
    Ok(format!("seconds={seconds:e}"))
}

/// `train-begin batch=N output=FILE checkpoint=FILE [device=WORD] [precision=bf16]`: writes the batch as inputs, and the first weights.
///
/// The learning rate is next to nothing, so that the same triplets are mined in every step; an update costs the same.
fn train_begin(question: &Question<'_>, training: &mut Option<Training>) -> anyhow::Result<String> {
    let batch: usize = question.get("batch")?;
    let stage = Stage { learning_rate: 1e-9, ..Stage::default() };
    let margin = stage.triplets.and_then(|triplets| triplets.margin).context("triplets with a margin")?;
    let recipe = Recipe { precision: question.precision()?, ..Recipe::from(stage) };
    let side = recipe.network.input_side;
    let trainer = Trainer::new(recipe, Vec::new(), question.device()?.device()?)?;
    trainer.save(&question.get::<PathBuf>("checkpoint")?)?;
    let crops = noise(batch)?;
    question.put(&input(&crops, side, &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?)?;
    *training = Some(Training { trainer, crops, labels: (0..batch).map(|at| at / CROPS_EACH).collect() });
    Ok(format!("side={side} margin={margin} each={CROPS_EACH}"))
}

/// Crops of noise by a linear congruential generator: what the values are does not change what they cost.
fn noise(count: usize) -> vultus::Result<Vec<Crop>> {
    let mut state = 1u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| Crop::from_rgb((0..Crop::SIDE * Crop::SIDE * 3).map(|_| byte()).collect())).collect()
}

/// `gpu`: whether there is one that this build can use, and if not, why.
fn gpu() -> String {
    match Compute::Cuda.device() {
        Ok(_) => "found=yes".into(),
        Err(error) => format!("found=no why={}", error.to_string().split_whitespace().collect::<Vec<_>>().join("_")),
    }
}

/// `embed-gpu-begin batch=N precision=f32|bf16 output=FILE embeddings=FILE`: writes crops as inputs, and our embeddings of them.
fn embed_gpu_begin(question: &Question<'_>, embedding: &mut Option<Embedding>) -> anyhow::Result<String> {
    let weights = Weights::bundled()?;
    let side = weights.network().input_side;
    let crops = noise(question.get("batch")?)?;
    let embedder = TrainedEmbedder::on(weights, &Compute::Cuda.device()?, Some(question.precision()?))?;
    question.put(&input(&crops, side, &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?)?;
    let embeddings: Vec<f32> = embedder.embed(&crops)?.iter().flat_map(|row| row.as_slice().to_vec()).collect();
    question.put_at("embeddings", &embeddings)?;
    *embedding = Some(Embedding { embedder, crops });
    Ok(format!("side={side}"))
}

/// `embed-gpu repeat=N`: crops in memory to embeddings in memory, the way to the GPU and back included.
fn embed_gpu(question: &Question<'_>, embedding: &Embedding) -> anyhow::Result<String> {
    let (seconds, _) = question.timed(|| Ok(embedding.embedder.embed(&embedding.crops)?))?;
    Ok(format!("seconds={seconds:e}"))
}

/// `train repeat=N`: steps of forward, mining, loss, backward and update.
fn train(question: &Question<'_>, training: &mut Training) -> anyhow::Result<String> {
    let Training { trainer, crops, labels } = training;
    let (seconds, outcome) = question.timed(|| Ok(trainer.train_on(crops, labels)?))?;
    ensure!(outcome.mined > 0.0, "no triplet was mined, so nothing was learned from");
    Ok(format!("seconds={seconds:e} loss={} mined={}", outcome.loss, outcome.mined))
}

/// `layers batch=N repeat=N`: the 3x3 convolutions of the network behind its stem, in GMAC/s of one thread and as a share of the core's
/// peak, the best of the rounds each, as they are measured inside the running network.
fn layers(question: &Question<'_>, embedder: &TrainedEmbedder) -> anyhow::Result<String> {
    let batch: usize = question.get("batch")?;
    let side = Weights::bundled()?.network().input_side;
    let x = vec![0.5; batch * side * side * 3];
    let peak = peak();
    let mut best = BTreeMap::new();
    for _ in 0..question.get::<usize>("repeat")?.max(1) {
        for layer in embedder.profile(&x)?.into_iter().filter(|layer| layer.kernel == [3, 3] && layer.channels > 3) {
            let speed = layer.multiplications as f64 / layer.seconds / 1e9;
            let entry = best.entry([layer.side, layer.stride, layer.channels, layer.out]).or_insert((0.0f64, 0));
            *entry = (entry.0.max(speed), layer.multiplications);
        }
    }
    let mut answer = vec![format!("peak={peak:.1}")];
    for ([side, stride, channels, out], (speed, _)) in &best {
        answer.push(format!("{side}x{channels}-{out}/{stride}={speed:.1},{:.3}", speed / peak));
    }
    Ok(answer.join(" "))
}

/// Fused multiply-adds of one core, in billions a second: sixteen chains that stay in registers, the best of ten runs.
fn peak() -> f64 {
    struct Chains(u32);
    impl WithSimd for Chains {
        type Output = f32;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> f32 {
            let (factor, step) = (simd.splat_f32s(black_box(0.5)), simd.splat_f32s(black_box(1.0)));
            let mut sums = [simd.splat_f32s(0.0); 16];
            for _ in 0..self.0 {
                for sum in &mut sums {
                    *sum = simd.mul_add_e_f32s(*sum, factor, step);
                }
            }
            sums.into_iter().map(|sum| simd.reduce_sum_f32s(sum)).sum()
        }
    }
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    let arch = Arch::new();
    let (lanes, rounds) = (arch.dispatch(Lanes), 4_000_000);
    let run = || {
        let begin = Instant::now();
        black_box(arch.dispatch(Chains(rounds)));
        f64::from(rounds) * 16.0 * lanes as f64 / begin.elapsed().as_secs_f64() / 1e9
    };
    (0..10).map(|_| run()).fold(0.0, f64::max)
}
