//! The packages' files rest on each other in layers: none imports another in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module at a crate's top, which a folder is one of, and those that it names.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_file_imports_another_in_a_circle() {
    for package in [
        "cli",
        "core",
        "core/src/record",
        "core/src/sys",
        "engine",
        "shim",
        "supervisor",
        "supervisor/src/sys",
        "symbols",
    ] {
        let folder =
            if package.contains('/') { format!("crates/{package}") } else { format!("crates/{package}/src") };
        let imports = imports(Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder).as_path());
        assert!(imports.len() > 2, "{folder}: {imports:?}");
        assert!(imports.values().any(|names| !names.is_empty()), "{folder}: no file imports another");
        assert_eq!(circle(&imports), None, "{folder}");
    }
}

#[test]
fn a_circle_is_found() {
    let imports = |pairs: &[(&str, &str)]| {
        let mut imports = Imports::new();
        for (from, to) in pairs {
            imports.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            imports.entry((*to).to_owned()).or_default();
        }
        imports
    };
    assert_eq!(circle(&imports(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    let found = circle(&imports(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")])).unwrap();
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), ["b", "c", "d"].map(str::to_owned).into());
}

#[test]
fn imports_are_read_however_they_are_written() {
    let known = ["a", "b", "c", "d", "own"].map(str::to_owned).into();
    let text = "use super::{a::{self, Thing}, other};\nuse crate::b;\nfn f() { super::c::g() } // super::d\n\
                #[cfg(test)]\nmod tests {\n    use super::d;\n}\n";
    assert_eq!(named(text, "own", &known), ["a", "b", "c"].map(str::to_owned).into());
}

fn imports(folder: &Path) -> Imports {
    let module = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // What names all of them is no part of the layers.
    let is_module = |path: &Path| path.is_dir() || path.extension().is_some_and(|kind| kind == "rs");
    let is_root = |path: &Path| ["lib", "main", "mod"].contains(&module(path).as_str());
    let modules: Vec<_> = entries.iter().filter(|path| is_module(path) && !is_root(path)).collect();
    let known: BTreeSet<String> = modules.iter().map(|path| module(path)).collect();
    let mut imports = Imports::new();
    for path in modules {
        let names = imports.entry(module(path)).or_default();
        for file in files(path) {
            names.extend(named(&fs::read_to_string(file).unwrap(), &module(path), &known));
        }
    }
    imports
}

fn files(path: &Path) -> Vec<std::path::PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let is_code =
        |path: &Path| path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("tests.rs");
    entries.filter(|path| is_code(path)).collect()
}

/// The modules that a file names behind `super::` or `crate::`, in its code and not in its tests.
fn named(text: &str, own: &str, known: &BTreeSet<String>) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for root in ["super::", "crate::"] {
        for (at, _) in code.match_indices(root) {
            names.extend(first_names(&code[at + root.len()..]));
        }
    }
    names.retain(|name| known.contains(name) && name != own);
    names
}

/// What a path begins with: one name, or each of a group.
fn first_names(path: &str) -> Vec<String> {
    let name =
        |text: &str| text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut names, mut is_next) = (0, Vec::new(), true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_next = true,
            letter if is_next && !letter.is_whitespace() => {
                names.push(name(&group[at..]));
                is_next = false;
            }
            _ => {}
        }
    }
    names
}

/// Those that are left when all are taken away that import nothing which is left, and then all that nothing imports.
fn circle(imports: &Imports) -> Option<Vec<String>> {
    let mut left = imports.clone();
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let imported: BTreeSet<String> = left.values().flatten().cloned().collect();
        let before = left.len();
        left.retain(|name, imports| {
            imported.contains(name) && imports.iter().any(|import| names.contains(import))
        });
        if left.is_empty() {
            return None;
        }
        if left.len() == before {
            return Some(left.into_keys().collect());
        }
    }
}
