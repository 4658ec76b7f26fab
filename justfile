# What a change must pass: format, lint, tests (one of which checks that schemas/ is up to date).
check:
    cargo fmt --check
    cargo clippy -- -D warnings
    cargo clippy --all-targets -- -D warnings
    cargo test

test *names:
    cargo test {{names}}

# Drives the real binary and prints a table of figures.
bench:
    cargo bench --bench workloads

# Feeds a parser with chance, for which `cargo fuzz` and a nightly compiler are needed; `just fuzz cron -max_total_time=60`.
fuzz target *arguments:
    cargo +nightly fuzz run {{target}} -- {{arguments}}
