//! The profile in the format of pprof (github.com/google/pprof, proto/profile.proto): the message types that are
//! written, and what they are filled with. The sample types are those of heap profiles of Go.

use super::death::Death;
use super::stacks::{Stacks, range_of_program};
use flate2::Compression;
use flate2::write::GzEncoder;
use oomguard::supervisor::symbols::{Detail, Function as Named, Place};
use oomguard::supervisor::{Module, Site};
use prost::Message;
use std::collections::HashMap;
use std::hash::Hash;
use std::io::Write;

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    /// Every text is an index into these; the first one is empty.
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    /// Innermost first.
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(int64, tag = "6")]
    build_id: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    /// Innermost first.
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// Compressed with gzip, as pprof wants it.
pub fn of(death: &Death, stacks: &mut Stacks<'_>) -> Vec<u8> {
    let bytes = profile(death, stacks).encode_to_vec();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Memory refuses no write.
    let _ = encoder.write_all(&bytes);
    encoder.finish().unwrap_or_default()
}

/// Things that are told apart by a key, and numbered from one.
struct Numbered<K> {
    numbers: HashMap<K, u64>,
}

impl<K: Hash + Eq> Numbered<K> {
    fn new() -> Numbered<K> {
        Numbered { numbers: HashMap::new() }
    }

    /// The key's number, and whether it is new.
    fn number(&mut self, key: K) -> (u64, bool) {
        let next = self.numbers.len() as u64 + 1;
        let number = *self.numbers.entry(key).or_insert(next);
        (number, number == next)
    }
}

struct Writer {
    message: Profile,
    texts: Numbered<String>,
    functions: Numbered<(i64, i64)>,
    /// An address, and how many of the functions inlined there are the allocator's, or what runs before `main`.
    locations: Numbered<(u64, usize, usize)>,
}

fn profile(death: &Death, stacks: &mut Stacks<'_>) -> Profile {
    let mut writer = Writer {
        message: Profile { string_table: vec![String::new()], ..Profile::default() },
        texts: Numbered::new(),
        functions: Numbered::new(),
        locations: Numbered::new(),
    };
    let profile = stacks.profile;
    let types = [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ];
    for (kind, unit) in types {
        let value_type = writer.value_type(kind, unit);
        writer.message.sample_type.push(value_type);
    }
    writer.message.default_sample_type = writer.text("inuse_space");
    writer.message.period_type = Some(writer.value_type("space", "bytes"));
    writer.message.period = signed(profile.sampling_distance);
    let end = profile.timeline.last().map_or(0, |moment| moment.at.as_nanos());
    writer.message.duration_nanos = i64::try_from(end).unwrap_or(i64::MAX);
    let comment = writer.text(&format!("oomguard: {}", death.headline()));
    writer.message.comment.push(comment);
    for (index, module) in profile.modules.iter().enumerate() {
        let detail = stacks.names_of(module).detail;
        writer.mapping(index, module, detail);
    }
    for site in &profile.sites {
        writer.sample(site, stacks);
    }
    writer.message
}

impl Writer {
    fn text(&mut self, text: &str) -> i64 {
        if text.is_empty() {
            return 0;
        }
        let (number, is_new) = self.texts.number(text.to_owned());
        if is_new {
            self.message.string_table.push(text.to_owned());
        }
        signed(number)
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> ValueType {
        ValueType { kind: self.text(kind), unit: self.text(unit) }
    }

    fn mapping(&mut self, index: usize, module: &Module, detail: Detail) {
        let path = module.path.as_ref().map_or_else(|| "?".into(), |path| path.to_string_lossy());
        let (filename, build_id) =
            (self.text(&path), self.text(super::hexadecimal(&module.build_id).as_deref().unwrap_or("")));
        let has_lines = detail == Detail::Lines;
        self.message.mapping.push(Mapping {
            id: index as u64 + 1,
            memory_start: module.start,
            memory_limit: module.end,
            filename,
            build_id,
            has_functions: detail > Detail::Nothing,
            has_filenames: has_lines,
            has_line_numbers: has_lines,
            has_inline_frames: has_lines,
        });
    }

    fn sample(&mut self, site: &Site, stacks: &mut Stacks<'_>) {
        let lines = stacks.lines(&site.frames);
        let wanted = range_of_program(&lines);
        let mut location_id = Vec::new();
        let mut at = 0;
        for address in &site.frames {
            let place = stacks.place(*address);
            // A place without names is one line.
            let here = at..at + place.functions.len().max(1);
            at = here.end;
            let (first, last) = (wanted.start.max(here.start), wanted.end.min(here.end));
            if first < last {
                location_id.push(self.location(&place, first - here.start, here.end - last));
            }
        }
        let distance = stacks.profile.sampling_distance;
        let value = vec![
            signed(objects(site.total_bytes, site.total_samples, distance)),
            signed(site.total_bytes),
            signed(objects(site.live_bytes, site.live_samples, distance)),
            signed(site.live_bytes),
        ];
        self.message.sample.push(Sample { location_id, value });
    }

    /// A place without so many of its functions at the inner and at the outer end.
    fn location(&mut self, place: &Place, inner: usize, outer: usize) -> u64 {
        let (id, is_new) = self.locations.number((place.address, inner, outer));
        if is_new {
            let last = place.functions.len().saturating_sub(outer);
            let functions = place.functions.get(inner..last).unwrap_or(&[]);
            let line = functions.iter().map(|function| self.line(function)).collect();
            let mapping_id = place.module.map_or(0, |index| index as u64 + 1);
            // Of the call, not of what it returns to.
            let address = place.address.saturating_sub(1);
            self.message.location.push(Location { id, mapping_id, address, line });
        }
        id
    }

    fn line(&mut self, function: &Named) -> Line {
        let name = self.text(function.name.as_deref().unwrap_or("?"));
        let filename = self.text(function.file.as_deref().unwrap_or(""));
        let (id, is_new) = self.functions.number((name, filename));
        if is_new {
            // Another system name than the name tells pprof that the name is to stay as it is.
            self.message.function.push(Function { id, name, system_name: 0, filename });
        }
        Line { function_id: id, line: function.line.map_or(0, i64::from) }
    }
}

/// How many allocations so many bytes were. A sample of an allocation of `s` bytes stands for s / (1 - exp(-s / d)) bytes,
/// so that what the samples stand for on average gives the size; exact where all were of one size.
fn objects(bytes: u64, samples: u64, distance: u64) -> u64 {
    if samples == 0 {
        return 0;
    }
    let (mean, distance) = (bytes as f64 / samples as f64, distance as f64);
    // Rises with the size: halving finds it.
    let stands_for = |size: f64| size / -(-size / distance).exp_m1();
    let (mut low, mut high) = (0.0, mean);
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        if stands_for(middle) < mean { low = middle } else { high = middle }
    }
    (bytes as f64 / high.max(1.0)).round() as u64
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::objects;

    #[test]
    fn the_number_of_allocations_follows_from_what_a_sample_stands_for() {
        let distance = 512 << 10;
        for size in [16.0f64, 1000.0, 32768.0, 524_288.0, 1e7] {
            let stands_for = (size / -(-size / distance as f64).exp_m1()).round() as u64;
            let found = objects(stands_for * 100, 100, distance);
            let expected = stands_for as f64 * 100.0 / size;
            // What a sample stands for is a whole number.
            let tolerance = expected * (0.02 + 2.0 / size);
            assert!((found as f64 - expected).abs() <= tolerance, "{size}: {found} for {expected}");
        }
        assert_eq!(objects(0, 0, distance), 0);
        assert_eq!(objects(100, 0, 0), 0);
        assert!(objects(u64::MAX, 1, 1) > 0 || objects(1, u64::MAX, u64::MAX) < u64::MAX);
    }
}
