//! A network as an ONNX model, for those who run it with something else.
//!
//! Data is NCHW there, and so are the weights of what this writes. A convolution that sees the whole map, or a map that was flattened,
//! becomes a matrix product (`Gemm`), with its rows in NCHW's order: nothing is transposed while the model runs.
//!
//! Follows ONNX, IR version 8 and operator set 17 (<https://onnx.ai/onnx/operators/>).

mod proto;

use prost::Message as _;

use self::proto::{
    AttributeProto, Dimension, DimensionProto, FLOAT, GraphProto, INT, INTS, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use super::graph::{ConvLayer, Graph, Op};
use super::kernel::Rectifier;
use crate::{Error, Result};

const IR_VERSION: i64 = 8;
const OPERATORS_VERSION: i64 = 17;

/// What a model says about itself beside its layers.
pub(crate) struct Description<'a> {
    /// The graph's name.
    pub(crate) name: &'a str,
    /// What the model takes and gives, for people.
    pub(crate) about: String,
    /// The input's name, and height and width if they are always the same.
    pub(crate) input: (&'a str, Option<[usize; 2]>),
    /// The output's name.
    pub(crate) output: &'a str,
    pub(crate) scaling: Scaling,
    /// Keys and values that programs read.
    pub(crate) metadata: Vec<(&'a str, String)>,
}

/// What becomes of the last layer's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scaling {
    None,
    /// Each is scaled to unit length.
    UnitLength,
}

/// The bytes of an ONNX file. Its input is `(n, channels, height, width)`, `f32`; its output `(n, outputs, height', width')`, or
/// `(n, outputs)` where the layers make a vector of the whole map.
///
/// # Errors
/// [`Error::Argument`] when layers do not fit together.
pub(crate) fn encode(graph: &Graph, description: &Description<'_>) -> Result<Vec<u8>> {
    Ok(model(graph, description)?.encode_to_vec())
}

fn model(graph: &Graph, description: &Description<'_>) -> Result<ModelProto> {
    let channels = graph.layers.iter().find_map(|layer| match &layer.op {
        Op::Conv(conv) => Some(conv.shape.channels),
        _ => None,
    });
    let channels = channels.ok_or_else(|| wrong("has no convolution".to_owned()))?;
    let (input, sides) = description.input;
    let mut writer = Writer { nodes: Vec::new(), tensors: Vec::new() };
    let mut values = vec![Value { name: input.to_owned(), channels, layout: Layout::Map(sides) }];
    for (index, layer) in graph.layers.iter().enumerate() {
        let misfit = |what: &str| wrong(format!("layer {index} {what}"));
        let from = values.get(layer.input).ok_or_else(|| misfit("reads a value that is not before it"))?;
        let value = writer.layer(&format!("layer{index}"), &layer.op, from, &values).map_err(misfit)?;
        values.push(value);
    }
    let mut last = values.pop().ok_or_else(|| wrong("is empty".to_owned()))?;
    if let Layout::Flattened(_) = last.layout {
        return Err(wrong("ends with a flattened map, whose order is not ours".to_owned()));
    }
    if description.scaling == Scaling::UnitLength {
        let attributes = vec![int("axis", 1), int("p", 2)];
        last.name = writer.node("LpNormalization", "unit_length", &[&last.name], attributes);
    }
    // The last node gives the output, whatever it was called so far.
    if let Some(node) = writer.nodes.last_mut() {
        node.output = vec![description.output.to_owned()];
    }
    let shape = |channels: usize, layout: &Layout, names: [&str; 2]| {
        let mut shape = vec![param("n"), value(channels)];
        match layout {
            Layout::Map(Some(sides)) => shape.extend(sides.map(value)),
            Layout::Map(None) => shape.extend(names.map(param)),
            Layout::Flattened(_) | Layout::Vector => {}
        }
        shape
    };
    let taken = shape(channels, &Layout::Map(sides), ["height", "width"]);
    let given = shape(last.channels, &last.layout, ["height_out", "width_out"]);
    let entry = |(key, value): &(&str, String)| StringStringEntryProto {
        key: Some((*key).to_owned()),
        value: Some(value.clone()),
    };
    Ok(ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("vultus".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        doc_string: Some(description.about.clone()),
        graph: Some(GraphProto {
            node: writer.nodes,
            name: Some(description.name.to_owned()),
            initializer: writer.tensors,
            input: vec![info(input, taken)],
            output: vec![info(description.output, given)],
        }),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPERATORS_VERSION) }],
        metadata_props: description.metadata.iter().map(entry).collect(),
    })
}

/// A value of the graph, as the model holds it.
struct Value {
    name: String,
    channels: usize,
    layout: Layout,
}

#[derive(Clone, Copy)]
enum Layout {
    /// `(n, channels, height, width)`; the sides, if they are always the same.
    Map(Option<[usize; 2]>),
    /// `(n, channels · height · width)` of a map of these sides; the graph's order is (height, width, channels).
    Flattened([usize; 2]),
    /// `(n, channels)`.
    Vector,
}

/// Nodes and weights so far.
struct Writer {
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
}

impl Writer {
    /// Writes one layer that reads `from`; returns its value, or what does not fit.
    fn layer(&mut self, name: &str, op: &Op, from: &Value, values: &[Value]) -> Result<Value, &'static str> {
        match (op, from.layout) {
            (Op::Conv(conv), layout) => self.convolution(name, conv, from, layout, values),
            (Op::MaxPool { window, stride }, Layout::Map(sides)) => {
                let attributes = vec![
                    ints("kernel_shape", &[*window, *window]),
                    ints("strides", &[*stride, *stride]),
                    int("ceil_mode", 1),
                ];
                let pooled = |side: usize| (side.saturating_sub(*window)).div_ceil(*stride) + 1;
                let layout = Layout::Map(sides.map(|sides| sides.map(pooled)));
                Ok(Value { name: self.node("MaxPool", name, &[&from.name], attributes), layout, ..*from })
            }
            (Op::Flatten, Layout::Map(Some(sides))) => {
                let name = self.node("Flatten", name, &[&from.name], vec![int("axis", 1)]);
                Ok(Value { name, channels: from.channels * sides[0] * sides[1], layout: Layout::Flattened(sides) })
            }
            (Op::MaxPool { .. }, _) => Err("pools a vector"),
            (Op::Flatten, _) => Err("flattens what is no map of a fixed size"),
        }
    }

    fn convolution(
        &mut self,
        name: &str,
        conv: &ConvLayer,
        from: &Value,
        layout: Layout,
        values: &[Value],
    ) -> Result<Value, &'static str> {
        let [height, width] = conv.shape.kernel;
        let depth = conv.shape.channels / conv.shape.groups.max(1);
        if conv.shape.channels != from.channels || conv.weight.len() != height * width * depth * conv.shape.out {
            return Err("has other channels than what it reads");
        }
        let whole = conv.shape.groups == 1 && conv.shape.padding == 0;
        let (mut value, layout) = match layout {
            Layout::Map(Some(sides)) if whole && sides == conv.shape.kernel => {
                let flat = self.node("Flatten", &format!("{name}.flat"), &[&from.name], vec![int("axis", 1)]);
                (self.dense(name, conv, &flat, sides, conv.shape.channels), Layout::Vector)
            }
            Layout::Flattened(sides) if whole && conv.shape.kernel == [1, 1] => {
                let channels = conv.shape.channels / (sides[0] * sides[1]);
                (self.dense(name, conv, &from.name, sides, channels), Layout::Vector)
            }
            Layout::Vector if whole && conv.shape.kernel == [1, 1] => {
                (self.dense(name, conv, &from.name, [1, 1], conv.shape.channels), Layout::Vector)
            }
            Layout::Map(sides) => {
                let after = |side: usize, kernel: usize| {
                    (side + 2 * conv.shape.padding).saturating_sub(kernel) / conv.shape.stride.max(1) + 1
                };
                let sides = sides.map(|[h, w]| [after(h, height), after(w, width)]);
                (self.map(name, conv, &from.name), Layout::Map(sides))
            }
            Layout::Flattened(_) | Layout::Vector => return Err("looks at the neighborhood of a vector's numbers"),
        };
        if let Some(residual) = conv.residual {
            let residual = values.get(residual).ok_or("adds a value that is not before it")?;
            value = self.node("Add", &format!("{name}.sum"), &[&value, &residual.name], Vec::new());
        }
        value = match &conv.rectifier {
            Rectifier::None => value,
            Rectifier::Relu => self.node("Relu", &format!("{name}.relu"), &[&value], Vec::new()),
            Rectifier::Prelu(slope) => {
                // Slopes are aligned with the last axes, so a map's need two more.
                let shape: &[usize] =
                    if matches!(layout, Layout::Vector) { &[conv.shape.out] } else { &[conv.shape.out, 1, 1] };
                let slope = self.tensor(&format!("{name}.slope"), shape, slope.iter().copied());
                self.node("PRelu", &format!("{name}.prelu"), &[&value, &slope], Vec::new())
            }
        };
        Ok(Value { name: value, channels: conv.shape.out, layout })
    }

    /// A convolution on a map; its weights become `(out, channels / groups, height, width)`.
    fn map(&mut self, name: &str, conv: &ConvLayer, from: &str) -> String {
        let [height, width] = conv.shape.kernel;
        let depth = conv.shape.channels / conv.shape.groups;
        let order = (0..conv.shape.out * depth * height * width).map(|at| {
            let (rest, column) = (at / width, at % width);
            let (rest, row) = (rest / height, rest % height);
            let (out, channel) = (rest / depth, rest % depth);
            conv.weight[((row * width + column) * depth + channel) * conv.shape.out + out]
        });
        let weight = self.tensor(&format!("{name}.weight"), &[conv.shape.out, depth, height, width], order);
        let bias = self.tensor(&format!("{name}.bias"), &[conv.shape.out], conv.bias.iter().copied());
        let attributes = vec![
            ints("kernel_shape", &conv.shape.kernel),
            ints("strides", &[conv.shape.stride; 2]),
            ints("pads", &[conv.shape.padding; 4]),
            int("group", conv.shape.groups as i64),
        ];
        self.node("Conv", name, &[from, &weight, &bias], attributes)
    }

    /// A layer that sees all of a map of `sides` and `channels`; its weights become `(out, channels · height · width)`.
    fn dense(&mut self, name: &str, conv: &ConvLayer, from: &str, sides: [usize; 2], channels: usize) -> String {
        let area = sides[0] * sides[1];
        let order = (0..conv.shape.out * channels * area).map(|at| {
            let (rest, place) = (at / area, at % area);
            let (out, channel) = (rest / channels, rest % channels);
            conv.weight[(place * channels + channel) * conv.shape.out + out]
        });
        let weight = self.tensor(&format!("{name}.weight"), &[conv.shape.out, channels * area], order);
        let bias = self.tensor(&format!("{name}.bias"), &[conv.shape.out], conv.bias.iter().copied());
        self.node("Gemm", name, &[from, &weight, &bias], vec![int("transB", 1)])
    }

    /// Appends a node; its one output has its name.
    fn node(&mut self, op: &str, name: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![name.to_owned()],
            name: Some(name.to_owned()),
            op_type: Some(op.to_owned()),
            attribute: attributes,
        });
        name.to_owned()
    }

    fn tensor(&mut self, name: &str, shape: &[usize], values: impl Iterator<Item = f32>) -> String {
        self.tensors.push(TensorProto {
            dims: shape.iter().map(|side| *side as i64).collect(),
            data_type: Some(FLOAT),
            name: Some(name.to_owned()),
            raw_data: Some(values.flat_map(f32::to_le_bytes).collect()),
        });
        name.to_owned()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), i: Some(value), ints: Vec::new(), r#type: Some(INT) }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|value| *value as i64).collect();
    AttributeProto { name: Some(name.to_owned()), i: None, ints, r#type: Some(INTS) }
}

fn value(side: usize) -> DimensionProto {
    DimensionProto { value: Some(Dimension::Value(side as i64)) }
}

fn param(name: &str) -> DimensionProto {
    DimensionProto { value: Some(Dimension::Param(name.to_owned())) }
}

fn info(name: &str, dim: Vec<DimensionProto>) -> ValueInfoProto {
    let tensor = TensorTypeProto { elem_type: Some(FLOAT), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

fn wrong(what: String) -> Error {
    Error::argument("network", what)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::kernel::Shape;

    fn conv(kernel: usize, channels: usize, out: usize) -> ConvLayer {
        let count = kernel * kernel * channels * out;
        ConvLayer {
            shape: Shape { kernel: [kernel, kernel], channels, out, groups: 1, stride: 1, padding: 0 },
            weight: (0..count).map(|at| at as f32).collect(),
            bias: vec![0.5; out],
            residual: None,
            rectifier: Rectifier::None,
        }
    }

    fn description(sides: Option<[usize; 2]>) -> Description<'static> {
        let input = ("x", sides);
        let metadata = vec![("key", "value".to_owned())];
        Description { name: "net", about: "About".into(), input, output: "y", scaling: Scaling::UnitLength, metadata }
    }

    /// Encodes, decodes, and checks what every model must hold.
    fn decoded(graph: &Graph, sides: Option<[usize; 2]>) -> GraphProto {
        let bytes = encode(graph, &description(sides)).expect("the layers fit");
        let model = ModelProto::decode(bytes.as_slice()).expect("what was encoded can be decoded");
        assert_eq!((model.ir_version, model.opset_import[0].version), (Some(8), Some(17)));
        assert_eq!(model.metadata_props[0].value.as_deref(), Some("value"));
        let graph = model.graph.expect("a model has a graph");
        let mut known: BTreeSet<&str> = graph.input.iter().filter_map(|input| input.name.as_deref()).collect();
        for tensor in &graph.initializer {
            let count: i64 = tensor.dims.iter().product();
            assert_eq!(tensor.raw_data.as_ref().map(Vec::len), usize::try_from(4 * count).ok());
            assert!(known.insert(tensor.name.as_deref().unwrap_or_default()), "a name twice");
        }
        for node in &graph.node {
            assert!(node.input.iter().all(|input| known.contains(input.as_str())), "{node:?} reads what is not there");
            assert!(node.output.iter().all(|output| known.insert(output)), "a name twice");
        }
        assert!(known.contains("y"));
        graph
    }

    fn operators(graph: &GraphProto) -> String {
        graph.node.iter().filter_map(|node| node.op_type.as_deref()).collect::<Vec<_>>().join(" ")
    }

    fn floats(tensor: &TensorProto) -> Vec<f32> {
        let bytes = tensor.raw_data.as_deref().unwrap_or_default();
        bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn sides(value: &ValueInfoProto) -> String {
        let shape = value.r#type.clone().and_then(|t| t.tensor_type?.shape).expect("every value has a shape");
        let side = |dim: DimensionProto| match dim.value {
            Some(Dimension::Value(side)) => side.to_string(),
            Some(Dimension::Param(name)) => name,
            None => "?".to_owned(),
        };
        shape.dim.into_iter().map(side).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_block_with_a_shortcut_keeps_its_order() {
        let mut graph = Graph::default();
        let mut first = ConvLayer { rectifier: Rectifier::Relu, ..conv(3, 3, 3) };
        first.shape.padding = 1;
        let first = graph.push(0, Op::Conv(first));
        let second = ConvLayer { residual: Some(0), rectifier: Rectifier::Prelu(vec![0.1; 3]), ..conv(1, 3, 3) };
        let second = graph.push(first, Op::Conv(second));
        graph.push(second, Op::Conv(conv(4, 3, 2)));
        let model = decoded(&graph, Some([4, 4]));
        assert_eq!(operators(&model), "Conv Relu Conv Add PRelu Flatten Gemm LpNormalization");
        assert_eq!(model.node[3].input, ["layer1", "x"]);
        assert_eq!((sides(&model.input[0]), sides(&model.output[0])), ("n 3 4 4".into(), "n 2".into()));
        let slope = model.initializer.iter().find(|tensor| tensor.name.as_deref() == Some("layer1.slope"));
        assert_eq!(slope.expect("slopes are weights").dims, [3, 1, 1]);
    }

    #[test]
    fn weights_change_from_ours_to_the_order_of_onnx() {
        let mut graph = Graph::default();
        let mut grouped = ConvLayer { weight: (0..8).map(|at| at as f32).collect(), ..conv(1, 4, 4) };
        grouped.shape.groups = 2;
        let map = graph.push(0, Op::Conv(grouped));
        let flat = graph.push(map, Op::Flatten);
        graph.push(flat, Op::Conv(conv(1, 8, 1)));
        let model = decoded(&graph, Some([1, 2]));
        assert_eq!(operators(&model), "Conv Flatten Gemm LpNormalization");
        // (kernel, kernel, channels / groups, out) to (out, channels / groups, kernel, kernel).
        assert_eq!(model.initializer[0].dims, [4, 2, 1, 1]);
        assert_eq!(floats(&model.initializer[0]), [0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]);
        // (width, channels) to (channels, width).
        assert_eq!(floats(&model.initializer[2]), [0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]);
    }

    #[test]
    fn a_map_of_any_size_stays_one() {
        let mut graph = Graph::default();
        let map = graph.push(0, Op::Conv(conv(3, 3, 4)));
        graph.push(map, Op::MaxPool { window: 2, stride: 2 });
        let model = decoded(&graph, None);
        assert_eq!(sides(&model.input[0]), "n 3 height width");
        assert_eq!(sides(&model.output[0]), "n 4 height_out width_out");
    }

    #[test]
    fn layers_that_do_not_fit_are_refused() {
        let check = |layers: &[(usize, Op)], expected: &str| {
            let mut graph = Graph::default();
            for (input, op) in layers {
                graph.push(*input, op.clone());
            }
            let message = encode(&graph, &description(None)).expect_err("refused").to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(&[], "no convolution");
        check(&[(0, Op::Conv(conv(1, 3, 3))), (4, Op::Conv(conv(1, 3, 3)))], "layer 1 reads a value");
        check(&[(0, Op::Conv(conv(1, 3, 3))), (1, Op::Conv(conv(1, 4, 3)))], "layer 1 has other channels");
        check(&[(0, Op::Conv(conv(1, 3, 3))), (1, Op::Flatten)], "layer 1 flattens");
    }
}
