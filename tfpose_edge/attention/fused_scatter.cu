// The value's gradient on the small levels, summed in shared memory: many queries meet there in few pixels, and
// collisions cost least where memory is near. Needs no header; the macros below come from fused_scatter.py.
//
// A block sums one slice of CHANNELS channels of one head of one image over its share of the queries:
//   grid (query splits, heads * slices, images), block (32 * WARPS), shared memory: sums, then a list for each warp.
// A warp takes one query at a time. First its lanes fill the warp's list: for every corner of every sample the pixel
// and the weight. Then CHANNELS / 2 lanes add one entry, two channels each, by compare-and-swap of 8 bytes.
//
// N_HEADS HEAD_DIM SAMPLES N_POINTS  of the attention; SAMPLES = levels * N_POINTS, all levels
// FIRST N_LEVELS HEIGHTS WIDTHS      first level summed here, number of levels, "{h, h, ...}" of all levels
// TOKENS START PIXELS                pixels of all levels, of the levels before FIRST, of those from FIRST on
// CHANNELS WARPS GRAD_BF16 LOGITS_BF16

typedef unsigned long long pair_bits;  // two floats

__constant__ int heights[N_LEVELS] = HEIGHTS, widths[N_LEVELS] = WIDTHS;

struct Entry {
    int pixel;
    float weight;
};

__device__ float widened(unsigned short bits) {  // bf16 is the upper half of a float
    return __uint_as_float((unsigned int)bits << 16);
}

#if GRAD_BF16
typedef unsigned short grad_t;
__device__ float grad_at(const grad_t* grad, long long i) { return widened(grad[i]); }
#else
typedef float grad_t;
__device__ float grad_at(const grad_t* grad, long long i) { return grad[i]; }
#endif

#if LOGITS_BF16
typedef unsigned short logit_t;
__device__ float logit_at(const logit_t* logits, long long i) { return widened(logits[i]); }
#else
typedef float logit_t;
__device__ float logit_at(const logit_t* logits, long long i) { return logits[i]; }
#endif

__device__ void add_pair(pair_bits* sum, float low, float high) {
    pair_bits seen = *sum, assumed;
    do {
        assumed = seen;
        float new_low = __uint_as_float((unsigned int)assumed) + low;
        float new_high = __uint_as_float((unsigned int)(assumed >> 32)) + high;
        pair_bits wanted = (pair_bits)__float_as_uint(new_high) << 32 | __float_as_uint(new_low);
        seen = atomicCAS(sum, assumed, wanted);
    } while (seen != assumed);
}

// One corner of one sample of a query; weight 0 where it lies outside, NaN at the first pixel for a position of NaN.
__device__ Entry corner_of(int sample, int corner, const float* reference, const float* offset, float weight) {
    int level = sample / N_POINTS, start = 0;
    for (int before = FIRST; before < level; ++before) start += heights[before] * widths[before];
    int height = heights[level], width = widths[level];
    float x = reference[0] * width + offset[0] - 0.5f, y = reference[1] * height + offset[1] - 0.5f;
    float column = floorf(x) + corner % 2, line = floorf(y) + corner / 2;
    Entry entry = {start, 0.0f};
    if (!(column < 0 || column >= width || line < 0 || line >= height)) {
        entry.pixel += (int)fmaxf(line, 0.0f) * width + (int)fmaxf(column, 0.0f);  // which is 0 for NaN
        entry.weight = weight * (1.0f - fabsf(x - column)) * (1.0f - fabsf(y - line));
    }
    return entry;
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) scatter_shared(
    const grad_t* grad, const float* reference_points, const float* offsets, const logit_t* logits,
    const float* log_sum, float* grad_value, int queries) {
    extern __shared__ pair_bits memory[];
    const int pairs = CHANNELS / 2, entries = (SAMPLES - FIRST * N_POINTS) * 4;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int head = blockIdx.y / (HEAD_DIM / CHANNELS), slice = blockIdx.y % (HEAD_DIM / CHANNELS);
    pair_bits* sums = memory;  // (PIXELS, CHANNELS / 2)
    Entry* list = (Entry*)(memory + PIXELS * pairs) + warp * entries;
    for (int i = threadIdx.x; i < PIXELS * pairs; i += 32 * WARPS) sums[i] = 0;
    __syncthreads();

    for (int query = blockIdx.x * WARPS + warp; query < queries; query += gridDim.x * WARPS) {
        const long long asked = (long long)blockIdx.z * queries + query, row = asked * N_HEADS + head;
        for (int i = lane; i < entries; i += 32) {
            const int sample = FIRST * N_POINTS + i / 4;
            const long long at = row * SAMPLES + sample;
            const float weight = expf(logit_at(logits, at) - log_sum[row]);
            list[i] = corner_of(sample, i % 4, reference_points + 2 * asked, offsets + 2 * at, weight);
        }
        __syncwarp();
        const int channel = lane % pairs * 2;
        const long long here = row * HEAD_DIM + slice * CHANNELS + channel;
        const float low = grad_at(grad, here), high = grad_at(grad, here + 1);
        for (int i = lane / pairs; i < entries; i += 32 / pairs) {
            const Entry entry = list[i];
            if (entry.weight != 0.0f)
                add_pair(sums + entry.pixel * pairs + channel / 2, entry.weight * low, entry.weight * high);
        }
        __syncwarp();
    }
    __syncthreads();

    float* out = grad_value + ((long long)blockIdx.z * TOKENS + START) * N_HEADS * HEAD_DIM;
    out += head * HEAD_DIM + slice * CHANNELS;
    const float* sum = (const float*)sums;
    for (int i = threadIdx.x; i < PIXELS * CHANNELS; i += 32 * WARPS)
        atomicAdd(out + (long long)(i / CHANNELS) * N_HEADS * HEAD_DIM + i % CHANNELS, sum[i]);
}
