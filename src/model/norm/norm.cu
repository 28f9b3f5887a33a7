// Batch normalisation with the residual and the activation that follow it, for NVIDIA GPUs: the values are read twice forwards and twice backwards.
//
// Rows of channels, `f32` or `bf16` (as its bits); every sum is `f32` inside a slab of rows and `f64` over slabs. Slabs and the order of
// their sums depend on the sizes alone, so that the same input gives the same bits. The host code is `cuda.rs`.
//
// Sums are taken by blocks of 32 channels times LANES rows; `partial` is (slabs, 2, channels).

typedef unsigned short half_bits;

#define LANES 16
#define EPSILON 1e-5f

__device__ static float load(const float *at) { return *at; }

__device__ static float load(const half_bits *at) { return __uint_as_float((unsigned)*at << 16); }

__device__ static void store(float *at, float value) { *at = value; }

// Rounds to the nearest, ties to even; what is not a number stays so.
__device__ static void store(half_bits *at, float value) {
    unsigned bits = __float_as_uint(value);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    *at = nan ? (half_bits)(bits >> 16 | 0x40u) : (half_bits)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Adds the lanes of a block, in order, and writes two sums of the block's slab.
__device__ static void finish_slab(float first, float second, unsigned channel, unsigned channels, float *partial) {
    __shared__ float sums[2][LANES][32];
    sums[0][threadIdx.y][threadIdx.x] = first;
    sums[1][threadIdx.y][threadIdx.x] = second;
    __syncthreads();
    if (threadIdx.y < 2 && channel < channels) {
        float sum = 0.0f;
        for (int lane = 0; lane < LANES; lane++) sum += sums[threadIdx.y][lane][threadIdx.x];
        partial[((size_t)blockIdx.y * 2 + threadIdx.y) * channels + channel] = sum;
    }
}

// Sums of differences from the first row, and of their squares: squares of a large mean would swallow a small variance.
template <typename T>
__device__ static void moments_slab(const T *x, float *partial, unsigned rows, unsigned channels, unsigned slab) {
    unsigned channel = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.0f, squares = 0.0f;
    if (channel < channels) {
        float origin = load(x + channel);
        unsigned end = min(rows, (blockIdx.y + 1) * slab);
        for (unsigned row = blockIdx.y * slab + threadIdx.y; row < end; row += LANES) {
            float value = load(x + (size_t)row * channels + channel) - origin;
            sum += value;
            squares += value * value;
        }
    }
    finish_slab(sum, squares, channel, channels, partial);
}

// (2, channels): means, then variances.
template <typename T>
__device__ static void moments_end(const T *x, const float *partial, float *moments, unsigned rows, unsigned channels, unsigned slabs) {
    unsigned channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    double sum = 0.0, squares = 0.0;
    for (unsigned slab = 0; slab < slabs; slab++) {
        sum += partial[(size_t)slab * 2 * channels + channel];
        squares += partial[((size_t)slab * 2 + 1) * channels + channel];
    }
    double mean = sum / rows, variance = squares / rows - mean * mean;
    moments[channel] = (float)(load(x + channel) + mean);
    moments[channels + channel] = variance > 0.0 ? (float)variance : 0.0f;
}

// y = activation(scale * (x - mean) + offset + residual)
template <typename T>
__device__ static void normalize(const T *x, const T *residual, const float *moments, const float *affine, T *y,
                                 unsigned long long count, unsigned channels, int beside, int relu) {
    unsigned long long at = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    // One remainder a thread: they are slow.
    unsigned step = gridDim.x * blockDim.x, ahead = step % channels, channel = (unsigned)(at % channels);
    for (; at < count; at += step) {
        float scale = affine[channel] / sqrtf(moments[channels + channel] + EPSILON);
        float value = scale * (load(x + at) - moments[channel]) + affine[channels + channel];
        if (beside) value += load(residual + at);
        if (relu && value < 0.0f) value = 0.0f;
        store(y + at, value);
        channel += ahead;
        if (channel >= channels) channel -= channels;
    }
}

// The gradient that passes the activation.
template <typename T>
__device__ static float passed(const T *y, const T *grad, size_t at, int relu) {
    return relu && !(load(y + at) > 0.0f) ? 0.0f : load(grad + at);
}

// Sums of dy and of dy * (x - mean).
template <typename T>
__device__ static void gradients_slab(const T *x, const T *y, const T *grad, const float *moments, float *partial,
                                      unsigned rows, unsigned channels, unsigned slab, int relu) {
    unsigned channel = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.0f, products = 0.0f;
    if (channel < channels) {
        float mean = moments[channel];
        unsigned end = min(rows, (blockIdx.y + 1) * slab);
        for (unsigned row = blockIdx.y * slab + threadIdx.y; row < end; row += LANES) {
            size_t at = (size_t)row * channels + channel;
            float gradient = passed(y, grad, at, relu);
            sum += gradient;
            products += gradient * (load(x + at) - mean);
        }
    }
    finish_slab(sum, products, channel, channels, partial);
}

// Gradients of scales and offsets, (2, channels); then, of each channel, mean(dy) and mean(dy * (x - mean)) / (variance + epsilon).
extern "C" __global__ void gradients_end(const float *partial, const float *moments, float *affine, float *terms, unsigned rows,
                                         unsigned channels, unsigned slabs) {
    unsigned channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    double sum = 0.0, products = 0.0;
    for (unsigned slab = 0; slab < slabs; slab++) {
        sum += partial[(size_t)slab * 2 * channels + channel];
        products += partial[((size_t)slab * 2 + 1) * channels + channel];
    }
    double variance = (double)moments[channels + channel] + EPSILON;
    affine[channel] = (float)(products / sqrt(variance));
    affine[channels + channel] = (float)sum;
    terms[channel] = (float)(sum / rows);
    terms[channels + channel] = (float)(products / rows / variance);
}

// dx = scale * (dy - mean(dy) - (x - mean) * slope), and the residual's gradient, which is dy.
template <typename T>
__device__ static void differentiate(const T *x, const T *y, const T *grad, const float *moments, const float *affine,
                                     const float *terms, T *dx, T *dresidual, unsigned long long count, unsigned channels,
                                     int beside, int relu) {
    unsigned long long at = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    // One remainder a thread: they are slow.
    unsigned step = gridDim.x * blockDim.x, ahead = step % channels, channel = (unsigned)(at % channels);
    for (; at < count; at += step) {
        float scale = affine[channel] / sqrtf(moments[channels + channel] + EPSILON);
        float gradient = passed(y, grad, at, relu);
        float away = load(x + at) - moments[channel];
        store(dx + at, scale * (gradient - terms[channel] - away * terms[channels + channel]));
        if (beside) store(dresidual + at, gradient);
        channel += ahead;
        if (channel >= channels) channel -= channels;
    }
}

#define KERNELS(name, T)                                                                                                       \
    extern "C" __global__ void moments_slab_##name(const T *x, float *partial, unsigned rows, unsigned channels, unsigned slab) { \
        moments_slab(x, partial, rows, channels, slab);                                                                        \
    }                                                                                                                          \
    extern "C" __global__ void moments_end_##name(const T *x, const float *partial, float *moments, unsigned rows,             \
                                                  unsigned channels, unsigned slabs) {                                         \
        moments_end(x, partial, moments, rows, channels, slabs);                                                               \
    }                                                                                                                          \
    extern "C" __global__ void normalize_##name(const T *x, const T *residual, const float *moments, const float *affine, T *y, \
                                                unsigned long long count, unsigned channels, int beside, int relu) {           \
        normalize(x, residual, moments, affine, y, count, channels, beside, relu);                                             \
    }                                                                                                                          \
    extern "C" __global__ void gradients_slab_##name(const T *x, const T *y, const T *grad, const float *moments,              \
                                                     float *partial, unsigned rows, unsigned channels, unsigned slab,          \
                                                     int relu) {                                                               \
        gradients_slab(x, y, grad, moments, partial, rows, channels, slab, relu);                                              \
    }                                                                                                                          \
    extern "C" __global__ void differentiate_##name(const T *x, const T *y, const T *grad, const float *moments,               \
                                                    const float *affine, const float *terms, T *dx, T *dresidual,              \
                                                    unsigned long long count, unsigned channels, int beside, int relu) {       \
        differentiate(x, y, grad, moments, affine, terms, dx, dresidual, count, channels, beside, relu);                       \
    }

KERNELS(f32, float)
KERNELS(bf16, half_bits)
