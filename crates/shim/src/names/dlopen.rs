//! dlopen(3) and dlsym(3): jumps, as the real ones must see the caller's return address.

macro_rules! jump {
    ($($name:ident)*) => {
        $(
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name() {
                #[cfg(target_arch = "x86_64")]
                core::arch::naked_asm!("jmp {to}", to = sym oomguard_engine::dlopen::$name);
                #[cfg(target_arch = "aarch64")]
                core::arch::naked_asm!("b {to}", to = sym oomguard_engine::dlopen::$name);
            }
        )*
    };
}

jump! {
    dlopen
    dlsym
}
