//! A call upwards: what a file has to have done by one that rests on it, which hands its function in at the start.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Where a function of type `F`, a function pointer, is handed in.
pub struct Hook<F> {
    function: AtomicPtr<()>,
    kind: PhantomData<F>,
}

impl<F: Copy> Hook<F> {
    pub const fn new() -> Hook<F> {
        const { assert!(size_of::<F>() == size_of::<*mut ()>(), "a function pointer") };
        Hook { function: AtomicPtr::new(core::ptr::null_mut()), kind: PhantomData }
    }

    pub fn set(&self, function: F) {
        // SAFETY: a function pointer, of this size by the assertion above.
        let function = unsafe { core::mem::transmute_copy::<F, *mut ()>(&function) };
        // Relaxed, here and below: null or a function is all that can be seen, and a function is there from the start.
        self.function.store(function, Ordering::Relaxed);
    }

    pub fn get(&self) -> Option<F> {
        let function = self.function.load(Ordering::Relaxed);
        // SAFETY: not null, so it is what `set` was given.
        (!function.is_null()).then(|| unsafe { core::mem::transmute_copy::<*mut (), F>(&function) })
    }
}
