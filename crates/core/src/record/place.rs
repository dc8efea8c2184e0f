//! Where the child finds the record: the value of `OOMGUARD_RECORD`.

use crate::text::{parts, whole_number};

/// The value of `OOMGUARD_RECORD` for a record that the child finds as descriptor `fd`.
#[cfg(any(feature = "alloc", not(feature = "shim")))]
pub fn variable_value(fd: i32, inode: u64) -> alloc::string::String {
    alloc::format!("fd:{fd}:{inode}")
}

/// The same for a record that the child finds among the descriptors of process `pid`: it inherits none, and neither does
/// what it starts, and the record is found again when the process becomes another program.
#[cfg(any(feature = "alloc", not(feature = "shim")))]
pub fn variable_value_of(pid: u32, fd: i32, inode: u64) -> alloc::string::String {
    alloc::format!("proc:{pid}:{fd}:{inode}")
}

/// Where a record is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The process whose descriptor it is; `None` for this one.
    pub pid: Option<u32>,
    pub fd: i32,
    pub inode: u64,
}

/// What such a value says.
pub fn from_variable(value: &[u8]) -> Option<Place> {
    let mut fields = parts(value, b':');
    let pid = match fields.next()? {
        b"fd" => None,
        b"proc" => Some(u32::try_from(whole_number(fields.next()?)?).ok()?),
        _ => return None,
    };
    let fd = i32::try_from(whole_number(fields.next()?)?).ok()?;
    let inode = whole_number(fields.next()?)?;
    fields.next().is_none().then_some(Place { pid, fd, inode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_a_descriptor_and_what_it_must_be() {
        let inode = u64::MAX;
        let here = Place { pid: None, fd: 104, inode };
        assert_eq!(from_variable(variable_value(104, inode).as_bytes()), Some(here));
        let there = Place { pid: Some(7), ..here };
        assert_eq!(from_variable(variable_value_of(7, 104, inode).as_bytes()), Some(there));
        for wrong in [
            "",
            "fd:",
            "fd:1",
            "fd:1:",
            "fd::2",
            "1:2",
            "fd:-1:2",
            "fd:4294967296:2",
            "fd:1:2:3",
            "fd:1:2 ",
            "proc:1:2",
            "proc::1:2",
        ] {
            assert_eq!(from_variable(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
