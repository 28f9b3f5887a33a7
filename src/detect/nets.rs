//! The three nets of MTCNN: proposals on every position, then two looks at each candidate.
//!
//! Each takes upright RGB pixels as `(value - 127.5) / 128`, `(n, height, width, 3)`; the weights have the original's transposition folded in.
//! Everything runs on the calling thread, since photos are what runs in parallel.
//!
//! Follows Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks", 2016
//! (arXiv:1604.02878), figure 2, with the layer sizes of the weights we ship (`models/mtcnn.md`).

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};

use crate::model::graph::{ConvLayer, Graph, Op};
use crate::model::kernel::{Rectifier, Shape};
use crate::model::plan::{Plan, Threads};
use crate::{Error, Result};

/// One of the three nets of the detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtcnnNet {
    /// Sees 12 x 12 pixels at every second position of a photo of any size.
    Proposal,
    /// Sees candidates at 24 x 24.
    Refine,
    /// Sees what is left at 48 x 48, and places landmarks.
    Output,
}

/// The three nets.
#[derive(Debug)]
pub(super) struct Nets {
    pub(super) proposal: Net,
    pub(super) refine: Net,
    pub(super) output: Net,
}

/// One net, as layers and ready to run.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) graph: Graph,
    plan: Plan,
}

/// What goes into a net and comes out: `(n, height, width, channels)` of `shape`, row after row.
#[derive(Clone, Debug)]
pub(super) struct Maps {
    pub(super) values: Vec<f32>,
    pub(super) shape: [usize; 4],
}

impl Nets {
    /// The weights compiled into the program.
    ///
    /// # Errors
    /// [`Error::Weights`] if they are not what this code expects: a fault of the build.
    pub(super) fn bundled() -> Result<Self> {
        Self::read(include_bytes!("../../models/mtcnn.safetensors"))
    }

    pub(super) fn get(&self, net: MtcnnNet) -> &Net {
        match net {
            MtcnnNet::Proposal => &self.proposal,
            MtcnnNet::Refine => &self.refine,
            MtcnnNet::Output => &self.output,
        }
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        let mut tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
        let nets = Self {
            proposal: Net::take(&mut tensors, "pnet", 12, &[("conv1", 2), ("conv2", 1), ("conv3", 1), ("heads", 1)])?,
            refine: Net::take(
                &mut tensors,
                "rnet",
                24,
                &[("conv1", 3), ("conv2", 3), ("conv3", 1), ("dense", 1), ("heads", 1)],
            )?,
            output: Net::take(
                &mut tensors,
                "onet",
                48,
                &[("conv1", 3), ("conv2", 3), ("conv3", 2), ("conv4", 1), ("dense", 1), ("heads", 1)],
            )?,
        };
        match tensors.keys().next() {
            Some(name) => Err(weights(format!("a tensor that no net uses: {name}"))),
            None => Ok(nets),
        }
    }
}

impl Net {
    /// `side`: pixels of the net's smallest input. `layers`: names, and the window of the max-pooling that follows; 1 is none.
    fn take(tensors: &mut HashMap<String, Tensor>, net: &str, side: usize, layers: &[(&str, usize)]) -> Result<Self> {
        let mut take = |layer: &str, part: &str| tensors.remove(&format!("{net}.{layer}.{part}"));
        let floats = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let mut graph = Graph::default();
        let mut value = 0;
        for (layer, pool) in layers {
            let missing = || weights(format!("{net}.{layer} is missing"));
            let (weight, bias) = (take(layer, "weight").ok_or_else(missing)?, take(layer, "bias").ok_or_else(missing)?);
            // A dense layer sees the whole map as one pixel.
            if *layer == "dense" {
                value = graph.push(value, Op::Flatten);
            }
            let weight = if weight.rank() == 2 { weight.unsqueeze(0)?.unsqueeze(0)? } else { weight };
            let (kernel_height, kernel_width, channels, out) = weight.dims4()?;
            let rectifier = match take(layer, "slope") {
                Some(slope) => Rectifier::Prelu(floats(&slope)?),
                // The last layer's outputs are used as they are.
                None => Rectifier::None,
            };
            let conv = ConvLayer {
                shape: Shape { kernel: [kernel_height, kernel_width], channels, out, groups: 1, stride: 1, padding: 0 },
                weight: floats(&weight)?,
                bias: floats(&bias)?,
                residual: None,
                rectifier,
            };
            value = graph.push(value, Op::Conv(conv));
            if *pool > 1 {
                value = graph.push(value, Op::MaxPool { window: *pool, stride: 2 });
            }
        }
        Ok(Self { plan: Plan::new(&graph, [side; 2]), graph })
    }

    /// Rows of outputs, one for each position of the net on each input: the logits of "no face" and "face", four offsets of the box
    /// in its sides, and for the output net five x and five y of the landmarks, in sides of the box.
    ///
    /// - `x`: `(n, height, width, 3)`; 24 x 24 for the refining net, 48 x 48 for the output net, at least 12 x 12 for proposals.
    /// - Returns `(n, height', width', outputs)`.
    pub(super) fn forward(&self, x: &Maps) -> Result<Maps> {
        let (values, shape) = self.plan.run(&x.values, x.shape, Threads::One)?;
        Ok(Maps { values, shape })
    }
}

/// The probability of "face" from the two logits.
pub(super) fn probability(heads: &[f32]) -> f32 {
    1.0 / (1.0 + (heads[0] - heads[1]).exp())
}

fn weights(what: String) -> Error {
    Error::Weights { path: Path::new("models/mtcnn.safetensors").to_owned(), what }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{Maps, Net, Nets, Op, Shape, probability};

    /// `scripts/mtcnn_reference.py` writes the fixture.
    fn check(name: &str, net: impl Fn(&Nets) -> &Net) {
        let fixture = candle_core::safetensors::load_buffer(
            include_bytes!("../../tests/data/mtcnn-reference.safetensors"),
            &Device::Cpu,
        )
        .expect("the fixture is a safetensors file");
        let nets = Nets::bundled().expect("the bundled weights are whole");
        let maps = |part: &str| {
            let tensor: &Tensor = &fixture[&format!("{name}.{part}")];
            let (n, height, width, channels) = tensor.dims4().expect("four axes");
            let values = tensor.flatten_all().and_then(|values| values.to_vec1::<f32>()).expect("f32");
            Maps { values, shape: [n, height, width, channels] }
        };
        let found = net(&nets).forward(&maps("x")).expect("shapes agree");
        let expected = maps("heads");
        assert_eq!(found.shape, expected.shape);
        let columns = found.shape[3];
        for (found, expected) in found.values.chunks(columns).zip(expected.values.chunks(columns)) {
            let (face, expected_face) = (probability(found), expected[1]);
            assert!((face - expected_face).abs() < 1e-5, "probability {face}, expected {expected_face}");
            for (found, expected) in found[2..].iter().zip(&expected[2..]) {
                assert!((found - expected).abs() < 1e-5, "{found}, expected {expected}");
            }
        }
    }

    #[test]
    fn the_proposal_net_agrees_with_the_original() {
        check("pnet", |nets| &nets.proposal);
    }

    #[test]
    fn the_refining_net_agrees_with_the_original() {
        check("rnet", |nets| &nets.refine);
    }

    #[test]
    fn the_output_net_agrees_with_the_original() {
        check("onet", |nets| &nets.output);
    }

    #[test]
    fn a_graph_has_the_layers_of_its_net_in_order() {
        let nets = Nets::bundled().expect("the bundled weights are whole");
        let words = |net: &Net| {
            let word = |op: &Op| match op {
                Op::Conv(conv) => {
                    let Shape { kernel: [height, width], channels, out, .. } = conv.shape;
                    assert_eq!(conv.weight.len(), height * width * channels * out);
                    assert_eq!(conv.bias.len(), out);
                    format!("{height}x{width} {out}")
                }
                Op::MaxPool { window, stride } => format!("pool {window}/{stride}"),
                Op::Flatten => "flatten".to_owned(),
            };
            net.graph.layers.iter().map(|layer| word(&layer.op)).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(words(&nets.proposal), "3x3 10, pool 2/2, 3x3 16, 3x3 32, 1x1 6");
        let refine = "3x3 28, pool 3/2, 3x3 48, pool 3/2, 2x2 64, flatten, 1x1 128, 1x1 6";
        assert_eq!(words(&nets.refine), refine);
        let output = "3x3 32, pool 3/2, 3x3 64, pool 3/2, 3x3 64, pool 2/2, 2x2 128, flatten, 1x1 256, 1x1 16";
        assert_eq!(words(&nets.output), output);
    }

    #[test]
    fn weights_that_are_not_ours_are_refused() {
        let bytes = include_bytes!("../../tests/data/mtcnn-reference.safetensors");
        assert!(Nets::read(bytes).is_err());
    }
}
