//! A guarded worker with a task: `worker KIB SEED FATE`.

use pod_scenarios::task::Task;

oomguard::guard!();

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Task::from_arguments(&arguments).expect("usage: worker KIB SEED FATE").run();
}
