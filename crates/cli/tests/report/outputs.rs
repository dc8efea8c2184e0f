//! What other tools read: decoded here by other means than it was written.

use super::death::{DEBUG, Death, RELEASE, make_pipe, report};
use flate2::read::GzDecoder;
use quick_xml::Reader;
use quick_xml::events::Event;
use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;

fn live_bytes(death: &Death) -> u64 {
    let json = death.json(&[]);
    json["sites"].as_array().unwrap().iter().map(|site| site["live_bytes"].as_u64().unwrap()).sum()
}

#[test]
fn folded_stacks_add_up_to_what_is_live() {
    let death = Death::of(&RELEASE);
    let text = death.text(&["--folded", "-"]);
    let sum: u64 = text.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum();
    assert_eq!(sum, live_bytes(&death));
    // What std allocates before `main` may have been met, too.
    let (of_program, before): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with("postmortem::main;"));
    assert!(before.len() <= 1 && !of_program.is_empty(), "{text}");
}

/// The rectangles of a flame graph: where each begins, how wide it is in bytes, and its height on the page.
fn rectangles(svg: &str) -> Vec<(u64, u64, String)> {
    let mut reader = Reader::from_str(svg);
    let mut rectangles = Vec::new();
    let mut depth = 0;
    loop {
        match reader.read_event().expect("well-formed") {
            Event::Eof => break,
            Event::Start(_) => depth += 1,
            Event::End(_) => depth -= 1,
            Event::Empty(element) if element.name().as_ref() == b"rect" => {
                let attributes: HashMap<String, String> = element
                    .attributes()
                    .map(|attribute| attribute.expect("well-formed"))
                    .map(|attribute| {
                        let key = String::from_utf8(attribute.key.as_ref().to_vec()).unwrap();
                        (key, String::from_utf8(attribute.value.to_vec()).unwrap())
                    })
                    .collect();
                if let (Some(x), Some(w)) = (attributes.get("fg:x"), attributes.get("fg:w")) {
                    rectangles.push((x.parse().unwrap(), w.parse().unwrap(), attributes["y"].clone()));
                }
            }
            _ => {}
        }
    }
    assert_eq!(depth, 0, "every element ends");
    rectangles
}

#[test]
fn a_flame_graph_is_whole_and_its_widths_are_live_bytes() {
    let death = Death::of(&RELEASE);
    let svg = death.text(&["--flamegraph", "-"]);
    assert!(svg.contains("add_words") && svg.contains("live in indexer"), "{svg}");
    let rectangles = rectangles(&svg);
    let all = live_bytes(&death);
    assert_eq!(rectangles.iter().map(|(_, width, _)| *width).max(), Some(all));
    let mut rows: HashMap<&str, u64> = HashMap::new();
    for (start, width, row) in &rectangles {
        assert!(start + width <= all);
        *rows.entry(row).or_default() += width;
    }
    // No row is wider than all of it, and `main`, above the root, is as wide.
    assert!(rows.values().all(|width| *width <= all), "{rows:?}");
    assert!(rows.values().filter(|width| **width == all).count() >= 2, "{rows:?}");
    assert!(death.text(&["--flamegraph", "-"]) == svg, "the same picture again");
}

/// A message of protocol buffers: field numbers with numbers, or with bytes.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().expect("whole");
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    number
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            2 => {
                let len = varint(&mut bytes) as usize;
                let (content, rest) = bytes.split_at(len);
                bytes = rest;
                Field::Bytes(content)
            }
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

fn numbers(field: &Field<'_>) -> Vec<u64> {
    match *field {
        Field::Number(number) => vec![number],
        Field::Bytes(mut packed) => {
            let mut numbers = Vec::new();
            while !packed.is_empty() {
                numbers.push(varint(&mut packed));
            }
            numbers
        }
    }
}

fn messages<'a>(fields: &'a [(u64, Field<'a>)], number: u64) -> Vec<&'a [u8]> {
    let of_that_number = fields.iter().filter(|(found, _)| *found == number);
    of_that_number
        .map(|(_, field)| match field {
            Field::Bytes(bytes) => *bytes,
            Field::Number(_) => panic!("field {number} is a number"),
        })
        .collect()
}

fn number(fields: &[(u64, Field<'_>)], wanted: u64) -> u64 {
    let found = fields.iter().find(|(found, _)| *found == wanted);
    found.map_or(0, |(_, field)| numbers(field)[0])
}

#[test]
fn a_pprof_profile_holds_the_same_sites_with_their_functions() {
    let death = Death::of(&RELEASE);
    let output = report(&death.report_file(), &["--pprof", "-"]);
    let mut bytes = Vec::new();
    GzDecoder::new(&output.stdout[..]).read_to_end(&mut bytes).unwrap();
    let profile = fields(&bytes);
    let texts: Vec<&str> =
        messages(&profile, 6).into_iter().map(|text| std::str::from_utf8(text).unwrap()).collect();
    assert_eq!(texts[0], "");
    let types: Vec<(&str, &str)> = messages(&profile, 1)
        .into_iter()
        .map(fields)
        .map(|kind| (texts[number(&kind, 1) as usize], texts[number(&kind, 2) as usize]))
        .collect();
    let expected = [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ];
    assert_eq!(types, expected);
    assert_eq!(texts[number(&profile, 14) as usize], "inuse_space");
    assert_eq!(number(&profile, 12), 8192, "the period");
    let functions: HashMap<u64, &str> = messages(&profile, 5)
        .into_iter()
        .map(fields)
        .map(|function| (number(&function, 1), texts[number(&function, 2) as usize]))
        .collect();
    let locations: HashMap<u64, Vec<&str>> = messages(&profile, 4)
        .into_iter()
        .map(fields)
        .map(|location| {
            let lines = messages(&location, 4).into_iter().map(fields);
            (number(&location, 1), lines.map(|line| functions[&number(&line, 1)]).collect())
        })
        .collect();
    let json = death.json(&[]);
    let mappings: Vec<_> = messages(&profile, 3).into_iter().map(fields).collect();
    assert_eq!(mappings.len(), json["modules"].as_array().unwrap().len());
    assert_eq!(texts[number(&mappings[0], 6) as usize], json["modules"][0]["build_id"]);
    let samples: Vec<_> = messages(&profile, 2).into_iter().map(fields).collect();
    assert_eq!(samples.len(), json["sites"].as_array().unwrap().len());
    for (sample, site) in samples.iter().zip(json["sites"].as_array().unwrap()) {
        let (_, values) = sample.iter().find(|(number, _)| *number == 2).unwrap();
        let values = numbers(values);
        assert_eq!(
            (values[1], values[3]),
            (site["total_bytes"].as_u64().unwrap(), site["live_bytes"].as_u64().unwrap())
        );
        assert!(
            values[0] <= values[1] && values[2] <= values[3],
            "an object has a byte at least: {values:?}"
        );
    }
    // The largest one: from the function that wanted memory to `main`.
    let (_, stack) = samples[0].iter().find(|(number, _)| *number == 1).unwrap();
    let names: Vec<&str> = numbers(stack).iter().flat_map(|id| locations[id].iter().copied()).collect();
    assert!(names[0].contains("add_words") && names.last() == Some(&"postmortem::main"), "{names:?}");
}

#[test]
fn files_are_written_whole_or_not_at_all() {
    let death = Death::of(&DEBUG);
    let svg = death.path("out.svg");
    fs::write(&svg, "what was there").unwrap();
    let text = death.text(&["--flamegraph", svg.to_str().unwrap()]);
    assert!(text.contains("Who held it"), "the screen as well: {text}");
    assert!(fs::read_to_string(&svg).unwrap().starts_with("<?xml"));
    let before = fs::read_dir(death.directory.path()).unwrap().count();
    let nowhere = death.path("none/out.svg");
    let output = report(&death.report_file(), &["--flamegraph", nowhere.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none/out.svg"));
    assert_eq!(fs::read_dir(death.directory.path()).unwrap().count(), before, "nothing half done is left");
}

#[test]
fn a_pipe_gets_what_is_written_and_stays_a_pipe() {
    let death = Death::of(&DEBUG);
    // A pipe of the test's own: what would replace it by mistake replaces nothing of the system's.
    let pipe = death.path("pipe");
    make_pipe(&pipe);
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    death.text(&["--folded", pipe.to_str().unwrap()]);
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    assert_eq!(reader.join().unwrap(), death.text(&["--folded", "-"]).into_bytes());
}

#[test]
fn json_has_its_documented_keys() {
    let json = Death::of(&DEBUG).json(&[]);
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "pid",
        "program",
        "report",
        "death",
        "limit",
        "live_bytes",
        "peak_bytes",
        "sampling_distance",
        "samples",
        "sampled_bytes",
        "sites",
        "last_refusal",
        "timeline",
        "modules",
        "method",
        "lost",
    ];
    assert_eq!(keys, expected);
    assert_eq!(json["limit"], 40 << 20);
    assert!(json["timeline"].as_array().unwrap().len() > 1);
    assert!(json["last_refusal"]["stack"].as_array().is_some_and(|stack| !stack.is_empty()));
}
