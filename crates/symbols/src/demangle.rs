//! Names as their authors wrote them, from those that linkers see.

use super::place::{Bounded, printable};
use std::fmt::Write;

/// The longest name that is taken apart.
const MANGLED_MAX_BYTES: usize = 16 << 10;

/// A name of Rust or C++ without its mangling, of bounded size: a short name can unfold to more than any memory holds.
/// Other names as they are.
pub(super) fn demangled(name: &str) -> String {
    if name.len() > MANGLED_MAX_BYTES {
        return printable(name);
    }
    let mut plain = Bounded::default();
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // What does not fit is left out, here and below. Without the hash at its end.
        let _ = write!(plain, "{rust:#}");
    } else if let Ok(cpp) = cpp_demangle::Symbol::new(name) {
        let _ = cpp.structured_demangle(&mut plain, &cpp_demangle::DemangleOptions::new());
    }
    if plain.0.is_empty() { printable(name) } else { plain.0 }
}

#[cfg(test)]
mod tests {
    use super::demangled;

    #[test]
    fn names_of_rust_and_cpp_are_demangled_and_others_left() {
        for (mangled, plain) in [
            ("_ZN10postmortem5Index9add_words17h0123456789abcdefE", "postmortem::Index::add_words"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_ZN3foo3barEv", "foo::bar()"),
            ("malloc", "malloc"),
            ("", ""),
            ("_ZN", "_ZN"),
            ("a\x1b[2Jb", "a?[2Jb"),
        ] {
            assert_eq!(demangled(mangled), plain);
        }
    }

    #[test]
    fn a_name_that_unfolds_without_end_is_cut() {
        // p<int, int> in p<that, that> in p<that, that> …: each step doubles it.
        let digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".chars();
        let bomb =
            digits.fold("_Z1f1pIiiE".to_owned(), |bomb, digit| bomb + &format!("S_IS{digit}_S{digit}_E"));
        let name = demangled(&bomb);
        assert!(name.starts_with("f(p<int, int>") && name.ends_with('…') && name.len() <= 1024, "{name}");
        let long = "x".repeat(1 << 20);
        assert_eq!(demangled(&long).len(), 1024);
    }
}
