//! The same worker without that line.

fn main() {
    pod_scenarios::work(pod_scenarios::mib_wanted());
}
