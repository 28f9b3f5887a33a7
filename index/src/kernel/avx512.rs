//! Sixteen floats or 64 codes at a time, for CPUs with AVX-512 and its byte products (VNNI).

use std::arch::x86_64::{
    __m256i, __m512i, _mm_add_epi32, _mm_storeu_si128, _mm512_add_epi32, _mm512_add_ps, _mm512_alignr_epi64,
    _mm512_and_si512, _mm512_andnot_si512, _mm512_castsi512_si128, _mm512_castsi512_si256, _mm512_cmpgt_epu64_mask,
    _mm512_cvtepu32_epi64, _mm512_dpbusd_epi32, _mm512_extracti32x4_epi32, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mask_cmpge_epi32_mask, _mm512_mask_cmpgt_epu64_mask, _mm512_maskz_compress_epi32,
    _mm512_maskz_compress_epi64, _mm512_maskz_loadu_epi32, _mm512_max_epu64, _mm512_min_epu64, _mm512_or_si512,
    _mm512_reduce_add_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_slli_epi64, _mm512_srai_epi32, _mm512_srli_epi16, _mm512_storeu_si512, _mm512_sub_ps,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use super::{COLUMN, Kernel, RANKS, prefetch, row, scalar};

const LANES: usize = 16;
/// Rows whose sums are added up together.
const FOUR: usize = 4;
/// Rows between asking for one and measuring it.
const AHEAD: usize = 6;

pub(super) fn detect() -> Option<Kernel> {
    kernel_if!(
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("bmi2")
    )
}

#[target_feature(enable = "avx512f")]
fn scan(query: &[f32], rows: &[f32], distances: &mut [f32]) {
    for (row, distance) in rows.chunks_exact(query.len()).zip(distances) {
        *distance = squared_distance(query, row);
    }
}

#[target_feature(enable = "avx512f")]
fn gather(query: &[f32], vectors: &[f32], picked: &[u32], distances: &mut [f32]) {
    for (i, (&now, distance)) in picked.iter().zip(distances).enumerate() {
        if let Some(&soon) = picked.get(i + AHEAD) {
            prefetch(row(vectors, query.len(), soon));
        }
        *distance = squared_distance(query, row(vectors, query.len(), now));
    }
}

/// Two running sums, because one would wait for itself: an FMA takes four cycles.
#[inline]
#[target_feature(enable = "avx512f")]
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_tail) = a.as_chunks::<LANES>();
    let (b_chunks, b_tail) = b.as_chunks::<LANES>();
    let mut sums = [_mm512_setzero_ps(); 2];
    for (i, (a, b)) in a_chunks.iter().zip(b_chunks).enumerate() {
        // SAFETY: each chunk is exactly LANES floats, and `loadu` asks for no alignment.
        let (a, b) = unsafe { (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr())) };
        let difference = _mm512_sub_ps(a, b);
        sums[i % 2] = _mm512_fmadd_ps(difference, difference, sums[i % 2]);
    }
    _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1])) + scalar::squared_distance(a_tail, b_tail)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn bytes(query: &[i8], codes: &[u8], picked: &[u32], dots: &mut [i32]) {
    check(codes, query.len(), picked);
    let (fours, rest) = picked.as_chunks();
    let (dots_of_fours, dots) = dots.split_at_mut(FOUR * fours.len());
    for (rows, dots) in fours.iter().zip(dots_of_fours.as_chunks_mut().0) {
        // SAFETY: all rows that were picked are there.
        *dots = unsafe { bytes_of_four(query, codes, *rows) };
    }
    if let Some(rows) = filled_up(rest) {
        // SAFETY: all rows that were picked are there.
        let four = unsafe { bytes_of_four(query, codes, rows) };
        dots.copy_from_slice(&four[..rest.len()]);
    }
}

/// # Safety
/// The rows are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn bytes_of_four(query: &[i8], codes: &[u8], rows: [u32; FOUR]) -> [i32; FOUR] {
    let rows = rows.map(|row| codes.as_ptr().wrapping_add(row as usize * query.len()));
    let mut sums = [_mm512_setzero_si512(); FOUR];
    for (at, query) in query.as_chunks::<64>().0.iter().enumerate() {
        let query = load(bytemuck::cast_ref(query));
        for (sum, row) in sums.iter_mut().zip(rows) {
            // SAFETY: a row has as many bytes as the query.
            let codes = unsafe { _mm512_loadu_si512(row.add(64 * at).cast()) };
            *sum = _mm512_dpbusd_epi32(*sum, codes, query);
        }
    }
    sum_each(sums)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn nibbles(query: &[i8], codes: &[u8], picked: &[u32], dots: &mut [i32]) {
    check(codes, query.len() / 2, picked);
    let (fours, rest) = picked.as_chunks();
    let (dots_of_fours, dots) = dots.split_at_mut(FOUR * fours.len());
    for (rows, dots) in fours.iter().zip(dots_of_fours.as_chunks_mut().0) {
        // SAFETY: all rows that were picked are there.
        *dots = unsafe { nibbles_of_four(query, codes, *rows) };
    }
    if let Some(rows) = filled_up(rest) {
        // SAFETY: all rows that were picked are there.
        let four = unsafe { nibbles_of_four(query, codes, rows) };
        dots.copy_from_slice(&four[..rest.len()]);
    }
}

/// # Safety
/// The rows are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn nibbles_of_four(query: &[i8], codes: &[u8], rows: [u32; FOUR]) -> [i32; FOUR] {
    let low = _mm512_set1_epi8(15);
    let rows = rows.map(|row| codes.as_ptr().wrapping_add(row as usize * (query.len() / 2)));
    let mut sums = [_mm512_setzero_si512(); FOUR];
    for (at, query) in query.as_chunks::<128>().0.iter().enumerate() {
        let [first, second]: &[[i8; 64]; 2] = bytemuck::cast_ref(query);
        let (first, second) = (load(bytemuck::cast_ref(first)), load(bytemuck::cast_ref(second)));
        for (sum, row) in sums.iter_mut().zip(rows) {
            // SAFETY: a row has half as many bytes as the query.
            let codes = unsafe { _mm512_loadu_si512(row.add(64 * at).cast()) };
            *sum = _mm512_dpbusd_epi32(*sum, _mm512_and_si512(codes, low), first);
            *sum = _mm512_dpbusd_epi32(*sum, _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low), second);
        }
    }
    sum_each(sums)
}

/// Panics where a row lies outside: once for all of them, since a check of each takes longer than its product.
#[inline]
#[target_feature(enable = "avx512f")]
fn check(codes: &[u8], width: usize, picked: &[u32]) {
    let last = picked.iter().fold(0, |last, row| last.max(*row));
    assert!(picked.is_empty() || (last as usize + 1) * width <= codes.len(), "row {last} of {} bytes", codes.len());
}

/// The rows, and the last of them again; `None` where there are none.
#[inline(always)]
fn filled_up(rows: &[u32]) -> Option<[u32; FOUR]> {
    let last = rows.last()?;
    Some(std::array::from_fn(|at| *rows.get(at).unwrap_or(last)))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn columns(query: &[i8], blocks: &[u8], dots: &mut [i32]) {
    let together = |count: usize| count * COLUMN * query.len();
    let (dots_of_four, dots) = dots.as_chunks_mut::<{ 4 * COLUMN }>();
    let (fours, blocks) = blocks.split_at(together(4) * dots_of_four.len());
    for (blocks, dots) in fours.chunks_exact(together(4)).zip(dots_of_four) {
        side_by_side::<4>(query, blocks, dots);
    }
    for (block, dots) in blocks.chunks_exact(together(1)).zip(dots.as_chunks_mut::<COLUMN>().0) {
        side_by_side::<1>(query, block, dots);
    }
}

/// Some blocks at once, so that what is read of the query is read once for all of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn side_by_side<const BLOCKS: usize>(query: &[i8], blocks: &[u8], dots: &mut [i32]) {
    let steps = query.len() / 4;
    let rows = &blocks.as_chunks::<{ 4 * COLUMN }>().0[..BLOCKS * steps];
    let mut sums = [_mm512_setzero_si512(); BLOCKS];
    for (at, query) in query.as_chunks::<4>().0.iter().enumerate() {
        let query = _mm512_set1_epi32(i32::from_le_bytes(query.map(i8::cast_unsigned)));
        for (block, sum) in sums.iter_mut().enumerate() {
            *sum = _mm512_dpbusd_epi32(*sum, load(&rows[block * steps + at]), query);
        }
    }
    for (sum, dots) in sums.into_iter().zip(dots.as_chunks_mut::<COLUMN>().0) {
        // SAFETY: sixteen `i32` are 64 bytes, and `storeu` asks for no alignment.
        unsafe { _mm512_storeu_si512(dots.as_mut_ptr().cast(), sum) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn nibble_columns(query: &[i8], blocks: &[u8], dots: &mut [i32]) {
    let low = _mm512_set1_epi8(15);
    for (block, dots) in blocks.chunks_exact(COLUMN * query.len() / 2).zip(dots.as_chunks_mut::<COLUMN>().0) {
        let mut sums = [_mm512_setzero_si512(); 2];
        for (rows, query) in block.as_chunks::<{ 4 * COLUMN }>().0.iter().zip(scalar::fours(query)) {
            let codes = load(rows);
            // Sixteen times the high halves, so that nothing is shifted before the end.
            let halves = [_mm512_and_si512(codes, low), _mm512_andnot_si512(low, codes)];
            for ((sum, half), query) in sums.iter_mut().zip(halves).zip(query) {
                *sum = _mm512_dpbusd_epi32(
                    *sum,
                    half,
                    _mm512_set1_epi32(i32::from_le_bytes(query.map(i8::cast_unsigned))),
                );
            }
        }
        let sum = _mm512_add_epi32(sums[0], _mm512_srai_epi32::<4>(sums[1]));
        // SAFETY: sixteen `i32` are 64 bytes, and `storeu` asks for no alignment.
        unsafe { _mm512_storeu_si512(dots.as_mut_ptr().cast(), sum) };
    }
}

#[target_feature(enable = "avx512f,popcnt,bmi2")]
fn select(rows: &[u32], scores: &[i32], least: u64, selected: &mut [u64]) -> usize {
    // What ranks before it has no lower score.
    let least_score = _mm512_set1_epi32(((least >> 32) as u32 ^ 1 << 31).cast_signed());
    let least = _mm512_set1_epi64(least.cast_signed());
    let mut count = 0;
    for (rows, scores) in rows.chunks(LANES).zip(scores.chunks(LANES)) {
        let there = u16::MAX >> (LANES - rows.len().min(scores.len()));
        // SAFETY: lanes are read only as far as both slices go.
        let (rows, scores) = unsafe {
            (_mm512_maskz_loadu_epi32(there, rows.as_ptr().cast()), _mm512_maskz_loadu_epi32(there, scores.as_ptr()))
        };
        let there = _mm512_mask_cmpge_epi32_mask(there, rows, _mm512_setzero_si512());
        let good = _mm512_mask_cmpge_epi32_mask(there, scores, least_score);
        let [mut rows, mut scores] = [rows, scores].map(|lanes| _mm512_maskz_compress_epi32(good, lanes));
        let mut left = good.count_ones() as usize;
        while left > 0 {
            let ranks = eight_ranks(_mm512_castsi512_si256(rows), _mm512_castsi512_si256(scores));
            let there = ((1u16 << left.min(RANKS)) - 1) as u8;
            let better = _mm512_mask_cmpgt_epu64_mask(there, ranks, least);
            store(_mm512_maskz_compress_epi64(better, ranks), &mut selected[count..]);
            count += better.count_ones() as usize;
            left = left.saturating_sub(RANKS);
            [rows, scores] = [rows, scores].map(|lanes| _mm512_alignr_epi64::<4>(lanes, lanes));
        }
    }
    count
}

/// `rank` of eight.
#[inline]
#[target_feature(enable = "avx512f")]
fn eight_ranks(rows: __m256i, scores: __m256i) -> __m512i {
    let [rows, scores] = [rows, scores].map(|lanes| _mm512_cvtepu32_epi64(lanes));
    let scores = _mm512_xor_si512(_mm512_slli_epi64::<32>(scores), _mm512_set1_epi64(i64::MIN));
    let rows = _mm512_andnot_si512(_mm512_slli_epi64::<1>(rows), _mm512_set1_epi64(0xffff_fffe));
    _mm512_or_si512(scores, rows)
}

#[target_feature(enable = "avx512f,popcnt")]
fn insert(sorted: &mut [u64], more: &mut [u64]) -> usize {
    match sorted.len() / RANKS {
        0..=2 => insert_short::<2>(sorted, more),
        3..=4 => insert_short::<4>(sorted, more),
        5..=8 => insert_short::<8>(sorted, more),
        9..=16 => insert_short::<16>(sorted, more),
        _ => scalar::insert(sorted, more),
    }
}

/// All of `sorted` stays in so many registers meanwhile.
#[inline]
#[target_feature(enable = "avx512f,popcnt")]
fn insert_short<const REGISTERS: usize>(sorted: &mut [u64], more: &[u64]) -> usize {
    let mut words = [_mm512_setzero_si512(); REGISTERS];
    for (word, ranks) in words.iter_mut().zip(sorted.as_chunks::<RANKS>().0) {
        *word = load(bytemuck::cast_ref(ranks));
    }
    let best = more.iter().fold(0, |best, rank| best.max(*rank));
    let best = _mm512_set1_epi64(best.cast_signed());
    let first = words.map(|word| _mm512_cmpgt_epu64_mask(word, best).count_ones()).into_iter().sum::<u32>();
    for rank in more {
        let rank = _mm512_set1_epi64(rank.cast_signed());
        // What is in the place before: the greater ones stay, the less ones move on by one.
        let mut before = _mm512_set1_epi64(-1);
        for word in &mut words {
            let moved = _mm512_alignr_epi64::<7>(*word, before);
            before = *word;
            *word = _mm512_max_epu64(*word, _mm512_min_epu64(moved, rank));
        }
    }
    words.into_iter().zip(sorted.as_chunks_mut::<RANKS>().0).for_each(|(word, ranks)| store(word, ranks));
    first as usize
}

/// Writes ranks to the first places. Panics where there are fewer.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(ranks: __m512i, places: &mut [u64]) {
    let places = &mut places[..RANKS];
    // SAFETY: the register is as long as the slice, and `storeu` asks for no alignment.
    unsafe { _mm512_storeu_si512(places.as_mut_ptr().cast(), ranks) };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the array is as long as a register, and `loadu` asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The sum of the lanes of each of four.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_each([a, b, c, d]: [__m512i; FOUR]) -> [i32; FOUR] {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let lanes = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let (first, second) = (_mm512_castsi512_si128(lanes), _mm512_extracti32x4_epi32::<1>(lanes));
    let (third, fourth) = (_mm512_extracti32x4_epi32::<2>(lanes), _mm512_extracti32x4_epi32::<3>(lanes));
    let sums = _mm_add_epi32(_mm_add_epi32(first, second), _mm_add_epi32(third, fourth));
    let mut four = [0; FOUR];
    // SAFETY: four `i32` are sixteen bytes, and `storeu` asks for no alignment.
    unsafe { _mm_storeu_si128(four.as_mut_ptr().cast(), sums) };
    four
}
