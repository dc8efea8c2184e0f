//! `oomguard report` and `run --postmortem` from outside. The dead program is `examples/postmortem.rs`, built once in
//! either profile; what is left of it is looked into in all the states in which its files may be found.

mod choice;
mod death;
mod hostile;
mod names;
mod outputs;
mod postmortem;
mod screen;
