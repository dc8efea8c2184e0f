//! A worker with one line added.

oomguard::guard!();

fn main() {
    pod_scenarios::work(pod_scenarios::mib_wanted());
}
