//! Where names come from, in all the states in which a program's files may be found after its death; and never the names
//! of another file.

use super::death::{DEBUG, Death, RELEASE, make_pipe, report};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn run(program: &str, arguments: &[&OsStr]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

fn objcopy(options: &[&str], files: &[&Path]) {
    let options = options.iter().map(OsStr::new);
    run("objcopy", &options.chain(files.iter().map(|file| file.as_os_str())).collect::<Vec<_>>());
}

/// All functions in all stacks.
fn functions(json: &serde_json::Value) -> Vec<(String, u64)> {
    let sites = json["sites"].as_array().unwrap().iter();
    let frames = sites.flat_map(|site| site["stack"].as_array().unwrap());
    let functions = frames.flat_map(|frame| frame["functions"].as_array().unwrap());
    functions
        .map(|function| {
            (function["name"].as_str().unwrap_or("").to_owned(), function["line"].as_u64().unwrap_or(0))
        })
        .collect()
}

fn names_the_program(death: &Death, options: &[&str]) -> bool {
    functions(&death.json(options)).iter().any(|(name, line)| name.contains("add_words") && *line == 60)
}

/// The debug information of the program, in a file of its own; the program itself is stripped of it.
fn split(death: &Death) -> PathBuf {
    let debug = death.path("indexer.debug");
    objcopy(&["--only-keep-debug"], &[&death.program(), &debug]);
    objcopy(&["--strip-all"], &[&death.program()]);
    debug
}

fn build_id(death: &Death) -> String {
    death.json(&[])["modules"][0]["build_id"].as_str().unwrap().to_owned()
}

/// Makes the file one of another build by name only.
fn change_build_id(file: &Path, hexadecimal: &str) {
    let digits = (0..hexadecimal.len()).step_by(2).map(|at| &hexadecimal[at..at + 2]);
    let build_id: Vec<u8> = digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.windows(build_id.len()).position(|window| window == build_id).unwrap();
    bytes[at + 7] ^= 1;
    // Written anew: the program may have been the same file.
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
}

/// Where debuggers look for the debug information of a build-id.
fn by_build_id(death: &Death, root: &Path) -> PathBuf {
    let build_id = build_id(death);
    let (first, rest) = build_id.split_at(2);
    let directory = root.join(".build-id").join(first);
    fs::create_dir_all(&directory).unwrap();
    directory.join(format!("{rest}.debug"))
}

#[test]
fn a_stripped_program_has_modules_and_offsets_and_says_why() {
    let death = Death::of(&DEBUG);
    split(&death);
    fs::remove_file(death.path("indexer.debug")).unwrap();
    let text = death.text(&[]);
    assert!(text.contains("indexer+0x") && text.contains("without debug information"), "{text}");
    assert!(!names_the_program(&death, &[]));
    // The address is the one that addr2line wants: the frame less the bias.
    let json = death.json(&[]);
    let frame = &json["sites"][0]["stack"][0];
    let bias = json["modules"][0]["bias"].as_u64().unwrap();
    assert_eq!(frame["offset"].as_u64().unwrap(), frame["address"].as_u64().unwrap() - bias, "{frame}");
}

#[test]
fn exported_names_hold_for_their_own_code_only() {
    let death = Death::of(&DEBUG);
    split(&death);
    fs::remove_file(death.path("indexer.debug")).unwrap();
    // write, abort and pthread_create are exported; none of them allocates.
    let json = death.json(&[]);
    for site in json["sites"].as_array().unwrap() {
        for frame in site["stack"].as_array().unwrap().iter().filter(|frame| frame["module"] == 0) {
            let names: Vec<_> = frame["functions"].as_array().unwrap().iter().collect();
            let is_exported = |name: &str| ["_start", "main"].contains(&name) || name.starts_with("__rust");
            assert!(names.iter().all(|function| is_exported(function["name"].as_str().unwrap())), "{frame}");
        }
    }
}

#[test]
fn debug_information_is_found_by_build_id() {
    let death = Death::of(&RELEASE);
    let debug = split(&death);
    let directory = death.path("symbols");
    fs::rename(debug, by_build_id(&death, &directory)).unwrap();
    assert!(!names_the_program(&death, &[]));
    let options = ["--debug-dir", directory.to_str().unwrap()];
    assert!(names_the_program(&death, &options));
    let names = death.names(&options);
    assert_eq!((&names["detail"], &names["verified"]), (&"lines".into(), &true.into()), "{names}");
    // Even where the program itself is gone, or is another one.
    fs::remove_file(death.program()).unwrap();
    assert!(names_the_program(&death, &options));
    fs::copy("/bin/true", death.program()).unwrap();
    assert!(names_the_program(&death, &options));
    // What lies there and is another build's gives no names, although all else is the same.
    let place = by_build_id(&death, &directory);
    change_build_id(&place, &build_id(&death));
    assert!(!names_the_program(&death, &options));
}

#[test]
fn debug_information_is_found_by_link_and_checksum() {
    let directory = tempfile::TempDir::with_prefix("oomguard-report-").unwrap();
    let (program, debug) = (directory.path().join("indexer"), directory.path().join("indexer.debug"));
    fs::copy(&*DEBUG, &program).unwrap();
    // Without a build-id the checksum alone decides.
    objcopy(&["--remove-section=.note.gnu.build-id"], &[&program]);
    objcopy(&["--only-keep-debug"], &[&program, &debug]);
    objcopy(&["--strip-all", &format!("--add-gnu-debuglink={}", debug.display())], &[&program]);
    let death = Death::of_indexer_in(directory);
    assert!(names_the_program(&death, &[]));
    let names = death.names(&[]);
    assert_eq!((&names["verified"], names["from"].as_str()), (&false.into(), debug.to_str()), "{names}");
    assert!(death.text(&[]).contains("it has no build-id"));
    for place in [".debug/indexer.debug", "elsewhere/indexer.debug"] {
        let place = death.path(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&debug, place).unwrap();
    }
    fs::remove_file(&debug).unwrap();
    assert!(names_the_program(&death, &[]));
    fs::remove_file(death.path(".debug/indexer.debug")).unwrap();
    assert!(!names_the_program(&death, &[]));
    assert!(names_the_program(&death, &["--debug-dir", death.path("elsewhere").to_str().unwrap()]));
    let mut wrong = fs::read(death.path("elsewhere/indexer.debug")).unwrap();
    *wrong.last_mut().unwrap() ^= 1;
    fs::write(debug, wrong).unwrap();
    assert!(!names_the_program(&death, &[]), "another checksum");
}

#[test]
fn compressed_debug_information_is_read() {
    let death = Death::of(&DEBUG);
    objcopy(&["--compress-debug-sections=zlib"], &[&death.program()]);
    assert!(names_the_program(&death, &[]));
}

#[test]
fn a_program_that_was_replaced_gives_no_names() {
    let death = Death::of(&DEBUG);
    fs::remove_file(death.program()).unwrap();
    // The same functions at other addresses.
    fs::copy(&*RELEASE, death.program()).unwrap();
    let json = death.json(&[]);
    assert_eq!(json["modules"][0]["names"]["problem"], "replaced since", "{}", json["modules"][0]);
    assert!(functions(&json).iter().all(|(name, _)| !name.contains("postmortem")), "{json}");
    assert!(death.text(&[]).contains("replaced since"));
}

#[test]
fn another_build_id_alone_tells_that_it_was_replaced() {
    let death = Death::of(&DEBUG);
    let build_id = build_id(&death);
    change_build_id(&death.program(), &build_id);
    assert_eq!(death.names(&[])["problem"], "replaced since");
    assert!(!names_the_program(&death, &[]));
}

#[test]
fn without_a_build_id_another_size_tells_that_it_was_replaced() {
    let directory = tempfile::TempDir::with_prefix("oomguard-report-").unwrap();
    let program = directory.path().join("indexer");
    fs::copy(&*DEBUG, &program).unwrap();
    objcopy(&["--remove-section=.note.gnu.build-id"], &[&program]);
    let death = Death::of_indexer_in(directory);
    assert!(names_the_program(&death, &[]));
    assert_eq!(death.names(&[])["verified"], false);
    fs::remove_file(death.program()).unwrap();
    fs::copy(&*RELEASE, death.program()).unwrap();
    objcopy(&["--remove-section=.note.gnu.build-id"], &[&death.program()]);
    assert!(!names_the_program(&death, &[]));
    assert_eq!(death.names(&[])["problem"], "replaced since");
}

#[test]
fn a_program_that_is_gone_is_said_to_be() {
    let death = Death::of(&DEBUG);
    fs::rename(death.program(), death.path("renamed")).unwrap();
    assert_eq!(death.names(&[])["problem"], "not there");
    assert!(death.text(&[]).contains("not there"));
}

#[test]
fn a_root_is_where_all_files_are_looked_for() {
    let death = Death::of(&DEBUG);
    let root = death.path("root");
    let inside = root.join(death.program().strip_prefix("/").unwrap());
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    fs::rename(death.program(), inside).unwrap();
    assert!(!names_the_program(&death, &[]));
    let options = ["--root", root.to_str().unwrap()];
    assert!(names_the_program(&death, &options));
    // And nothing else: the C library is not there.
    let json = death.json(&options);
    let others = json["modules"].as_array().unwrap().iter().skip(1);
    assert!(others.map(|module| &module["names"]["problem"]).all(|problem| problem == "not there"), "{json}");
}

#[test]
fn asked_for_no_names_it_opens_no_file() {
    let death = Death::of(&DEBUG);
    assert_eq!(death.names(&["--no-symbols"])["problem"], "not asked for");
    assert!(functions(&death.json(&["--no-symbols"])).is_empty());
}

/// Puts another path in place of the program's.
fn forge_path(profile: &mut [u8], from: &Path, to: &[u8]) {
    let from = from.as_os_str().as_bytes();
    let at = profile.windows(from.len()).position(|window| window == from).unwrap();
    assert!(to.len() <= from.len() + 32);
    // Its length plus one is the word before it.
    profile[at - 8..at].copy_from_slice(&(to.len() as u64 + 1).to_ne_bytes());
    profile[at..at + to.len()].copy_from_slice(to);
}

#[test]
fn a_profile_may_name_any_path_and_nothing_but_a_regular_file_is_opened() {
    let death = Death::of(&DEBUG);
    let pipe = death.path("pipe");
    make_pipe(&pipe);
    let honest = fs::read(death.profile()).unwrap();
    let itself = death.program();
    for (path, problem) in [
        (pipe.to_str().unwrap(), "no regular file"),
        ("/dev/zero", "no regular file"),
        ("/dev/tty", "no regular file"),
        ("/tmp", "no regular file"),
        ("/proc/kmsg", "no regular file"),
        ("/proc/self/mem", "no regular file"),
        ("/etc/passwd", "not readable"),
        ("", "n"),
        ("relative", "not there"),
        ("/memfd:x (deleted)", "not there"),
    ] {
        let mut forged = honest.clone();
        forge_path(&mut forged, &itself, path.as_bytes());
        fs::write(death.profile(), forged).unwrap();
        let names = death.names(&[]);
        assert!(names["problem"].as_str().unwrap().starts_with(problem), "{path}: {names}");
        assert_eq!(names["detail"], "nothing", "{path}: {names}");
    }
}

#[test]
fn escapes_in_paths_and_records_reach_no_terminal() {
    let death = Death::of(&DEBUG);
    let mut forged = fs::read(death.profile()).unwrap();
    forge_path(&mut forged, &death.program(), b"/x/\x1b]0;gotcha\x07\x1b[2J\xff\n");
    fs::write(death.profile(), forged).unwrap();
    let record = fs::read_to_string(death.report_file()).unwrap();
    fs::write(death.report_file(), record.replace("\"indexer\"", "\"a\\u001b[2Jb\\nc\"")).unwrap();
    for options in [&[][..], &["--full"], &["--list"], &["--folded", "-"]] {
        let output = report(&death.report_file(), options);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("gotcha") || options == ["--list"], "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
    for options in [["--flamegraph", "-"], ["--pprof", "-"]] {
        let output = report(&death.report_file(), &options);
        assert!(output.status.success() && !output.stdout.contains(&0x1b) || options[0] == "--pprof");
    }
}
