//! CPython's C interface, as far as it is asked, found in whichever object has it: libpython or an executable. Nothing is
//! looked up before something was refused. Only what has been there, unchanged, from 3.8 on.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use oomguard_core::sys;
use oomguard_core::sys::objects;

/// A `PyObject`.
pub(super) type Object = c_void;

/// `PyMethodDef`: a function in C.
#[repr(C)]
pub(super) struct Method {
    name: *const c_char,
    body: unsafe extern "C" fn(*mut Object, *mut Object) -> *mut Object,
    flags: c_int,
    doc: *const c_char,
}

// SAFETY: never written.
unsafe impl Sync for Method {}

impl Method {
    /// A function of one argument: METH_O.
    pub(super) const fn of_one(
        name: &'static CStr,
        body: unsafe extern "C" fn(*mut Object, *mut Object) -> *mut Object,
    ) -> Method {
        Method { name: name.as_ptr(), body, flags: 8, doc: core::ptr::null() }
    }

    /// A function without arguments: METH_NOARGS.
    pub(super) const fn of_none(
        name: &'static CStr,
        body: unsafe extern "C" fn(*mut Object, *mut Object) -> *mut Object,
    ) -> Method {
        Method { flags: 4, ..Method::of_one(name, body) }
    }
}

macro_rules! interface {
    (
        functions { $($function:ident $name:literal ($($argument:ident: $type:ty),*) $(-> $result:ty)?;)* }
        variables { $($variable:ident $variable_name:literal;)* }
    ) => {
        mod addresses {
            use super::AtomicUsize;
            $(#[allow(non_upper_case_globals)] pub(super) static $function: AtomicUsize = AtomicUsize::new(0);)*
            $(#[allow(non_upper_case_globals)] pub(super) static $variable: AtomicUsize = AtomicUsize::new(0);)*
        }

        $(
            /// # Safety
            /// That of the interface's function. `is_found` has said yes.
            pub(super) unsafe fn $function($($argument: $type),*) $(-> $result)? {
                // Relaxed: written before `FOUND`, which is read by whoever comes here.
                let address = addresses::$function.load(Ordering::Relaxed);
                // SAFETY: the interface's function of this name, with its signature.
                let function = unsafe {
                    core::mem::transmute::<usize, unsafe extern "C" fn($($type),*) $(-> $result)?>(address)
                };
                // SAFETY: by contract.
                unsafe { function($($argument),*) }
            }
        )*

        $(
            /// The address of the interface's variable of this name.
            pub(super) fn $variable() -> usize {
                addresses::$variable.load(Ordering::Relaxed)
            }
        )*

        /// Whether all of it is there.
        fn take(find: &dyn Fn(&CStr) -> Option<usize>) -> bool {
            let one = |address: &AtomicUsize, name| {
                let found = find(name);
                address.store(found.unwrap_or(0), Ordering::Relaxed);
                found.is_some()
            };
            true $(&& one(&addresses::$function, $name))* $(&& one(&addresses::$variable, $variable_name))*
        }
    };
}

interface! {
    functions {
        is_initialized c"Py_IsInitialized"() -> c_int;
        add_pending_call c"Py_AddPendingCall"(call: extern "C" fn(*mut c_void) -> c_int, argument: *mut c_void) -> c_int;
        this_thread_state c"PyGILState_GetThisThreadState"() -> *mut c_void;
        err_fetch c"PyErr_Fetch"(kind: *mut *mut Object, value: *mut *mut Object, trace: *mut *mut Object);
        err_restore c"PyErr_Restore"(kind: *mut Object, value: *mut Object, trace: *mut Object);
        err_handled c"PyErr_GetExcInfo"(kind: *mut *mut Object, value: *mut *mut Object, trace: *mut *mut Object);
        err_matches c"PyErr_GivenExceptionMatches"(given: *mut Object, kind: *mut Object) -> c_int;
        cause_of c"PyException_GetCause"(exception: *mut Object) -> *mut Object;
        context_of c"PyException_GetContext"(exception: *mut Object) -> *mut Object;
        sys_get c"PySys_GetObject"(name: *const c_char) -> *mut Object;
        get_attribute c"PyObject_GetAttrString"(object: *mut Object, name: *const c_char) -> *mut Object;
        set_attribute c"PyObject_SetAttrString"(object: *mut Object, name: *const c_char, value: *mut Object) -> c_int;
        text_of c"PyObject_Str"(object: *mut Object) -> *mut Object;
        utf8_of c"PyUnicode_AsUTF8"(text: *mut Object) -> *const c_char;
        length_of c"PySequence_Size"(sequence: *mut Object) -> isize;
        item_of c"PySequence_GetItem"(sequence: *mut Object, index: isize) -> *mut Object;
        new_function c"PyCFunction_NewEx"(method: *const Method, bound: *mut Object, module: *mut Object) -> *mut Object;
        import c"PyImport_ImportModule"(name: *const c_char) -> *mut Object;
        modules c"PyImport_GetModuleDict"() -> *mut Object;
        get_item c"PyDict_GetItemString"(dictionary: *mut Object, name: *const c_char) -> *mut Object;
        is_subtype c"PyType_IsSubtype"(kind: *mut Object, of: *mut Object) -> c_int;
        new_dictionary c"PyDict_New"() -> *mut Object;
        set_item c"PyDict_SetItemString"(dictionary: *mut Object, name: *const c_char, value: *mut Object) -> c_int;
        builtins c"PyEval_GetBuiltins"() -> *mut Object;
        run_source c"PyRun_String"(source: *const c_char, start: c_int, globals: *mut Object, locals: *mut Object) -> *mut Object;
        display c"PyErr_Display"(kind: *mut Object, value: *mut Object, trace: *mut Object);
        keep c"Py_IncRef"(object: *mut Object);
        drop_reference c"Py_DecRef"(object: *mut Object);
    }
    variables {
        base_exception c"PyExc_BaseException";
        memory_error c"PyExc_MemoryError";
        system_exit c"PyExc_SystemExit";
        system_error c"PyExc_SystemError";
        none c"_Py_NoneStruct";
        type_of_types c"PyType_Type";
        call_with c"PyObject_CallFunctionObjArgs";
    }
}

/// `_PyThreadState_UncheckedGet`, by the name that it has here; and what only some versions have.
static CURRENT_THREAD_STATE: AtomicUsize = AtomicUsize::new(0);
static EXCEPTION_GROUP: AtomicUsize = AtomicUsize::new(0);
static KEEPS_RAISED: AtomicBool = AtomicBool::new(false);

static FOUND: AtomicBool = AtomicBool::new(false);
/// What had been loaded when it was last looked for. Not 0 before: so much musl says until something is loaded by dlopen(3).
static LOOKED_AT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Whether CPython is in the process, as `find` found it.
pub(super) fn is_found() -> bool {
    // Acquire: with the addresses that were written before.
    FOUND.load(Ordering::Acquire)
}

/// Looks for it, unless nothing was loaded since it was last looked for.
pub(super) fn find() -> bool {
    if is_found() {
        return true;
    }
    let loaded = objects::loaded_so_far();
    // Relaxed: two threads that both look find the same.
    if LOOKED_AT.swap(loaded, Ordering::Relaxed) != loaded {
        objects::find_defining(c"Py_AddPendingCall", |find| {
            let current =
                find(c"PyThreadState_GetUnchecked").or_else(|| find(c"_PyThreadState_UncheckedGet"));
            CURRENT_THREAD_STATE.store(current.unwrap_or(0), Ordering::Relaxed);
            EXCEPTION_GROUP.store(find(c"PyExc_BaseExceptionGroup").unwrap_or(0), Ordering::Relaxed);
            KEEPS_RAISED.store(find(c"PyErr_GetRaisedException").is_some(), Ordering::Relaxed);
            if current.is_some() && take(find) {
                FOUND.store(true, Ordering::Release);
            }
        });
    }
    is_found()
}

/// Whether it has begun, and not begun to end. Only once it is found.
pub(super) fn is_running() -> bool {
    // SAFETY: may be called by any thread at any time.
    unsafe { is_initialized() != 0 }
}

/// Whether the calling thread may use objects: it holds the interpreter's lock, for the interpreter that it began with.
pub(super) fn holds_lock() -> bool {
    if !is_found() {
        return false;
    }
    let current = CURRENT_THREAD_STATE.load(Ordering::Relaxed);
    // SAFETY: the interface's function of that name takes nothing, and may be called at any time.
    let current: unsafe extern "C" fn() -> *mut c_void = unsafe { core::mem::transmute(current) };
    if !is_running() {
        return false;
    }
    // SAFETY: as above.
    let current = unsafe { current() };
    // PyGILState_Check says yes to everybody once there was a second interpreter.
    // SAFETY: as above.
    !current.is_null() && current == unsafe { this_thread_state() }
}

/// A reference of our own, given back when dropped. Only for who holds the lock.
pub(super) struct Owned(NonNull<Object>);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: a reference that is ours.
        unsafe { drop_reference(self.0.as_ptr()) };
    }
}

impl Owned {
    /// What a function of the interface gave; null where it raised.
    pub(super) fn new(object: *mut Object) -> Option<Owned> {
        NonNull::new(object).map(Owned)
    }

    /// A reference more to what somebody else holds.
    ///
    /// # Safety
    /// An object, or null.
    pub(super) unsafe fn of(object: *mut Object) -> Option<Owned> {
        let object = NonNull::new(object)?;
        // SAFETY: by contract.
        unsafe { keep(object.as_ptr()) };
        Some(Owned(object))
    }

    /// Hands the reference over, as a result.
    pub(super) fn give(self) -> *mut Object {
        core::mem::ManuallyDrop::new(self).as_ptr()
    }

    pub(super) fn as_ptr(&self) -> *mut Object {
        self.0.as_ptr()
    }

    pub(super) fn attribute(&self, name: &CStr) -> Option<Owned> {
        // SAFETY: an object and a C string.
        Owned::new(unsafe { get_attribute(self.as_ptr(), name.as_ptr()) })
    }

    pub(super) fn set(&self, name: &CStr, value: &Owned) -> bool {
        // SAFETY: objects and a C string.
        unsafe { set_attribute(self.as_ptr(), name.as_ptr(), value.as_ptr()) == 0 }
    }

    /// Calls it with one argument.
    pub(super) fn call(&self, argument: *mut Object) -> Option<Owned> {
        type CallWith = unsafe extern "C" fn(*mut Object, ...) -> *mut Object;
        // SAFETY: the interface's function of that name has this signature.
        let call: CallWith = unsafe { core::mem::transmute(call_with()) };
        // SAFETY: objects, and a null pointer behind them.
        Owned::new(unsafe { call(self.as_ptr(), argument, null_mut::<Object>()) })
    }

    /// Whether it is an exception of the type that the interface's variable at `kind` holds.
    pub(super) fn matches(&self, kind: usize) -> bool {
        // SAFETY: a variable of the interface's, set since it was initialized.
        let kind = unsafe { (kind as *const *mut Object).read() };
        // SAFETY: objects; what is no exception matches nothing.
        unsafe { err_matches(self.as_ptr(), kind) == 1 }
    }

    pub(super) fn is_none(&self) -> bool {
        self.as_ptr() as usize == none()
    }

    pub(super) fn is_exception_group(&self) -> bool {
        let kind = EXCEPTION_GROUP.load(Ordering::Relaxed);
        kind != 0 && self.matches(kind)
    }

    /// Gives its text to `look`.
    pub(super) fn with_text<T>(&self, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        // SAFETY: an object.
        let text = Owned::new(unsafe { text_of(self.as_ptr()) })?;
        // SAFETY: a string.
        let bytes = unsafe { utf8_of(text.as_ptr()) };
        if bytes.is_null() {
            return None;
        }
        // SAFETY: a C string that lives as long as `text`.
        Some(look(unsafe { CStr::from_ptr(bytes) }.to_bytes()))
    }
}

/// `None`, as a result.
pub(super) fn give_none() -> *mut Object {
    let nothing = none() as *mut Object;
    // SAFETY: an object that lives for ever.
    unsafe { keep(nothing) };
    nothing
}

/// A function of Python's that calls ours.
pub(super) fn function(method: &'static Method, bound: Option<&Owned>) -> Option<Owned> {
    let bound = bound.map_or(null_mut(), Owned::as_ptr);
    // SAFETY: a method that lives for ever, and an object or null.
    Owned::new(unsafe { new_function(method, bound, null_mut()) })
}

/// What `sys` has under this name.
pub(super) fn of_sys(name: &CStr) -> Option<Owned> {
    // SAFETY: a C string.
    let object = unsafe { sys_get(name.as_ptr()) };
    // SAFETY: borrowed from `sys`, or null.
    unsafe { Owned::of(object) }
}

/// A module that is loaded already.
pub(super) fn loaded_module(name: &CStr) -> Option<Owned> {
    // SAFETY: takes nothing.
    let modules = unsafe { modules() };
    if modules.is_null() {
        return None;
    }
    // SAFETY: a dictionary, and a C string.
    let module = unsafe { get_item(modules, name.as_ptr()) };
    // SAFETY: borrowed from the dictionary, or null.
    unsafe { Owned::of(module) }
}

/// The same, loaded now. Null and an exception raised where that does not work.
pub(super) fn imported(name: &CStr) -> Option<Owned> {
    // SAFETY: a C string.
    Owned::new(unsafe { import(name.as_ptr()) })
}

/// What a function of the interface raised is dropped.
pub(super) fn forget_raised() {
    // SAFETY: takes nothing.
    unsafe { err_restore(null_mut(), null_mut(), null_mut()) };
}

/// Runs `source` in a name space of its own, in which `name` is `value`.
pub(super) fn run(source: &CStr, name: &CStr, value: &Owned) -> Option<Owned> {
    /// `Py_file_input`: statements.
    const STATEMENTS: c_int = 257;
    // SAFETY: takes nothing.
    let space = Owned::new(unsafe { new_dictionary() })?;
    // SAFETY: gives what is borrowed from the thread.
    let builtins = unsafe { builtins() };
    // SAFETY: a dictionary, a C string and an object.
    let has_builtins = unsafe { set_item(space.as_ptr(), c"__builtins__".as_ptr(), builtins) == 0 };
    // SAFETY: as above.
    let has_value = unsafe { set_item(space.as_ptr(), name.as_ptr(), value.as_ptr()) == 0 };
    if !has_builtins || !has_value {
        return None;
    }
    // SAFETY: a C string, and a dictionary.
    Owned::new(unsafe { run_source(source.as_ptr(), STATEMENTS, space.as_ptr(), space.as_ptr()) })
}

/// Prints an exception as the interpreter does where nobody catches it.
pub(super) fn print(exception: &Owned) {
    let (kind, trace) = (exception.attribute(c"__class__"), exception.attribute(c"__traceback__"));
    if let (Some(kind), Some(trace)) = (kind, trace) {
        // SAFETY: an exception, its type, and its traceback or None.
        unsafe { display(kind.as_ptr(), exception.as_ptr(), trace.as_ptr()) };
    }
    forget_raised();
}

/// An exception on its way, put aside, and put back when dropped: what we do in between must not lose it.
pub(super) struct PutAside {
    kind: *mut Object,
    value: *mut Object,
    trace: *mut Object,
}

impl PutAside {
    pub(super) fn new() -> PutAside {
        let mut aside = PutAside { kind: null_mut(), value: null_mut(), trace: null_mut() };
        // SAFETY: three places that are ours.
        unsafe { err_fetch(&raw mut aside.kind, &raw mut aside.value, &raw mut aside.trace) };
        aside
    }

    /// The exception, where it has come to be an object.
    pub(super) fn exception(&self) -> Option<Owned> {
        // SAFETY: held here, or null.
        unsafe { Owned::of(self.value) }
    }
}

impl Drop for PutAside {
    fn drop(&mut self) {
        // SAFETY: the references that `new` took over; whatever we raised is dropped.
        unsafe { err_restore(self.kind, self.value, self.trace) };
    }
}

/// The exception that the calling thread is handling.
pub(super) fn handled() -> Option<Owned> {
    let (mut kind, mut value, mut trace) = (null_mut(), null_mut(), null_mut());
    // SAFETY: three places that are ours.
    unsafe { err_handled(&raw mut kind, &raw mut value, &raw mut trace) };
    let _ = (Owned::new(kind), Owned::new(trace));
    // Where there is none, some versions give None.
    Owned::new(value).filter(|value| value.matches(base_exception()))
}

/// What CPython up to 3.11 has taken out of the thread's state, and has nowhere else.
pub(super) enum Fetched {
    Exception(Owned),
    /// The type, with a value that was not made an exception of: it was raised while no other was handled.
    Bare,
}

/// An exception of the type at `kind`, among the local variables of the functions that called. From 3.12 on it is where
/// `PutAside` finds it.
pub(super) fn fetched_by_caller(kind: usize) -> Option<Fetched> {
    /// The frames of ours, and of the function that has it.
    const WORDS: usize = 512;
    if KEEPS_RAISED.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: a variable of the interface's, set since it was initialized.
    let kind = unsafe { (kind as *const usize).read() };
    // Not where it lies itself, which would be found.
    let here = &raw const kind as usize + size_of::<usize>();
    let words = || (0..WORDS).map_while(|index| word_at(here + index * size_of::<usize>()));
    let exception = words().find_map(|word| {
        // One that was freed keeps its type for a while, but nobody refers to it.
        if !word_at(word).is_some_and(|references| (1..1 << 31).contains(&references)) {
            return None;
        }
        let type_of = type_of_object(word)?;
        let is_type = type_of == kind || type_of_object(type_of) == Some(type_of_types());
        // SAFETY: two types.
        let is_it = is_type && unsafe { is_subtype(type_of as *mut Object, kind as *mut Object) } == 1;
        // SAFETY: an object, by its type.
        if is_it { unsafe { Owned::of(word as *mut Object) } } else { None }
    });
    // Who prints an exception that nobody caught has that one in its hands.
    let printed = of_sys(c"last_value").map(|last| last.as_ptr() as usize);
    let is_printing = || words().any(|word| Some(word) == printed);
    exception
        .map(Fetched::Exception)
        .or_else(|| (words().any(|word| word == kind) && !is_printing()).then_some(Fetched::Bare))
}

/// Where an object has its type, behind the counter of references.
const TYPE_AT: usize = 8;

fn type_of_object(address: usize) -> Option<usize> {
    (address.is_multiple_of(8) && address > 4096).then(|| word_at(address + TYPE_AT)).flatten()
}

fn word_at(address: usize) -> Option<usize> {
    // SAFETY: found readable, and a word is valid whatever it holds.
    (address.is_multiple_of(8) && sys::memory::is_readable(address))
        .then(|| unsafe { (address as *const usize).read() })
}
