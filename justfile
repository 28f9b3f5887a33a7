# The recipes of every day. `just check` is all that CI runs: green here is green there.

# List the recipes
default:
    @just --list

# Everything CI runs
check:
    .ci/run

# All tests; those that ask for it too, with `VULTUS_SLOW=1 just test`
test *ARGS:
    cargo test --workspace {{ARGS}}

# Find people in the sample photos
demo:
    cargo run --release -- demo

# Measure; numbers for the docs name this command, the machine and the commit
bench *ARGS:
    cargo bench --workspace {{ARGS}}

# Look for a file that makes its reader panic (cut_off, edited, replaced: an index; vectors); needs a nightly compiler and `cargo install cargo-fuzz`
fuzz TARGET *ARGS:
    cd {{ if TARGET == "vectors" { "cli" } else { "index" } }} && cargo +nightly fuzz run {{TARGET}} {{ARGS}}

# What `check` refuses and a tool can mend
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty
    cargo fmt
