//! Products of `bf16` matrices in the tile registers of a CPU that has them (AMX: Intel's "Architecture Instruction Set Extensions", chapter 3).
//!
//! A tile is 16 rows of 64 bytes. One instruction adds the products of 16 x 32 numbers and 32 x 16 others to 16 x 16 sums in `f32`: sixteen times
//! as many multiplications as a register of AVX-512 does at once. Four tiles hold the sums of 32 rows and 32 columns.
//!
//! The compiler does not know these registers, hence assembly; a job reads and writes its fields' pointers alone.

use std::marker::PhantomData;
use std::sync::OnceLock;

use half::bf16;

use super::Level;
use there::{configure, multiply, permitted, release};

/// Rows and columns of the sums of one job.
pub(crate) const SIDE: usize = 32;

/// Numbers that one step multiplies and adds up for each sum.
pub(crate) const STEP: usize = 32;

/// This CPU has tiles of `bf16`, and the system lets the program use them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amx(());

impl Amx {
    /// Asks the CPU and the system, once; nothing where the program was told to use less than it could.
    pub(crate) fn get() -> Option<Self> {
        static FOUND: OnceLock<bool> = OnceLock::new();
        let is_found =
            || Level::available().next().is_some_and(|best| best.name() == Level::best().name()) && permitted();
        FOUND.get_or_init(is_found).then_some(Self(()))
    }

    /// Sets this thread's registers up while the result lives.
    pub(crate) fn tiles(self) -> Tiles {
        configure();
        Tiles(PhantomData)
    }
}

/// A thread whose tile registers are set up.
pub(crate) struct Tiles(PhantomData<*const ()>);

impl Drop for Tiles {
    fn drop(&mut self) {
        release();
    }
}

/// The first factor: rows of pixels, or whatever else lies `row` numbers apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) values: &'a [bf16],
    /// From one row to the next.
    pub(crate) row: usize,
    /// Offsets where `steps` steps of [`STEP`] numbers begin, one after the other.
    pub(crate) taps: &'a [usize],
    pub(crate) steps: usize,
}

/// The second factor: in pairs of rows, whose numbers alternate. A step reads 16 pairs of 32 columns.
#[derive(Clone, Copy)]
pub(crate) struct Pairs<'a> {
    pub(crate) values: &'a [bf16],
    /// From a pair to the next.
    pub(crate) pair: usize,
    /// From the first 16 columns to the other 16.
    pub(crate) half: usize,
    /// From a step to the next.
    pub(crate) step: usize,
}

/// What one job's assembly reads.
#[repr(C)]
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), expect(dead_code, reason = "read by assembly alone"))]
struct Job {
    a: [*const bf16; 2],
    a_row: usize,
    taps: *const usize,
    taps_end: *const usize,
    steps: usize,
    b: [*const bf16; 2],
    b_pair: usize,
    b_step: usize,
    from: *const f32,
    from_row: usize,
    to: *mut f32,
    to_row: usize,
}

impl Tiles {
    /// Writes `SIDE` rows of `SIDE` sums, `to_row` apart: what one row `from` has everywhere (a bias), and the products of `SIDE` rows from `at` on.
    ///
    /// # Panics
    /// When anything would be read or written outside of its slice: our own mistake.
    pub(crate) fn multiply(&self, a: &Rows<'_>, at: usize, b: &Pairs<'_>, from: &[f32], to: &mut [f32], to_row: usize) {
        assert!(from.len() >= SIDE, "a number for each column");
        let sums = (from.as_ptr(), 0);
        self.run(a, at, b, 0, Some(sums), to, to_row);
    }

    /// Adds the products of `SIDE` rows from `at` on and `SIDE` columns from `b_at` on to `SIDE` rows of `to`, `to_row` apart.
    ///
    /// # Panics
    /// As [`multiply`](Self::multiply).
    pub(crate) fn add(&self, a: &Rows<'_>, at: usize, b: &Pairs<'_>, b_at: usize, to: &mut [f32], to_row: usize) {
        self.run(a, at, b, b_at, None, to, to_row);
    }

    #[expect(clippy::too_many_arguments, reason = "two factors and sums")]
    fn run(
        &self,
        a: &Rows<'_>,
        at: usize,
        b: &Pairs<'_>,
        b_at: usize,
        from: Option<(*const f32, usize)>,
        to: &mut [f32],
        to_row: usize,
    ) {
        let far = a.taps.iter().max().copied().unwrap_or(0);
        assert!(a.steps > 0 && to_row >= SIDE && (SIDE - 1) * to_row + SIDE <= to.len(), "sums inside their slice");
        assert!(at + far + (SIDE - 1) * a.row + a.steps * STEP <= a.values.len(), "rows inside their slice");
        let last = a.taps.len().saturating_mul(a.steps).saturating_sub(1) * b.step;
        assert!(b_at + last + 15 * b.pair + b.half + STEP <= b.values.len(), "pairs inside their slice");
        let taps = a.taps.as_ptr_range();
        let first = a.values.as_ptr().wrapping_add(at);
        let second = b.values.as_ptr().wrapping_add(b_at);
        let (from, from_row) = from.unwrap_or((to.as_ptr(), to_row));
        multiply(&Job {
            a: [first, first.wrapping_add(16 * a.row)],
            a_row: a.row * size_of::<bf16>(),
            taps: taps.start,
            taps_end: taps.end,
            steps: a.steps,
            b: [second, second.wrapping_add(b.half)],
            b_pair: b.pair * size_of::<bf16>(),
            b_step: b.step * size_of::<bf16>(),
            from,
            from_row: from_row * size_of::<f32>(),
            to: to.as_mut_ptr(),
            to_row: to_row * size_of::<f32>(),
        });
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod there {
    use super::Job;

    pub(super) fn permitted() -> bool {
        false
    }

    pub(super) fn configure() {}

    pub(super) fn release() {}

    pub(super) fn multiply(_: &Job) {
        unreachable!("nobody has tiles here");
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod there {
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::mem::offset_of;

    use super::Job;

    /// Leaf 7 of `cpuid`, `edx`: tiles, and tiles of `bf16`.
    const TILES: u32 = 1 << 24 | 1 << 22;

    /// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`: Linux wants to be asked before it saves 8 KiB more for each thread.
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;

    #[expect(unsafe_code, reason = "a system call that no library of ours knows")]
    pub(super) fn permitted() -> bool {
        if __cpuid_count(0, 0).eax < 7 || __cpuid_count(7, 0).edx & TILES != TILES {
            return false;
        }
        let mut result = ARCH_PRCTL;
        // SAFETY: this call reads two numbers and touches no memory of ours; an old kernel answers that it does not know it.
        unsafe {
            asm!(
                "syscall",
                inout("rax") result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result == 0
    }

    /// Palette 1, eight tiles of 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    #[expect(unsafe_code, reason = "tile registers")]
    pub(super) fn configure() {
        let mut all = Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        all.row_bytes[..8].fill(64);
        all.rows[..8].fill(16);
        // SAFETY: only whoever holds an `Amx` comes here; 64 bytes are read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const all, options(nostack, readonly)) };
    }

    #[expect(unsafe_code, reason = "tile registers")]
    pub(super) fn release() {
        // SAFETY: only whoever holds `Tiles` comes here; no memory is touched.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }

    #[expect(unsafe_code, reason = "tile registers")]
    pub(super) fn multiply(job: &Job) {
        // SAFETY: `Tiles::run` held all that the job's sizes reach to their slices, and its sums are borrowed mutably; `Tiles` was set up for this
        // thread, and cannot leave it.
        unsafe {
            asm!(
                "mov rax, [rdi + {from}]",
                "mov rcx, [rdi + {from_row}]",
                "mov rdx, rcx",
                "shl rdx, 4",
                "add rdx, rax",
                "tileloadd tmm0, [rax + rcx]",
                "tileloadd tmm1, [rax + rcx + 64]",
                "tileloadd tmm2, [rdx + rcx]",
                "tileloadd tmm3, [rdx + rcx + 64]",
                "mov r8, [rdi + {taps}]",
                "mov r9, [rdi + {a_row}]",
                "mov r10, [rdi + {b}]",
                "mov r11, [rdi + {b} + 8]",
                "mov r12, [rdi + {b_pair}]",
                "mov r13, [rdi + {b_step}]",
                "2:",
                "cmp r8, [rdi + {taps_end}]",
                "jae 4f",
                "mov rax, [r8]",
                "add r8, 8",
                "add rax, rax",
                "mov rcx, rax",
                "add rax, [rdi + {a}]",
                "add rcx, [rdi + {a} + 8]",
                "mov rdx, [rdi + {steps}]",
                "3:",
                "tileloadd tmm4, [rax + r9]",
                "tileloadd tmm6, [r10 + r12]",
                "tileloadd tmm7, [r11 + r12]",
                "tileloadd tmm5, [rcx + r9]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add rax, 64",
                "add rcx, 64",
                "add r10, r13",
                "add r11, r13",
                "dec rdx",
                "jnz 3b",
                "jmp 2b",
                "4:",
                "mov rax, [rdi + {to}]",
                "mov rcx, [rdi + {to_row}]",
                "mov rdx, rcx",
                "shl rdx, 4",
                "add rdx, rax",
                "tilestored [rax + rcx], tmm0",
                "tilestored [rax + rcx + 64], tmm1",
                "tilestored [rdx + rcx], tmm2",
                "tilestored [rdx + rcx + 64], tmm3",
                from = const offset_of!(Job, from),
                from_row = const offset_of!(Job, from_row),
                taps = const offset_of!(Job, taps),
                taps_end = const offset_of!(Job, taps_end),
                a = const offset_of!(Job, a),
                a_row = const offset_of!(Job, a_row),
                steps = const offset_of!(Job, steps),
                b = const offset_of!(Job, b),
                b_pair = const offset_of!(Job, b_pair),
                b_step = const offset_of!(Job, b_step),
                to = const offset_of!(Job, to),
                to_row = const offset_of!(Job, to_row),
                in("rdi") job,
                out("rax") _,
                out("rcx") _,
                out("rdx") _,
                out("r8") _,
                out("r9") _,
                out("r10") _,
                out("r11") _,
                out("r12") _,
                out("r13") _,
                out("tmm0") _,
                out("tmm1") _,
                out("tmm2") _,
                out("tmm3") _,
                out("tmm4") _,
                out("tmm5") _,
                out("tmm6") _,
                out("tmm7") _,
                options(nostack),
            );
        }
    }
}
