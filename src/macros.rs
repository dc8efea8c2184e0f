//! `guard!`: reads its keys one by one into a constant.

/// Guards the program. Put it into `main.rs`, outside `fn main`.
///
/// It defines the `#[global_allocator]`, and sets the process's own memory limit before `main`. A refused allocation
/// that the program does not survive ends in a report on stderr and exit code 198; `try_reserve` keeps working.
///
/// ```
/// oomguard::guard!();
/// # fn main() {}
/// ```
///
/// Keys may come in any order, each at most once; a wrong literal does not compile. The environment overrides them.
///
/// | key | value | default | overridden by |
/// |---|---|---|---|
/// | `limit` | a [`Limit`](crate::Limit) as text: a literal, a constant or `env!(…)` | `"auto"` | `OOMGUARD_LIMIT` |
/// | `measure` | `address_space`, `data` or `resident`: see [`Measure`](crate::Measure) | `address_space` | `OOMGUARD_MEASURE` |
/// | `exit_code` | 1–255; any constant | 198 | `OOMGUARD_EXIT_CODE` |
/// | `reserve` | a size as text, likewise: what is kept back for [last words](crate::on_exhausted) | `"4Mi"` | `OOMGUARD_RESERVE` |
/// | `on_refusal` | `deferred`, `immediate` or `immediate_threads` | `deferred` | `OOMGUARD_ON_REFUSAL` |
/// | `profile` | `on`, `off` or a size: one sample of the live allocations per so many bytes | not compiled in | `OOMGUARD_PROFILE` |
/// | `allocator` | the path of a unit-struct allocator, or `allocator: Type = value` | `std::alloc::System` | – |
///
/// ```
/// oomguard::guard!(
///     limit = "80%", measure = data, exit_code = 198, reserve = "8MiB",
///     on_refusal = deferred, allocator = std::alloc::System
/// );
/// # fn main() {}
/// ```
///
/// An allocator that is made from something, with the same settings:
///
/// ```
/// # use std::alloc::{GlobalAlloc, Layout, System};
/// # struct Tagged { inner: System, tag: u8 }
/// # impl Tagged { const fn new(tag: u8) -> Tagged { Tagged { inner: System, tag } } }
/// # unsafe impl GlobalAlloc for Tagged {
/// #     unsafe fn alloc(&self, layout: Layout) -> *mut u8 { unsafe { self.inner.alloc(layout) } }
/// #     unsafe fn dealloc(&self, block: *mut u8, layout: Layout) { unsafe { self.inner.dealloc(block, layout) } }
/// # }
/// oomguard::guard!(limit = "80%", allocator: Tagged = Tagged::new(7));
/// # fn main() {}
/// ```
///
/// ```compile_fail
/// oomguard::guard!(limit = "512 megabytes");
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! guard {
    ($($keys:tt)*) => {
        $crate::__guard_keys! {
            limit [] measure [] exit_code [] reserve [] on_refusal [] profile [] allocator []
            $($keys)*
        }
    };
}

/// One step of [`guard!`]: moves the first key's value into its slot.
#[doc(hidden)]
#[macro_export]
macro_rules! __guard_keys {
    (limit [] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [$($p:tt)*] allocator [$($a:tt)*]
     limit = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [.limit($value)] measure [$($m)*] exit_code [$($e)*] reserve [$($r)*]
            on_refusal [$($o)*] profile [$($p)*] allocator [$($a)*] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [$($p:tt)*] allocator [$($a:tt)*]
     measure = data $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [.measure($crate::Measure::Data)] exit_code [$($e)*]
            reserve [$($r)*] on_refusal [$($o)*] profile [$($p)*] allocator [$($a)*] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [$($p:tt)*] allocator [$($a:tt)*]
     measure = resident $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [.measure($crate::Measure::Resident)] exit_code [$($e)*]
            reserve [$($r)*] on_refusal [$($o)*] profile [$($p)*] allocator [$($a)*] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [$($p:tt)*] allocator [$($a:tt)*]
     measure = address_space $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [.measure($crate::Measure::AddressSpace)] exit_code [$($e)*]
            reserve [$($r)*] on_refusal [$($o)*] profile [$($p)*] allocator [$($a)*] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [$($p:tt)*] allocator [$($a:tt)*]
     exit_code = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [$($m)*] exit_code [.exit_code($value as i128)] reserve [$($r)*]
            on_refusal [$($o)*] profile [$($p)*] allocator [$($a)*] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [] on_refusal [$($o:tt)*]
     profile [$($p:tt)*] allocator [$($a:tt)*]
     reserve = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [$($m)*] exit_code [$($e)*] reserve [.reserve($value)]
            on_refusal [$($o)*] profile [$($p)*] allocator [$($a)*] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal []
     profile [$($p:tt)*] allocator [$($a:tt)*]
     on_refusal = deferred $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [$($m)*] exit_code [$($e)*] reserve [$($r)*]
            on_refusal [.on_refusal($crate::OnRefusal::Deferred)] profile [$($p)*] allocator [$($a)*] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal []
     profile [$($p:tt)*] allocator [$($a:tt)*]
     on_refusal = immediate_threads $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [$($m)*] exit_code [$($e)*] reserve [$($r)*]
            on_refusal [.immediate_threads()] profile [$($p)*] allocator [$($a)*] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal []
     profile [$($p:tt)*] allocator [$($a:tt)*]
     on_refusal = immediate $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [$($m)*] exit_code [$($e)*] reserve [$($r)*]
            on_refusal [.on_refusal($crate::OnRefusal::Immediate)] profile [$($p)*] allocator [$($a)*] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [] allocator [$($a:tt)*]
     profile = on $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [$($m)*] exit_code [$($e)*] reserve [$($r)*]
            on_refusal [$($o)*] profile [.profile($crate::__private::Profile::On(::core::option::Option::None))]
            allocator [$($a)*] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [] allocator [$($a:tt)*]
     profile = off $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [$($m)*] exit_code [$($e)*] reserve [$($r)*]
            on_refusal [$($o)*] profile [.profile($crate::__private::Profile::Off)] allocator [$($a)*] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [] allocator [$($a:tt)*]
     profile = $value:literal $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [$($m)*] exit_code [$($e)*] reserve [$($r)*]
            on_refusal [$($o)*] profile [.profile_every($value)] allocator [$($a)*] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [$($p:tt)*] allocator []
     allocator = $value:path $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [$($m)*] exit_code [$($e)*] reserve [$($r)*]
            on_refusal [$($o)*] profile [$($p)*] allocator [{$value} {$value}] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [$($p:tt)*] allocator []
     allocator: $type:ty = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__guard_keys! { limit [$($l)*] measure [$($m)*] exit_code [$($e)*] reserve [$($r)*]
            on_refusal [$($o)*] profile [$($p)*] allocator [{$type} {$value}] $($($rest)*)? }
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [$($p:tt)*] allocator []) => {
        $crate::__guard_keys! { limit [$($l)*] measure [$($m)*] exit_code [$($e)*] reserve [$($r)*]
            on_refusal [$($o)*] profile [$($p)*] allocator [{::std::alloc::System} {::std::alloc::System}] }
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [$($p:tt)*] allocator [{$type:ty} {$value:expr}]) => {
        const _: () = {
            enum FromSource {}

            impl $crate::__private::Source for FromSource {
                const SETTINGS: $crate::__private::Settings =
                    $crate::__private::Settings::UNSET $($l)* $($m)* $($e)* $($r)* $($o)* $($p)*;
            }

            // Names the constant, so that a wrong value is an error even where nothing is generated from it.
            const _: $crate::__private::Settings = <FromSource as $crate::__private::Source>::SETTINGS;

            #[global_allocator]
            static GUARD: $crate::Guard<$type, FromSource> = $crate::Guard::with_settings($value);
        };
    };
    (limit [$($l:tt)*] measure [$($m:tt)*] exit_code [$($e:tt)*] reserve [$($r:tt)*] on_refusal [$($o:tt)*]
     profile [$($p:tt)*] allocator [$($a:tt)*] $($rest:tt)+) => {
        ::core::compile_error!(::core::concat!(
            "guard!: cannot use `", ::core::stringify!($($rest)+), "`: a key that is unknown, given twice or has a \
             value of the wrong kind; the keys are limit = \"512MiB\", measure = address_space | data | resident, \
             exit_code = 1..=255, reserve = \"4MiB\", on_refusal = deferred | immediate, profile = on | off | \"512KiB\", \
             allocator = a::Path or allocator: Type = value"
        ));
    };
}
