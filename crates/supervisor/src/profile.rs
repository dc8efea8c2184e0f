//! The parent's side of the tables: a copy is read, and nothing in it is trusted. Lengths are clamped, what does not
//! fit together is left out, and every number is a claim of the profiled process about itself.

use oomguard_core::profile::{
    BUILD_ID_MAX_BYTES, COARSE_MOMENTS, FINE_MOMENTS, LAYOUT, Loss, MAGIC, MAX_FRAMES, MAX_MODULES,
    MODULE_WORDS, MOMENT_WORDS, PATH_MAX_BYTES, PROFILE_BYTES, SITE_WORDS, SITES, STACK_WORDS, at, site,
};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which code held the memory of a process, as it stood when the process died, or when it was looked at.
///
/// It is a sample: of each 512 KiB allocated (or as much as `OOMGUARD_PROFILE` says) one allocation is met in the mean,
/// and stands for what lies around it, so that sums are right on average. A site with a hundred live samples is
/// within a tenth of its true size two times in three.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Profile {
    /// The process, as it knew itself.
    pub pid: u32,
    /// The mean distance between two samples, in allocated bytes.
    pub sampling_distance: u64,
    /// Bytes live, counted, not sampled: of each thread, up to 64 KiB allocated and 512 KiB released have not been told.
    pub live_bytes: u64,
    /// The most that was ever live.
    pub peak_bytes: u64,
    /// How many samples were taken in all.
    pub samples: u64,
    /// Where live memory was allocated, most bytes first. Sites of which nothing is live are there, too.
    pub sites: Vec<Site>,
    /// The program and its libraries, in the order in which they were met.
    pub modules: Vec<Module>,
    /// How much was live when: the last five seconds finely, the last eight minutes coarsely, in the order of time.
    pub timeline: Vec<Moment>,
    /// What was asked for, and from where, when the program was refused last.
    pub last_refusal: Option<(u64, Vec<u64>)>,
    /// How the stacks were found.
    pub method: Method,
    /// What is missing.
    pub lost: Lost,
}

/// A place in the code that allocates: a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Site {
    /// Return addresses, from the allocation outwards. Empty for what could not be told apart any more.
    pub frames: Vec<u64>,
    /// How many bytes of it are live, estimated.
    pub live_bytes: u64,
    /// How many live samples that rests on.
    pub live_samples: u64,
    /// How many bytes were ever allocated there, estimated.
    pub total_bytes: u64,
    /// How many samples that rests on.
    pub total_samples: u64,
}

/// A loaded file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Module {
    /// Its file; `None` where the path was too long to be kept.
    pub path: Option<PathBuf>,
    /// The address of its first byte.
    pub start: u64,
    /// The address behind its last byte.
    pub end: u64,
    /// By how many bytes it was moved: an address in the process less this is the file's own.
    pub bias: u64,
    /// The linker's build-id; empty where it has none.
    pub build_id: Vec<u8>,
}

/// How much was live at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moment {
    /// The time since the profile began.
    pub at: Duration,
    /// How many bytes were live.
    pub live_bytes: u64,
}

/// How stacks were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Method {
    /// How many steps were taken by the files' unwind tables: exact.
    pub frames_by_table: u64,
    /// How many were taken by frame pointers, where there was no table: code that does not keep them is skipped, or ends the stack.
    pub frames_by_pointer: u64,
    /// How many stacks went on beyond the 48 frames that are kept.
    pub stacks_cut: u64,
}

/// What is missing in a profile: how many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// Samples whose release could not have been noticed, as more were live than the 32 768 that there is room for.
    pub live_samples: u64,
    /// The bytes that those stood for.
    pub live_bytes: u64,
    /// Samples that share the site without a stack, as there was no room for their own.
    pub without_site: u64,
    /// Sites whose stack found no room.
    pub without_frames: u64,
    /// Times that a thread was interrupted in the profiler's own work and allocated.
    pub nested: u64,
    /// Loaded files that found no room.
    pub modules: u64,
}

impl Profile {
    /// Reads the profiles that processes without a supervisor left beside their report: `REPORT.profile`, oldest first.
    ///
    /// # Errors
    /// Those of opening and reading the file.
    pub fn read_file(path: impl AsRef<Path>) -> io::Result<Vec<Profile>> {
        let mut file = File::open(path)?;
        let mut profiles = Vec::new();
        // A file that something else wrote, or whose last profile was cut off, may hold anything: one begins where its
        // first word is.
        let mut window = vec![0; PROFILE_BYTES];
        let mut at = 0;
        loop {
            file.seek(SeekFrom::Start(at))?;
            let len = read_up_to(&mut file, &mut window)?;
            if len < 8 {
                return Ok(profiles);
            }
            let copy = window.get(..len).unwrap_or(&[]);
            let step = match (next_magic(copy, 0), Profile::parse(copy)) {
                (Some(0), Some(profile)) => {
                    profiles.push(profile);
                    next_magic(copy, 1).unwrap_or(len)
                }
                (Some(0), None) => 1,
                (Some(before), _) => before,
                // Its first bytes may be the last of these.
                (None, _) => len - 7,
            };
            at += step as u64;
        }
    }

    /// Reads a copy of the tables; what is missing at its end counts as zero. `None`: it is none.
    pub(crate) fn parse(copy: &[u8]) -> Option<Profile> {
        let copy = Copied(copy);
        if copy.word(at::MAGIC) != MAGIC || copy.word(at::LAYOUT) != LAYOUT {
            return None;
        }
        let loss = |loss: Loss| copy.word(at::LOST + loss as usize);
        let mut sites: Vec<Site> = (0..=SITES).filter_map(|index| copy.site(index)).collect();
        sites.sort_by(|a, b| {
            (b.live_bytes, b.total_bytes, &a.frames).cmp(&(a.live_bytes, a.total_bytes, &b.frames))
        });
        Some(Profile {
            pid: u32::try_from(copy.word(at::PID)).ok()?,
            sampling_distance: copy.word(at::DISTANCE).max(1),
            live_bytes: not_negative(copy.word(at::LIVE)),
            peak_bytes: not_negative(copy.word(at::PEAK)),
            samples: copy.word(at::SAMPLES),
            sites,
            modules: copy.modules(),
            timeline: copy.timeline(),
            last_refusal: copy.last_refusal(),
            method: Method {
                frames_by_table: copy.word(at::FRAMES_BY_TABLE),
                frames_by_pointer: copy.word(at::FRAMES_BY_POINTER),
                stacks_cut: copy.word(at::STACKS_CUT),
            },
            lost: Lost {
                live_samples: loss(Loss::LiveSamples),
                live_bytes: loss(Loss::LiveBytes),
                without_site: loss(Loss::Sites),
                without_frames: loss(Loss::Frames),
                nested: loss(Loss::Nested),
                modules: loss(Loss::Modules),
            },
        })
    }

    /// What all sites together hold, estimated: near [`live_bytes`](Profile::live_bytes), if nothing was lost.
    pub fn sampled_bytes(&self) -> u64 {
        self.sites.iter().fold(0, |sum, site| sum.saturating_add(site.live_bytes))
    }

    /// The share of a site in what is live, from 0 to 1.
    pub fn share(&self, site: &Site) -> f64 {
        match self.sampled_bytes() {
            0 => 0.0,
            all => site.live_bytes as f64 / all as f64,
        }
    }

    /// The file that an address was in.
    pub fn module_of(&self, address: u64) -> Option<&Module> {
        self.modules.get(self.module_index_of(address)?)
    }

    /// Returns where that stands among [`modules`](Profile::modules).
    pub fn module_index_of(&self, address: u64) -> Option<usize> {
        // The last one: what was there before it was unloaded.
        self.modules.iter().rposition(|module| (module.start..module.end).contains(&address))
    }
}

impl Site {
    fn is_used(&self) -> bool {
        self.total_samples > 0 || self.live_samples > 0
    }
}

/// Where a profile begins at `from` or behind it: within another one, if that was not written to its end.
fn next_magic(copy: &[u8], from: usize) -> Option<usize> {
    let after = copy.get(from..)?;
    after.windows(8).position(|word| word == MAGIC.to_ne_bytes()).map(|at| at + from)
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(got) => len += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// A sum that two threads were in the midst of changing may be below zero for a moment.
fn not_negative(word: u64) -> u64 {
    u64::try_from(word as i64).unwrap_or(0)
}

struct Copied<'a>(&'a [u8]);

impl Copied<'_> {
    fn word(&self, index: usize) -> u64 {
        let bytes = self.0.get(index * 8..).and_then(|rest| rest.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    fn words(&self, from: usize, count: usize) -> Vec<u64> {
        (from..from + count).map(|index| self.word(index)).collect()
    }

    fn site(&self, index: usize) -> Option<Site> {
        let field = |field: usize| self.word(at::SITE + index * SITE_WORDS + field);
        let (start, len) = match field(site::STACK).checked_sub(1) {
            Some(packed) => ((packed >> 8) as usize, (packed & 0xff) as usize),
            None => (0, 0),
        };
        let fits = len <= MAX_FRAMES && start.saturating_add(len) <= STACK_WORDS;
        let site = Site {
            frames: if fits { self.words(at::STACK + start, len) } else { Vec::new() },
            live_bytes: not_negative(field(site::LIVE_BYTES)),
            live_samples: not_negative(field(site::LIVE_SAMPLES)),
            total_bytes: field(site::TOTAL_BYTES),
            total_samples: field(site::TOTAL_SAMPLES),
        };
        site.is_used().then_some(site)
    }

    fn modules(&self) -> Vec<Module> {
        let count = usize::try_from(self.word(at::MODULES)).unwrap_or(MAX_MODULES).min(MAX_MODULES);
        let modules = (0..count).map(|index| {
            let at = at::MODULE + index * MODULE_WORDS;
            Module {
                path: self.bytes(at + 8, PATH_MAX_BYTES).map(path_from),
                start: self.word(at),
                end: self.word(at + 1),
                bias: self.word(at + 2),
                build_id: self.bytes(at + 3, BUILD_ID_MAX_BYTES).unwrap_or_default(),
            }
        });
        modules.filter(|module| module.start < module.end).collect()
    }

    /// `None` where they were too long to be kept.
    fn bytes(&self, at: usize, most: usize) -> Option<Vec<u8>> {
        let len = usize::try_from(self.word(at).checked_sub(1)?).ok().filter(|len| *len <= most)?;
        self.0.get((at + 1) * 8..(at + 1) * 8 + len).map(<[u8]>::to_vec)
    }

    fn timeline(&self) -> Vec<Moment> {
        let start = self.word(at::START_MS);
        let ring = |ring: usize, moments: usize| {
            (0..moments).filter_map(move |index| {
                let at = ring + index * MOMENT_WORDS;
                let since = self.word(at).checked_sub(1)?.checked_sub(start)?;
                Some(Moment { at: Duration::from_millis(since), live_bytes: self.word(at + 1) })
            })
        };
        let mut fine: Vec<Moment> = ring(at::FINE, FINE_MOMENTS).collect();
        let began = fine.iter().map(|moment| moment.at).min().unwrap_or(Duration::MAX);
        // Where both know a time, the fine one does.
        fine.extend(ring(at::COARSE, COARSE_MOMENTS).filter(|moment| moment.at < began));
        fine.sort_by_key(|moment| moment.at);
        let ended = match self.word(at::END_MS) {
            0 => None,
            end => end.checked_sub(start).map(Duration::from_millis),
        };
        // A coarse clock may show the end where it showed the last moment, but not before.
        if let Some(at) = ended.filter(|end| fine.last().is_none_or(|last| last.at <= *end)) {
            fine.push(Moment { at, live_bytes: not_negative(self.word(at::LIVE)) });
        }
        fine
    }

    fn last_refusal(&self) -> Option<(u64, Vec<u64>)> {
        let len = usize::try_from(self.word(at::REFUSED_FRAMES).checked_sub(1)?).ok()?;
        Some((self.word(at::REFUSED_BYTES), self.words(at::REFUSED, len.min(MAX_FRAMES))))
    }
}

fn path_from(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oomguard_core::profile::{ModuleFacts, Tables, WORDS};
    use std::sync::atomic::{AtomicU64, Ordering};

    fn fresh() -> Box<Tables> {
        let words: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let words: Box<[AtomicU64; WORDS]> = words.into_boxed_slice().try_into().expect("as many words");
        // The same layout: the only field.
        Box::new(Tables { words: *words })
    }

    fn copy(tables: &Tables) -> Vec<u8> {
        // Relaxed: written by this thread.
        tables.words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect()
    }

    fn read(tables: &Tables) -> Profile {
        Profile::parse(&copy(tables)).expect("a profile")
    }

    /// Two sites, a module, a loss and a refusal.
    fn filled() -> Box<Tables> {
        let tables = fresh();
        tables.begin(7, 512 << 10, 1000);
        let path = [b'p'; 300];
        for (start, path) in [(0x1000u64, b"/bin/worker".as_slice()), (0x9000, &path)] {
            let facts =
                ModuleFacts { start, end: start + 0x1000, bias: start - 0x1000, build_id: &[0xab; 20], path };
            tables.add_module(&facts);
        }
        let (one, two) = (tables.site_of(&[0x1010, 0x1020, 0x1030]), tables.site_of(&[0x1010, 0x1020]));
        assert_ne!(one, two);
        for (site, bytes) in [(one, 600 << 10), (two, 700 << 10), (one, 600 << 10), (two, 800 << 10)] {
            tables.note_sampled(site, bytes);
            tables.note_live(site, bytes);
        }
        tables.note_freed(two, 800 << 10);
        assert_eq!(tables.add_live(2 << 20), 2 << 20);
        tables.note_moment(1000, 0);
        tables.note_moment(1005, 1);
        tables.note_moment(1010, 1 << 20);
        tables.note_moment(3000, 2 << 20);
        tables.note_walk(5, 1, true);
        tables.note_loss(Loss::Nested, 3);
        tables.note_refused(4096, &[0x1011, 0x1022]);
        tables.end(3010);
        tables
    }

    #[test]
    fn what_the_process_writes_the_parent_reads() {
        let profile = read(&filled());
        assert_eq!((profile.pid, profile.sampling_distance, profile.samples), (7, 512 << 10, 4));
        let [first, second] = &profile.sites[..] else { panic!("{profile:#?}") };
        assert_eq!((first.frames.as_slice(), first.live_bytes), (&[0x1010, 0x1020, 0x1030][..], 1200 << 10));
        assert_eq!((first.live_samples, first.total_samples), (2, 2));
        assert_eq!((second.frames.as_slice(), second.live_bytes), (&[0x1010, 0x1020][..], 700 << 10));
        assert_eq!((second.live_samples, second.total_bytes), (1, 1500 << 10));
        assert!((profile.share(first) - 12.0 / 19.0).abs() < 1e-9);
        assert_eq!(profile.module_of(0x1010).unwrap().path.as_deref(), Some(Path::new("/bin/worker")));
        assert_eq!(profile.module_of(0x1010).unwrap().build_id, [0xab; 20]);
        assert_eq!(
            (profile.module_of(0x9001).unwrap().path.clone(), profile.module_of(0x8fff)),
            (None, None)
        );
        let moments: Vec<_> = profile.timeline.iter().map(|at| (at.at.as_millis(), at.live_bytes)).collect();
        assert_eq!(moments, [(0, 0), (10, 1 << 20), (2000, 2 << 20), (2010, 2 << 20)]);
        assert_eq!(profile.last_refusal, Some((4096, vec![0x1011, 0x1022])));
        assert_eq!((profile.lost.nested, profile.method.stacks_cut), (3, 1));
        assert_eq!((profile.live_bytes, profile.peak_bytes), (2 << 20, 2 << 20));
    }

    #[test]
    fn a_stack_has_one_site_and_full_tables_share_the_last() {
        let tables = fresh();
        tables.begin(7, 1, 1);
        assert_eq!(tables.site_of(&[1, 2]), tables.site_of(&[1, 2]));
        for stack in 0..20_000u64 {
            let site = tables.site_of(&[
                stack,
                stack + 1,
                stack + 2,
                4,
                5,
                6,
                7,
                8,
                9,
                10,
                11,
                12,
                13,
                14,
                15,
                16,
                17,
                18,
            ]);
            tables.note_sampled(site, 10);
            tables.note_live(site, 10);
        }
        let profile = read(&tables);
        assert_eq!(profile.sampled_bytes(), 200_000, "nothing is forgotten");
        assert!(profile.sites.len() > 3000 && profile.lost.without_site > 10_000, "{:?}", profile.lost);
        let without_stack: u64 =
            profile.sites.iter().filter(|site| site.frames.is_empty()).map(|site| site.live_samples).sum();
        assert!(without_stack >= profile.lost.without_site, "{without_stack}");
        assert!(profile.lost.without_frames > 0);
    }

    #[test]
    fn rings_keep_the_latest() {
        let tables = fresh();
        tables.begin(7, 1, 0);
        for ms in 0..600_000 {
            tables.note_moment(ms, ms);
        }
        let profile = read(&tables);
        assert!(profile.timeline.iter().all(|moment| moment.at.as_millis() as u64 == moment.live_bytes));
        let spans =
            profile.timeline.first().unwrap().at.as_secs()..=profile.timeline.last().unwrap().at.as_secs();
        assert!(*spans.start() <= 600 - 500 && *spans.end() == 599, "{spans:?}");
        assert!(profile.timeline.is_sorted_by_key(|moment| moment.at));
    }

    #[test]
    fn what_is_no_profile_says_nothing() {
        assert!(Profile::parse(&[]).is_none());
        assert!(Profile::parse(&vec![0; PROFILE_BYTES]).is_none());
        assert!(Profile::parse(&vec![0xff; PROFILE_BYTES]).is_none());
        assert!(Profile::parse(&copy(&fresh())).is_none());
    }

    #[test]
    fn hostile_tables_are_clamped_and_never_panic() {
        // xorshift: the same tables every time.
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let good = filled();
        for round in 0..60 {
            let mut bytes = copy(&good);
            for word in bytes.chunks_exact_mut(8).skip(4) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                if round % 2 == 0 || random & 7 == 0 {
                    let value = if random & 16 == 0 { random % 300 } else { random };
                    word.copy_from_slice(&value.to_ne_bytes());
                }
            }
            let profile = Profile::parse(&bytes).expect("still a profile");
            assert!(profile.sites.len() <= SITES + 1 && profile.modules.len() <= MAX_MODULES);
            for site in &profile.sites {
                assert!(site.frames.len() <= MAX_FRAMES);
                assert!((0.0..=1.0).contains(&profile.share(site)));
                assert!(
                    site.frames.iter().filter_map(|frame| profile.module_of(*frame)).count() <= MAX_FRAMES
                );
            }
            assert!(profile.timeline.len() <= FINE_MOMENTS + COARSE_MOMENTS + 1);
            assert!(profile.timeline.is_sorted_by_key(|moment| moment.at));
        }
    }

    #[test]
    fn a_file_is_read_whatever_else_is_in_it() {
        let whole = copy(&filled());
        let mut content = b"something else".to_vec();
        content.extend_from_slice(&whole);
        // Cut off, as where the disk was full.
        content.extend_from_slice(&whole[..70_003]);
        content.extend_from_slice(&whole);
        content.extend_from_slice(&MAGIC.to_ne_bytes());
        let path = std::env::temp_dir().join(format!("oomguard-profiles-{}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        let profiles = Profile::read_file(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(profiles.len(), 3);
        for profile in &profiles {
            assert_eq!((profile.pid, profile.modules.len()), (7, 2));
        }
        assert_eq!((profiles[0].sites.len(), profiles[2].sites.len()), (2, 2));
    }
}
