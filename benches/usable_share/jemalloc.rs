//! The usable share with jemalloc; see `fill.rs`.

mod fill;

oomguard::guard!(allocator = tikv_jemallocator::Jemalloc);

fn main() {
    let variants = [
        fill::Variant { name: "jemalloc, data", environment: &[("OOMGUARD_MEASURE", "data")] },
        fill::Variant {
            name: "jemalloc, data, cache_oblivious:false,retain:false",
            environment: &[
                ("OOMGUARD_MEASURE", "data"),
                ("_RJEM_MALLOC_CONF", "cache_oblivious:false,retain:false"),
            ],
        },
        fill::Variant { name: "jemalloc, address space", environment: &[] },
    ];
    fill::main(&variants, &[1, 2, 8]);
}
