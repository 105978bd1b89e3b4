//! What a device does against its specification, by kind.

/// Declares a driver's `Violation`, whose kinds are numbers in its [`Lifeline`](crate::driver::Lifeline), and `ViolationCounts` with a
/// field for each: `violations! { /// Says what. Kind => field, }`.
#[macro_export]
macro_rules! violations {
    ($($(#[$about:meta])* $kind:ident => $count:ident,)+) => {
        /// What a device did that its specification rules out: kinds, by their number in the
        /// [`Lifeline`]($crate::driver::Lifeline).
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Violation {
            $($(#[$about])* $kind,)+
        }

        impl Violation {
            /// Counts it.
            pub(crate) fn count(self, life: &$crate::driver::Lifeline) {
                life.violated(self as usize);
            }
        }

        /// How often, by kind.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[allow(missing_docs)]
        pub struct ViolationCounts {
            $(pub $count: u64,)+
        }

        impl ViolationCounts {
            pub(crate) fn of(life: &$crate::driver::Lifeline) -> Self {
                let all = life.violations();
                ViolationCounts { $($count: all[Violation::$kind as usize],)+ }
            }
        }
    };
}
