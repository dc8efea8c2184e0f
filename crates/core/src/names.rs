//! What somebody may have meant who set a variable that there is not. Pure; allocates nothing, and is safe before `main`.

use crate::contract::variable;
use crate::text::Text;

/// All of ours begin so.
const PREFIX: &[u8] = b"OOMGUARD_";

/// So many letters may be wrong, missing, too many, or two of them in the wrong order.
const MOST_WRONG: u8 = 2;

/// No name is longer, behind the prefix.
const MOST_LETTERS: usize = 24;

/// The variable that `name` is nearly, and is not.
pub fn meant_by(name: &[u8]) -> Option<&'static str> {
    let written = name.strip_prefix(PREFIX).filter(|written| written.len() <= MOST_LETTERS)?;
    let known = variable::ALL.into_iter().filter_map(|known| {
        let letters = known.as_bytes().strip_prefix(PREFIX)?;
        Some((distance(written, letters)?, known))
    });
    let (wrong, known) = known.min_by_key(|(wrong, _)| *wrong)?;
    (wrong > 0 && wrong <= MOST_WRONG).then_some(known)
}

/// `there is no variable OOMGUARD_LIMITS; did you mean OOMGUARD_LIMIT?`
pub fn push_misspelt<const N: usize>(line: &mut Text<N>, name: &[u8], meant: &str) {
    line.push("there is no variable ");
    line.push_foreign(name);
    line.push("; did you mean ");
    line.push(meant);
    line.push("?");
}

/// How many letters have to be put in, left out, replaced, or exchanged with the next: the optimal string alignment.
fn distance(a: &[u8], b: &[u8]) -> Option<u8> {
    const ROW: usize = MOST_LETTERS + 1;
    let mut row: [u8; ROW] = core::array::from_fn(|j| j as u8);
    let mut last = row;
    for (i, letter) in a.iter().enumerate() {
        let before_last = core::mem::replace(&mut last, row);
        *row.first_mut()? = i as u8 + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = last.get(j)? + u8::from(letter != other);
            let mut least = replaced.min(last.get(j + 1)? + 1).min(row.get(j)? + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(other) && b.get(j - 1) == Some(letter) {
                least = least.min(before_last.get(j - 1)? + 1);
            }
            *row.get_mut(j + 1)? = least;
        }
    }
    row.get(b.len()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_name_of_somebody_elses_is_not() {
        for (name, expected) in [
            ("OOMGUARD_LIMITS", Some("OOMGUARD_LIMIT")),
            ("OOMGUARD_LIMT", Some("OOMGUARD_LIMIT")),
            ("OOMGUARD_REPROT", Some("OOMGUARD_REPORT")),
            ("OOMGUARD_EXITCODE", Some("OOMGUARD_EXIT_CODE")),
            ("OOMGUARD_ON_REFUSALS", Some("OOMGUARD_ON_REFUSAL")),
            ("OOMGUARD_PATIENTCE", Some("OOMGUARD_PATIENCE")),
            ("OOMGUARD_LIMIT", None),
            ("OOMGUARD_TEST_ROLE", None),
            ("OOMGUARD_SHIM", None),
            ("OOMGUARD_", None),
            ("OOMGUARDLIMIT", None),
            ("OOMGUARD_A_NAME_THAT_IS_LONGER_THAN_ANY", None),
            ("LIMIT", None),
        ] {
            assert_eq!(meant_by(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn no_variable_is_another_one_misspelt() {
        for name in variable::ALL {
            assert_eq!(meant_by(name.as_bytes()), None, "{name}");
            assert!(name.len() - PREFIX.len() <= MOST_LETTERS, "{name}");
        }
    }
}
