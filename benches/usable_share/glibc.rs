//! The usable share with glibc's allocator; see `fill.rs`.

mod fill;

oomguard::guard!();

fn main() {
    let variants = [
        fill::Variant { name: "glibc, address space, guarded", environment: &[] },
        fill::Variant {
            name: "glibc, address space, default arenas",
            environment: &[("MALLOC_ARENA_MAX", "16")],
        },
        fill::Variant { name: "glibc, address space, one arena", environment: &[("MALLOC_ARENA_MAX", "1")] },
        fill::Variant { name: "glibc, data, guarded", environment: &[("OOMGUARD_MEASURE", "data")] },
    ];
    fill::main(&variants, &[1, 2, 8, 32, 64]);
}
