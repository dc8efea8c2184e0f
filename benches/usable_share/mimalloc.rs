//! The usable share with mimalloc; see `fill.rs`.

mod fill;

oomguard::guard!(allocator = mimalloc::MiMalloc);

fn main() {
    let variants = [
        fill::Variant { name: "mimalloc, data", environment: &[("OOMGUARD_MEASURE", "data")] },
        fill::Variant {
            name: "mimalloc, data, committing on demand",
            environment: &[
                ("OOMGUARD_MEASURE", "data"),
                ("MIMALLOC_ARENA_EAGER_COMMIT", "0"),
                ("MIMALLOC_PAGE_COMMIT_ON_DEMAND", "1"),
            ],
        },
        fill::Variant { name: "mimalloc, address space", environment: &[] },
    ];
    fill::main(&variants, &[1, 2, 8]);
}
