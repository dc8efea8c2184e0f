//! All that a worker may say of the guard: it compiles for every system, and where nothing is guarded it runs as if it
//! were not there. `run` beside it says which systems.

oomguard::guard!(
    limit = "80%",
    measure = data,
    exit_code = 198,
    reserve = "8MiB",
    on_refusal = deferred,
    profile = off,
    allocator = std::alloc::System
);

/// By hand, over an allocator with settings of its own.
pub static BY_HAND: oomguard::Guard<std::alloc::System, oomguard::Profiled> =
    oomguard::Guard::profiled(std::alloc::System);

#[cfg(feature = "parent")]
use oomguard::supervisor::Worker as _;

fn main() -> std::io::Result<()> {
    oomguard::on_reclaim(|| println!("reclaim"));
    oomguard::on_exhausted(|| println!("exhausted"));
    let watches = oomguard::on_pressure(0.8, || println!("pressure"))?;
    assert!(oomguard::on_pressure(80.0, || ()).is_err(), "no fraction anywhere");
    let status = oomguard::status();
    assert_eq!(watches, status.limit.is_some());
    if cfg!(not(target_os = "linux")) || cfg!(target_pointer_width = "32") {
        assert_eq!((status.limit, status.headroom(), status.recognizes), (None, None, false));
    }
    let squares: Vec<u64> = (0..1000).map(|number| number * number).collect();
    println!("{} of {:?}: {}", status.refusals, status.limit, squares.iter().sum::<u64>());
    assert_eq!(oomguard::EXIT_OUT_OF_MEMORY, 198);
    Ok(())
}
