//! The convolution and its gradients as their definitions say, in plain loops: what `f64` uses, and what the kernels are held to.

use candle_core::WithDType;

use super::Sizes;

/// Calls `f(output pixel, channel, input value, weight value)`, as indices, for every product of one photo.
fn each_product(s: &Sizes, mut f: impl FnMut(usize, usize, usize, usize)) {
    let [height, width] = s.shape.kernel;
    let (group_in, group_out) = (s.shape.channels / s.shape.groups, s.shape.out / s.shape.groups);
    for (i, j) in (0..s.out[0]).flat_map(|i| (0..s.out[1]).map(move |j| (i, j))) {
        for (p, q) in (0..height).flat_map(|p| (0..width).map(move |q| (p, q))) {
            let (y, x) = (i * s.shape.stride + p, j * s.shape.stride + q);
            let pad = s.shape.padding;
            if y < pad || x < pad || y >= s.height + pad || x >= s.width + pad {
                continue;
            }
            let input = ((y - pad) * s.width + x - pad) * s.shape.channels;
            for o in 0..s.shape.out {
                for c in 0..group_in {
                    let weight = ((p * width + q) * group_in + c) * s.shape.out + o;
                    f(i * s.out[1] + j, o, input + o / group_out * group_in + c, weight);
                }
            }
        }
    }
}

pub(super) fn forward<T: WithDType>(s: &Sizes, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
    let mut y = bias.repeat(s.batch * s.pixels_out());
    for (x, y) in x.chunks_exact(s.photo()).zip(y.chunks_exact_mut(s.photo_out())) {
        each_product(s, |pixel, o, input, w| y[pixel * s.shape.out + o] += x[input] * weight[w]);
    }
    y
}

pub(super) fn input_gradient<T: WithDType>(s: &Sizes, grad: &[T], weight: &[T]) -> Vec<T> {
    let mut dx = vec![T::zero(); s.batch * s.photo()];
    for (dx, grad) in dx.chunks_exact_mut(s.photo()).zip(grad.chunks_exact(s.photo_out())) {
        each_product(s, |pixel, o, input, w| dx[input] += grad[pixel * s.shape.out + o] * weight[w]);
    }
    dx
}

pub(super) fn weight_gradient<T: WithDType>(s: &Sizes, x: &[T], grad: &[T]) -> Vec<T> {
    let mut dw = vec![T::zero(); s.weights()];
    for (x, grad) in x.chunks_exact(s.photo()).zip(grad.chunks_exact(s.photo_out())) {
        each_product(s, |pixel, o, input, w| dw[w] += grad[pixel * s.shape.out + o] * x[input]);
    }
    dw
}
