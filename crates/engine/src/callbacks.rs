//! What the program wants to be asked and told: `on_reclaim` and `on_exhausted`.
//!
//! Two lists that only grow. Registering allocates; running them does not, and takes no lock. What a callback does is the
//! program's affair, and so is its panic, for which std allocates and locks.

use super::rust;
#[cfg(feature = "std")]
use super::{armed::armed, interface::Registration, reserve};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// What is called.
pub trait Callback: Send + Sync {
    /// Calls it.
    fn run(&self);
}

impl<F: Fn() + Send + Sync> Callback for F {
    fn run(&self) {
        self()
    }
}

/// One entry of a list.
pub struct Node {
    callback: &'static dyn Callback,
    is_taken_back: AtomicBool,
    next: AtomicPtr<Node>,
}

impl Node {
    /// A node of no list yet.
    pub const fn new(callback: &'static dyn Callback) -> Self {
        let (is_taken_back, next) = (AtomicBool::new(false), AtomicPtr::new(core::ptr::null_mut()));
        Node { callback, is_taken_back, next }
    }
}

/// A list of callbacks in the order of their registration.
pub struct Callbacks {
    first: AtomicPtr<Node>,
}

/// Those of [`on_reclaim`].
pub static RECLAIM: Callbacks = Callbacks { first: AtomicPtr::new(core::ptr::null_mut()) };
/// Those of [`on_exhausted`].
pub static EXHAUSTED: Callbacks = Callbacks { first: AtomicPtr::new(core::ptr::null_mut()) };

impl Callbacks {
    #[cfg(feature = "std")]
    fn append_callback(&self, callback: impl Callback + 'static) -> &'static Node {
        let node = Box::into_raw(Box::new(Node::new(Box::leak(Box::new(callback)))));
        // SAFETY: on the heap and never freed; nobody else knows it yet.
        unsafe { self.append(node) };
        // SAFETY: as above; what others change of it is atomic.
        unsafe { &*node }
    }

    /// # Safety
    /// The node lives for ever and is in no list yet.
    pub unsafe fn append(&self, node: *mut Node) {
        let mut end = &self.first;
        loop {
            // AcqRel: publishes the node to the Acquire loads in `iter`, and sees the node that came before.
            match end.compare_exchange(core::ptr::null_mut(), node, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                // SAFETY: a node in the list is never freed.
                Err(taken) => end = unsafe { &(*taken).next },
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        // Relaxed: only whether there is one; nothing behind the pointer is read.
        self.first.load(Ordering::Relaxed).is_null()
    }

    /// Runs them all; a panic ends only the one that panicked.
    pub(super) fn run_all(&self) {
        // Acquire: pairs with the AcqRel in `append`, so that the node is seen whole.
        let mut next = self.first.load(Ordering::Acquire);
        // SAFETY: a node in the list is never freed or changed.
        while let Some(node) = unsafe { next.as_ref() } {
            // Acquire: pairs with the Release in `Registration`'s drop, whose thread may have ended by then what the
            // callback looks at.
            if node.is_taken_back.load(Ordering::Acquire) {
                // Not run any more.
            } else {
                rust::call(|| node.callback.run());
            }
            // Acquire: as above.
            next = node.next.load(Ordering::Acquire);
        }
    }
}

#[cfg(feature = "std")]
/// Calls `callback` when an allocation is refused, before the refusal is passed on: free something, and the allocation
/// is tried again.
///
/// It runs in the thread whose allocation was refused, in the midst of that allocation: locks that the thread already
/// holds must not be taken again, so prefer `try_lock`. It may allocate; what is refused to it is simply refused. Only
/// one thread runs the callbacks at a time. A panic in it is caught.
///
/// In a program without a guard it is never called.
///
/// ```
/// use std::sync::Mutex;
/// static CACHE: Mutex<Vec<u8>> = Mutex::new(Vec::new());
///
/// oomguard::on_reclaim(|| {
///     if let Ok(mut cache) = CACHE.try_lock() {
///         *cache = Vec::new();
///     }
/// });
/// ```
pub fn on_reclaim<F>(callback: F)
where
    F: Fn() + Send + Sync + 'static,
{
    RECLAIM.append_callback(callback);
}

#[cfg(feature = "std")]
/// Calls `callback` once when the process has run out of memory, after the report is written and before it exits: last
/// words.
///
/// It runs in the thread that could not go on, in the midst of its last allocation, with the reserve
/// (`OOMGUARD_RESERVE`, 4 MiB) to allocate from. All of them together have two seconds; then the process exits, even
/// if one of them hangs. Other threads go on until they need memory. A panic in it is caught.
///
/// ```
/// oomguard::on_exhausted(|| eprintln!("the job was at row 12345"));
/// ```
pub fn on_exhausted<F>(callback: F)
where
    F: Fn() + Send + Sync + 'static,
{
    EXHAUSTED.append_callback(callback);
    reserve::keep();
}

#[cfg(feature = "std")]
impl Registration {
    /// [`on_reclaim`], until this is dropped.
    pub fn on_reclaim<F>(callback: F) -> Registration
    where
        F: Fn() + Send + Sync + 'static,
    {
        if armed().is_none() {
            return Registration::of_nothing();
        }
        Registration::of(&RECLAIM.append_callback(callback).is_taken_back)
    }

    /// [`on_exhausted`], until this is dropped.
    pub fn on_exhausted<F>(callback: F) -> Registration
    where
        F: Fn() + Send + Sync + 'static,
    {
        if armed().is_none() {
            return Registration::of_nothing();
        }
        let node = EXHAUSTED.append_callback(callback);
        reserve::keep();
        Registration::of(&node.is_taken_back)
    }
}
